"""From the socket to an acknowledgement: the message is durable and in line to be applied before it is answered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, delete, insert, select

from adapter.bridge import Bridge
from adapter.db.engine import batches
from adapter.db.tables import adt_message
from adapter.identity.application_acks import answers_on_same_connection
from adapter.identity.arrival import Arrival, read_arrival, storable
from adapter.identity.mllp_intake import Answer, Inbound
from adapter.settings import Settings
from adapter.work import Work, enqueue_all

_REMEDY = "the sender was told; it must correct the message and send it again"


def receive_messages(bridge: Bridge, raws: Sequence[bytes], peer: str) -> list[bytes]:
    """`receive` for messages of one peer, with no more than the bytes to answer at once."""
    return [answer.ack for answer in receive(bridge, [Inbound(raw, peer) for raw in raws])]


def receive(bridge: Bridge, inbound: Sequence[Inbound]) -> list[Answer]:
    """Keep a burst of messages in one transaction and return their acknowledgements in order.

    The same MSH-3, MSH-4 and MSH-10 with the same content is answered as before, byte for byte, without a second
    effect; with other content AE 207. What cannot be read is refused (AR, AE) and shown in the queue, until it comes
    again and can be taken: corrected, or after a setting was. Acknowledgements are neither kept nor answered: two
    systems that answered each other's answers would never end.
    """
    at = bridge.now()
    arrivals = [read_arrival(bridge.settings, message, at) for message in inbound]
    with bridge.db.transaction() as tx:
        bridge.db.lock(tx, *{f"adt-sender:{arrival.sender}" for arrival in arrivals if arrival})
        known = _known(tx, filter(None, arrivals))
        fresh: dict[str, Arrival] = {}
        answers, settled = [], []
        for arrival in arrivals:
            if arrival is None:
                answers.append(Answer(b""))
                continue
            before = known.get(arrival.key)
            if before and before.is_refused and arrival.error is None:
                settled.append(known.pop(arrival.key).id)
                fresh.pop(settled[-1], None)
            new, kept = _compare(tx, arrival, known, at)
            fresh |= {new.id: new} if new else {}
            answers.append(_answer(bridge.settings, arrival, kept))
        for some in batches(settled):
            tx.execute(delete(adt_message).where(adt_message.c.id.in_(some)))
        _store(tx, list(fresh.values()), at)
    return answers


def _answer(settings: Settings, arrival: Arrival, kept: _Kept) -> Answer:
    follows = arrival.error is None and answers_on_same_connection(settings, arrival.header, arrival.sender)
    return Answer(kept.ack, kept.id if follows else "")


class _Kept(NamedTuple):
    """A message that came before, or earlier in this burst, and what it was answered with."""

    fingerprint: str
    ack: bytes
    id: str
    is_refused: bool


_Known = dict[tuple[str, str], _Kept]
"""By sender and control id."""


def _known(tx: Connection, arrivals: Iterable[Arrival]) -> _Known:
    by_sender: dict[str, list[str]] = {}
    for arrival in arrivals:
        by_sender.setdefault(arrival.sender, []).append(arrival.control_id)
    columns = adt_message.c
    known: _Known = {}
    for sender, control_ids in by_sender.items():
        for some in batches(control_ids):
            kept = columns.fingerprint, columns.ack, columns.id, columns.state == "refused"
            statement = select(columns.control_id, *kept).where(columns.sender == sender, columns.control_id.in_(some))
            known |= {(sender, row.control_id): _Kept(*row[1:]) for row in tx.execute(statement)}
    return known


def _compare(tx: Connection, arrival: Arrival, known: _Known, at: datetime) -> tuple[Arrival | None, _Kept]:
    """(what is new, if anything, and what it is answered with)."""
    before = known.get(arrival.key)
    if before is None:
        kept = known[arrival.key] = _Kept(
            arrival.fingerprint, arrival.ack, arrival.id, is_refused=arrival.error is not None
        )
        return arrival, kept
    if before.fingerprint == arrival.fingerprint:
        return None, before
    contradiction = arrival.contradicting(at)
    known |= {key: value for key, value in _known(tx, [contradiction]).items() if key not in known}
    return _compare(tx, contradiction, known, at)


def _store(tx: Connection, arrivals: Sequence[Arrival], at: datetime) -> None:
    if not arrivals:
        return
    rows = [
        {
            "id": arrival.id,
            "sender": arrival.sender,
            "control_id": arrival.control_id,
            "trigger_event": storable(arrival.header.trigger_event)[:16],
            "fingerprint": arrival.fingerprint,
            "raw": arrival.raw,
            "ack": arrival.ack,
            "state": "refused" if arrival.error else "received",
            "reason": arrival.error.text if arrival.error else None,
            "remedy": _REMEDY if arrival.error else None,
            "patient": storable(", ".join(arrival.patient_keys)),
            "received_at": at,
        }
        for arrival in arrivals
    ]
    tx.execute(insert(adt_message), rows)
    enqueue_all(tx, [apply_work(a.id, a.patient_keys) for a in arrivals if a.error is None], at=at)


def apply_work(message_id: str, keys: Iterable[str]) -> Work:
    """Messages that share a patient identifier are applied in the order in which they came."""
    return Work(
        kind="apply-adt",
        idempotency_key=f"adt:{message_id}",
        payload={"message": message_id},
        order_keys=tuple(f"adt:{storable(key)}" for key in keys),
    )
