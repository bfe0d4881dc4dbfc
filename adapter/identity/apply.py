"""ADT is applied: one message, one transaction, in order for each patient.

What a trigger event asks for is data (mappings/tables/hl7v2_adt_events.toml). A message that cannot be applied stays in
the queue with a reason and a remedy and holds back only later messages of the same patients.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select, update

from adapter import governance
from adapter.access import SYSTEM
from adapter.bridge import Bridge
from adapter.db.tables import adt_message, work
from adapter.errors import Conflict, DermBridgeError, NotFound, Unprocessable
from adapter.identity.merges import merge_patients
from adapter.identity.patients import bind_waiting, find_patient_of
from adapter.records import Stored, create, find_by_identifier, new_id, update_resource
from adapter.work import LeaseLost, Work, bury, enqueue, finish
from mappings.fhir_time import fhir_instant
from mappings.hl7v2.adt_event import AdtEvent, PatientGroup, adt_to_event, patient_keys
from mappings.hl7v2.datatypes import CX
from mappings.hl7v2.er7 import Message
from mappings.hl7v2.errors import MessageError
from mappings.hl7v2.pid_to_patient import update_patient
from mappings.hl7v2.pv1_to_encounter import update_encounter
from mappings.terms import CANON

ADT_RECORDED = f"{CANON}/StructureDefinition/adt-recorded"  # when the newest applied message was recorded at its source


class NotApplied(DermBridgeError):
    """The message is understood and cannot be applied as things stand; `remedy` says what would change that."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


def apply_message(bridge: Bridge, item: Work) -> None:
    """Handler of work kind "apply-adt"."""
    message_id = item.payload["message"]
    with bridge.db.snapshot() as tx:
        raw = tx.execute(select(adt_message.c.raw).where(adt_message.c.id == message_id)).scalar_one()
    try:
        event = adt_to_event(Message.parse(raw, bridge.settings.hl7_charset), bridge.settings.zone)
        with bridge.db.transaction() as tx:
            bridge.db.lock(
                tx, *(f"patient:{key}" for key in patient_keys(raw, bridge.settings.default_authority or ""))
            )
            _apply(tx, bridge, event, message_id)
            _mark(tx, message_id, state="applied", applied_at=bridge.now(), reason=None, remedy=None)
            finish(tx, item)
    except NotApplied as refusal:
        _queue(bridge, item, message_id, str(refusal), refusal.remedy)
    except MessageError as refusal:
        _queue(bridge, item, message_id, str(refusal), "correct the message at its source and send it again")
    except (Unprocessable, Conflict, NotFound) as refusal:
        if isinstance(refusal, LeaseLost):
            raise
        _queue(bridge, item, message_id, str(refusal), "settle the identity at its source, then replay this message")


def _order_keys(bridge: Bridge, raw: bytes) -> tuple[str, ...]:
    return tuple(f"patient:{key}" for key in patient_keys(raw, bridge.settings.default_authority or ""))


def _queue(bridge: Bridge, item: Work, message_id: str, reason: str, remedy: str) -> None:
    with bridge.db.transaction() as tx:
        _mark(tx, message_id, state="queued", reason=reason, remedy=remedy)
        bury(tx, item, reason=reason, remedy=remedy, blocks=True)


def _mark(tx: Connection, message_id: str, **values: Any) -> None:
    tx.execute(update(adt_message).where(adt_message.c.id == message_id).values(**values))


def _apply(tx: Connection, bridge: Bridge, event: AdtEvent, message_id: str) -> None:
    handler = _KINDS.get(event.kind)
    if handler is None:
        raise NotApplied(
            f"{event.trigger_event} is kept but not applied automatically",
            "make the change by hand where it matters, then drop the message from the queue",
        )
    for group in event.groups:
        handler(tx, bridge, event, group, message_id)


def _person(tx: Connection, bridge: Bridge, event: AdtEvent, group: PatientGroup, _message_id: str) -> None:
    _upsert_patient(tx, bridge, event, group)


def _visit(tx: Connection, bridge: Bridge, event: AdtEvent, group: PatientGroup, _message_id: str) -> None:
    patient = _upsert_patient(tx, bridge, event, group)
    if group.pv1 is not None and group.visit is not None:
        _upsert_encounter(tx, bridge, event, group, patient)


def _merge(tx: Connection, bridge: Bridge, event: AdtEvent, group: PatientGroup, message_id: str) -> None:
    """A40 and its older forms: MRG-1 goes away into PID-3."""
    if group.has_uncertain_identity:
        raise NotApplied("PID-31 or PID-32 says the identity is uncertain", "confirm the merge at its source")
    prior = [_trusted(bridge, cx, "MRG-1") for cx in group.prior_identifiers]
    target = _upsert_patient(tx, bridge, event, group)
    source = find_patient_of(tx, prior)
    if source is None:  # never heard of: from now on its identifier means the survivor
        known = [*target.resource.get("identifier", [])]
        known += [{"use": "old", "system": system, "value": value} for system, value in prior]
        bind_waiting(tx, bridge, update_resource(tx, target.resource | {"identifier": known}, at=bridge.now()))
    elif source.id != target.id:
        merge_patients(tx, bridge, SYSTEM, source.id, target.id, message_id=message_id)


def _ignore(_tx: Connection, _bridge: Bridge, _event: AdtEvent, _group: PatientGroup, _message_id: str) -> None:
    """The event says nothing about a record we keep."""


