"""Photos that waited for their patient are bound once it is known, or put where a person settles it."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, select, update

from adapter.access import SYSTEM
from adapter.bridge import Bridge
from adapter.compare import withdraw_torn
from adapter.db.engine import batches
from adapter.db.tables import binary, blob, capture
from adapter.delivery import deliver_media
from adapter.governance import audit
from adapter.identity.ehr_answers import forget_answers
from adapter.identity.matching import disagreement, find_encounter_at, given_with
from adapter.identity.suspicion import Circumstances, find_doubt
from adapter.measure.measuring import withdraw_strays
from adapter.records import Resource, Stored, create, find_by_index, new_id, update_resource
from adapter.records.comparisons import forget_comparisons
from adapter.records.date_intervals import date_interval
from adapter.records.extraction import token_value
from mappings.canonical_resources import codes_of
from mappings.capture_to_media import KEEP, Keep, bind_media, site_code
from mappings.provenance import Agent, Entity, provenance
from mappings.security_labels import labelled_minor
from mappings.wrong_patient import quarantined, state_of


def bind_waiting(tx: Connection, bridge: Bridge, patient: Stored) -> list[str]:
    """Bind every photo awaiting one of this patient's identifiers; returns the Media ids bound.

    Where what came with the capture contradicts, or a rule of suspicion doubts it, the photo goes to quarantine.
    """
    bound = []
    for identifier in patient.resource.get("identifier", ()):
        if "system" not in identifier or "value" not in identifier:
            continue
        token = token_value(identifier["value"], identifier["system"])
        for media in find_by_index(tx, "Media", "subject:identifier", token):
            if state_of(media.resource) == "awaiting-patient" and _settle(tx, bridge, media, patient):
                bound.append(media.id)
    return bound


def _settle(tx: Connection, bridge: Bridge, media: Stored, patient: Stored) -> bool:
    at = bridge.now()
    doubt = _doubt(tx, bridge, media, patient)
    if doubt:
        changed = quarantined(media.resource, doubt)
        reason = codes_of("identity-doubt")[doubt]
        tx.execute(update(capture).where(capture.c.id == media.id).values(reason=reason))
    else:
        bound = bind_media(media.resource, patient.reference, encounter=visit_of(tx, media.resource, patient.id))
        changed = labelled_minor(bound, patient.resource, majority=bridge.settings.age_of_majority)
        rekey_photo(tx, bridge, media.id, patient.id)
        forget_answers(tx, [media.id])
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
        patient_id=None if doubt else patient.id,
        references=[following.version_reference],
        detail=f"quarantined: {doubt}" if doubt else "bound to its patient",
    )
    if not doubt:
        deliver_media(tx, bridge, following)
    return doubt is None


def _doubt(tx: Connection, bridge: Bridge, media: Stored, patient: Stored) -> str | None:
    given = given_with(media.resource)
    if disagreement(patient.resource, given):
        return "demographics-differ"
    if bridge.settings.second_demographic == "required" and not (given.get("birthDate") or given.get("family")):
        return "unconfirmed"
    circumstances = circumstances_of(tx, media)
    return find_doubt(tx, bridge, patient, circumstances) if circumstances else None


def circumstances_of(tx: Connection, media: Stored) -> Circumstances | None:
    """How a stored photo came; None for a Media that was no capture."""
    columns = (capture.c.received_at, capture.c.source, blob.c.sha256)
    row = tx.execute(
        select(*columns).join(blob, blob.c.id == capture.c.blob_id).where(capture.c.id == media.id)
    ).one_or_none()
    if row is None:
        return None
    resource = media.resource
    return Circumstances(
        operator=resource.get("operator", {}).get("reference", ""),
        taken_at=date_interval(resource["createdDateTime"])[0] if has_exact_time(resource) else None,
        received_at=row.received_at,
        sha256=row.sha256,
        source=row.source,
        body_site=site_code(resource),
        has_visit="encounter" in resource,
    )


def has_exact_time(media: Resource) -> bool:
    """Whether the capture time is more than a day."""
    return len(media.get("createdDateTime", "")) > len("2026-11-23")


def visit_of(tx: Connection, media: Resource, patient_id: str) -> str | Keep:
    """The one visit of the patient that covers the capture time; KEEP where there is none or one is set."""
    if "encounter" in media or not has_exact_time(media):
        return KEEP
    visit = find_encounter_at(tx, patient_id, date_interval(media["createdDateTime"])[0])
    return f"Encounter/{visit}" if visit else KEEP


def rekey_photo(tx: Connection, bridge: Bridge, media_id: str, patient_id: str | None) -> None:
    """Put all bytes of a photo (original, clean copy, renditions) under the patient's key, or one of nobody's."""
    rekey_photos(tx, bridge, [media_id], patient_id)


def rekey_photos(tx: Connection, bridge: Bridge, media_ids: Iterable[str], patient_id: str | None) -> None:
    """`rekey_photo` for many, in a few statements, once the records name their patient. Comparisons of them with other
    photos are forgotten; those that somebody saved are withdrawn where the photos are of two patients now, and so
    are measurements left behind."""
    for some in batches(media_ids):
        forget_comparisons(tx, some)
        withdraw_torn(tx, bridge, some)
        withdraw_strays(tx, bridge, some)
        views = select(binary.c.blob_id).where(binary.c.security_context.in_([f"Media/{one}" for one in some]))
        originals = select(capture.c.blob_id).where(capture.c.id.in_(some))
        blobs = sorted(set(tx.execute(views.union(originals)).scalars()))
        bridge.vault.rekey(tx, blobs, patient_id=patient_id, at=bridge.now())
