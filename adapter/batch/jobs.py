"""One job model for everything done to many photos.

A job is a list of items; each item is done in a transaction of its own together with its result, so a crash resumes at
the first unfinished item and nothing is done twice. One bad item never stops the others.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson
from sqlalchemy import Connection, func, insert, select, update

from adapter.access import Actor, check_scope
from adapter.batch.operations import OPERATIONS, Change, undo_change
from adapter.bridge import Bridge
from adapter.db.tables import job, job_item
from adapter.errors import BadInput, Conflict, DermBridgeError, NotFound
from adapter.records import new_id
from adapter.work import Work, enqueue, finish

MAX_ITEMS = 10_000
SHOWN_ITEMS = 500


def start_job(
    tx: Connection,
    bridge: Bridge,
    actor: Actor,
    operation: str,
    *,
    patient_id: str | None,
    targets: list[str],
    parameters: dict[str, Any],
) -> str:
    """Put a job in line; returns its id. Raises BadInput, Forbidden or Unprocessable before anything is done."""
    if operation not in OPERATIONS:
        raise BadInput(f"there is no operation '{operation}'; choose one of {', '.join(OPERATIONS)}")
    if not 0 < len(targets) <= MAX_ITEMS:
        raise BadInput(f"choose between 1 and {MAX_ITEMS} photos")
    check_scope(actor, OPERATIONS[operation].scope, "Media")  # type: ignore[arg-type]
    OPERATIONS[operation].check(bridge, parameters)
    job_id, at = new_id(bridge.now()), bridge.now()
    row = {
        "id": job_id,
        "operation": operation,
        "actor": actor.to_json(),
        "patient": patient_id,
        "parameters": orjson.dumps(parameters).decode(),
        "state": "running",
        "created_at": at,
    }
    tx.execute(insert(job), row)
    items = [
        {"job_id": job_id, "position": position, "target": target, "state": "waiting"}
        for position, target in enumerate(dict.fromkeys(targets))
    ]
    tx.execute(insert(job_item), items)
    enqueue(tx, Work(kind="job", idempotency_key=f"job:{job_id}", payload={"job": job_id}), at=at)
    return job_id


def run_job(bridge: Bridge, item: Work) -> None:
    """Handler of work kind "job": every waiting item, then the end of the job."""
    job_id = item.payload["job"]
    with bridge.db.snapshot() as tx:
        row = tx.execute(select(job).where(job.c.id == job_id)).one()
        waiting = tx.execute(
            select(job_item.c.position, job_item.c.target)
            .where(job_item.c.job_id == job_id, job_item.c.state == "waiting")
            .order_by(job_item.c.position)
        ).all()
    actor, parameters = Actor.from_json(row.actor), orjson.loads(row.parameters)
    for one in waiting:
        _do_item(bridge, actor, row.operation, parameters, job_id, one.position, one.target)
    with bridge.db.transaction() as tx:
        tx.execute(update(job).where(job.c.id == job_id).values(state="finished", finished_at=bridge.now()))
        finish(tx, item)


def _do_item(
    bridge: Bridge, actor: Actor, operation: str, parameters: dict[str, Any], job_id: str, position: int, target: str
) -> None:
    try:
        with bridge.db.transaction() as tx:
            change = OPERATIONS[operation].apply(tx, bridge, actor, target, parameters)
            _end_item(tx, job_id, position, "done", change.summary, change)
    except DermBridgeError as refusal:
        with bridge.db.transaction() as tx:
            _end_item(tx, job_id, position, "failed", str(refusal), None)


def _end_item(tx: Connection, job_id: str, position: int, state: str, result: str, change: Change | None) -> None:
    before = orjson.dumps(asdict(change)).decode() if change and change.before is not None else None
    tx.execute(
        update(job_item)
        .where(job_item.c.job_id == job_id, job_item.c.position == position)
        .values(state=state, result=result, before=before)
    )


def job_status(tx: Connection, job_id: str) -> dict[str, Any]:
    """{id, operation, patient, state, total, done, failed, finished, can_undo, items: [{target, state, result}]}.

    Raises NotFound.
    """
    row = tx.execute(select(job).where(job.c.id == job_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no job {job_id}")
    states = select(job_item.c.state, func.count()).where(job_item.c.job_id == job_id).group_by(job_item.c.state)
    counts: dict[str, int] = dict(tuple(row) for row in tx.execute(states))
    items = tx.execute(
        select(job_item.c.target, job_item.c.state, job_item.c.result)
        .where(job_item.c.job_id == job_id)
        .order_by(job_item.c.state == "done", job_item.c.position)
        .limit(SHOWN_ITEMS)
    )
    finished = row.state != "running"
    return {
        "id": row.id,
        "operation": row.operation,
        "patient": row.patient,
        "actor": Actor.from_json(row.actor).id,
        "state": row.state,
        "total": sum(counts.values()),
        "done": counts.get("done", 0) + counts.get("undone", 0),
        "failed": counts.get("failed", 0),
        "finished": finished,
        "created_at": row.created_at,
        "can_undo": row.state == "finished" and OPERATIONS[row.operation].can_undo and counts.get("done", 0) > 0,
        "items": [dict(item._mapping) for item in items],
    }


def undo_job(bridge: Bridge, actor: Actor, job_id: str) -> dict[str, int]:
    """Take back every item that nobody touched since. Returns {undone, kept}; kept ones say why in their result."""
    with bridge.db.snapshot() as tx:
        status = job_status(tx, job_id)
        done = tx.execute(
            select(job_item.c.position, job_item.c.target, job_item.c.before)
            .where(job_item.c.job_id == job_id, job_item.c.state == "done", job_item.c.before.is_not(None))
            .order_by(job_item.c.position)
        ).all()
    if not status["can_undo"]:
        raise Conflict("this job cannot be undone: it is still running, was undone, or changed nothing")
    check_scope(actor, "u", "Media")
    undone = 0
    for one in done:
        try:
            with bridge.db.transaction() as tx:
                undo_change(tx, bridge, actor, one.target, Change(**orjson.loads(one.before)))
                _end_item(tx, job_id, one.position, "undone", "put back", None)
            undone += 1
        except DermBridgeError as refusal:
            with bridge.db.transaction() as tx:
                _end_item(tx, job_id, one.position, "done", str(refusal), None)
    with bridge.db.transaction() as tx:
        tx.execute(update(job).where(job.c.id == job_id).values(state="undone", finished_at=bridge.now()))
    return {"undone": undone, "kept": len(done) - undone}
