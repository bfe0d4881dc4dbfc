"""The work table: enqueue inside the transaction that causes it, claim under a lease, finish with the effect.

A row waits, is leased, and vanishes when finished in the same transaction as its effect; a row nobody may repeat is
dead until a person revives or cancels it. The lease token fences: whoever lost the lease can finish nothing. Rows
sharing an order key are done strictly in the order they were enqueued.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import orjson
from sqlalchemy import (
    CTE,
    BindParameter,
    Connection,
    Select,
    String,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    union_all,
    update,
)

from adapter.db.engine import Database, insert_or
from adapter.db.many_rows import change_rows
from adapter.db.tables import work, work_key
from adapter.errors import DermBridgeError

LEASE = timedelta(seconds=60)


class LeaseLost(DermBridgeError):
    """Somebody else took this work over; what was done here must be rolled back."""


@dataclass(frozen=True)
class Work:
    """One row of the work table; `payload` is small JSON: ids, never content."""

    kind: str
    idempotency_key: str
    payload: dict[str, Any] = field(default_factory=dict)
    destination: str = ""
    order_keys: tuple[str, ...] = ()
    id: int = 0
    attempts: int = 0
    lease_token: str = ""


@cache
def _add_new(dialect: str) -> Any:
    added = insert_or(dialect, work).on_conflict_do_nothing(index_elements=[work.c.idempotency_key])
    return added.returning(work.c.id)


def enqueue(tx: Connection, *items: Work, at: datetime, due_at: datetime | None = None) -> None:
    """Add work in the caller's transaction. The same idempotency key again adds nothing while it is unfinished."""
    for item in items:
        work_id = tx.execute(_add_new(tx.dialect.name), _row(item, at, due_at or at)).scalar_one_or_none()
        if work_id is not None and item.order_keys:
            tx.execute(insert(work_key), _keys(item, work_id))


def enqueue_all(tx: Connection, items: Sequence[Work], *, at: datetime) -> None:
    """Add many at once, in order. The caller vouches that their idempotency keys are new."""
    if not items:
        return
    rows = [_row(item, at, at) for item in items]
    ids = tx.execute(insert(work).returning(work.c.id, sort_by_parameter_order=True), rows).scalars().all()
    if keys := [key for item, work_id in zip(items, ids, strict=True) for key in _keys(item, work_id)]:
        tx.execute(insert(work_key), keys)


def _row(item: Work, at: datetime, due_at: datetime) -> dict[str, Any]:
    return {
        "kind": item.kind,
        "destination": item.destination,
        "idempotency_key": item.idempotency_key,
        "state": "waiting",
        "due_at": due_at,
        "payload": orjson.dumps(item.payload).decode(),
        "created_at": at,
    }


def _keys(item: Work, work_id: int) -> list[dict[str, Any]]:
    return [{"order_key": key[:200], "work_id": work_id} for key in dict.fromkeys(item.order_keys)]


def due_lines(db: Database, kinds: Iterable[str], *, now: datetime) -> list[tuple[str, str]]:
    """(kind, destination) of all that has something to claim: a look that writes nothing and reads one row of each
    destination, however many wait."""
    kinds = tuple(kinds)
    if not kinds:
        return []
    with db.snapshot() as tx:
        return [(row.kind, row.destination) for row in tx.execute(_due(kinds), {"now": now})]


@cache
def _due(kinds: tuple[str, ...]) -> Select[Any]:
    lines = _lines(kinds)
    due = exists(_ready(lines.c.kind, lines.c.destination).correlate(lines))
    return select(lines.c.kind, lines.c.destination).where(lines.c.destination.is_not(None), due)


def _lines(kinds: Sequence[str]) -> CTE:
    """The destinations in which anything waits, each found from the one before it by one seek in ix_work_ready."""
    waits = work.alias()
    named = union_all(*(select(literal(kind, String).label("kind")) for kind in kinds)).subquery()
    lines = select(named.c.kind, literal("", String).label("destination")).cte("lines", recursive=True)
    following = (
        select(func.min(waits.c.destination))
        .where(waits.c.state == "waiting", waits.c.kind == lines.c.kind, waits.c.destination > lines.c.destination)
        .correlate(lines)
        .scalar_subquery()
    )
    return lines.union_all(select(lines.c.kind, following).where(lines.c.destination.is_not(None)))


