"""Pictures made of two photos by the engine, and what becomes of pictures when their photos or comparison change."""

from __future__ import annotations

from sqlalchemy import Connection

from adapter import delivery, governance
from adapter.access import SYSTEM
from adapter.bridge import Bridge
from adapter.compare.comparing import PICTURES
from adapter.records import Stored, create, find_by_index, new_id, update_resource
from adapter.records.binaries import find_rendition, open_binary
from adapter.records.comparisons import Comparison
from adapter.records.confinement import patient_of
from adapter.records.pictures import Picture, enter_in_error, pictures_of
from mappings.provenance import Agent, Entity, provenance
from mappings.security_labels import raise_labels


def drawn_by_engine(tx: Connection, bridge: Bridge, found: Comparison) -> list[Picture]:
    """What the engine drew of two photos; nothing where they are not aligned."""
    rows = {name: find_rendition(tx, found.security_context, name) for name in PICTURES}
    return [
        Picture(name, open_binary(tx, bridge.vault, row).read(), row.content_type, row.blob_id)
        for name, row in rows.items()
        if row is not None
    ]


def hide_pictures(tx: Connection, bridge: Bridge, reference: str, *, reason: str) -> list[Stored]:
    """Enter them in error and take them back from where they were sent."""
    hidden = []
    for picture in pictures_of(tx, reference):
        hidden.append(enter_in_error(tx, picture, at=bridge.now()))
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
