"""Transactions: durable when the block ends, apart from each other, many in one commit."""

import sqlite3
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import delete, event, func, insert, select
from sqlalchemy.exc import IntegrityError, OperationalError

from adapter.bridge import Bridge
from adapter.db import engine, turn
from adapter.db.engine import Database
from adapter.db.schema import check_schema, prepare
from adapter.db.tables import access_token, metadata
from adapter.errors import Misconfigured, Unavailable


def _row(name: str, bridge: Bridge) -> dict[str, object]:
    return {"id": name, "secret_sha256": name, "name": name, "scope": "", "created_at": bridge.now()}


def _count(bridge: Bridge) -> int:
    with bridge.db.snapshot() as tx:
        return tx.execute(select(func.count()).select_from(access_token)).scalar_one()


def test_an_error_rolls_back_only_its_own_transaction(bridge: Bridge) -> None:
    inside, failed = threading.Barrier(2), []

    def fail() -> None:
        try:
            with bridge.db.transaction() as tx:
                tx.execute(insert(access_token), _row("failing", bridge))
                raise ValueError("no")
        except ValueError:
            failed.append(True)

    with bridge.db.transaction() as tx:
        tx.execute(insert(access_token), _row("kept", bridge))
        other = threading.Thread(target=lambda: (inside.wait(), fail()))
        other.start()
        inside.wait()
    other.join()
    assert failed == [True]
    assert _count(bridge) == 1


def test_a_snapshot_shows_one_state_whatever_is_committed_meanwhile(bridge: Bridge) -> None:
    counted = select(func.count()).select_from(access_token)
    with bridge.db.snapshot() as tx:
        before = tx.execute(counted).scalar_one()
        with bridge.db.transaction() as writing:
            writing.execute(insert(access_token), _row("t1", bridge))
        assert (before, tx.execute(counted).scalar_one()) == (0, 0)
    assert _count(bridge) == 1


def test_many_writers_at_once_all_become_durable(bridge: Bridge) -> None:
    def write(writer: int) -> None:
        for number in range(25):
            with bridge.db.transaction() as tx:
                tx.execute(insert(access_token), _row(f"{writer}-{number}", bridge))

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert _count(bridge) == 200


def test_concurrent_writers_on_sqlite_share_commits(tmp_path: Path) -> None:
    db = Database(f"sqlite+pysqlite:///{tmp_path / 'x.sqlite3'}")
    metadata.create_all(db.writing_engine)
    commits = []
    event.listen(db.writing_engine, "commit", lambda _connection: commits.append(1))
    ready = threading.Barrier(4)

    def write(writer: int) -> None:
        ready.wait()
        for number in range(50):
            with db.transaction() as tx:
                row = {"id": f"{writer}-{number}", "secret_sha256": f"{writer}-{number}", "name": "", "scope": ""}
                tx.execute(insert(access_token), row | {"created_at": datetime.now(UTC)})

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    with db.snapshot() as tx:
        assert tx.execute(select(func.count()).select_from(access_token)).scalar_one() == 200
    assert len(commits) < 200
    db.close()


def test_a_transaction_within_a_transaction_is_refused_instead_of_hanging(tmp_path: Path) -> None:
    db = Database(f"sqlite+pysqlite:///{tmp_path / 'x.sqlite3'}")
    with pytest.raises(RuntimeError, match="already open"), db.transaction(), db.transaction():
        pass
    db.close()