def claim(
    db: Database,
    kind: str,
    destination: str = "",
    *,
    limit: int,
    now: datetime,
    lease: timedelta = LEASE,
    at_once: int | None = None,
) -> list[Work]:
    """Lease up to `limit` due rows, longest due first, skipping those whose order key has older unfinished work.

    `at_once`: no more than so many of this kind and destination are leased to all workers together.
    """
    token = str(uuid.uuid4())
    asked: dict[str, Any] = {
        "of_kind": kind,
        "there": destination,
        "now": now,
        "most": limit,
        "token": token,
        "until": now + lease,
    }
    with db.transaction(wakes=False) as tx:
        if at_once is not None:
            db.lock(tx, f"claim:{kind}:{destination}")
            asked["most"] = min(limit, at_once - tx.execute(_LEASED, asked).scalar_one())
        rows = tx.execute(_claim(db.is_sqlite), asked).all() if asked["most"] > 0 else []
    return [
        Work(
            kind=row.kind,
            idempotency_key=row.idempotency_key,
            payload=orjson.loads(row.payload),
            destination=row.destination,
            id=row.id,
            attempts=row.attempts,
            lease_token=token,
        )
        for row in sorted(rows, key=lambda row: row.id)
    ]


_LINE = and_(work.c.kind == bindparam("of_kind"), work.c.destination == bindparam("there"))
_LEASED = select(func.count()).where(work.c.state == "leased", _LINE)


@cache
def _claim(is_sqlite: bool) -> Any:
    ready = _ready(bindparam("of_kind"), bindparam("there")).order_by(work.c.due_at, work.c.id).limit(bindparam("most"))
    if not is_sqlite:
        ready = ready.with_for_update(skip_locked=True)
    leased = {"state": "leased", "lease_token": bindparam("token"), "lease_until": bindparam("until")}
    claimed = (work.c.id, work.c.kind, work.c.destination, work.c.idempotency_key, work.c.payload, work.c.attempts)
    taken = update(work).where(work.c.id.in_(ready)).values(**leased, attempts=work.c.attempts + 1)
    return taken.returning(*claimed)


def _ready(kind: Any, destination: Any) -> Select[Any]:
    """Waiting, due, and first on each of its order keys; read in the order of ix_work_ready."""
    mine, older = work_key.alias(), work_key.alias()
    blocked = exists().where(
        mine.c.work_id == work.c.id, older.c.order_key == mine.c.order_key, older.c.work_id < work.c.id
    )
    line = (work.c.state == "waiting", work.c.kind == kind, work.c.destination == destination)
    return select(work.c.id).where(*line, work.c.due_at <= bindparam("now"), ~blocked)


_EXPIRED = and_(work.c.state == "leased", work.c.lease_until <= bindparam("now"))
_ANY_EXPIRED = select(exists().where(_EXPIRED))


def release_expired(db: Database, *, now: datetime) -> None:
    """What was leased by somebody who never came back waits again."""
    with db.snapshot() as tx:
        if not tx.execute(_ANY_EXPIRED, {"now": now}).scalar_one():
            return
    with db.transaction() as tx:
        waits = {"state": "waiting", "lease_token": None, "lease_until": None}
        tx.execute(update(work).where(_EXPIRED), {"now": now} | waits)


def extend(db: Database, items: Iterable[Work], *, now: datetime, lease: timedelta = LEASE) -> None:
    """Heartbeat: keep the leases of work that is still being done."""
    with db.transaction() as tx:
        for item in items:
            tx.execute(_CHANGE, holding(item) | {"lease_until": now + lease})


