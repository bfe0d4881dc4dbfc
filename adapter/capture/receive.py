"""A photo arrives: the story from bytes to Media, in the order it must happen.

Nothing heavy stands before the answer: the file is inspected without decoding, sealed durably, and one transaction
writes Media, Provenance, AuditEvent, deliveries and the work that follows. Only then is it acknowledged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import orjson
from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError

from adapter import access, consent, delivery, governance, identity
from adapter.access import SYSTEM, Actor
from adapter.access.reach import check_written
from adapter.bridge import Bridge
from adapter.capture.clean_copy import CleanCopy, clean_copy
from adapter.capture.inspection import Inspection, inspect
from adapter.capture.metadata import Metadata, PatientIdentifier, read_metadata
from adapter.capture.repeats import Fingerprint, find_before, fingerprint
from adapter.db.many_rows import insert_rows
from adapter.db.tables import capture
from adapter.errors import BadInput, Conflict, NotFound, TooLarge, Unavailable, Unprocessable
from adapter.identity import Whose
from adapter.records import Resource, create_all, find, get, new_id
from adapter.records.binaries import create_binary
from adapter.records.confinement import patient_of
from adapter.records.vault import Sealing
from adapter.work import Work, enqueue
from mappings.capture_to_media import Capture, capture_to_media
from mappings.provenance import Agent, Entity, hashed, provenance
from mappings.security_labels import labelled_minor
from mappings.terms import URI
from mappings.wrong_patient import quarantined

_BESIDE = ThreadPoolExecutor(8, "capture")  # sealing: most of it is waiting for the disk


@dataclass(frozen=True)
class Upload:
    """What came through the door; `digest` is the sender's SHA-256 of `data` (Repr-Digest, RFC 9530)."""

    data: bytes
    metadata: dict[str, Any]
    idempotency_key: str | None = None
    digest: bytes | None = None
    source: str = "api"


@dataclass(frozen=True)
class CaptureAnswer:
    """`status` as in HTTP: 201 stored, 202 stored but held, 200 it was stored before."""

    id: str
    status: int
    body: dict[str, Any]


@dataclass(frozen=True)
class _Inspected:
    """What an upload says by itself, before anything is asked about its patient."""

    upload: Upload
    metadata: Metadata
    found: Inspection
    clean: CleanCopy
    sha256: str
    taken_at: datetime | None


@dataclass(frozen=True)
class _Photo(_Inspected):
    """Everything known about an upload once it was looked at and before anything is written."""

    whose: Whose
    seen_as: Fingerprint


def receive(bridge: Bridge, actor: Actor, upload: Upload) -> CaptureAnswer:
    """Accept one photo. Raises a DermBridgeError that tells the sender what to change; then nothing was kept."""
    access.check_scope(actor, "c", "Media", some=True)
    if len(upload.data) > (most := bridge.settings.max_capture_bytes):
        raise TooLarge(f"photos may have at most {most // 2**20} MiB here")
    with bridge.vault.sealing(upload.data, _BESIDE) as sealing:  # the disk is slow: it begins before all is known
        seen = _inspected(bridge, upload)
        try:
            sealing.wait()
            with bridge.db.transaction() as tx:
                photo = _identified(tx, bridge, actor, seen)
                return _seen_before(tx, bridge, actor, photo) or _store(tx, bridge, actor, photo, sealing)
        # The same capture came twice at once and the other one won; or the disk is full, but this is on it already.
        except (IntegrityError, Unavailable):
            with bridge.db.snapshot() as tx:
                if (answer := _seen_before(tx, bridge, actor, _identified(tx, bridge, actor, seen))) is None:
                    raise
                return answer


def _inspected(bridge: Bridge, upload: Upload) -> _Inspected:
    settings = bridge.settings
    metadata = read_metadata(upload.metadata, accept_unlisted_sites=settings.accept_unlisted_body_sites)
    sha256 = hashlib.sha256(upload.data)
    if upload.digest not in (None, sha256.digest()):
        raise BadInput("the photo was damaged on its way: it does not match its Repr-Digest; send it again")
    found = inspect(upload.data, max_pixels=settings.max_pixels)
    taken_at = _taken_at(bridge, metadata, found)
    clean = clean_copy(found, upload.data, sha256=sha256.hexdigest())
    return _Inspected(upload, metadata, found, clean, sha256.hexdigest(), taken_at)