def test_a_full_disk_loses_nothing_that_was_called_durable(tmp_path: Path) -> None:
    """SQLite then rolls back everybody who shares the commit, and says so only to the one who wrote."""
    db = Database(f"sqlite+pysqlite:///{tmp_path / 'x.sqlite3'}")
    with db.transaction() as tx:
        tx.exec_driver_sql("CREATE TABLE note (text TEXT)")
    inside, answers = threading.Barrier(2), {}

    def write(text: str, *, first: bool) -> None:
        try:
            with db.transaction() as tx:
                if first:
                    tx.exec_driver_sql("PRAGMA max_page_count = 20")
                    inside.wait()
                    while not db._writer._waiting:  # type: ignore[union-attr]  # so that the other one joins
                        pass
                tx.exec_driver_sql("INSERT INTO note VALUES (?)", (text,))
            answers[text[0]] = "durable"
        except Unavailable:
            answers[text[0]] = "refused"

    small = threading.Thread(target=write, args=("small",), kwargs={"first": True})
    small.start()
    inside.wait()
    write("L" + "arge" * 100_000, first=False)
    small.join()
    assert answers == {"s": "refused", "L": "refused"}
    write("again", first=False)
    with db.snapshot() as tx:
        assert tx.exec_driver_sql("SELECT text FROM note").scalars().all() == ["again"]
    db.close()


def test_a_transaction_that_cannot_even_be_rolled_back_keeps_nobody_from_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "PATIENCE_SECONDS", 0.05)
    db, other = (Database(f"sqlite+pysqlite:///{tmp_path / 'x.sqlite3'}") for _ in range(2))
    with db.transaction() as tx:
        metadata.create_all(tx)

    def fail(_connection: object) -> None:
        raise OSError("input/output error")

    event.listen(db.writing_engine, "rollback", fail, once=True)
    with pytest.raises(OSError, match="input/output"), db.transaction():
        raise ValueError
    for each in (other, db):
        with each.transaction() as tx:
            tx.execute(delete(access_token))
        each.close()


def test_a_thread_that_met_a_locked_database_may_try_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SQLITE_BUSY_MS", 0)
    db = Database(f"sqlite+pysqlite:///{tmp_path / 'x.sqlite3'}")
    with db.transaction() as tx:
        tx.exec_driver_sql("CREATE TABLE note (text TEXT)")
    other = sqlite3.connect(tmp_path / "x.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for _ in range(2):
        with pytest.raises(Unavailable, match="again"), db.transaction():
            pass
    other.execute("ROLLBACK")
    with db.transaction() as tx:
        tx.exec_driver_sql("INSERT INTO note VALUES ('at last')")
    db.close()


def test_a_missing_table_is_a_defect_and_not_said_to_pass(tmp_path: Path) -> None:
    db = Database(f"sqlite+pysqlite:///{tmp_path / 'x.sqlite3'}")
    with pytest.raises(OperationalError, match="no such table"), db.snapshot() as tx:
        tx.exec_driver_sql("SELECT * FROM note")
    db.close()


def test_an_error_of_the_database_never_tells_what_was_being_written(bridge: Bridge) -> None:
    with pytest.raises(IntegrityError) as failed, bridge.db.transaction() as tx:
        for _ in range(2):
            tx.execute(insert(access_token), _row("Mustermann", bridge))
    assert "Mustermann" not in str(failed.value).partition("[SQL")[2]


def test_whoever_waits_for_a_commit_is_woken_even_when_it_came_before_the_wait(bridge: Bridge) -> None:
    seen = bridge.db.commits
    with bridge.db.transaction() as tx:
        tx.execute(insert(access_token), _row("one", bridge))
    woken = threading.Event()
    threading.Thread(target=lambda: (bridge.db.wait_for_commit(seen, 60), woken.set())).start()
    assert woken.wait(10)


def test_an_empty_database_is_set_up_and_an_unknown_schema_is_refused_with_the_command(tmp_path: Path) -> None:
    db = Database(f"sqlite+pysqlite:///{tmp_path / 'x.sqlite3'}")
    prepare(db)
    prepare(db)
    with db.transaction() as tx:
        tx.exec_driver_sql("DELETE FROM alembic_version")
    with pytest.raises(Misconfigured, match="dermbridge db upgrade"):
        check_schema(db)
    db.close()


def test_the_migrations_make_exactly_the_tables_of_the_code(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    db = Database(f"sqlite+pysqlite:///{tmp_path / 'x.sqlite3'}")
    prepare(db)
    with db.snapshot() as tx:
        differences = compare_metadata(MigrationContext.configure(tx), metadata)
    assert differences == []
    db.close()
