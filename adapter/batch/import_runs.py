"""The ledger of imports: a row per run, a row per file with what became of it; the command writes, a page reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from sqlalchemy import Connection, Row, func, insert, select, update

from adapter.access import Actor
from adapter.bridge import Bridge
from adapter.db.tables import import_file, import_run
from adapter.errors import NotFound
from adapter.records import new_id

Verdict = Literal["ready", "no-rule", "refused", "stored", "held", "known"]
VERDICTS: Final[tuple[Verdict, ...]] = ("stored", "known", "held", "refused", "no-rule")
LEFTOVERS: Final[tuple[Verdict, ...]] = ("held", "refused", "no-rule")
"""What a person has to look at: held photos are kept, the other files are still only in the folder."""


class File(Protocol):
    """What is told of one file: see adapter.batch.drive.PlannedItem."""

    path: str
    verdict: Verdict
    reason: str
    capture: str | None


def start_run(bridge: Bridge, actor: Actor, folder: Path) -> str:
    run_id = new_id(bridge.now())
    row = {"id": run_id, "folder": str(folder), "actor_display": actor.display, "started_at": bridge.now()}
    with bridge.db.transaction() as tx:
        tx.execute(insert(import_run), row)
    return run_id


def note_file(bridge: Bridge, run_id: str, position: int, file: File) -> None:
    row = {
        "run_id": run_id,
        "position": position,
        "path": file.path,
        "verdict": file.verdict,
        "reason": file.reason or None,
        "capture_id": file.capture,
    }
    with bridge.db.transaction() as tx:
        tx.execute(insert(import_file), row)


def end_run(bridge: Bridge, run_id: str) -> None:
    with bridge.db.transaction() as tx:
        tx.execute(update(import_run).where(import_run.c.id == run_id).values(finished_at=bridge.now()))


def page_of_runs(
    tx: Connection, *, before: str | None = None, count: int = 25
) -> tuple[list[tuple[Row[Any], dict[str, int]]], str | None]:
    """((run, verdict -> files), newest first; id to continue before)."""
    newest = select(import_run).order_by(import_run.c.id.desc()).limit(count + 1)
    rows = tx.execute(newest.where(import_run.c.id < before) if before else newest).all()
    counts = _counts(tx, [row.id for row in rows[:count]])
    return [(row, counts[row.id]) for row in rows[:count]], rows[count - 1].id if len(rows) > count else None


def get_run(tx: Connection, run_id: str) -> tuple[Row[Any], dict[str, int]]:
    """Raises NotFound."""
    row = tx.execute(select(import_run).where(import_run.c.id == run_id)).one_or_none()
    if row is None:
        raise NotFound("there is no such import")
    return row, _counts(tx, [run_id])[run_id]


def files_of(
    tx: Connection, run_id: str, *, verdict: str | None = None, after: int = -1, count: int = 100
) -> tuple[list[Row[Any]], int | None]:
    """(files in the order they were read, position to continue after)."""
    wanted = select(import_file).where(import_file.c.run_id == run_id, import_file.c.position > after)
    if verdict is not None:
        wanted = wanted.where(import_file.c.verdict == verdict)
    rows = list(tx.execute(wanted.order_by(import_file.c.position).limit(count + 1)))
    return rows[:count], rows[count - 1].position if len(rows) > count else None


def _counts(tx: Connection, run_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    columns = (import_file.c.run_id, import_file.c.verdict, func.count())
    counts: dict[str, dict[str, int]] = {run_id: {} for run_id in run_ids}
    for run_id, verdict, files in tx.execute(
        select(*columns).where(import_file.c.run_id.in_(run_ids)).group_by(*columns[:2])
    ):
        counts[run_id][verdict] = files
    return counts