def _identified(tx: Connection, bridge: Bridge, actor: Actor, seen: _Inspected) -> _Photo:
    given = _patient_given(seen.metadata, actor)
    whose = _settled(tx, bridge, given)
    access.check_whose(tx, actor, whose.patient_id)
    seen_as = fingerprint(seen.sha256, seen.taken_at, given, whose.patient_id)
    photo = _Photo(**vars(seen), whose=whose, seen_as=seen_as.with_key(actor.id, seen.upload.idempotency_key))
    return replace(photo, whose=_suspected(tx, bridge, actor, photo, whose))


def _settled(tx: Connection, bridge: Bridge, given: str | dict[str, Any] | None) -> Whose:
    """Whose it is, with no merge nor announcement to come between this answer and the commit."""
    whose = identity.whose(tx, given)
    if bridge.db.is_sqlite:  # nobody else writes
        return whose
    keys = [f"patient-identifier:{given['system']}|{given['value']}"] if isinstance(given, dict) else []
    if whose.patient_id is not None:
        keys.append(f"patient:{whose.patient_id}")
    bridge.db.lock(tx, *keys)
    return identity.whose(tx, given)


def _store(tx: Connection, bridge: Bridge, actor: Actor, photo: _Photo, sealing: Sealing) -> CaptureAnswer:
    at, patient_id, content_type = bridge.now(), photo.whose.patient_id, photo.found.format.content_type
    _record_consent(tx, bridge, actor, photo, at)
    decision = consent.decide(tx, bridge, patient_id)
    if not decision.permit and not photo.metadata.consent.pending:
        raise Unprocessable(
            f"{decision.because} Nothing was kept, nor what was said with it: record the consent, or the refusal, "
            "by itself; or send consent.pending to hold the photo until then"
        )
    capture_id, binary_id = new_id(at), new_id(at)
    described = _media(tx, bridge, actor, photo, capture_id, binary_id, at)
    media, _ = create_all(tx, [described, _provenance(actor, capture_id, binary_id, photo, at)], at=at)
    check_written(tx, bridge, actor, "c", "Media", capture_id)
    sealed = sealing.take(photo.sha256)
    bridge.vault.keep(tx, sealed, content_type=content_type, patient_id=patient_id, at=at)
    create_binary(tx, photo.clean.binary(binary_id, sealed, media, at=at))
    held = photo.whose.because if photo.whose.state != "bound" else None if decision.permit else decision.because
    decided = {"decision": "permit" if decision.permit else "pending", "because": decision.because}
    row = {
        "id": capture_id,
        "idempotency_key": photo.seen_as.key,
        "fingerprint": photo.seen_as.content,
        "request": photo.seen_as.request,
        "blob_id": sealed.id,
        "source": photo.upload.source,
        "consent": orjson.dumps(decided).decode(),
        "reason": held,
        "received_at": at,
    }
    insert_rows(tx, capture, [row])
    governance.audit(tx, bridge, "create", actor, patient_id=patient_id, references=[media.version_reference])
    deliveries = delivery.deliver_media(tx, bridge, media)
    identity.look_up_later(tx, bridge, media)
    enqueue(tx, Work(kind="render", idempotency_key=f"render:{capture_id}", payload={"media": capture_id}), at=at)
    status = _status(described, decided, held, delivery.deliveries_of(tx, capture_id) if deliveries else ())
    return CaptureAnswer(capture_id, 202 if held else 201, status)


def _record_consent(tx: Connection, bridge: Bridge, actor: Actor, photo: _Photo, at: datetime) -> None:
    """What the patient said while being photographed; said before, when the photo itself was taken before."""
    choices = photo.metadata.consent.verbal
    if choices is None:
        return
    if photo.whose.state != "bound":
        raise Unprocessable("a spoken consent is recorded for a known patient; send consent.pending until it is known")
    said_at = min(photo.taken_at or at, at)
    patient = f"Patient/{photo.whose.patient_id}"
    form_id = f"capture.{photo.seen_as.request}"
    consent.record(tx, bridge, actor, consent.spoken(bridge, patient, choices, form_id=form_id, said_at=said_at))


