"""A photo that lives in an EHR or archive, copied here to stand beside ours.

A copy is Media like any other, so that it is seen and compared as ours are; but it is marked external, read only,
never delivered, and kept for a while only (`external_upkeep`).
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace

import orjson
from sqlalchemy import Connection, insert

from adapter import access, consent, delivery, governance
from adapter.access import SYSTEM, Actor
from adapter.access.policy import can_see
from adapter.bridge import Bridge
from adapter.capture.clean_copy import CleanCopy, clean_copy
from adapter.capture.external_upkeep import copies_of, forget_external, look_again_later
from adapter.capture.inspection import inspect
from adapter.capture.known_photos import known_photos
from adapter.capture.pdf_photo import PDF, photo_in_pdf
from adapter.capture.photos_elsewhere import labelled, patient_in_use, tell_refused
from adapter.db.tables import capture
from adapter.delivery import Destinations, Fetched, WrongPatient
from adapter.errors import Conflict, Forbidden, Gone, TooLarge, Unprocessable
from adapter.records import Resource, Stored, create_all, get, new_id
from adapter.records.binaries import create_binary
from adapter.records.confinement import patient_of
from adapter.records.vault import SealedBlob
from adapter.work import Work, enqueue
from mappings.external_photo import ExternalPhoto, external_to_media, is_external, source_of
from mappings.provenance import Agent, Entity, hashed, provenance
from mappings.terms import URI


@dataclass(frozen=True)
class Pulled:
    """`how`: `copied` now, `kept` (the same version was copied before) or `ours` (we delivered it there)."""

    media_id: str
    how: str


@dataclass(frozen=True)
class _Copy:
    """A fetched photo, looked at and sealed, before anything is written about it."""

    fetched: Fetched
    address: str
    clean: CleanCopy
    sealed: SealedBlob
    destination: str


def pull_photo(
    bridge: Bridge, destinations: Destinations, actor: Actor, patient_id: str, destination: str, photo_id: str
) -> Pulled:
    """Copy one photo here. The same one in the same version again is not copied twice; one of ours never is.

    Raises Forbidden, NotFound, WrongPatient, Gone, Unprocessable, Unavailable, Conflict; then nothing was kept.
    """
    access.check_scope(actor, "c", "Media")
    with bridge.db.snapshot() as tx:
        patient = patient_in_use(tx, actor, patient_id, letter="r")
        decision = consent.decide(tx, bridge, patient.id)
    if not decision.permit:
        raise Unprocessable(f"{decision.because} No photo of this patient may be copied here")
    try:
        fetched = delivery.fetch_photo(bridge, destinations, destination, patient.resource, photo_id)
    except (WrongPatient, Gone) as error:
        with bridge.db.transaction() as tx:
            if isinstance(error, WrongPatient):
                tell_refused(tx, bridge, actor, patient.id, destination, [photo_id])
            for before in copies_of(tx, delivery.address_of(destinations, destination, photo_id)):
                if patient_of(before.resource) == patient.id:  # of a copy in another record this tells nothing
                    forget_external(tx, bridge, actor, before, str(error), torn=True)
        raise
    if not can_see(actor, labelled(fetched.photo)):
        raise Forbidden("this photo is restricted there; break the glass, with a reason that is reviewed")
    address = delivery.address_of(destinations, destination, photo_id)
    same = _find_same(bridge, patient.id, destination, fetched, address)
    if same is None and fetched.photo.content_type == PDF:
        jpeg, made = photo_in_pdf(fetched.content)
        fetched = replace(fetched, content=jpeg, made=made)
        same = _find_same(bridge, patient.id, destination, fetched, address)
    if same:
        return _known(bridge, actor, same)
    copy = _looked_at(bridge, fetched, address, destination)
    with bridge.db.transaction() as tx:
        return _keep(tx, bridge, actor, patient, copy)


def _find_same(bridge: Bridge, patient_id: str, name: str, fetched: Fetched, address: str) -> Stored | None:
    with bridge.db.snapshot() as tx:
        known = known_photos(tx, patient_id, name)
    sha1 = base64.b64encode(hashlib.sha1(fetched.content, usedforsecurity=False).digest()).decode()
    if ours := known.find_ours(fetched.photo) or known.find_same(sha1):
        return ours
    if (copy := known.find_copy(address)) and source_of(copy.resource)[1] == fetched.photo.version:
        return copy
    return None


def _known(bridge: Bridge, actor: Actor, photo: Stored) -> Pulled:
    patient_id, references = patient_of(photo.resource), [photo.version_reference]
    with bridge.db.transaction() as tx:
        governance.audit(
            tx, bridge, "read", actor, patient_id=patient_id, references=references, detail="asked to copy"
        )
    return Pulled(photo.id, "kept" if is_external(photo.resource) else "ours")


def _looked_at(bridge: Bridge, fetched: Fetched, address: str, destination: str) -> _Copy:
    """Inspected without decoding, as a photo that is sent here; then sealed."""
    data, settings = fetched.content, bridge.settings
    if len(data) > settings.max_capture_bytes:
        raise TooLarge(f"photos may have at most {settings.max_capture_bytes // 2**20} MiB here")
    found = inspect(data, max_pixels=settings.max_pixels)
    sha256 = hashlib.sha256(data).hexdigest()
    return _Copy(
        fetched=fetched,
        address=address,
        clean=clean_copy(found, data, sha256=sha256),
        sealed=bridge.vault.seal(data, sha256=sha256),
        destination=destination,
    )


def _keep(tx: Connection, bridge: Bridge, actor: Actor, patient: Stored, copy: _Copy) -> Pulled:
    """One transaction: the copy, where it came from, who asked, and when it is looked at again."""
    bridge.db.lock(tx, f"patient:{patient.id}", f"external:{copy.address}")
    if get(tx, "Patient", patient.id).resource.get("active") is False:
        raise Conflict("this patient was merged into another meanwhile; open the photos again")
    for before in copies_of(tx, copy.address):
        is_hers = patient_of(before.resource) == patient.id
        if is_hers and source_of(before.resource)[1] == copy.fetched.photo.version:
            return Pulled(before.id, "kept")
        why = (
            "another version takes its place" if is_hers else f"it is in another patient's record at {copy.destination}"
        )
        forget_external(tx, bridge, actor, before, why, torn=not is_hers)
    at, content_type = bridge.now(), copy.clean.found.format.content_type
    media_id, binary_id = new_id(at), new_id(at)
    described = _media(copy, media_id, binary_id, patient, bridge)
    media, _ = create_all(tx, [described, _provenance(actor, copy, media_id, binary_id, bridge)], at=at)
    bridge.vault.keep(tx, copy.sealed, content_type=content_type, patient_id=patient.id, at=at)
    create_binary(tx, copy.clean.binary(binary_id, copy.sealed, media, at=at))
    digest = hashlib.sha256(copy.address.encode()).hexdigest()
    row = {
        "id": media_id,
        "idempotency_key": f"external:{digest}",
        "fingerprint": digest,
        "request": digest,
        "blob_id": copy.sealed.id,
        "source": "external",
        "consent": orjson.dumps({"decision": "permit", "because": f"copied from {copy.destination}"}).decode(),
        "received_at": at,
    }
    tx.execute(insert(capture), row)
    references = [media.version_reference]
    governance.audit(
        tx, bridge, "import", actor, patient_id=patient.id, references=references, recipient=copy.destination
    )
    enqueue(tx, Work(kind="render", idempotency_key=f"render:{media_id}", payload={"media": media_id}), at=at)
    look_again_later(tx, bridge, media, copy.destination, copy.fetched.photo.id)
    return Pulled(media_id, "copied")


def _media(copy: _Copy, media_id: str, binary_id: str, patient: Stored, bridge: Bridge) -> Resource:
    photo, at = copy.fetched.photo, bridge.now()
    told = ExternalPhoto(
        source=copy.address,
        holder=copy.destination,
        version=photo.version,
        created=photo.created,
        title=photo.title,
        note=copy.fetched.made,
        device=photo.device,
        is_dermoscopic=photo.modality == "DMS",
        body_site=photo.body_site,
        site_text=photo.site_text,
        laterality=photo.laterality,
        identifiers=tuple(one for one in photo.identifiers if one[0]),
        security=photo.security,
    )
    content = copy.clean.content(binary_id, created=at)
    return external_to_media(told, content, media_id=media_id, patient=patient.reference, issued_at=at)


def _provenance(actor: Actor, copy: _Copy, media_id: str, binary_id: str, bridge: Bridge) -> Resource:
    """Which record of which system it is a copy of, in which version, and what the clean copy leaves out."""
    version = copy.fetched.photo.version
    place = f"{copy.address}/_history/{version}" if version else copy.address
    source = {"identifier": {"system": URI, "value": place}, "display": copy.destination}
    asked = [Agent("performer", actor.id)] if actor.kind == "person" else []
    return provenance(
        "receive",
        provenance_id=new_id(bridge.now()),
        targets=[f"Media/{media_id}/_history/1", hashed(f"Binary/{binary_id}", copy.clean.sha256)],
        agents=[Agent("assembler", SYSTEM.id), Agent("custodian", {"display": copy.destination}), *asked],
        entities=[Entity("source", source, sha256_hex=copy.sealed.sha256, removed=copy.clean.found.removed)],
        recorded=bridge.now(),
    )
