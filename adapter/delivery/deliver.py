"""One attempt of one delivery, from the outbox to the proof.

Every step that talks to the destination stands between two short transactions: what was found out is durable before
the next step, so that a crash anywhere is taken up where it happened and nothing is sent blindly twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import orjson
from sqlalchemy import Connection, Row

from adapter import governance
from adapter.access.actor import SYSTEM
from adapter.bridge import Bridge
from adapter.db.inserting import insert_rows
from adapter.db.tables import delivery_attempt
from adapter.delivery.circuit import LEFT_ALONE, STOPPED, find_circuit, note_answer, note_outage, wait_until
from adapter.delivery.destinations import Destinations
from adapter.delivery.orders import Order, may_not_stay, prepare
from adapter.delivery.outbox import SEEN, DeliveryState, explain, get_delivery, mark, start_retraction
from adapter.errors import Misconfigured, NotFound
from adapter.records import Stored, create, new_id
from adapter.work import Work, finish, hasten, postpone
from adapter.work.loop import back_off
from connectors.contract import CannotLook, Connector, DeliveryError, Evidence, Receipt, Retry
from mappings.photos_to_picture import VISIT_SHEETS, derivation_of
from mappings.provenance import Agent, Entity, provenance

S = DeliveryState
T = TypeVar("T")
# The state to wait in when a step is to be repeated later.
WAITS_AS = {"find": S.UNKNOWN, "send": S.PENDING, "read-back": S.ACCEPTED, "retract": S.RETRACTING}
NEVER_SENT: dict[str, Any] = dict.fromkeys(("receipt", "evidence", "accepted_at", "confirmed_at"))
LOOK_ONCE_MORE = timedelta(hours=6)


@dataclass
class Attempt:
    """The step under way, for the record of attempts."""

    bridge: Bridge
    work: Work
    order: Order
    was_down: bool = False  # there were outages since the destination last answered
    action: str = "open"
    started_at: datetime | None = None
    taken_back: bool = False  # unseen, in case it had arrived

    def step(self, action: str, call: Callable[[], T]) -> T:
        self.action, self.started_at = action, self.bridge.now()
        return call()

    def note(self, tx: Connection, outcome: str, detail: str | None = None) -> None:
        ended_at = self.bridge.now()
        row = {
            "delivery_id": self.order.row.id,
            "action": self.action,
            "started_at": self.started_at or ended_at,
            "ended_at": ended_at,
            "outcome": outcome,
            "detail": detail,
        }
        insert_rows(tx, delivery_attempt, [row])

    def answered(self, tx: Connection) -> None:
        if self.was_down:
            note_answer(tx, self.order.row.destination)
            hasten(tx, "deliver", self.order.row.destination, because=(LEFT_ALONE,), at=self.bridge.now())

    def mark(self, tx: Connection, state: DeliveryState, **values: Any) -> None:
        mark(tx, self.order.row.id, state, at=self.bridge.now(), **values)


def deliver(bridge: Bridge, destinations: Destinations, work: Work) -> None:
    """Handle one work item of kind "deliver" to its next state. Raises LeaseLost when another worker took over."""
    with bridge.db.transaction() as tx:
        row = get_delivery(tx, work.payload["delivery"])
        circuit = find_circuit(tx, row.destination)
        if circuit and (until := wait_until(tx, circuit, at=bridge.now())):
            reason, remedy = _told_why(circuit)
            explain(tx, row.id, reason=reason, remedy=remedy)
            postpone(tx, work, due_at=until, reason=reason)
            return
        order = prepare(tx, bridge, row)
        if order is None:
            finish(tx, work)
            return
    attempt = Attempt(bridge, work, order, was_down=circuit is not None)
    try:
        connector = _connector(destinations, order.row.destination)
        if order.state is S.RETRACTING:
            _retract(attempt, connector)
            return
        receipt = order.receipt if order.state is S.ACCEPTED else _hand_over(attempt, connector)
        if receipt is not None:
            _prove(attempt, connector, receipt)
    except DeliveryError as error:
        _set_aside(attempt, error)


def _told_why(circuit: Row[Any]) -> tuple[str, str]:
    """Why a delivery waits that was not even tried, and what to do."""
    if circuit.held is not None:
        return f"{STOPPED}: {circuit.held}", "let it go on (dermbridge connectors resume) once it may"
    reason = f"{LEFT_ALONE} after {circuit.failures} outages: {circuit.reason}"
    return reason, "nothing to do: one delivery tries it from time to time"


def _connector(destinations: Destinations, name: str) -> Connector:
    try:
        return destinations.get(name)
    except (Misconfigured, NotFound) as error:
        remedy = "correct [[destinations]] in the settings and restart; it is tried again"
        raise DeliveryError(str(error), remedy=remedy, retry=Retry.LATER) from error


def _hand_over(attempt: Attempt, connector: Connector) -> Receipt | None:
    """Find it there or send it; the receipt is durable on return. None when it must not leave after all."""
    order = attempt.order
    receipt = _look(attempt, connector) if order.trace else None
    if receipt is None and (end := _may_not_leave(order)):
        with attempt.bridge.db.transaction() as tx:
            state, values = end
            attempt.mark(tx, state, **values, take_backs=order.row.take_backs + attempt.taken_back)
            attempt.note(tx, "absent")
            finish(tx, attempt.work)
        return None
    if receipt is None:
        receipt = attempt.step("send", lambda: connector.send(order.parcel))
    with attempt.bridge.db.transaction() as tx:
        _accept(tx, attempt, receipt)
        if (reason := may_not_stay(tx, attempt.bridge, order.row)) is None:
            return receipt
        attempt.mark(tx, S.RETRACTING, reason=reason)
        postpone(tx, attempt.work, due_at=attempt.bridge.now(), reason=reason)
    return None


def _look(attempt: Attempt, connector: Connector) -> Receipt | None:
    """What the destination says it holds. Where it cannot say but knows duplicates: nothing, and if the photo may not
    leave any more, it is taken back in case it did."""
    parcel = attempt.order.parcel
    try:
        return attempt.step("find", lambda: connector.find(parcel))
    except CannotLook as error:
        presumed = error.presumed
        if not error.may_resend or presumed is None:
            raise
        if _may_not_leave(attempt.order):
            attempt.step("find", lambda: connector.retract(parcel, presumed, "The answer was lost"))
            attempt.taken_back = True
        return None


def _may_not_leave(order: Order) -> tuple[DeliveryState, dict[str, str]] | None:
    """It was looked for and is not there: is there still a reason to send it?"""
    if order.newer:
        return S.SUPERSEDED, {"reason": "a newer version goes instead"}
    if order.refusal is not None:
        return S.WITHHELD, {"reason": order.refusal, "remedy": "record the patient's consent"}
    return None


def _accept(tx: Connection, attempt: Attempt, receipt: Receipt) -> None:
    bridge, order = attempt.bridge, attempt.order
    attempt.answered(tx)
    at = bridge.now()
    attempt.mark(tx, S.ACCEPTED, receipt=receipt.to_json(), accepted_at=at)
    attempt.note(tx, "duplicate" if receipt.duplicate else "accepted")
    row, media = order.row, order.media
    governance.audit(
        tx,
        bridge,
        "export",
        SYSTEM,
        patient_id=row.patient,
        references=[media.version_reference],
        detail=f"delivered to {row.destination}",
        recipient=row.destination,
    )
    sent = provenance(
        "transmit",
        targets=[media.version_reference],
        agents=[Agent("assembler", SYSTEM.id), Agent("custodian", {"display": row.destination})],
        entities=[Entity("source", order.parcel.media["content"]["url"], order.parcel.sha256)],
        recorded=at,
        provenance_id=new_id(at),
    )
    create(tx, sent, at=at)
    for old in order.replaced:
        if _is_same_record(Receipt.from_json(old.receipt), receipt) or _seen_for_him(old, row):
            mark(tx, old.id, S.SUPERSEDED, at=at, reason="a newer version took its place")
        else:
            start_retraction(tx, bridge, old, reason="the photo is another patient's")


def _is_same_record(old: Receipt, new: Receipt) -> bool:
    """Nothing to take back: one patient's record, or the very copy, which a merge at the destination moved along."""
    return old.ids.get("Patient") == new.ids.get("Patient") or (
        old.location is not None and old.location == new.location
    )