def _suspected(tx: Connection, bridge: Bridge, actor: Actor, photo: _Photo, whose: Whose) -> Whose:
    metadata = photo.metadata
    circumstances = identity.Circumstances(
        operator=metadata.operator or actor.id,
        taken_at=photo.taken_at,
        received_at=bridge.now(),
        sha256=photo.sha256,
        source=photo.upload.source,
        body_site=metadata.body_site,
        has_visit=bool(metadata.encounter or _session_visit(tx, actor, whose)),
    )
    return identity.suspect(tx, bridge, whose, circumstances)


def capture_status(tx: Connection, capture_id: str) -> dict[str, Any]:
    """The capture followed to "confirmed": identity, consent and every delivery. Raises NotFound."""
    row = tx.execute(select(capture).where(capture.c.id == capture_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no capture {capture_id}")
    media = get(tx, "Media", capture_id).resource
    return _status(media, orjson.loads(row.consent), row.reason, delivery.deliveries_of(tx, capture_id))


def _status(media: Resource, consent: dict[str, str], reason: str | None, deliveries: Iterable[Any]) -> dict[str, Any]:
    """`deliveries` are rows, newest version first: only the newest of each destination is told."""
    latest: dict[str, Any] = {}
    for one in deliveries:
        latest.setdefault(one.destination, one)
    body = {
        "id": media["id"],
        "media": f"Media/{media['id']}",
        "identity": _identity_state(media),
        "consent": consent,
        "deliveries": [
            {"destination": one.destination, "state": str(one.state)} | ({"reason": one.reason} if one.reason else {})
            for one in latest.values()
        ],
    }
    return body | ({"reason": reason} if reason and body["identity"] != "bound" else {})


def original_blob_id(tx: Connection, capture_id: str) -> str:
    """The blob holding the bytes as received. Raises NotFound."""
    found = tx.execute(select(capture.c.blob_id).where(capture.c.id == capture_id)).scalar_one_or_none()
    if found is None:
        raise NotFound(f"there is no capture {capture_id}")
    return str(found)


def _identity_state(media: Resource) -> str:
    tags = media.get("meta", {}).get("tag", [])
    return next((t["code"] for t in tags if t.get("system", "").endswith("/identity-state")), "bound")


def _patient_given(metadata: Metadata, actor: Actor) -> str | dict[str, Any] | None:
    if metadata.patient is None and actor.patient_id is not None:
        return f"Patient/{actor.patient_id}"
    if metadata.patient is None or isinstance(metadata.patient, str):
        return metadata.patient
    return metadata.patient.model_dump(exclude_none=True)


def _taken_at(bridge: Bridge, metadata: Metadata, found: Inspection) -> datetime | None:
    """The sender's word, else the camera's clock in its own zone, else in the site's."""
    if metadata.taken_at is not None:
        if metadata.taken_at.tzinfo is None:
            return metadata.taken_at.replace(tzinfo=bridge.settings.zone)
        return metadata.taken_at
    if found.taken_at_local is None:
        return None
    zone = timezone(found.utc_offset) if found.utc_offset is not None else bridge.settings.zone
    taken_at = found.taken_at_local.replace(tzinfo=zone)
    return taken_at if taken_at <= bridge.now() + timedelta(days=1) else None  # a camera clock never set


def _seen_before(tx: Connection, bridge: Bridge, actor: Actor, photo: _Photo) -> CaptureAnswer | None:
    before = find_before(tx, photo.seen_as, photo.whose.patient_id)
    if before is None:
        return None
    if not before.is_same:
        raise Conflict("this Idempotency-Key was used for another photo, patient or time; send a new key with each")
    check_written(tx, bridge, actor, "c", "Media", before.id)
    return CaptureAnswer(before.id, 200, capture_status(tx, before.id))


def _media(
    tx: Connection,
    bridge: Bridge,
    actor: Actor,
    photo: _Photo,
    capture_id: str,
    binary_id: str,
    at: datetime,
) -> Resource:
    metadata, whose, found = photo.metadata, photo.whose, photo.found
    described = Capture(
        id=capture_id,
        operator=metadata.operator or actor.id,
        operator_display=actor.display if metadata.operator in (None, actor.id) else None,
        identity_state=whose.state,
        subject=f"Patient/{whose.patient_id}" if whose.patient_id else whose.identifier,
        encounter=_encounter(tx, metadata, actor, whose, photo.taken_at or at),
        taken_at=photo.taken_at,
        body_site=metadata.body_site,
        laterality=metadata.laterality,
        view=metadata.view,
        lesion=_owned(tx, metadata.lesion, "patient", whose),
        device=metadata.device or found.device,
        note=metadata.note,
        flags=metadata.sensitivity,
        identifiers=_named_by_sender(tx, metadata),
    )
    content = photo.clean.content(binary_id, created=photo.taken_at or at)
    media = capture_to_media(described, content, media_id=capture_id, issued_at=at)
    if whose.patient is not None:
        media = labelled_minor(media, whose.patient.resource, majority=bridge.settings.age_of_majority)
    if whose.doubt:
        media = quarantined(media, whose.doubt)
    if whose.identifier and isinstance(metadata.patient, PatientIdentifier):
        claim = identity.given_extension(metadata.patient.model_dump(exclude_none=True))
        media["subject"] |= {"extension": [claim]} if claim else {}
    return media


def _encounter(tx: Connection, metadata: Metadata, actor: Actor, whose: Whose, at: datetime) -> str | None:
    """The visit the sender names, else the one the session was launched in, else the only one covering the time."""
    if metadata.encounter is not None:
        return _owned(tx, metadata.encounter, "subject", whose)
    if whose.patient_id is None:
        return None
    visit = _session_visit(tx, actor, whose) or identity.find_encounter_at(tx, whose.patient_id, at)
    return f"Encounter/{visit}" if visit else None


def _session_visit(tx: Connection, actor: Actor, whose: Whose) -> str | None:
    """Only of the same patient: who sees every chart was launched in one and photographs in any."""
    visit = find(tx, "Encounter", actor.encounter_id) if actor.encounter_id and whose.patient_id else None
    return visit.id if visit and patient_of(visit.resource) == whose.patient_id else None


def _named_by_sender(tx: Connection, metadata: Metadata) -> tuple[tuple[str, str], ...]:
    """Raises Unprocessable for the name of another photo here, for which an EHR would take this one."""
    for one in metadata.identifiers:
        if one.system == URI and find(tx, "Media", one.value.lower().removeprefix("urn:uuid:")):
            raise Unprocessable("one of the identifiers is that of another photo here; send the photo without it")
    return tuple((one.system, one.value) for one in metadata.identifiers)


def _owned(tx: Connection, reference: str | None, element: str, whose: Whose) -> str | None:
    """A visit or lesion, only of the same patient. Raises Unprocessable."""
    if reference is None:
        return None
    found = find(tx, *reference.split("/", 1))
    owner = found.resource.get(element, {}).get("reference") if found else None
    if whose.patient_id is None or owner != f"Patient/{whose.patient_id}":
        raise Unprocessable(f"{reference} does not belong to this patient; leave it out or correct it")
    return reference


def _provenance(actor: Actor, media_id: str, binary_id: str, photo: _Photo, at: datetime) -> Resource:
    """Who took it and what the clean copy leaves out, in one statement about both."""
    original = Entity("source", _original(photo), sha256_hex=photo.sha256, removed=photo.found.removed)
    return provenance(
        "capture",
        provenance_id=new_id(at),
        targets=[f"Media/{media_id}/_history/1", hashed(f"Binary/{binary_id}", photo.clean.sha256)],
        agents=[Agent("performer", photo.metadata.operator or actor.id), Agent("assembler", SYSTEM.id)],
        entities=[original],
        recorded=at,
        occurred=photo.taken_at,
    )


def _original(photo: _Photo) -> Resource:
    """The bytes as received: kept, but no resource of their own."""
    return {"identifier": {"system": "urn:ietf:rfc:3986", "value": f"urn:hash::sha256:{photo.sha256}"}}