_KINDS: dict[str, Callable[[Connection, Bridge, AdtEvent, PatientGroup, str], None]] = {
    "visit": _visit,
    "person": _person,
    "merge-patient": _merge,
    "ignore": _ignore,
}


def _trusted(bridge: Bridge, cx: CX, field: str) -> tuple[str, str]:
    system = cx.find_system(bridge.settings.identifier_systems, _default_system(bridge))
    if system is None:
        named = "no assigning authority" if not cx.authority.name else "an assigning authority that is not configured"
        raise NotApplied(
            f"{field} names {named}",
            "add it to identifier_systems in dermbridge.toml (or set default_authority), then replay this message",
        )
    return system, cx.value


def _default_system(bridge: Bridge) -> str | None:
    authority = bridge.settings.default_authority
    return bridge.settings.identifier_systems.get(authority) if authority else None


def _upsert_patient(tx: Connection, bridge: Bridge, event: AdtEvent, group: PatientGroup) -> Stored:
    identifiers = [_trusted(bridge, cx, "PID-3") for cx in group.patient_identifiers]
    known = find_patient_of(tx, identifiers)
    recorded = group.pid_33 or event.recorded_at
    if known is not None and _is_stale(known, recorded):
        return known
    resource = update_patient(
        known.resource if known else None,
        group.pid,
        systems=bridge.settings.identifier_systems,
        default_system=_default_system(bridge),
        default_offset=event.default_offset,
    )
    _remember_recorded(resource, recorded)
    if known is None:
        stored = create(tx, resource | {"id": new_id()}, at=bridge.now())
    elif resource == known.resource:
        return known
    else:
        stored = update_resource(tx, resource, at=bridge.now())
    governance.audit(
        tx,
        bridge,
        "adt-applied",
        SYSTEM,
        patient_id=stored.id,
        references=[stored.version_reference],
        detail=f"ADT^{event.trigger_event}",
    )
    bind_waiting(tx, bridge, stored)
    return stored


def _is_stale(patient: Stored, recorded: datetime | None) -> bool:
    """An older message never overwrites what a newer one said."""
    for extension in patient.resource.get("extension", []):
        if extension["url"] == ADT_RECORDED and recorded is not None:
            return recorded < datetime.fromisoformat(extension["valueInstant"])
    return False


def _remember_recorded(resource: dict[str, Any], recorded: datetime | None) -> None:
    if recorded is not None:
        others = [one for one in resource.get("extension", []) if one["url"] != ADT_RECORDED]
        resource["extension"] = [*others, {"url": ADT_RECORDED, "valueInstant": fhir_instant(recorded)}]


def _upsert_encounter(tx: Connection, bridge: Bridge, event: AdtEvent, group: PatientGroup, patient: Stored) -> None:
    visit, pv1 = group.visit, group.pv1
    if visit is None or pv1 is None:
        return
    systems = bridge.settings.identifier_systems | bridge.settings.visit_systems
    default = bridge.settings.visit_systems.get(bridge.settings.default_authority or "")
    system = visit.find_system(systems, default)
    same = find_by_identifier(tx, "Encounter", system, visit.value)
    mine = [one for one in same if one.resource.get("subject", {}).get("reference") == patient.reference]
    if same and not mine:
        raise NotApplied("this visit number belongs to another patient", "correct it at the source (A45 or A50)")
    resource = update_encounter(
        mine[0].resource if mine else None,
        pv1,
        trigger_event=event.trigger_event,
        systems=systems,
        default_system=default,
        default_offset=event.default_offset,
        occurred=event.occurred,
    ) | {"subject": {"reference": patient.reference}}
    if not mine:
        create(tx, resource | {"id": new_id()}, at=bridge.now())
    elif resource != mine[0].resource:
        update_resource(tx, resource, at=bridge.now())


# --- the queue ------------------------------------------------------------------------------------------------------


def queue(tx: Connection, limit: int, after: str | None) -> list[Row[Any]]:
    """Messages that were not applied, oldest first, from the one after id `after`."""
    table = adt_message.c
    statement = select(
        table.id,
        table.sender,
        table.control_id,
        table.trigger_event,
        table.patient,
        table.state,
        table.reason,
        table.remedy,
        table.received_at,
    ).where(table.state.in_(("queued", "refused")))
    if after is not None:
        statement = statement.where(table.id > after)
    return list(tx.execute(statement.order_by(table.id).limit(limit)))


def replay(tx: Connection, bridge: Bridge, message_id: str) -> None:
    """Apply a queued message again now. Raises NotFound."""
    row = tx.execute(
        select(adt_message.c.id, adt_message.c.raw).where(
            adt_message.c.id == message_id, adt_message.c.state == "queued"
        )
    ).one_or_none()
    if row is None:
        raise NotFound(f"there is no message {message_id} in the queue; `dermbridge adt queue` lists it")
    key, at = f"adt:{message_id}", bridge.now()
    changed = tx.execute(
        update(work)
        .where(work.c.idempotency_key == key, work.c.state == "dead")
        .values(state="waiting", due_at=at, attempts=0, reason=None, remedy=None)
    )
    if changed.rowcount == 0:
        order_keys = _order_keys(bridge, row.raw)
        enqueue(tx, Work("apply-adt", key, {"message": message_id}, order_keys=order_keys), at=at)
    _mark(tx, message_id, state="waiting")
