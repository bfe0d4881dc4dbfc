"""Pictures made of photos, kept as derived Media: sealed like photos, found by what they were made of, sent by nobody
but who asks for it."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, update

from adapter.db.tables import binary
from adapter.records.binaries import BinaryRow, create_binary
from adapter.records.ids import new_id
from adapter.records.rows import Stored, create, find_by_index, update_resource
from mappings.capture_to_media import Content
from mappings.photos_to_picture import COMPARED, photos_to_picture
from mappings.terms import Json

ENTERED_IN_ERROR = "entered-in-error"


@dataclass(frozen=True)
class Picture:
    """A picture, or a PDF, and the blob that holds it; `derivation` is a code of picture-derivation."""

    derivation: str
    data: bytes
    content_type: str
    blob_id: str


def keep_picture(
    tx: Connection,
    picture: Picture,
    photos: Sequence[Json],
    *,
    at: datetime,
    operator: Json,
    sources: Sequence[str] = (),
    note: str | None = None,
    shared: Sequence[str] = COMPARED,
    renews: Stored | None = None,
) -> Stored:
    """A derived Media over a Binary of its own, or the next version of the one it `renews`; the blob must be kept
    already. The rest as `photos_to_picture`."""
    data = picture.data
    media_id, binary_id = renews.id if renews else new_id(at), new_id(at)
    width, height = _size(data) if picture.content_type.startswith("image/") else (0, 0)
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
    described = photos_to_picture(
        picture.derivation,
        photos,
        content,
        media_id=media_id,
        operator=operator,
        sources=sources,
        note=note,
        shared=shared,
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
    if renews:
        return update_resource(tx, described, at=at, expected_version=renews.version_id)
    return create(tx, described, at=at)


def pictures_of(tx: Connection, reference: str) -> list[Stored]:
    """Those made of a photo or for a saved comparison (`Type/id`), oldest first."""
    found = find_by_index(tx, "Media", "derived-from", reference)
    return [one for one in found if one.resource["status"] != ENTERED_IN_ERROR]


def enter_in_error(tx: Connection, picture: Stored, *, at: datetime) -> Stored:
    """Its bytes stay, sealed, for the retraction, but under no context that anybody reaches."""
    changed = update_resource(
        tx, picture.resource | {"status": ENTERED_IN_ERROR}, at=at, expected_version=picture.version_id
    )
    of_it = binary.c.security_context == picture.reference
    tx.execute(update(binary).where(of_it).values(security_context=f"Hidden/{picture.id}"))
    return changed


def _size(data: bytes) -> tuple[int, int]:
    """Of a picture we drew ourselves; only its header is read."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as drawn:
        return drawn.size
