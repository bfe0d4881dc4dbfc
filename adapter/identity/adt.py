"""A received ADT message takes effect, or waits in the queue with a reason and holds up only its own patients.

What an event asks for is data (`mappings/tables/hl7v2_adt_events.toml`); effect, audit and the end of the work are one
transaction. Messages that only announce patients and visits are applied many in one transaction: those claimed together
share no patient identifier.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select, update

from adapter.access import SYSTEM
from adapter.bridge import Bridge
from adapter.db.engine import batches
from adapter.db.tables import adt_message, search_index
from adapter.errors import Conflict, Overtaken, PreconditionFailed
from adapter.governance import audited
from adapter.identity.adt_applying import Applying
from adapter.identity.adt_steps import IN_MEMORY, carry_out
from adapter.identity.application_acks import answer_application
from adapter.identity.authorities import NotApplied, patient_tokens
from adapter.identity.coming_of_age import label_minors
from adapter.identity.waiting import bind_waiting
from adapter.records import Stored, insert_all
from adapter.records.drafts import Drafts, identifiers_of
from adapter.records.extraction import token_value
from adapter.work import Work, bury, finish, finish_all
from mappings.hl7v2.adt_event import AdtEvent, adt_to_event
from mappings.hl7v2.er7 import Message
from mappings.hl7v2.errors import MessageError

_CORRECT = "ask the sender to correct it and to send it again, then dismiss this one; or mend the cause and replay"
_SETTLE = "settle the records by hand, then replay or dismiss the message"
_Refusal = (MessageError, NotApplied, Conflict)
_OVERTAKEN = (Overtaken, PreconditionFailed)


def apply_message(bridge: Bridge, work: Work) -> None:
    """Handler of work kind "apply-adt". A message that cannot be applied is queued; nothing of it takes effect."""
    try:
        with bridge.db.transaction() as tx:
            (row,) = _rows(tx, [work])
            applying = Applying(tx, bridge, Drafts(tx), _read(bridge, row), row.id, row.received_at)
            note = carry_out(applying)
            _conclude(tx, bridge, applying.drafts, [applying])
            _record(tx, [_applied(row, note, bridge.now())])
            answer_application(tx, bridge, row)
            finish(tx, work)
    except _OVERTAKEN:
        raise  # nothing is wrong with the message: the work loop tries it again
    except _Refusal as problem:
        _queue(bridge, work, problem)


def apply_messages(bridge: Bridge, items: Sequence[Work]) -> Sequence[Work]:
    """What can be applied in memory of what one claim leased, in one transaction; returns the work left over."""
    done: list[Work] = []
    with bridge.db.transaction() as tx:
        drafts, rows = Drafts(tx), {row.id: row for row in _rows(tx, items)}
        events = _simple_events(bridge, items, rows)
        _load(tx, bridge, drafts, events.values())
        applied, records = [], []
        for item in items:
            if item.id not in events:
                continue
            row = rows[item.payload["message"]]
            applying = Applying(tx, bridge, drafts, events[item.id], row.id, row.received_at)
            try:
                with drafts.attempt():
                    records.append(_applied(row, carry_out(applying), bridge.now()))
            except _Refusal:
                continue  # it is queued with its reason when it is tried by itself
            applied.append(applying)
            done.append(item)
        _conclude(tx, bridge, drafts, applied)
        _record(tx, records)
        for applying in applied:
            answer_application(tx, bridge, rows[applying.message_id])
        finish_all(tx, done)
    return [item for item in items if item not in done]


def _rows(tx: Connection, items: Iterable[Work]) -> list[Row[Any]]:
    ids = [item.payload["message"] for item in items]
    return [row for some in batches(ids) for row in tx.execute(select(adt_message).where(adt_message.c.id.in_(some)))]


def _read(bridge: Bridge, row: Row[Any]) -> AdtEvent:
    return adt_to_event(Message.parse(row.raw, bridge.settings.hl7_charset), bridge.settings.zone)


def _simple_events(bridge: Bridge, items: Iterable[Work], rows: dict[str, Row[Any]]) -> dict[int, AdtEvent]:
    """Work id -> event, of those that can be read and need no more than drafts."""
    found = {}
    for item in items:
        try:
            event = _read(bridge, rows[item.payload["message"]])
        except MessageError:
            continue
        if IN_MEMORY.issuperset(event.does):
            found[item.id] = event
    return found


def _load(tx: Connection, bridge: Bridge, drafts: Drafts, events: Iterable[AdtEvent]) -> None:
    """Lock and read ahead what the events name."""
    groups = [group for event in events for group in event.groups]
    patients, visits = [], []
    for group in groups:
        try:
            patients += patient_tokens(bridge.settings, group.patient_identifiers)
        except NotApplied:
            continue
        if group.visit and (system := group.visit.find_system(bridge.settings.visit_systems)):
            visits.append((system, group.visit.value))
    keys = [f"patient-identifier:{system}|{value}" for system, value in patients]
    bridge.db.lock(tx, *keys, *(f"visit-identifier:{system}|{value}" for system, value in visits))
    drafts.load("Patient", patients)
    drafts.load("Encounter", visits)


def _conclude(tx: Connection, bridge: Bridge, drafts: Drafts, applied: Iterable[Applying]) -> None:
    """Write the drafts with their AuditEvents, then bind the photos that waited for these patients, and label those of
    who is younger than was known."""
    bindable: dict[str, Stored] = {}
    to_label: dict[str, tuple[Stored, str]] = {}
    audit_events = []
    for a in applied:
        certain = {a.patients[n].id for n, group in a.groups if n in a.patients and not group.has_uncertain_identity}
        for patient in a.patients_touched():
            references = [one.version_reference for one in a.touched_of(patient)]
            detail = f"ADT^{a.event.trigger_event}"
            told = audited(bridge, "adt-applied", SYSTEM, patient_id=patient.id, references=references, detail=detail)
            audit_events.append(told)
            if patient.id in a.to_label:
                to_label[patient.id] = patient, a.message_id
            if patient.id in certain and patient.resource.get("active", True):
                bindable[patient.id] = patient
    drafts.write()
    insert_all(tx, audit_events)
    for patient in _awaited(tx, list(bindable.values())):
        bind_waiting(tx, bridge, patient)
    for _, (patient, message_id) in sorted(to_label.items()):
        label_minors(tx, bridge, patient, message_id=message_id)


def _awaited(tx: Connection, patients: Sequence[Stored]) -> list[Stored]:
    """Those of the patients that a photo may be waiting for."""
    tokens = {one.id: [token_value(v, s) for s, v in identifiers_of(one.resource)] for one in patients}
    column = search_index.c
    waited_for = select(column.value).where(column.resource_type == "Media", column.param == "subject:identifier")
    known: set[str] = set()
    for some in batches({token for each in tokens.values() for token in each}):
        known |= set(tx.execute(waited_for.where(column.value.in_(some))).scalars())
    return [one for one in patients if known.intersection(tokens[one.id])]


def _queue(bridge: Bridge, work: Work, problem: Exception) -> None:
    reason, remedy = str(problem), _SETTLE
    if isinstance(problem, MessageError):
        reason, remedy = f"{problem} ({problem.location or 'whole message'})", _CORRECT
    elif isinstance(problem, NotApplied):
        remedy = problem.remedy
    with bridge.db.transaction() as tx:
        (row,) = _rows(tx, [work])
        _record(tx, [{"message": row.id, "state": "queued", "reason": reason, "remedy": remedy, "applied_at": None}])
        answer_application(tx, bridge, row, problem)
        bury(tx, work, reason=reason, remedy=remedy, blocks=True)


def _applied(row: Row[Any], note: str | None, at: datetime) -> dict[str, Any]:
    return {"message": row.id, "state": "applied", "reason": note, "remedy": None, "applied_at": at}


def _record(tx: Connection, records: Sequence[dict[str, Any]]) -> None:
    if records:
        tx.execute(update(adt_message).where(adt_message.c.id == bindparam("message")), records)
