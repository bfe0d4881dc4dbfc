"""Photos that waited for their patient are bound once it is known."""

from __future__ import annotations

from sqlalchemy import Connection, select

from adapter.access import SYSTEM
from adapter.bridge import Bridge
from adapter.db.tables import binary, capture
from adapter.delivery import deliver_media
from adapter.governance import audit
from adapter.identity.matching import disagreement, find_encounter_at, given_with
from adapter.records import Resource, Stored, create, find_by_index, new_id, update_resource
from adapter.records.date_intervals import date_interval
from adapter.records.search_parameters import token_value
from mappings.capture_to_media import KEEP, Keep, bind_media, with_identity_state
from mappings.provenance import Agent, Entity, provenance


def bind_waiting(tx: Connection, bridge: Bridge, patient: Stored) -> list[str]:
    """Bind every photo awaiting one of this patient's identifiers; returns the Media ids bound.

    Where the capture gave a birth date or family name that contradicts, the photo goes to quarantine instead.
    """
    bound = []
    for identifier in patient.resource.get("identifier", ()):
        if "system" not in identifier or "value" not in identifier:
            continue
        token = token_value(identifier["value"], identifier["system"])
        for media in find_by_index(tx, "Media", "subject:identifier", token):
            if _awaits(media.resource) and _settle(tx, bridge, media, patient):
                bound.append(media.id)
    return bound


def _awaits(media: Resource) -> bool:
    return any(tag.get("code") == "awaiting-patient" for tag in media.get("meta", {}).get("tag", ()))


def _settle(tx: Connection, bridge: Bridge, media: Stored, patient: Stored) -> bool:
    at = bridge.now()
    contradicts = disagreement(patient.resource, given_with(media.resource))
    if contradicts:
        changed = with_identity_state(media.resource, "quarantined")
    else:
        changed = bind_media(media.resource, patient.reference, encounter=_visit_of(tx, media.resource, patient.id))
        rekey_photo(tx, bridge, media.id, patient.id)
    following = update_resource(tx, changed, at=at, expected_version=media.version_id)
    told = provenance(
        "update",
        provenance_id=new_id(at),
        targets=[following.version_reference],
        agents=[Agent("enterer", SYSTEM.id)],
        entities=[Entity("revision", media.version_reference)],
        recorded=at,
        reason="PATADMIN",
    )
    create(tx, told, at=at)
    audit(
        tx,
        bridge,
        "update",
        SYSTEM,
        patient_id=None if contradicts else patient.id,
        references=[following.version_reference],
        detail=f"quarantined: the {contradicts} differs" if contradicts else "bound to its patient",
    )
    if not contradicts:
        deliver_media(tx, bridge, following)
    return contradicts is None


def _visit_of(tx: Connection, media: Resource, patient_id: str) -> str | Keep:
    if "encounter" in media or len(media.get("createdDateTime", "")) <= len("2026-11-23"):
        return KEEP
    visit = find_encounter_at(tx, patient_id, date_interval(media["createdDateTime"])[0])
    return f"Encounter/{visit}" if visit else KEEP


def rekey_photo(tx: Connection, bridge: Bridge, media_id: str, patient_id: str) -> None:
    """Put all bytes of a photo under the patient's key: the original, the clean copy, the renditions."""
    views = select(binary.c.blob_id).where(binary.c.security_context == f"Media/{media_id}")
    originals = select(capture.c.blob_id).where(capture.c.id == media_id)
    for blob_id in sorted(set(tx.execute(views.union(originals)).scalars())):
        bridge.vault.rekey(tx, blob_id, patient_id=patient_id, at=bridge.now())