def _seen_for_him(old: Row[Any], row: Row[Any]) -> bool:
    return Receipt.from_json(old.receipt).route == SEEN and bool(old.patient == row.patient)


def _prove(attempt: Attempt, connector: Connector, receipt: Receipt) -> None:
    """Confirmed only by what the destination holds now; where it gives nothing back, its receipt is the last word."""
    if receipt.route == SEEN:  # somebody's word: the number to read back is not known
        with attempt.bridge.db.transaction() as tx:
            attempt.mark(tx, S.ACCEPTED, reason=attempt.order.row.reason)
            finish(tx, attempt.work)
        return
    evidence = attempt.step("read-back", lambda: connector.read_back(attempt.order.parcel, receipt))
    with attempt.bridge.db.transaction() as tx:
        attempt.answered(tx)
        if evidence is None:
            attempt.mark(tx, S.ACCEPTED, reason="acknowledged; this destination gives nothing back to read")
            attempt.note(tx, "accepted")
            finish(tx, attempt.work)
            return
        proof = orjson.dumps(_told(evidence)).decode()
        if evidence.matches:
            attempt.mark(tx, S.CONFIRMED, evidence=proof, confirmed_at=attempt.bridge.now())
            attempt.note(tx, "confirmed")
        else:
            reason = "read back and different: " + "; ".join(evidence.differences)
            remedy = "correct it at the destination or send it again"
            attempt.mark(tx, S.FAILED, evidence=proof, reason=reason, remedy=remedy)
            attempt.note(tx, "different", reason)
        finish(tx, attempt.work)


