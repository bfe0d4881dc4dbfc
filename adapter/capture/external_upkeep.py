"""Copies of other systems' photos are a cache: looked at again every day, and destroyed when their time is over.

Whatever is no longer in this patient's record there, or counts no more, is destroyed here as well, keys and all: a
photo that turned out to be another patient's must not stay in the wrong record here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete

from adapter import delivery, governance
from adapter.access import SYSTEM, Actor
from adapter.bridge import Bridge
from adapter.compare import withdraw_torn
from adapter.db.tables import binary, blob, capture
from adapter.delivery import Destinations, WrongPatient
from adapter.errors import Gone, NotFound, Unavailable, Unprocessable
from adapter.records import Stored, create, find, find_by_identifier, new_id, update_resource
from adapter.records import delete as delete_record
from adapter.records.comparisons import forget_comparisons
from adapter.records.confinement import patient_of
from adapter.work import Work, cancel_all, enqueue, finish, postpone
from adapter.work.loop import back_off
from mappings.external_photo import is_external, source_of
from mappings.provenance import Agent, Entity, provenance
from mappings.terms import URI

KIND = "look-at-external"
EVERY = timedelta(days=1)


def look_again_later(tx: Connection, bridge: Bridge, media: Stored, destination: str, photo_id: str) -> None:
    """Put the next look at a copy in line."""
    work = Work(KIND, f"{KIND}:{media.id}", {"media": media.id, "photo": photo_id}, destination=destination)
    enqueue(tx, work, at=bridge.now(), due_at=bridge.now() + EVERY)


def look_at_external(bridge: Bridge, destinations: Destinations, work: Work) -> None:
    """Handle one work item of kind `KIND`. Raises LeaseLost when another worker took over."""
    with bridge.db.snapshot() as tx:
        media = find(tx, "Media", work.payload["media"])
        patient = find(tx, "Patient", patient_of(media.resource) or "") if media else None
    if media is None or patient is None:
        with bridge.db.transaction() as tx:
            finish(tx, work)
        return
    name, photo_id = work.destination, work.payload["photo"]
    try:
        why, torn = _outlived(bridge, media) or _vanished(bridge, destinations, name, photo_id, media, patient)
    except (Unavailable, Unprocessable, NotFound) as error:
        with bridge.db.transaction() as tx:
            postpone(tx, work, due_at=bridge.now() + back_off(work.attempts), reason=str(error))
        return
    with bridge.db.transaction() as tx:
        finish(tx, work)
        if (current := find(tx, "Media", media.id)) is None:
            return
        if why:
            forget_external(tx, bridge, SYSTEM, current, why, torn=torn)
        else:
            look_again_later(tx, bridge, current, name, photo_id)


def look_at_copies(
    bridge: Bridge, destinations: Destinations, actor: Actor, patient: Stored, name: str, copies: Mapping[str, Stored]
) -> None:
    """Copies, by their address there, that a list did not bring: each is asked about, and goes when it must."""
    for address, copy in copies.items():
        try:
            photo_id = delivery.photo_at(destinations, name, address)
            why, torn = _vanished(bridge, destinations, name, photo_id, copy, patient)
        except (Unavailable, Unprocessable, NotFound):
            continue  # its own look comes within a day
        if why:
            with bridge.db.transaction() as tx:
                forget_external(tx, bridge, actor, copy, why, torn=torn)


def _outlived(bridge: Bridge, media: Stored) -> tuple[str, bool] | None:
    days = bridge.settings.external_photo_days
    copied_at = datetime.fromisoformat(media.resource["issued"])
    return (f"copies are kept for {days} days", False) if bridge.now() - copied_at >= timedelta(days=days) else None


def _vanished(
    bridge: Bridge, destinations: Destinations, name: str, photo_id: str, media: Stored, patient: Stored
) -> tuple[str, bool]:
    """Why the copy must go, empty when it need not; and whether comparisons saved with it must go as well."""
    try:
        found = delivery.get_photo(bridge, destinations, name, patient.resource, photo_id)
    except WrongPatient:
        return f"it is in another patient's record at {name}", True
    except Gone:
        return f"it does not count any more at {name}", True
    is_same = found.version == source_of(media.resource)[1]
    return ("" if is_same else f"it was changed at {name}"), False


def copies_of(tx: Connection, address: str) -> list[Stored]:
    """The copies here of what stands at an address there, whoever's they are."""
    found = find_by_identifier(tx, "Media", URI, address)
    return [one for one in found if is_external(one.resource) and source_of(one.resource)[0] == address]


def forget_external(tx: Connection, bridge: Bridge, actor: Actor, media: Stored, why: str, *, torn: bool) -> None:
    """Destroy a copy with its keys; what it said stays in the history. `torn`: it should never have been here, so that
    what was saved with it is withdrawn. Nothing happens where somebody else was first. The bytes are swept by
    `dermbridge scrub`."""
    at, patient_id = bridge.now(), patient_of(media.resource)
    bridge.db.lock(tx, f"patient:{patient_id}")
    if (current := find(tx, "Media", media.id)) is None:
        return
    media = current
    if torn:
        nobodys = {name: value for name, value in media.resource.items() if name not in ("subject", "encounter")}
        nobodys["status"] = "entered-in-error"
        media = update_resource(tx, nobodys, at=at, expected_version=media.version_id)
        withdraw_torn(tx, bridge, [media.id])
    forget_comparisons(tx, [media.id])
    delete_record(tx, "Media", media.id, at=at)
    pictures = delete(binary).where(binary.c.security_context == media.reference).returning(binary.c.blob_id)
    blobs = set(tx.execute(pictures).scalars())
    blobs |= set(tx.execute(delete(capture).where(capture.c.id == media.id).returning(capture.c.blob_id)).scalars())
    tx.execute(delete(blob).where(blob.c.id.in_(blobs)))
    cancel_all(tx, [f"{KIND}:{media.id}", f"render:{media.id}"])
    told = provenance(
        "destroy",
        provenance_id=new_id(at),
        targets=[media.version_reference],
        agents=[Agent("performer", actor.id)],
        entities=[Entity("removal", media.version_reference)],
        recorded=at,
        because=why,
    )
    create(tx, told, at=at)
    references = [media.version_reference]
    governance.audit(tx, bridge, "delete", actor, patient_id=patient_id, references=references, detail=why)
