"""ADT comes in: durable and in line to be applied in order, then acknowledged; nothing heavier stands between.

All messages that arrived together are stored by one transaction. The same sender and MSH-10 again gets the same answer,
byte for byte, and has no second effect; the same MSH-10 with other content is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, tuple_

from adapter.bridge import Bridge
from adapter.db.tables import adt_message
from adapter.records import new_id
from adapter.work import Work, enqueue_all
from mappings.hl7v2.ack import AckCode, AckError, acknowledge, find_answer_code
from mappings.hl7v2.adt_event import patient_keys
from mappings.hl7v2.errors import MessageError
from mappings.hl7v2.header import UNREADABLE, Header, read_header


@dataclass
class _Arrival:
    """One message of a batch with the row it becomes and the answer it gets."""

    raw: bytes
    header: Header
    sender: str
    control_id: str
    fingerprint: str
    row: dict[str, Any]
    keys: tuple[str, ...] = ()
    known: bool = False


def receive_messages(bridge: Bridge, raws: Sequence[bytes], peer: str) -> list[bytes]:
    """Store a batch and return one acknowledgement for each, empty where the sender wants none (MSH-15 NE)."""
    arrivals = [_look_at(bridge, raw, peer) for raw in raws]
    with bridge.db.transaction() as tx:
        bridge.db.lock(tx, *{f"adt:{one.sender}" for one in arrivals})
        _mark_known(tx, bridge, arrivals)
        fresh = [one for one in arrivals if not one.known]
        if fresh:
            tx.execute(insert(adt_message), [one.row for one in fresh])
            enqueue_all(tx, [_work(one) for one in fresh if one.row["state"] == "waiting"], at=bridge.now())
    return [one.row["ack"] for one in arrivals]


def _look_at(bridge: Bridge, raw: bytes, peer: str) -> _Arrival:
    """The header decides the answer; what the message means is found out when it is applied."""
    message_id, at = new_id(), bridge.now()
    fingerprint = hashlib.sha256(raw).hexdigest()
    keys: tuple[str, ...] = ()
    header, error = UNREADABLE, None
    try:
        header = read_header(raw)
        keys = patient_keys(raw, bridge.settings.default_authority or "")
        if not header.msh_10:
            error = MessageError(
                "MSH-10 is empty; the sender must number its messages", condition=101, location="MSH^1^10"
            )
    except MessageError as problem:
        error = problem
    sender = f"{header.msh_3}|{header.msh_4}" if header is not UNREADABLE else f"peer {peer}"
    outcome, errors = (AckCode.AR, [AckError.of(error)]) if error else (AckCode.AA, [])
    code = find_answer_code(header, outcome)
    ack = acknowledge(header, code, control_id=message_id[-20:], at=at, errors=errors) if code else b""
    row: dict[str, Any] = {
        "id": message_id,
        "sender": sender[:200],
        "control_id": (header.msh_10 or f"none-{message_id}")[:200],
        "trigger_event": f"{header.code}^{header.trigger_event}"[:16],
        "fingerprint": fingerprint,
        "raw": raw,
        "ack": ack,
        "state": "refused" if error else "waiting",
        "reason": str(error) if error else None,
        "remedy": "the sender must correct and send it again" if error else None,
        "patient": ", ".join(keys[:8])[:2000] or None,
        "received_at": at,
    }
    return _Arrival(raw, header, row["sender"], row["control_id"], fingerprint, row, keys)


def _mark_known(tx: Connection, bridge: Bridge, arrivals: list[_Arrival]) -> None:
    """Give repeats the answer they had, in this batch or before; refuse a used MSH-10 with other content."""
    table = adt_message.c
    wanted = {(one.sender, one.control_id) for one in arrivals}
    rows = tx.execute(
        select(table.sender, table.control_id, table.fingerprint, table.ack).where(
            tuple_(table.sender, table.control_id).in_(list(wanted))
        )
    )
    seen = {(row.sender, row.control_id): (row.fingerprint, row.ack) for row in rows}
    for one in arrivals:
        before = seen.setdefault((one.sender, one.control_id), (one.fingerprint, one.row["ack"]))
        if before[1] is one.row["ack"]:
            continue
        one.known = True
        one.row["ack"] = before[1] if before[0] == one.fingerprint else _reused(bridge, one)


def _reused(bridge: Bridge, one: _Arrival) -> bytes:
    text = "This MSH-10 was used for another message; number each message anew and send it again."
    code = find_answer_code(one.header, AckCode.AE)
    errors = [AckError(207, text, "MSH^1^10")]
    at = bridge.now()
    return acknowledge(one.header, code, control_id=one.row["id"][-20:], at=at, errors=errors) if code else b""


def _work(one: _Arrival) -> Work:
    return Work(
        kind="apply-adt",
        idempotency_key=f"adt:{one.row['id']}",
        payload={"message": one.row["id"]},
        order_keys=tuple(f"patient:{key}" for key in one.keys),
    )
