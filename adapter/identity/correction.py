"""A person says whose photo it is: of a patient and visit, of nobody, or not of whom it was filed under.

One act in one transaction: the Media's next version under the right patient, a stub `entered-in-error` under the wrong
one, the photo's bytes under the right patient's key, what destinations hold taken back, Provenance and AuditEvent for
both. Nothing of it shows one patient's session that the other exists.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, update

from adapter.access import SYSTEM, Actor, check_patient, check_right, check_whose
from adapter.access.policy import check_ours, check_visible
from adapter.bridge import Bridge
from adapter.db.tables import capture
from adapter.delivery import deliver_media, take_back
from adapter.errors import Conflict, NotFound, Unprocessable
from adapter.governance import audit
from adapter.identity.ehr_answers import forget_answers
from adapter.identity.matching import find_survivor
from adapter.identity.waiting import rekey_photo, visit_of
from adapter.records import Resource, Stored, create, delete, find, get, new_id, update_resource
from adapter.records.confinement import patient_of
from mappings.canonical_resources import codes_of
from mappings.capture_to_media import KEEP
from mappings.photos_to_picture import derivation_of
from mappings.provenance import Agent, Entity, provenance
from mappings.security_labels import labelled_minor
from mappings.wrong_patient import WRONG_PATIENT, refiled, state_of, stub_of, unfiled


@dataclass(frozen=True)
class Refiling:
    """What a person decided. `patient_id` None: it is not this patient's, and nobody knows yet whose.

    `encounter_id` None: the one visit covering the capture time, if there is one. `verifier` is the second person.
    """

    patient_id: str | None
    reason: str
    encounter_id: str | None = None
    verifier: str | None = None


@dataclass(frozen=True)
class Refiled:
    """Versions of the Media before and after, and the id of the stub left behind, if one was."""

    before: int
    after: int
    stub_id: str | None


def check_may_refile(tx: Connection, actor: Actor, media: Stored, patient_id: str | None) -> None:
    """Raises NotFound or Forbidden: a chart's session reaches its own photos only, and may only say "not this patient".

    What belongs to nobody yet is for those who have the worklist.
    """
    former = patient_of(media.resource)
    check_whose(tx, actor, former)
    check_visible(actor, media.resource)
    if patient_id is not None:
        check_patient(actor, patient_id)
    if actor.kind == "person" and (patient_id is not None or former is None):
        check_right(actor, "worklist")


def plan_refiling(
    tx: Connection, bridge: Bridge, actor: Actor, media_id: str, refiling: Refiling
) -> tuple[Stored, Resource]:
    """The photo as it is and as it would be; they are equal when it is so already.

    Raises NotFound, Forbidden, Unprocessable for a patient out of use, a visit of somebody else or a picture made of
    photos, Conflict for a stub.
    """
    media = get(tx, "Media", media_id)
    check_may_refile(tx, actor, media, refiling.patient_id)
    check_ours(media.resource)
    if media.resource.get("status") == "entered-in-error":
        raise Conflict("this is only the note that a photo was filed here by mistake; there is nothing to move")
    if derivation_of(media.resource):
        raise Unprocessable("this is a picture made of photos; move these, and it does not stand any more")
    if refiling.patient_id is None:
        return media, media.resource if patient_of(media.resource) is None else unfiled(media.resource)
    target = find_survivor(tx, refiling.patient_id)
    if target is None or target.resource.get("active") is False:
        raise Unprocessable("this patient's record is not in use; choose another")
    former = patient_of(media.resource)
    if former == target.id and state_of(media.resource) == "bound" and refiling.encounter_id is None:
        return media, media.resource
    encounter = _visit(tx, media.resource, target, refiling.encounter_id)
    moved = refiled(media.resource, target.reference, encounter=encounter)
    return media, labelled_minor(moved, target.resource, majority=bridge.settings.age_of_majority)


def _visit(tx: Connection, media: Resource, target: Stored, encounter_id: str | None) -> str | None:
    """The visit chosen, the one it has when that is the patient's own, or the one covering the capture time."""
    chosen = f"Encounter/{encounter_id}" if encounter_id else media.get("encounter", {}).get("reference")
    if chosen:
        if _is_visit_of(tx, chosen, target.reference):
            return str(chosen)
        if encounter_id:
            raise Unprocessable("this visit does not belong to the patient chosen; choose another, or none")
    without = {name: value for name, value in media.items() if name != "encounter"}
    visit = visit_of(tx, without, target.id)
    return None if visit is KEEP else str(visit)


def _is_visit_of(tx: Connection, encounter: str, patient: str) -> bool:
    """Whether the visit is that patient's, and was not deleted (ADT A23, A29). Both are references."""
    found = find(tx, "Encounter", encounter.removeprefix("Encounter/"))
    resource = found.resource if found else {}
    return resource.get("subject", {}).get("reference") == patient and resource.get("status") != "entered-in-error"


