"""A received ADT message takes effect, or waits in the queue with a reason and holds up only its own patients.

What an event asks for is data (`mappings/tables/hl7v2_adt_events.toml`); effect, audit and the end of the work are one
transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from urllib.parse import quote

from sqlalchemy import Connection, Row, select, update

from adapter.access import SYSTEM
from adapter.bridge import Bridge
from adapter.db.tables import adt_message
from adapter.errors import Conflict
from adapter.governance import audit
from adapter.identity.application_acks import answer_application
from adapter.identity.authorities import NotApplied, default_system, patient_tokens
from adapter.identity.matching import find_survivors
from adapter.identity.merges import merge_patients
from adapter.identity.stamps import is_stale, stamped
from adapter.identity.waiting import bind_waiting
from adapter.records import Resource, Stored, create, find_by_identifier, get, new_id, update_resource
from adapter.work import Work, bury, finish
from mappings.hl7v2.adt_event import AdtEvent, PatientGroup, adt_to_event
from mappings.hl7v2.datatypes import CX
from mappings.hl7v2.er7 import Message
from mappings.hl7v2.errors import MessageError
from mappings.hl7v2.header import ADT_EVENTS
from mappings.hl7v2.pid_to_patient import update_patient
from mappings.hl7v2.pv1_to_encounter import update_encounter
from mappings.terms import CANON

_CORRECT = "ask the sender to correct it and to send it again, then dismiss this one; or mend the cause and replay"
_STALE = "older than what was applied; the newer values were kept"

Tokens = Sequence[tuple[str, str]]


def apply_message(bridge: Bridge, work: Work) -> None:
    """Handler of work kind "apply-adt". A message that cannot be applied is queued; nothing of it takes effect."""
    message_id = work.payload["message"]
    try:
        with bridge.db.transaction() as tx:
            row = tx.execute(select(adt_message).where(adt_message.c.id == message_id)).one()
            note = _apply(tx, bridge, row)
            _record(tx, message_id, "applied", note, None, at=bridge.now())
            answer_application(tx, bridge, row)
            finish(tx, work)
    except MessageError as problem:
        _queue(bridge, work, problem, f"{problem} ({problem.location or 'whole message'})", _CORRECT)
    except NotApplied as problem:
        _queue(bridge, work, problem, str(problem), problem.remedy)
    except Conflict as problem:
        _queue(bridge, work, problem, str(problem), "settle the records by hand, then replay or dismiss the message")


def _queue(bridge: Bridge, work: Work, problem: Exception, reason: str, remedy: str) -> None:
    message_id = work.payload["message"]
    with bridge.db.transaction() as tx:
        row = tx.execute(select(adt_message).where(adt_message.c.id == message_id)).one()
        _record(tx, message_id, "queued", reason, remedy)
        answer_application(tx, bridge, row, problem)
        bury(tx, work, reason=reason, remedy=remedy, blocks=True)


def _record(
    tx: Connection, message_id: str, state: str, reason: str | None, remedy: str | None, at: datetime | None = None
) -> None:
    values = {"state": state, "reason": reason, "remedy": remedy, "applied_at": at}
    tx.execute(update(adt_message).where(adt_message.c.id == message_id).values(**values))


def _apply(tx: Connection, bridge: Bridge, row: Row[tuple[object, ...]]) -> str | None:
    """What was done otherwise than the sender may expect, or None."""
    settings = bridge.settings
    message = Message.parse(row.raw, settings.hl7_charset)
    event = adt_to_event(message, settings.zone)
    if event.kind == "ignore":
        return "nothing in this event concerns photos"
    apply = _KINDS.get(event.kind)
    if apply is None:
        name = ADT_EVENTS[event.trigger_event]["name"]
        raise NotApplied(
            f"not applied: {event.trigger_event} ({name}) is not carried out automatically",
            remedy="carry it out by hand where photos are concerned, then dismiss the message",
        )
    notes = [apply(tx, bridge, event, group, row.id) for group in event.groups]
    return "; ".join(dict.fromkeys(note for note in notes if note)) or None


# --- kinds of event -------------------------------------------------------------------------------------------------


def _person(tx: Connection, bridge: Bridge, event: AdtEvent, group: PatientGroup, _message_id: str) -> str | None:
    patient, note = _upsert_patient(tx, bridge, event, group)
    _after(tx, bridge, event, group, [patient])
    return note


def _visit(tx: Connection, bridge: Bridge, event: AdtEvent, group: PatientGroup, _message_id: str) -> str | None:
    patient, patient_note = _upsert_patient(tx, bridge, event, group)
    visit, visit_note = _upsert_visit(tx, bridge, event, group, patient)
    _after(tx, bridge, event, group, [patient, *([visit] if visit else [])])
    return patient_note or visit_note


def _merge(tx: Connection, bridge: Bridge, event: AdtEvent, group: PatientGroup, message_id: str) -> str | None:
    prior = patient_tokens(bridge.settings, group.prior_identifiers)
    current = patient_tokens(bridge.settings, group.patient_identifiers)
    if group.has_uncertain_identity:
        raise NotApplied(
            "not applied: the sender is not certain of this identity (PID-31, PID-32)",
            remedy="merge by hand once the identity is certain, then dismiss the message",
        )
    surviving = [token for token in current if token not in prior]
    if not surviving:
        raise NotApplied(
            "not applied: source and target of the merge carry the same identifier",
            remedy="ask the sender to correct PID-3 or MRG-1 and to send it again, then dismiss this message",
        )
    target, note = _upsert_patient(tx, bridge, event, group, surviving, without=prior)
    unknown = []
    for token in prior:
        sources = [found for found in _owners(tx, token) if found.id != target.id]
        unknown += [] if sources else [token]
        for source in sources:
            merge_patients(tx, bridge, SYSTEM, source.id, target.id, message_id=message_id)
    target = _with_old_identifiers(tx, bridge, target, unknown)
    _after(tx, bridge, event, group, [target])
    return note or ("the source was not known here; its identifier was added to the target" if unknown else None)


_Apply = Callable[[Connection, Bridge, AdtEvent, PatientGroup, str], str | None]
_KINDS: dict[str, _Apply] = {"person": _person, "visit": _visit, "merge-patient": _merge}


# --- patient and visit ----------------------------------------------------------------------------------------------


def _upsert_patient(
    tx: Connection,
    bridge: Bridge,
    event: AdtEvent,
    group: PatientGroup,
    tokens: Tokens | None = None,
    without: Tokens = (),
) -> tuple[Stored, str | None]:
    """The patient named by PID-3, after this message. `without`: identifiers in PID-3 that are another patient's."""
    settings, at = bridge.settings, bridge.now()
    tokens = tokens or patient_tokens(settings, group.patient_identifiers)
    bridge.db.lock(tx, *(f"patient-identifier:{system}|{value}" for system, value in tokens))
    found = find_survivors(tx, tokens)
    if len(found) > 1:
        raise NotApplied(
            f"not applied: the identifiers in PID-3 belong to {len(found)} different patients here",
            remedy="merge them (ADT^A40) if they are one person, or ask the sender to correct PID-3; then replay",
        )
    before = found[0] if found else None
    if before and is_stale(before.resource, event.recorded_at, group.pid_33):
        return before, _STALE
    changed = update_patient(
        before.resource if before else None,
        group.pid,
        systems=settings.identifier_systems,
        default_system=default_system(settings),
        default_offset=event.default_offset,
    )
    changed["identifier"] = [
        one
        for one in changed.get("identifier", ())
        if (one.get("system"), one.get("value")) not in without or one.get("use") == "old"
    ]
    return _store(tx, before, stamped(changed, event.recorded_at, group.pid_33), at), None


