"""One job model for everything done to many photos: planned, looked at, started, followed, taken back.

A job begins as a preview: every item says what would be done to its photo, or why nothing will. Started, each item is
done in a transaction of its own together with its result, so a crash resumes at the first unfinished item and nothing
is done twice. One bad item never stops the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import orjson
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from adapter import governance
from adapter.access import Actor, check_right, check_scope
from adapter.batch.operation import Change, Plan
from adapter.batch.operations import OPERATIONS
from adapter.bridge import Bridge
from adapter.db.tables import TO_CONFIRM, job, job_item
from adapter.errors import BadInput, Conflict, DermBridgeError, Forbidden, NotFound, Unprocessable
from adapter.records import new_id
from adapter.work import Work, enqueue, finish

MAX_ITEMS = 10_000
SHOWN_ITEMS = 500
FORGOTTEN_AFTER = timedelta(hours=1)  # a preview nobody started


def prepare_job(
    tx: Connection,
    bridge: Bridge,
    actor: Actor,
    operation: str,
    *,
    patient_id: str | None,
    targets: Sequence[str],
    parameters: dict[str, Any],
) -> str:
    """Plan a job and keep the plan as a preview; returns its id. Nothing is changed before `start_job`.

    Raises BadInput, Forbidden or Unprocessable when it cannot be done to any photo.
    """
    if operation not in OPERATIONS:
        raise BadInput(f"there is no operation '{operation}'; choose one of {', '.join(OPERATIONS)}")
    if not 0 < len(targets) <= MAX_ITEMS:
        raise BadInput(f"choose between 1 and {MAX_ITEMS} photos")
    check_scope(actor, OPERATIONS[operation].scope, "Media")  # type: ignore[arg-type]
    OPERATIONS[operation].check(bridge, parameters)
    _forget_previews(tx, bridge, actor)
    job_id, at = new_id(bridge.now()), bridge.now()
    row = {
        "id": job_id,
        "operation": operation,
        "actor": actor.to_json(),
        "actor_id": actor.id,
        "patient": patient_id,
        "parameters": orjson.dumps(parameters).decode(),
        "state": "preview",
        "created_at": at,
    }
    tx.execute(insert(job), row)
    plans = [(target, _plan(tx, bridge, actor, operation, target, parameters)) for target in dict.fromkeys(targets)]
    items = [
        {
            "job_id": job_id,
            "position": position,
            "target": target,
            "state": "skipped" if plan.skips else "waiting",
            "result": plan.words,
        }
        for position, (target, plan) in enumerate(plans)
    ]
    tx.execute(insert(job_item), items)
    return job_id


def _plan(
    tx: Connection, bridge: Bridge, actor: Actor, operation: str, target: str, parameters: dict[str, Any]
) -> Plan:
    try:
        return OPERATIONS[operation].plan(tx, bridge, actor, target, parameters)
    except DermBridgeError as refusal:
        return Plan(str(refusal), skips=True)


def _forget_previews(tx: Connection, bridge: Bridge, actor: Actor) -> None:
    """Among this user's latest jobs, those never started and no longer looked at."""
    before = bridge.now() - FORGOTTEN_AFTER
    latest = tx.execute(_jobs_of(actor.id).limit(20)).all()
    for row in latest:
        if row.state == "preview" and row.created_at < before:
            _delete_job(tx, row.id)


def start_job(tx: Connection, bridge: Bridge, actor: Actor, job_id: str) -> None:
    """Put a preview in line, or before a second person where one is needed; starting twice is the same as once.

    Raises NotFound, or Unprocessable: nothing to do.
    """
    row = _own_job(tx, actor, job_id)
    if row.state != "preview":
        return
    waiting = select(job_item.c.target).where(job_item.c.job_id == job_id, job_item.c.state == "waiting")
    targets = tx.execute(waiting).scalars().all()
    if not targets:
        raise Unprocessable("there is nothing to do for any of these photos; the list says why")
    # What may be done is what they may now: the glass may have been broken for the preview and mended since.
    tx.execute(update(job).where(job.c.id == job_id).values(actor=actor.to_json()))
    needs_second_person = OPERATIONS[row.operation].needs_second_person
    if needs_second_person and needs_second_person(tx, bridge, targets):
        tx.execute(update(job).where(job.c.id == job_id).values(state="to-confirm"))
    else:
        _put_in_line(tx, bridge, job_id)


