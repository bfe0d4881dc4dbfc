"""The queue of ADT messages that were not applied, each with its reason and what to do about it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, Select, and_, case, exists, func, literal, or_, select, update

from adapter.access import Actor
from adapter.bridge import Bridge
from adapter.db.tables import adt_message, work, work_key
from adapter.errors import Conflict, NotFound
from adapter.governance import audit
from adapter.work import cancel, revive

_BEHIND = "waits behind an older message of the same patient that is not applied"
_BEHIND_REMEDY = "replay or dismiss the older message first"


def queue(tx: Connection, limit: int = 100, after: str | None = None) -> list[Row[Any]]:
    """Messages refused, queued, held up by those, or failing, oldest first; `after` is the id of the last one seen.

    Rows: id, sender (MSH-3|MSH-4), control_id, trigger_event, patient (authority|value, …), state, reason, remedy,
    received_at, is_dead (nothing happens to it before a person replays or dismisses it).
    """
    message, item, mine, older, dead = adt_message.c, work.c, work_key.alias(), work_key.alias(), work.alias()
    held_up = exists().where(
        mine.c.work_id == item.id,
        older.c.order_key == mine.c.order_key,
        older.c.work_id < item.id,
        dead.c.id == older.c.work_id,
        dead.c.state == "dead",
    )
    in_trouble = and_(message.state == "received", item.id.is_not(None), or_(held_up, item.reason.is_not(None)))
    reason = case((message.state != "received", message.reason), (held_up, literal(_BEHIND)), else_=item.reason)
    remedy = case((message.state != "received", message.remedy), (held_up, literal(_BEHIND_REMEDY)), else_=item.remedy)
    stopped = message.state.in_(("queued", "refused"))
    waiting = select(adt_message.c.id).where(stopped).union(_in_line())  # never a look at the messages applied
    statement = (
        select(
            message.id,
            message.sender,
            message.control_id,
            message.trigger_event,
            message.patient,
            message.state,
            reason.label("reason"),
            func.coalesce(remedy, "it is tried again by itself").label("remedy"),
            message.received_at,
            (item.state == "dead").label("is_dead"),
        )
        .outerjoin(work, item.idempotency_key == "adt:" + message.id)
        .where(message.id.in_(waiting), or_(stopped, in_trouble))
        .order_by(message.id)
        .limit(limit)
    )
    return list(tx.execute(statement.where(message.id > after) if after else statement))


def _in_line() -> Select[Any]:
    return select(func.substr(work.c.idempotency_key, len("adt:") + 1)).where(work.c.kind == "apply-adt")


def replay(tx: Connection, bridge: Bridge, message_id: str) -> None:
    """Put a queued message in line again, in its old place. Raises NotFound, or Conflict when it is not queued."""
    _get_waiting(tx, message_id, "replayed")
    if not revive(tx, f"adt:{message_id}", at=bridge.now()):
        raise Conflict("this message is being applied at the moment; look again")
    values = {"state": "received", "reason": None, "remedy": None}
    tx.execute(update(adt_message).where(adt_message.c.id == message_id).values(**values))


def replay_all(tx: Connection, bridge: Bridge) -> int:
    """`replay` for every queued message, as after a setting was mended; returns how many. They keep their order."""
    dead = work.c.kind == "apply-adt", work.c.state == "dead"
    again = {"state": "waiting", "due_at": bridge.now(), "attempts": 0, "reason": None, "remedy": None}
    count = tx.execute(update(work).where(*dead).values(**again)).rowcount
    values = {"state": "received", "reason": None, "remedy": None}
    tx.execute(update(adt_message).where(adt_message.c.state == "queued").values(**values))
    return count


def dismiss(tx: Connection, bridge: Bridge, actor: Actor, message_id: str, *, because: str) -> None:
    """A person settled it otherwise: the message is kept, and those behind it go on.

    `because` must hold no name or identifier. Raises NotFound, or Conflict when it may still be applied by itself.
    """
    _get_waiting(tx, message_id, "dismissed")
    if not cancel(tx, f"adt:{message_id}"):
        raise Conflict("this message is being applied at the moment; look again")
    values = {"state": "dismissed", "reason": because, "remedy": None}
    tx.execute(update(adt_message).where(adt_message.c.id == message_id).values(**values))
    audit(tx, bridge, "adt-applied", actor, outcome="4", detail=f"dismissed: {because}")


def _get_waiting(tx: Connection, message_id: str, what: str) -> None:
    """What failed for good at an error of ours is "received" as long as its work is dead."""
    is_message = adt_message.c.id == message_id
    dead = select(work.c.id).where(work.c.idempotency_key == f"adt:{message_id}", work.c.state == "dead")
    row = tx.execute(select(adt_message.c.state, exists(dead).label("is_dead")).where(is_message)).one_or_none()
    if row is None:
        raise NotFound(f"there is no ADT message {message_id}")
    if row.state == "refused":
        raise Conflict("this message was refused to its sender, who must correct it and send it again")
    if not row.is_dead and not (row.state == "received" and what == "replayed"):
        raise Conflict(f"this message is {row.state}; only a queued one can be {what}")
