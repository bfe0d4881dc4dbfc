"""Pictures made of photos, kept as derived Media: sealed like photos, found by what they were made of, sent by nobody
but who asks for it."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, update

from adapter import delivery, governance
from adapter.access import SYSTEM
from adapter.bridge import Bridge
from adapter.compare.comparing import PICTURES
from adapter.compare.reopening import ENTERED_IN_ERROR
from adapter.db.tables import binary
from adapter.records import Resource, Stored, create, find_by_index, new_id, update_resource
from adapter.records.binaries import BinaryRow, create_binary, find_rendition, open_binary
from adapter.records.comparisons import Comparison
from adapter.records.confinement import patient_of
from mappings.capture_to_media import Content
from mappings.photos_to_picture import photos_to_picture
from mappings.provenance import Agent, Entity, provenance
from mappings.security_labels import raise_labels


@dataclass(frozen=True)
class Picture:
    """A picture and the blob that holds it; `derivation` is a code of picture-derivation."""

    derivation: str
    data: bytes
    content_type: str
    blob_id: str


def drawn_by_engine(tx: Connection, bridge: Bridge, found: Comparison) -> list[Picture]:
    """What the engine drew of two photos; nothing where they are not aligned."""
    rows = {name: find_rendition(tx, found.security_context, name) for name in PICTURES}
    return [
        Picture(name, open_binary(tx, bridge.vault, row).read(), row.content_type, row.blob_id)
        for name, row in rows.items()
        if row is not None
    ]


def keep_picture(
    tx: Connection,
    bridge: Bridge,
    picture: Picture,
    saved: Stored,
    photos: Sequence[Resource],
    *,
    operator: Resource,
    note: str | None = None,
) -> Stored:
    """A derived Media of a saved comparison, over a Binary of its own; the blob must be kept already."""
    at, data = bridge.now(), picture.data
    media_id, binary_id = new_id(at), new_id(at)
    width, height = _size(data)
    content = Content(
        binary_id=binary_id,
        content_type=picture.content_type,
        size=len(data),
        sha1_b64=base64.b64encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode(),
        sha256_hex=hashlib.sha256(data).hexdigest(),
        width=width,
        height=height,
        created=at,
    )
    sources = [saved.version_reference]
    described = photos_to_picture(
        picture.derivation, photos, content, media_id=media_id, operator=operator, sources=sources, note=note
    )
    row = BinaryRow(
        id=binary_id,
        blob_id=picture.blob_id,
        content_type=picture.content_type,
        size=len(data),
        sha256=content.sha256_hex,
        security_context=f"Media/{media_id}",
        created_at=at,
    )
    create_binary(tx, row)
    return create(tx, described, at=at)


def pictures_of(tx: Connection, reference: str) -> list[Stored]:
    """Those made of a photo or for a saved comparison (`Type/id`), oldest first."""
    found = find_by_index(tx, "Media", "derived-from", reference)
    return [one for one in found if one.resource["status"] != ENTERED_IN_ERROR]


def hide_pictures(tx: Connection, bridge: Bridge, reference: str, *, reason: str) -> list[Stored]:
    """Enter them in error and take them back from where they were sent. Their bytes stay, sealed, for the retraction,
    but under no context that anybody reaches."""
    hidden = []
    for picture in pictures_of(tx, reference):
        changed = picture.resource | {"status": ENTERED_IN_ERROR}
        hidden.append(update_resource(tx, changed, at=bridge.now(), expected_version=picture.version_id))
        of_it = binary.c.security_context == picture.reference
        tx.execute(update(binary).where(of_it).values(security_context=f"Hidden/{picture.id}"))
        delivery.take_back(tx, bridge, picture.id, reason=reason)
    return hidden


def raise_labels_of_pictures(tx: Connection, bridge: Bridge, photo: Stored) -> None:
    """What was made of a photo and said about it becomes as sensitive as the photo became, also where it was sent."""
    at, labels = bridge.now(), photo.resource.get("meta", {}).get("security", [])
    about = [*pictures_of(tx, photo.reference), *find_by_index(tx, "Observation", "derived-from", photo.reference)]
    raised = []
    for one in about:
        resource = one.resource
        now = raise_labels([*resource["meta"].get("security", []), *labels])
        if now != resource["meta"].get("security"):
            resource["meta"]["security"] = now
            raised.append((one, update_resource(tx, resource, at=at, expected_version=one.version_id)))
    if not raised:
        return
    statement = provenance(
        "label",
        provenance_id=new_id(at),
        targets=[after.version_reference for _, after in raised],
        agents=[Agent("enterer", SYSTEM.id)],
        entities=[Entity("revision", before.version_reference) for before, _ in raised],
        recorded=at,
    )
    create(tx, statement, at=at)
    references = [after.version_reference for _, after in raised]
    governance.audit(tx, bridge, "label-changed", SYSTEM, patient_id=patient_of(photo.resource), references=references)
    delivery.deliver_media(tx, bridge, *(after for _, after in raised if after.resource_type == "Media"))


def _size(data: bytes) -> tuple[int, int]:
    """Of a picture we drew ourselves; only its header is read."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as drawn:
        return drawn.size