def _upsert_visit(
    tx: Connection, bridge: Bridge, event: AdtEvent, group: PatientGroup, patient: Stored
) -> tuple[Stored | None, str | None]:
    if group.pv1 is None:
        return None, None
    if group.visit is None:
        return None, "no visit number (PV1-19): only the patient was updated"
    settings = bridge.settings
    systems = settings.identifier_systems | settings.visit_systems
    system = _visit_system(bridge, group.visit, systems, patient)
    bridge.db.lock(tx, f"visit-identifier:{system}|{group.visit.value}")
    before = next(iter(find_by_identifier(tx, "Encounter", system, group.visit.value)), None)
    if before and before.resource["subject"].get("reference") != patient.reference:
        raise NotApplied(
            "not applied: this visit number belongs to another patient here",
            remedy="move the visit or merge the patients, or ask the sender to correct PV1-19; then replay",
        )
    if before and is_stale(before.resource, event.recorded_at, None):
        return before, _STALE
    changed = update_encounter(
        before.resource if before else None,
        group.pv1,
        trigger_event=event.trigger_event,
        systems=systems | ({group.visit.authority.name: system} if group.visit.authority.name else {}),
        default_system=system,
        default_offset=event.default_offset,
        occurred=event.occurred,
    )
    changed["subject"] = {"reference": patient.reference}
    return _store(tx, before, stamped(changed, event.recorded_at, None), bridge.now()), None


def _visit_system(bridge: Bridge, visit: CX, systems: dict[str, str], patient: Stored) -> str:
    """As mapped; else a system of our own that keeps the visit numbers of every authority apart.

    A visit number only ever finds visits of the same patient, so an unknown authority is no reason to wait.
    """
    settings = bridge.settings
    if visit.authority.name:
        return visit.find_system(systems) or f"{CANON}/NamingSystem/visit/{quote(visit.authority.name, safe='')}"
    own = next((one["system"] for one in patient.resource["identifier"] if "system" in one), "")
    return (
        visit.find_system(systems)
        or settings.visit_systems.get(settings.default_authority or "")
        or f"{default_system(settings) or own}#visit"
    )


def _store(tx: Connection, before: Stored | None, resource: Resource, at: datetime) -> Stored:
    if before is None:
        return create(tx, {**resource, "id": new_id(at)}, at=at)
    return update_resource(tx, resource, at=at, expected_version=before.version_id)


def _owners(tx: Connection, token: tuple[str, str]) -> list[Stored]:
    """Patients whose own identifier this is: not those that carry it because of a merge."""
    return [
        patient
        for patient in find_by_identifier(tx, "Patient", *token)
        if any(
            (one.get("system"), one.get("value")) == token and one.get("use") != "old"
            for one in patient.resource["identifier"]
        )
    ]


def _with_old_identifiers(tx: Connection, bridge: Bridge, target: Stored, tokens: Tokens) -> Stored:
    current = get(tx, "Patient", target.id)  # merging has changed it
    resource = current.resource
    held = {(one.get("system"), one.get("value")) for one in resource["identifier"]}
    added = [{"use": "old", "system": s, "value": v} for s, v in tokens if (s, v) not in held]
    if not added:
        return current
    changed = {**resource, "identifier": [*resource["identifier"], *added]}
    return update_resource(tx, changed, at=bridge.now())


def _after(tx: Connection, bridge: Bridge, event: AdtEvent, group: PatientGroup, changed: Sequence[Stored]) -> None:
    patient = changed[0]
    references = [stored.version_reference for stored in changed]
    detail = f"ADT^{event.trigger_event}"
    audit(tx, bridge, "adt-applied", SYSTEM, patient_id=patient.id, references=references, detail=detail)
    if not group.has_uncertain_identity:
        bind_waiting(tx, bridge, patient)