def confirm_job(tx: Connection, bridge: Bridge, actor: Actor, job_id: str) -> None:
    """A second person agrees, and the job is put in line. Raises NotFound, Forbidden or Conflict."""
    check_right(actor, "worklist")
    row = tx.execute(select(job).where(job.c.id == job_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no job {job_id}")
    check_scope(actor, OPERATIONS[row.operation].scope, "Media")  # type: ignore[arg-type]
    if row.state != "to-confirm":
        raise Conflict("this job waits for nobody's word any more; look at it again")
    if row.actor_id == actor.id or actor.kind != "person":
        raise Forbidden("a second person must confirm it: whoever prepared it may not")
    parameters = orjson.dumps(orjson.loads(row.parameters) | {"verifier": actor.id}).decode()
    tx.execute(update(job).where(job.c.id == job_id).values(parameters=parameters))
    _put_in_line(tx, bridge, job_id)
    governance.audit(tx, bridge, "update", actor, patient_id=row.patient, detail=f"confirmed job {job_id}")


def to_confirm(tx: Connection, *, limit: int) -> list[Row[Any]]:
    """Jobs that wait for a second person, oldest first."""
    return list(tx.execute(select(job).where(TO_CONFIRM).order_by(job.c.id).limit(limit)))


def _put_in_line(tx: Connection, bridge: Bridge, job_id: str) -> None:
    tx.execute(update(job).where(job.c.id == job_id).values(state="running"))
    enqueue(tx, Work(kind="job", idempotency_key=f"job:{job_id}", payload={"job": job_id}), at=bridge.now())


def drop_preview(tx: Connection, actor: Actor, job_id: str) -> None:
    """Forget a job that was not started. Raises NotFound or Conflict."""
    if _own_job(tx, actor, job_id).state not in ("preview", "to-confirm"):
        raise Conflict("this job was started; when it is finished it can be undone")
    _delete_job(tx, job_id)


def _own_job(tx: Connection, actor: Actor, job_id: str) -> Row[Any]:
    row = tx.execute(select(job).where(job.c.id == job_id, job.c.actor_id == actor.id)).one_or_none()
    if row is None:
        raise NotFound("there is no such job of yours; a preview is kept for an hour")
    return row


def _delete_job(tx: Connection, job_id: str) -> None:
    tx.execute(delete(job_item).where(job_item.c.job_id == job_id))
    tx.execute(delete(job).where(job.c.id == job_id))


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
        if ahead := OPERATIONS[operation].ahead:
            ahead(bridge, actor, target, parameters)
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
    """{id, operation, actor, by, patient, state, total, done, failed, skipped, finished, can_undo, created_at,
    finished_at, parameters, items: [{target, state, result}]}; `total` does not count the skipped. Raises NotFound.
    """
    row = tx.execute(select(job).where(job.c.id == job_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no job {job_id}")
    items = tx.execute(
        select(job_item.c.target, job_item.c.state, job_item.c.result)
        .where(job_item.c.job_id == job_id)
        .order_by(job_item.c.state == "done", job_item.c.position)
        .limit(SHOWN_ITEMS)
    )
    return _standing(row, _counts(tx, [job_id])) | {"items": [dict(item._mapping) for item in items]}


def jobs_of(
    tx: Connection, actor: Actor, *, before: str | None = None, count: int = 25
) -> tuple[list[dict[str, Any]], str | None]:
    """(this user's jobs as `job_status` without items, newest first; id to continue before)."""
    wanted = _jobs_of(actor.id)
    rows = tx.execute((wanted.where(job.c.id < before) if before else wanted).limit(count + 1)).all()
    counts = _counts(tx, [row.id for row in rows[:count]])
    return [_standing(row, counts) for row in rows[:count]], rows[count - 1].id if len(rows) > count else None


def tally(tx: Connection, job_id: str) -> list[tuple[str, str, int]]:
    """(state, words, photos) of a preview: what would be done and what not, most photos first."""
    columns = (job_item.c.state, job_item.c.result, func.count())
    grouped = select(*columns).where(job_item.c.job_id == job_id).group_by(*columns[:2])
    return sorted(
        ((row[0], row[1], row[2]) for row in tx.execute(grouped)), key=lambda line: (line[0] != "waiting", -line[2])
    )


def _jobs_of(actor_id: str) -> Any:
    return select(job).where(job.c.actor_id == actor_id).order_by(job.c.id.desc())


def _counts(tx: Connection, job_ids: Sequence[str]) -> dict[tuple[str, str], int]:
    columns = (job_item.c.job_id, job_item.c.state, func.count())
    grouped = select(*columns).where(job_item.c.job_id.in_(job_ids)).group_by(*columns[:2])
    return {(row[0], row[1]): row[2] for row in tx.execute(grouped)}


def _standing(row: Row[Any], counts: dict[tuple[str, str], int]) -> dict[str, Any]:
    count = {state: counts.get((row.id, state), 0) for state in ("waiting", "done", "undone", "failed", "skipped")}
    return {
        "id": row.id,
        "operation": row.operation,
        "patient": row.patient,
        "parameters": orjson.loads(row.parameters),
        "actor": row.actor_id,
        "by": Actor.from_json(row.actor).display,
        "state": row.state,
        "total": sum(count.values()) - count["skipped"],
        "done": count["done"] + count["undone"],
        "failed": count["failed"],
        "skipped": count["skipped"],
        "finished": row.state in ("finished", "undone"),
        "created_at": row.created_at,
        "finished_at": row.finished_at,
        "can_undo": row.state == "finished" and OPERATIONS[row.operation].undo is not None and count["done"] > 0,
    }


def undo_job(bridge: Bridge, actor: Actor, job_id: str) -> dict[str, int]:
    """Take back every item that nobody touched since. Returns {undone, kept}; kept ones say why in their result.

    Raises NotFound for a job of somebody else, Forbidden, Conflict when there is nothing to undo.
    """
    with bridge.db.snapshot() as tx:
        _own_job(tx, actor, job_id)
        status = job_status(tx, job_id)
        done = tx.execute(
            select(job_item.c.position, job_item.c.target, job_item.c.before)
            .where(job_item.c.job_id == job_id, job_item.c.state == "done", job_item.c.before.is_not(None))
            .order_by(job_item.c.position)
        ).all()
    undo = OPERATIONS[status["operation"]].undo
    if undo is None or not status["can_undo"]:
        raise Conflict("this job cannot be undone: it is still running, was undone, or changed nothing")
    check_scope(actor, "u", "Media")
    undone = 0
    for one in done:
        try:
            with bridge.db.transaction() as tx:
                undo(tx, bridge, actor, one.target, Change(**orjson.loads(one.before)))
                _end_item(tx, job_id, one.position, "undone", "put back", None)
            undone += 1
        except DermBridgeError as refusal:
            with bridge.db.transaction() as tx:
                _end_item(tx, job_id, one.position, "done", str(refusal), None)
    with bridge.db.transaction() as tx:
        tx.execute(update(job).where(job.c.id == job_id).values(state="undone", finished_at=bridge.now()))
    return {"undone": undone, "kept": len(done) - undone}