def refile(tx: Connection, bridge: Bridge, actor: Actor, media_id: str, refiling: Refiling) -> Refiled | None:
    """Carry it out; None when it was so already. Raises as `plan_refiling`."""
    _lock(tx, bridge, media_id, refiling.patient_id)
    media, changed = plan_refiling(tx, bridge, actor, media_id, refiling)
    if changed == media.resource:
        return None
    at, former, patient_id = bridge.now(), patient_of(media.resource), patient_of(changed)
    moved = former is not None and former != patient_id
    stored = update_resource(tx, changed, at=at, expected_version=media.version_id)
    reason = codes_of("identity-doubt")["reported"] if patient_id is None else None
    tx.execute(update(capture).where(capture.c.id == media_id).values(reason=reason))
    if former != patient_id:
        rekey_photo(tx, bridge, media_id, patient_id)
    forget_answers(tx, [media_id])
    stub = create(tx, stub_of(media.resource, stub_id=new_id(at), issued_at=at), at=at) if moved else None
    if moved:
        take_back(tx, bridge, media_id, reason=WRONG_PATIENT)
    _tell(tx, bridge, actor, media, stored, stub, refiling)
    deliver_media(tx, bridge, stored)
    return Refiled(media.version_id, stored.version_id, stub.id if stub else None)


def unrefile(tx: Connection, bridge: Bridge, actor: Actor, media_id: str, done: Refiled) -> Stored:
    """Put back exactly what was before: content, patient, key, deliveries; the stub goes.

    Raises Conflict when the photo was changed since, or its former patient or visit is not what it was.
    """
    before = get(tx, "Media", media_id, done.before).resource
    _lock(tx, bridge, media_id, patient_of(before))
    media = get(tx, "Media", media_id)
    if media.version_id != done.after:
        raise Conflict("this photo was changed again since; undo it by hand")
    at, former, patient_id = bridge.now(), patient_of(media.resource), patient_of(before)
    if former is None and patient_id is not None:
        check_whose(tx, actor, patient_id)  # who said "not this patient's" may take that back, also within the chart
    else:
        check_may_refile(tx, actor, media, patient_id if former != patient_id else None)
    if patient_id:
        _check_still_so(tx, before, patient_id)
    stored = update_resource(tx, before, at=at, expected_version=media.version_id)
    if former != patient_id:
        rekey_photo(tx, bridge, media_id, patient_id)
        take_back(tx, bridge, media_id, reason="The move to this patient was undone")
    if done.stub_id:
        delete(tx, "Media", done.stub_id, at=at)
    _record(tx, bridge, actor, "update", stored, [Entity("revision", media.version_reference)], None)
    for told in dict.fromkeys((former, patient_id)):
        audit(tx, bridge, "update", actor, patient_id=told, references=[stored.version_reference], detail="put back")
    deliver_media(tx, bridge, stored)
    return stored


def _check_still_so(tx: Connection, before: Resource, patient_id: str) -> None:
    """Nothing goes back to a patient who was merged away or deleted since, nor into a visit that is another's now."""
    survivor = find_survivor(tx, patient_id)
    if survivor is None or survivor.id != patient_id or survivor.resource.get("active") is False:
        raise Conflict("the record it was filed under before is merged into another or out of use; move it by hand")
    visit = before.get("encounter", {}).get("reference")
    if visit and not _is_visit_of(tx, visit, survivor.reference):
        raise Conflict("the visit it was filed in before was deleted or is another patient's now; move it by hand")


def _lock(tx: Connection, bridge: Bridge, media_id: str, patient_id: str | None) -> None:
    """No merge may come between the look and the write: neither of those named, nor of whom they were merged into."""
    media = find(tx, "Media", media_id)
    if media is None:
        raise NotFound("there is no such photo")
    held: set[str] = set()
    while concerned := {one for one in (patient_of(media.resource), patient_id) if one} - held:
        bridge.db.lock(tx, *(f"patient:{one}" for one in concerned))
        held |= concerned
        survivor = find_survivor(tx, patient_id) if patient_id else None
        patient_id = survivor.id if survivor else None


def _tell(
    tx: Connection,
    bridge: Bridge,
    actor: Actor,
    media: Stored,
    stored: Stored,
    stub: Stored | None,
    refiling: Refiling,
) -> None:
    """Provenance and AuditEvent, for each patient its own: neither names the other."""
    was = Entity("revision", media.version_reference)
    if stub is None:
        _record(tx, bridge, actor, "update", stored, [was], None)
    else:
        left = Entity("removal", stub.version_reference)
        _record(tx, bridge, actor, "wrong-patient", stored, [was, left], refiling.verifier)
        gone = Entity("removal", media.version_reference)
        _record(tx, bridge, actor, "wrong-patient", stub, [was, gone], refiling.verifier)
        audit(
            tx,
            bridge,
            "update",
            actor,
            patient_id=patient_of(stub.resource),
            references=[stub.version_reference, media.version_reference],
            detail=f"taken away from this patient: {refiling.reason}",
        )
    patient_id = patient_of(stored.resource)
    what = "given to this patient" if patient_id else "put into quarantine"
    references = [stored.version_reference]
    audit(
        tx, bridge, "update", actor, patient_id=patient_id, references=references, detail=f"{what}: {refiling.reason}"
    )


def _record(
    tx: Connection,
    bridge: Bridge,
    actor: Actor,
    case: str,
    target: Stored,
    entities: list[Entity],
    verifier: str | None,
) -> None:
    at = bridge.now()
    agents = [Agent("enterer", actor.id)] + ([Agent("verifier", verifier)] if verifier else [])
    told = provenance(
        case,
        provenance_id=new_id(at),
        targets=[target.version_reference],
        agents=agents if case == "wrong-patient" else [*agents, Agent("assembler", SYSTEM.id)],
        entities=entities,
        recorded=at,
        reason="PATADMIN",
    )
    create(tx, told, at=at)
