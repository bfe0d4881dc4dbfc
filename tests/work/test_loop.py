"""The loop outlives a database that does not answer for a while."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs
from structlog.typing import EventDict

from adapter.db import engine
from adapter.db.engine import Database
from adapter.db.tables import metadata
from adapter.db.tables import work as work_table
from adapter.work import Lane, LeaseLost, Work, WorkLoop, enqueue, finish, loop

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setattr(engine, "SQLITE_BUSY_MS", 0)
    monkeypatch.setattr(loop, "PATIENCE_SECONDS", 0.01)
    opened = Database(f"sqlite+pysqlite:///{tmp_path / 'x.sqlite3'}")
    metadata.create_all(opened.writing_engine)
    with opened.transaction() as tx:
        enqueue(tx, Work("k", "first"), Work("k", "second"), at=AT)
    yield opened
    opened.close()


@pytest.fixture
def other(tmp_path: Path, db: Database) -> Iterator[sqlite3.Connection]:
    """Somebody else who can lock the database; `db` is closed only after the lock is gone."""
    connection = sqlite3.connect(tmp_path / "x.sqlite3", isolation_level=None, check_same_thread=False)
    yield connection
    connection.close()


def test_work_goes_on_after_the_database_was_away(db: Database, other: sqlite3.Connection) -> None:
    done, missed = threading.Event(), threading.Event()

    def handle(item: Work) -> None:
        with db.transaction() as tx:
            finish(tx, item)
        done.set()

    def note(_logger: Any, _method: str, entry: EventDict) -> EventDict:
        missed.set()
        return entry

    other.execute("BEGIN IMMEDIATE")
    running = WorkLoop(db, {"k": Lane(handle)}, now=lambda: AT)
    with capture_logs(processors=[note]):
        running.start()
        assert missed.wait(20)
    assert not done.is_set()
    other.execute("ROLLBACK")
    assert done.wait(20)
    running.stop()


def test_an_item_that_cannot_be_set_aside_does_not_stop_those_behind_it(
    db: Database, other: sqlite3.Connection
) -> None:
    done = []

    def handle(item: Work) -> None:
        if item.idempotency_key == "first":
            other.execute("BEGIN IMMEDIATE")
            raise ValueError("unexpected")
        other.execute("ROLLBACK")
        with db.transaction() as tx:
            finish(tx, item)
        done.append(item.idempotency_key)

    WorkLoop(db, {"k": Lane(handle)}, now=lambda: AT).run_until_idle()
    assert done == ["second"]


def test_a_loop_that_is_stopped_puts_back_what_does_not_end_and_begins_nothing_more(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "GRACE_SECONDS", 0.05)
    begun, answered, late = threading.Event(), threading.Event(), threading.Event()
    told: list[str] = []

    def wait_for_an_answer(item: Work) -> None:
        begun.set()
        answered.wait(20)
        try:
            with db.transaction() as tx:
                finish(tx, item)
        except LeaseLost:
            late.set()
            raise

    lane = Lane(wait_for_an_answer, claims=2, set_aside=lambda _tx, item, why, _remedy: told.append(why))
    running = WorkLoop(db, {"k": lane}, now=lambda: AT)
    running.start()
    assert begun.wait(20)
    running.stop()
    with db.snapshot() as tx:
        rows = tx.execute(select(work_table.c.state, work_table.c.due_at, work_table.c.reason)).all()
    assert rows == [("waiting", AT, loop.STOPPED)] * 2
    assert told == [loop.STOPPED] * 2
    answered.set()
    assert late.wait(20)
    for thread in threading.enumerate():
        if thread.name.startswith("work-k"):
            thread.join(20)
    assert WorkLoop(db, {"k": Lane(finishing(db))}, now=lambda: AT).run_until_idle() == 2


def test_what_a_stopped_loop_left_is_still_done_here_and_now(db: Database) -> None:
    stopped = WorkLoop(db, {"k": Lane(finishing(db))}, now=lambda: AT)
    stopped.stop()
    assert stopped.run_until_idle() == 2


def finishing(db: Database) -> Callable[[Work], None]:
    def handle(item: Work) -> None:
        with db.transaction() as tx:
            finish(tx, item)

    return handle
