"""One attempt of a delivery, from the outbox to the proof, or of a few to one destination beside each other.

Every step that talks to the destination stands between two short transactions: what was found out is durable before
the next step, so that a crash anywhere is taken up where it happened and nothing is sent blindly twice. Deliveries of
one round share these transactions, as long as the destination answers quickly: after `QUICK_SECONDS`, or an outage,
what has not begun goes back in line.

Where only a person could say what arrived (`is_blind`), the round is a chain: the transaction that ends one delivery
begins the next, so that a crash leaves one in doubt, however many there are. Where nothing can be read back
(`reads_back`), a receipt is the last word, and its transaction ends the delivery.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

import orjson
from sqlalchemy import Row

from adapter import governance
from adapter.access.actor import SYSTEM
from adapter.bridge import Bridge
from adapter.db.many_rows import insert_rows
from adapter.db.tables import delivery_attempt
from adapter.delivery.accepted import NOT_READ_BACK, accept
from adapter.delivery.attempt import Arrived, Attempt
from adapter.delivery.circuit import LEFT_ALONE, STOPPED, find_circuit, note_outage, wait_until
from adapter.delivery.destinations import Destinations, known_profiles
from adapter.delivery.orders import Order, prepare
from adapter.delivery.outbox import SEEN, DeliveryState, explain, get_deliveries, mark_all
from adapter.errors import Misconfigured, NotFound
from adapter.records import Stored
from adapter.work import Work, check_held, finish, finish_all, postpone
from adapter.work.loop import back_off
from connectors.contract import (
    AsksTogether,
    CannotLook,
    Connector,
    DeliveryError,
    Evidence,
    Receipt,
    Retry,
    RouteRefused,
)
from mappings.photos_to_picture import VISIT_SHEETS, derivation_of

S = DeliveryState
# The state to wait in when a step is to be repeated later.
WAITS_AS = {"find": S.UNKNOWN, "send": S.PENDING, "read-back": S.ACCEPTED, "retract": S.RETRACTING}
NEVER_SENT: dict[str, Any] = dict.fromkeys(("receipt", "evidence", "accepted_at", "confirmed_at"))
LOOK_ONCE_MORE = timedelta(hours=6)
QUICK_SECONDS = 1.0  # for what may wait together to become durable


def deliver(bridge: Bridge, destinations: Destinations, work: Work) -> None:
    """Handle one work item of kind "deliver" to its next state. Raises LeaseLost when another worker took over."""
    deliver_together(bridge, destinations, [work])


def deliver_together(bridge: Bridge, destinations: Destinations, items: Sequence[Work]) -> Sequence[Work]:
    """`deliver` for what one claim leased of one destination; returns what was not begun. Raises LeaseLost."""
    profile = known_profiles(bridge.settings).get(items[0].destination)
    chained, ends = (profile.is_blind, not profile.reads_back) if profile else (False, False)
    attempts = _open(bridge, items, begun=1 if chained else len(items))
    if not attempts:
        return ()
    try:
        connector = _connector(destinations, attempts[0].order.row.destination)
    except DeliveryError as error:
        for attempt in attempts:
            if attempt.is_ready:
                _set_aside(attempt, error)
        return [attempt.work for attempt in attempts if not attempt.is_ready]
    here = Round(connector, chained, ends, deque(attempts))
    try:
        with _asked_together(connector, [(one, None) for one in attempts if one.begun]):
            _send(here)
    except Exception:  # of ours, in one of them: what the others arrived at is kept all the same
        _keep(here)
        _put_back(bridge, here.waiting)
        raise
    _keep(here)
    _prove(here.accepted, connector)
    return _put_back(bridge, here.waiting)


@dataclass
class Round:
    """Where deliveries to one destination stand: not yet tried, with a receipt, with one that is durable."""

    connector: Connector
    chained: bool
    ends: bool
    waiting: deque[Attempt]
    arrived: Arrived = field(default_factory=list)
    accepted: Arrived = field(default_factory=list)


def _keep(here: Round, following: Attempt | None = None) -> None:
    """Make durable what arrived, and that `following` is begun."""
    new = [one for one in here.arrived if one[0].order.state is not S.ACCEPTED]
    here.accepted += accept(new, ends=here.ends, following=following)
    here.accepted += [one for one in here.arrived if one[0].order.state is S.ACCEPTED]
    here.arrived.clear()


def _open(bridge: Bridge, items: Sequence[Work], begun: int) -> list[Attempt]:
    """What is to be done now, the first `begun` of it durably so; the others are postponed or finished."""
    with bridge.db.transaction(wakes=False) as tx:
        check_held(tx, items)
        by_id = {item.payload["delivery"]: item for item in items}
        rows = get_deliveries(tx, list(by_id))
        circuit = find_circuit(tx, rows[0].destination)
        if circuit and (until := wait_until(tx, circuit, at=bridge.now())):
            reason, remedy = _told_why(circuit)
            for row in rows:
                explain(tx, row.id, reason=reason, remedy=remedy)
                postpone(tx, by_id[row.id], due_at=until, reason=reason)
            return []
        orders = prepare(tx, bridge, rows)
        idle = by_id.keys() - {order.row.id for order in orders}
        finish_all(tx, [by_id[one] for one in idle])
        attempts = [Attempt(bridge, by_id[one.row.id], one, was_down=circuit is not None) for one in orders]
        leaving = [attempt for attempt in attempts if attempt.leaves][:begun]
        mark_all(tx, S.SENDING, [{"id": attempt.order.row.id} for attempt in leaving], at=bridge.now())
    for attempt in leaving:
        attempt.begun = True
    return attempts


def _send(here: Round) -> None:
    """One after the other, as long as it goes quickly."""
    until = time.monotonic() + QUICK_SECONDS
    while here.waiting and here.waiting[0].is_ready:
        attempt = here.waiting.popleft()
        try:
            if attempt.order.state is S.RETRACTING:
                _retract(attempt, here.connector)
            elif receipt := _known_receipt(attempt) or _hand_over(attempt, here.connector):
                here.arrived.append((attempt, receipt))
        except DeliveryError as error:
            _set_aside(attempt, error)
            if error.outage:
                return
        if time.monotonic() > until:
            return
        if here.chained and here.waiting:
            _keep(here, following=here.waiting[0])


def _known_receipt(attempt: Attempt) -> Receipt | None:
    return attempt.order.receipt if attempt.order.state is S.ACCEPTED else None


def _put_back(bridge: Bridge, waiting: Collection[Attempt]) -> list[Work]:
    """What was not tried: nothing of it has left, so that nobody need look for it."""
    begun = [attempt for attempt in waiting if attempt.begun]
    if new := [{"id": attempt.order.row.id} for attempt in begun if attempt.order.state is S.PENDING]:
        with bridge.db.transaction() as tx:
            mark_all(tx, S.PENDING, new, at=bridge.now())
    return [attempt.work for attempt in waiting]


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
    """Find it there or send it. None when it must not leave after all."""
    order = attempt.order
    receipt = _look(attempt, connector) if order.trace else None
    if receipt is None and (end := _may_not_leave(order)):
        with attempt.bridge.db.transaction() as tx:
            state, values = end
            attempt.mark(tx, state, **values, take_backs=order.row.take_backs + attempt.taken_back)
            attempt.note(tx, "absent")
            finish(tx, attempt.work)
        return None
    if receipt and not _may_be_unfinished(order, receipt):
        return receipt
    return attempt.step("send", lambda: connector.send(order.parcel))


def _may_be_unfinished(order: Order, receipt: Receipt) -> bool:
    """It is there beside a former version, which `send` takes away once the new one is there: if it came to that."""
    former = order.parcel.previous
    return former is not None and former.location != receipt.location and _may_not_leave(order) is None


def _look(attempt: Attempt, connector: Connector) -> Receipt | None:
    """What the destination says it holds. Where it cannot say but knows duplicates: nothing, and if the photo may not
    leave any more, it is taken back in case it did."""
    parcel = attempt.order.parcel
    try:
        return attempt.step("find", lambda: connector.find(parcel))
    except RouteRefused as error:  # a wrong address, perhaps: what may be there is not given up for it
        raise DeliveryError(str(error), remedy=error.remedy, retry=Retry.LATER) from error
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


def _prove(accepted: Arrived, connector: Connector) -> None:
    """Confirmed only by what the destination holds now; where it gives nothing back, its receipt is the last word."""
    seen = list[tuple[Attempt, Evidence | None]]()
    with _asked_together(connector, [one for one in accepted if one[1].route != SEEN]):
        for attempt, receipt in accepted:
            try:
                seen.append((attempt, _read_back(attempt, connector, receipt)))
            except DeliveryError as error:
                _set_aside(attempt, error)
    _conclude(seen)


def _asked_together(connector: Connector, of: Sequence[tuple[Attempt, Receipt | None]]) -> AbstractContextManager[None]:
    """Only what is tried for the first time: what a batch does not get along with then stands in nobody's way."""
    new = [(attempt.order.parcel, receipt) for attempt, receipt in of if attempt.work.attempts <= 1]
    return connector.asked_together(new) if len(new) > 1 and isinstance(connector, AsksTogether) else nullcontext()


