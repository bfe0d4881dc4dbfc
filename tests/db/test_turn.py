"""Processes that share an SQLite file write by turns."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Barrier, Thread

import pytest
from sqlalchemy import text

from adapter.db import turn
from adapter.db.engine import Database
from adapter.db.turn import Turn
from adapter.errors import Unavailable

WRITER = """
import sys
from sqlalchemy import text
from adapter.db.engine import Database

db = Database(sys.argv[1])
for _ in range(200):
    with db.transaction() as tx:
        seen = tx.execute(text("SELECT count(*) FROM note")).scalar_one()
        tx.execute(text("INSERT INTO note VALUES (:seen)"), {"seen": seen})
db.close()
"""
HOLDER = """
import sys, time
from adapter.db.turn import Turn

turn = Turn(sys.argv[1])
turn.take(time.monotonic())
print("held", flush=True)
sys.stdin.read()
"""


def test_what_processes_write_at_once_is_written_one_after_the_other(tmp_path: Path) -> None:
    url = f"sqlite+pysqlite:///{tmp_path / 'x.sqlite3'}"
    db = Database(url)
    with db.transaction() as tx:
        tx.execute(text("CREATE TABLE note (seen INTEGER UNIQUE)"))
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, url]) for _ in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    with db.snapshot() as tx:
        assert tx.execute(text("SELECT count(*), max(seen) FROM note")).one() == (600, 599)
    db.close()


def test_a_turn_ends_with_the_process_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "PATIENCE_SECONDS", 0.05)
    path = str(tmp_path / "x.sqlite3")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        mine = Turn(path)
        with pytest.raises(Unavailable, match="busy"):
            mine.take(time.monotonic())
        holder.send_signal(signal.SIGKILL)
    mine.take(time.monotonic())
    mine.close()


def test_who_has_the_turn_learns_that_another_waits_for_it(tmp_path: Path) -> None:
    path = str(tmp_path / "x.sqlite3")
    mine, waiting = Turn(path), Turn(path)
    wanted = []
    mine.take(time.monotonic())
    assert not mine.is_wanted()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Unavailable):
        patch.setattr(turn, "PATIENCE_SECONDS", 0.01)
        patch.setattr(time, "sleep", lambda _: wanted.append(mine.is_wanted()))
        waiting.take(time.monotonic())
    assert wanted
    assert all(wanted)
    assert not mine.is_wanted()


def test_all_who_stand_in_line_behind_a_process_that_hangs_are_told_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(turn, "POLL_SECONDS", 0.01)
    slept: list[float] = []
    sleep = time.sleep

    def note(seconds: float) -> None:
        slept.append(seconds)
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", note)
    hanging, db = Turn(str(tmp_path / "x.sqlite3")), Database(f"sqlite+pysqlite:///{tmp_path / 'x.sqlite3'}")
    hanging.take(time.monotonic())
    start, refused = Barrier(8), []

    def write() -> None:
        start.wait()
        try:
            with db.transaction():
                pass
        except Unavailable:
            refused.append(True)

    threads = [Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 8
    assert sum(slept) < 2 * turn.PATIENCE_SECONDS  # each for himself: eight times as long
    hanging.close()
    db.close()


def test_the_schema_is_made_once_by_processes_that_start_together(tmp_path: Path) -> None:
    url = f"sqlite+pysqlite:///{tmp_path / 'x.sqlite3'}"
    prepare = (
        f"from adapter.db.engine import Database; from adapter.db.schema import prepare; prepare(Database({url!r}))"
    )
    starting = [subprocess.Popen([sys.executable, "-c", prepare]) for _ in range(3)]
    assert [each.wait(60) for each in starting] == [0, 0, 0]
