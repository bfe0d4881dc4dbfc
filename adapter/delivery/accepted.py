"""What a receipt brings about here: ledger, AuditEvent, Provenance, and the end of what the new copy replaces."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from adapter import governance
from adapter.access.actor import SYSTEM
from adapter.db.many_rows import insert_rows
from adapter.db.tables import delivery_attempt
from adapter.delivery.attempt import Arrived, Attempt
from adapter.delivery.orders import may_not_stay
from adapter.delivery.outbox import SEEN, DeliveryState, mark, mark_all, start_retraction
from adapter.records import New, Resource, create_all, insert_all, new_id
from adapter.work import finish_held, postpone
from connectors.contract import Receipt
from mappings.provenance import Agent, Entity, provenance

S = DeliveryState
NOT_READ_BACK = "acknowledged; this destination gives nothing back to read"


def accept(arrived: Arrived, *, ends: bool = False, following: Attempt | None = None) -> Arrived:
    """Make their receipts durable; returns those whose copies may stay there and are still to be read back.

    `ends`: nothing can be read back there, so that the receipt is the last word. `following` is begun in the same
    transaction, unless its photo has turned out not to be this patient's, or somebody else has it now.
    """
    if not arrived:
        return []
    bridge = arrived[0][0].bridge
    attempts = [attempt for attempt, _ in arrived]
    concerned = [*attempts, *([following] if following else [])]
    with bridge.db.transaction(wakes=False) as tx:  # the loop looks when the round is over
        wrong = may_not_stay(tx, bridge, [attempt.order.row for attempt in concerned])
        attempts[0].answered(tx)
        at = bridge.now()
        last_word = {"reason": NOT_READ_BACK} if ends else {}
        accepted = [
            {"id": attempt.order.row.id, "receipt": receipt.to_json(), "accepted_at": at} | last_word
            for attempt, receipt in arrived
        ]
        mark_all(tx, S.ACCEPTED, accepted, at=at)
        outcomes = [attempt.told("duplicate" if receipt.duplicate else "accepted") for attempt, receipt in arrived]
        insert_rows(tx, delivery_attempt, outcomes)
        insert_all(tx, [_disclosure(attempt) for attempt, _ in arrived])
        create_all(tx, [_transmission(attempt, at) for attempt, _ in arrived], at=at)
        for attempt, receipt in arrived:
            _take_places(tx, attempt, receipt)
        for attempt, _ in arrived:
            if reason := wrong.get(attempt.order.row.id):
                attempt.mark(tx, S.RETRACTING, reason=reason)
                postpone(tx, attempt.work, due_at=at, reason=reason)
        staying = [one for one in arrived if one[0].order.row.id not in wrong]
        if ends:
            finish_held(tx, [attempt.work for attempt, _ in staying])
            staying = []
        begun = following is not None and following.order.row.id not in wrong and following.begin(tx)
    if following is not None:
        following.begun = begun
    return staying


def _disclosure(attempt: Attempt) -> New:
    row = attempt.order.row
    return governance.audited(
        attempt.bridge,
        "export",
        SYSTEM,
        patient_id=row.patient,
        references=[attempt.order.media.version_reference],
        detail=f"delivered to {row.destination}",
        recipient=row.destination,
    )


def _transmission(attempt: Attempt, at: datetime) -> Resource:
    order = attempt.order
    return provenance(
        "transmit",
        targets=[order.media.version_reference],
        agents=[Agent("assembler", SYSTEM.id), Agent("custodian", {"display": order.row.destination})],
        entities=[Entity("source", order.parcel.media["content"]["url"], order.parcel.sha256)],
        recorded=at,
        provenance_id=new_id(at),
    )


def _take_places(tx: Connection, attempt: Attempt, receipt: Receipt) -> None:
    """What the new copy takes the place of is superseded, or taken back where it is another patient's."""
    bridge, row = attempt.bridge, attempt.order.row
    for old in attempt.order.replaced:
        if _is_same_record(Receipt.from_json(old.receipt), receipt) or _seen_for_him(old, row):
            mark(tx, old.id, S.SUPERSEDED, at=bridge.now(), reason="a newer version took its place")
        else:
            start_retraction(tx, bridge, old, reason="the photo is another patient's")


def _is_same_record(old: Receipt, new: Receipt) -> bool:
    """Nothing to take back: one patient's record, or the very copy, which a merge at the destination moved along."""
    return old.ids.get("Patient") == new.ids.get("Patient") or (
        old.location is not None and old.location == new.location
    )


def _seen_for_him(old: Row[Any], row: Row[Any]) -> bool:
    return Receipt.from_json(old.receipt).route == SEEN and bool(old.patient == row.patient)