_HELD = and_(work.c.id == bindparam("held_id"), work.c.lease_token == bindparam("token"), work.c.state == "leased")
IS_HELD = exists().where(_HELD)  # in a statement of somebody else's, given `holding`
_FINISH = delete(work).where(_HELD)
# Before the row itself, which says whose they are.
_FREE_KEYS = delete(work_key).where(work_key.c.work_id == bindparam("held_id"), IS_HELD)
_CHANGE = update(work).where(_HELD)
_IDS: BindParameter[int] = bindparam("held_ids", expanding=True)
_ALL_HELD = and_(work.c.id.in_(_IDS), work.c.lease_token == bindparam("token"), work.c.state == "leased")
_COUNT_HELD = select(func.count()).where(_ALL_HELD)


def finish(tx: Connection, item: Work) -> None:
    """Done, together with whatever else this transaction says. Raises LeaseLost."""
    finish_all(tx, [item])


def finish_all(tx: Connection, items: Sequence[Work]) -> None:
    """`finish` for many."""
    if not finish_held(tx, items):
        told = ", ".join(f"{item.id} ({item.kind})" for item in items[:3])
        raise LeaseLost(f"some of work {told} was taken over; its effect here is rolled back")


def finish_held(tx: Connection, items: Sequence[Work]) -> bool:
    """`finish` for what is still ours; False when some of it is not, which whoever took it over ends."""
    held = [holding(item) for item in items]
    change_rows(tx, _FREE_KEYS, held)
    return change_rows(tx, _FINISH, held) == len(items)


def check_held(tx: Connection, items: Sequence[Work]) -> None:
    """Before what cannot be rolled back. Raises LeaseLost unless all that one claim leased is still ours."""
    asked = {"held_ids": [item.id for item in items], "token": items[0].lease_token}
    if tx.execute(_COUNT_HELD, asked).scalar_one() != len(items):
        raise LeaseLost("some of the work was taken over or finished; nothing was done here")


def postpone(tx: Connection, item: Work, *, due_at: datetime, reason: str) -> None:
    """Try again at `due_at`. Raises LeaseLost."""
    _change(tx, item, state="waiting", due_at=due_at, reason=reason, lease_token=None, lease_until=None)


def bury(tx: Connection, item: Work, *, reason: str, remedy: str, blocks: bool) -> None:
    """A dead letter: shown with reason and remedy. `blocks` keeps later work on the same order keys waiting."""
    _change(tx, item, state="dead", reason=reason, remedy=remedy, lease_token=None, lease_until=None)
    if not blocks:
        tx.execute(delete(work_key).where(work_key.c.work_id == item.id))


def revive(tx: Connection, idempotency_key: str, *, at: datetime) -> bool:
    """Put a dead or waiting row in line again, now. False when there is none."""
    changed = tx.execute(
        update(work)
        .where(work.c.idempotency_key == idempotency_key, work.c.state.in_(("dead", "waiting")))
        .values(state="waiting", due_at=at, attempts=0, reason=None, remedy=None)
    )
    return changed.rowcount == 1


def cancel(tx: Connection, idempotency_key: str) -> bool:
    """Take a row that nobody holds out of the line. False when there is none."""
    return cancel_all(tx, [idempotency_key]) == 1


def cancel_all(tx: Connection, idempotency_keys: Sequence[str]) -> int:
    """`cancel` for at most `engine.BATCH` keys; returns how many there were."""
    free = and_(work.c.idempotency_key.in_(idempotency_keys), work.c.state != "leased")
    found = tx.execute(delete(work).where(free).returning(work.c.id)).scalars().all()
    if found:
        tx.execute(delete(work_key).where(work_key.c.work_id.in_(found)))
    return len(found)


def holding(item: Work) -> dict[str, Any]:
    """The parameters of `IS_HELD`."""
    return {"held_id": item.id, "token": item.lease_token}


def _change(tx: Connection, item: Work, **values: Any) -> None:
    if tx.execute(_CHANGE, holding(item) | values).rowcount != 1:
        raise LeaseLost(f"work {item.id} ({item.kind}) was taken over; its effect here is rolled back")