def _told(evidence: Evidence) -> dict[str, Any]:
    return asdict(evidence) | {"matches": evidence.matches}


def _retract(attempt: Attempt, connector: Connector) -> None:
    """Taken back only when a second look finds it entered in error already (contract, obligation 12)."""
    order = attempt.order
    receipt = order.receipt
    assert receipt is not None  # start_retraction takes no other
    if receipt.route == SEEN:
        remedy = "Ask the department that runs it to mark the photo as entered in error."
        raise DeliveryError(
            "A person found this photo there; its number is not known here.", remedy=remedy, retry=Retry.NEVER
        )
    reason = "The patient withdrew consent" if order.refusal else _what_is_wrong(order.media)
    taken = attempt.step("retract", lambda: connector.retract(order.parcel, receipt, reason))
    seen = taken if taken.duplicate else connector.retract(order.parcel, taken, reason)
    if not seen.duplicate:
        raise DeliveryError("The copy is still there.", remedy="It is tried again.", retry=Retry.LATER)
    with attempt.bridge.db.transaction() as tx:
        if order.wanted:  # consent alone was missing: decided again now, and whenever it changes
            attempt.mark(tx, S.PENDING, **NEVER_SENT, take_backs=order.row.take_backs + 1)
            postpone(tx, attempt.work, due_at=attempt.bridge.now(), reason="taken back: consent decides")
        else:
            attempt.mark(tx, S.RETRACTED)
            finish(tx, attempt.work)
        attempt.note(tx, "retracted")
        governance.audit(
            tx,
            attempt.bridge,
            "export",
            SYSTEM,
            patient_id=order.row.patient,
            references=[order.media.version_reference],
            detail=f"retracted from {order.row.destination}",
            recipient=order.row.destination,
        )


def _what_is_wrong(media: Stored) -> str:
    match derivation_of(media.resource):
        case None:
            return "Filed under the wrong patient"
        case sheet if sheet in VISIT_SHEETS:
            return "It shows a photo that is not of this visit"
        case _:
            return "Comparison withdrawn"


def _set_aside(attempt: Attempt, error: DeliveryError) -> None:
    """End or postpone by what the error says may be done, never losing sight of what may be there already."""
    order = attempt.order
    action = attempt.action if attempt.action in WAITS_AS else _first_action(order)
    state = WAITS_AS[action]
    if action == "send" and error.retry is Retry.UNKNOWN:
        state = S.UNKNOWN
    spent = error.retry is Retry.LATER and error.at_most is not None and attempt.work.attempts >= error.at_most
    ends = (error.retry is Retry.NEVER or spent) and action != "retract"  # a wrong copy is never given up
    values = {"reason": str(error), "remedy": error.remedy}
    with attempt.bridge.db.transaction() as tx:
        attempt.note(tx, error.retry.value, str(error))
        if error.outage:
            note_outage(tx, order.row.destination, str(error), at=attempt.bridge.now())
        else:
            attempt.answered(tx)
        attempt.mark(tx, S.FAILED if ends else state, **values)
        if ends:
            finish(tx, attempt.work)
            return
        wait = back_off(attempt.work.attempts)
        if error.retry_after is not None:
            wait = timedelta(seconds=error.retry_after)
        elif error.retry is Retry.NEVER:
            wait = LOOK_ONCE_MORE
        postpone(tx, attempt.work, due_at=attempt.bridge.now() + wait, reason=str(error))


def _first_action(order: Order) -> str:
    if order.state is S.RETRACTING:
        return "retract"
    if order.state is S.ACCEPTED:
        return "read-back"
    return "find" if order.trace else "send"