def _read_back(attempt: Attempt, connector: Connector, receipt: Receipt) -> Evidence | None:
    if receipt.route == SEEN:  # somebody's word: the number to read back is not known
        attempt.action = "seen"
        return None
    return attempt.step("read-back", lambda: connector.read_back(attempt.order.parcel, receipt))


def _conclude(seen: Sequence[tuple[Attempt, Evidence | None]]) -> None:
    if not seen:
        return
    bridge = seen[0][0].bridge
    with bridge.db.transaction(wakes=False) as tx:
        seen[0][0].answered(tx)
        ends = [_end(attempt, evidence) for attempt, evidence in seen]
        for state in dict.fromkeys(state for state, _, _ in ends):
            mark_all(tx, state, [values for one, values, _ in ends if one is state], at=bridge.now())
        insert_rows(tx, delivery_attempt, [told for _, _, told in ends if told["action"] != "seen"])
        finish_all(tx, [attempt.work for attempt, _ in seen])


def _end(attempt: Attempt, evidence: Evidence | None) -> tuple[DeliveryState, dict[str, Any], dict[str, Any]]:
    """The state a read-back ends in, the values of the delivery's row and the row of the attempt."""
    row = attempt.order.row
    if evidence is None:
        reason = row.reason if attempt.action == "seen" else NOT_READ_BACK
        return S.ACCEPTED, {"id": row.id, "reason": reason}, attempt.told("accepted")
    proof = {"id": row.id, "evidence": orjson.dumps(_told(evidence)).decode()}
    if evidence.matches:
        return S.CONFIRMED, proof | {"confirmed_at": attempt.bridge.now()}, attempt.told("confirmed")
    reason = "read back and different: " + "; ".join(evidence.differences)
    remedy = "correct it at the destination or send it again"
    return S.FAILED, proof | {"reason": reason, "remedy": remedy}, attempt.told("different", reason)


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
