"""What EHRs and archives hold of a patient: every destination that can be asked is asked now, nothing is copied."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy import Connection

from adapter import access, delivery, governance
from adapter.access import SYSTEM, Actor
from adapter.access.policy import can_see
from adapter.bridge import Bridge
from adapter.capture.external_upkeep import look_at_copies
from adapter.capture.known_photos import KnownPhotos, known_photos
from adapter.delivery import Destinations, PhotoFound
from adapter.errors import DermBridgeError
from adapter.records import Resource, Stored, get
from mappings.external_photo import holder_of, source_of

AT_ONCE = 4  # destinations asked at the same time
QUERIES_TOLD = 30  # requests in one AuditEvent


@dataclass(frozen=True)
class PhotoThere:
    """A photo in a record elsewhere. `media_id` is the one here that it is, ours or (`is_ours` false) a copy of it."""

    found: PhotoFound
    media_id: str | None = None
    is_ours: bool = False


@dataclass(frozen=True)
class RecordThere:
    """What one destination holds of a patient. `hidden` are too restricted for who asks, `refused` somebody else's."""

    destination: str
    photos: Sequence[PhotoThere] = ()
    more: bool = False
    hidden: int = 0
    refused: int = 0
    problems: Sequence[str] = ()


def photos_elsewhere(
    bridge: Bridge, destinations: Destinations, actor: Actor, patient_id: str, *, only: str | None = None
) -> list[RecordThere]:
    """What every destination that can be asked (or `only` one) holds of this patient; each tells its own problems.

    Raises Forbidden, NotFound.
    """
    with bridge.db.snapshot() as tx:
        patient = patient_in_use(tx, actor, patient_id, letter="s")
    names = [name for name in delivery.photo_destinations(bridge.settings) if only in (None, name)]
    with ThreadPoolExecutor(AT_ONCE, "photos-elsewhere") as threads:
        return list(threads.map(lambda name: _record(bridge, destinations, actor, patient, name), names))


def try_photos(bridge: Bridge, destinations: Destinations, name: str, system: str, value: str) -> RecordThere:
    """An engineer asks for a patient whom nobody announced here yet: by this identifier alone, nothing compared.

    Raises Unavailable, Unprocessable, NotFound, Misconfigured.
    """
    patient = {"resourceType": "Patient", "identifier": [{"system": system, "value": value}]}
    listed = delivery.list_photos(bridge, destinations, name, patient)
    with bridge.db.transaction() as tx:
        asked = "\n".join(listed.asked[:QUERIES_TOLD])
        governance.audit(tx, bridge, "photo-query", SYSTEM, query=asked, recipient=name, detail="by command line")
    photos = [PhotoThere(one) for one in listed.photos]
    return RecordThere(name, photos, listed.more, refused=len(listed.refused), problems=listed.problems)


def _record(bridge: Bridge, destinations: Destinations, actor: Actor, patient: Stored, name: str) -> RecordThere:
    try:
        listed = delivery.list_photos(bridge, destinations, name, patient.resource)
    except DermBridgeError as error:
        with bridge.db.transaction() as tx:
            told = {"outcome": "8", "detail": str(error)[:200], "query": "photos of the patient", "recipient": name}
            governance.audit(tx, bridge, "photo-query", actor, patient_id=patient.id, **told)  # type: ignore[arg-type]
        return RecordThere(name, problems=[str(error)])
    with bridge.db.transaction() as tx:
        asked = "\n".join(listed.asked[:QUERIES_TOLD])
        governance.audit(tx, bridge, "photo-query", actor, patient_id=patient.id, query=asked, recipient=name)
        tell_refused(tx, bridge, actor, patient.id, name, listed.refused)
        known = known_photos(tx, patient.id, name)
    there = {delivery.address_of(destinations, name, one.id) for one in listed.photos}
    missing = {
        address: copy
        for address, copy in known.copies.items()
        if address not in there and holder_of(copy.resource) == name
    }
    look_at_copies(bridge, destinations, actor, patient, name, missing)
    shown = [one for one in listed.photos if can_see(actor, labelled(one))]
    return RecordThere(
        destination=name,
        photos=[_known_as(known, one, delivery.address_of(destinations, name, one.id)) for one in shown],
        more=listed.more,
        hidden=len(listed.photos) - len(shown),
        refused=len(listed.refused),
        problems=listed.problems,
    )


def _known_as(known: KnownPhotos, found: PhotoFound, address: str) -> PhotoThere:
    if ours := known.find_ours(found):
        return PhotoThere(found, ours.id, is_ours=True)
    copy = known.find_copy(address)
    is_current = copy is not None and source_of(copy.resource)[1] == found.version
    return PhotoThere(found, copy.id if copy and is_current else None)


def tell_refused(
    tx: Connection, bridge: Bridge, actor: Actor, patient_id: str, name: str, refused: Sequence[str]
) -> None:
    for place in refused[:QUERIES_TOLD]:
        told = f"{place} was found for this patient, but is another's or cannot be read"
        governance.audit(
            tx,
            bridge,
            "photo-query",
            actor,
            patient_id=patient_id,
            outcome="8",
            detail=told,
            query=place,
            recipient=name,
        )


def patient_in_use(tx: Connection, actor: Actor, patient_id: str, *, letter: str) -> Stored:
    """The patient in use; whoever was merged is asked for by the record that survived. Raises Forbidden, NotFound."""
    access.check_scope(actor, "s" if letter == "s" else "r", "Media")
    access.check_whose(tx, actor, patient_id)
    patient = get(tx, "Patient", patient_id)
    survivors = [one["other"]["reference"] for one in patient.resource.get("link", []) if one["type"] == "replaced-by"]
    return patient_in_use(tx, actor, survivors[0].removeprefix("Patient/"), letter=letter) if survivors else patient


def labelled(found: PhotoFound) -> Resource:
    return {"resourceType": "Media", "meta": {"security": [dict(one) for one in found.security]}}
