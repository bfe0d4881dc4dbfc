"""The database: one writer with group commit on SQLite, ordinary pooled transactions on PostgreSQL.

Both look the same to the rest: ``with db.transaction() as tx`` writes, ``with db.snapshot() as tx`` reads, and `tx` is
a SQLAlchemy Connection. Leaving ``transaction()`` without an error means the change is on disk.

SQLite specifics (https://sqlite.org/wal.html, https://docs.sqlalchemy.org/en/21/dialects/sqlite.html):
WAL with synchronous=FULL; exactly one writing connection per process, which writes and checkpoints in its turn
(`turn.py`); BEGIN IMMEDIATE, since a read transaction cannot always be upgraded. Group commit: callers that arrive
while another is writing join its transaction through a savepoint each, and one fsync makes them all durable.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, RootTransaction, Table, create_engine, event, func, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from adapter.db.spool import Spool
from adapter.db.turn import Turn
from adapter.errors import Unavailable

GROUP_LIMIT = 256  # transactions that may share one commit; bounds the wait of the first
SQLITE_BUSY_MS = 10_000
SQLITE_READERS = 40  # as many as the threads that answer requests: opening a file and reading its schema costs a read
BATCH = 500  # values in one IN (…): every database takes as many, and few statements are needed

T = TypeVar("T")


def batches(values: Iterable[T], size: int = BATCH) -> Iterator[list[T]]:
    """The values in lists of at most `size`."""
    rest = iter(values)
    while some := list(islice(rest, size)):
        yield some


def insert_or(dialect: str, table: Table) -> Any:
    """An INSERT that knows ON CONFLICT, as each dialect has its own."""
    return {"sqlite": sqlite, "postgresql": postgresql}[dialect].insert(table)


class Database:
    """A SQLAlchemy engine with the two kinds of transaction DermBridge uses. Any number of processes may share it.

    `connections` is the most this process opens on PostgreSQL. `spool` keeps what may come into the database later.
    """

    def __init__(self, url: str, *, connections: int = 32) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.commits = 0
        self._committed = threading.Condition()
        self._writer: _GroupCommit | None = None
        self.spool: Spool | None = None
        self.tell_others: Callable[[], None] = _nobody
        if self.is_sqlite:
            if self.url.database:
                Path(self.url.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self.spool = Spool(Path(f"{self.url.database}.spool"))
            pragmas = ("PRAGMA query_only=1", "PRAGMA wal_autocheckpoint=0")
            self.engine = _sqlite_engine(url, "BEGIN", *pragmas, pool_size=SQLITE_READERS)
            checkpoint = "PRAGMA wal_autocheckpoint=4000"
            self.writing_engine = _sqlite_engine(url, "BEGIN IMMEDIATE", checkpoint, poolclass=NullPool)
            self._writer = _GroupCommit(self.writing_engine, Turn(self.url.database))
        else:
            half = connections // 2
            self.engine = create_engine(
                url, pool_size=half, max_overflow=half, pool_pre_ping=True, hide_parameters=True
            )
            self.writing_engine = self.engine
        self._reading_engine = self.engine
        if not self.is_sqlite:  # whose own READ COMMITTED would show each statement another state
            self._reading_engine = self.engine.execution_options(isolation_level="REPEATABLE READ")

    @contextmanager
    def transaction(self, *, wakes: bool = True) -> Iterator[Connection]:
        """A writing transaction; durable once the block is left without an error.

        `wakes` is False for what nobody waits for, such as who looked at what: it spares the work loop a look.
        Raises Unavailable when disk, lock or server keep the database from writing: it is for the caller to repeat.
        """
        with _as_unavailable():
            if self._writer is None:
                with self.engine.begin() as connection:
                    yield connection
            else:
                with self._writer.transaction() as connection:
                    yield connection
        if wakes:
            self.wake()

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A reading transaction over one consistent state. Raises Unavailable as `transaction` does."""
        with _as_unavailable(), self._reading_engine.connect() as connection:
            yield connection

    def wake(self) -> None:
        """Let those who wait for a commit look again, here and in the other processes of this service."""
        self.woken()
        self.tell_others()

    def woken(self) -> None:
        """The same, here alone: another process has committed."""
        with self._committed:
            self.commits += 1
            self._committed.notify_all()

    def wait_for_commit(self, seen: int, seconds: float) -> None:
        """Return when `commits` is no longer `seen`, or after `seconds` (another process may have committed)."""
        with self._committed:
            self._committed.wait_for(lambda: self.commits != seen, seconds)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No process writes within but what opens connections of its own there: for changing the schema."""
        if self._writer is not None:
            with self._writer.alone():
                yield
        else:
            with self.engine.connect() as held:
                held.execute(select(func.pg_advisory_lock(func.hashtextextended("schema", 0))))
                yield
                held.execute(select(func.pg_advisory_unlock(func.hashtextextended("schema", 0))))

    def lock(self, tx: Connection, *keys: str) -> None:
        """Hold others off `keys` until this transaction ends (SQLite has one writer, so there it is implied)."""
        if not self.is_sqlite:
            for key in sorted(set(keys)):
                tx.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(key, 0))))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if self.spool is not None:
            self.spool.close()
        self.writing_engine.dispose()
        self.engine.dispose()


def _nobody() -> None:
    """There is no other process of this service."""


@contextmanager
def _as_unavailable() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:  # disk full or failing, locked by another process, server gone
        is_statement = getattr(error.orig, "sqlite_errorname", "") == "SQLITE_ERROR"  # wrong, or its table missing
        if is_statement and "no such savepoint" not in str(error.orig):  # that one went with a full disk
            raise
        reason = "the database does not answer at the moment (its disk, a lock or its server); send it again later"
        raise Unavailable(reason) from error


class _Group:
    """Transactions that will become durable with one commit."""

    def __init__(self, transaction: RootTransaction) -> None:
        self.transaction = transaction
        self.size = 0
        self.error: BaseException | None = None
        self.done = threading.Event()


class _GroupCommit:
    """Serialises writers on one connection; the last one out commits for all who wrote meanwhile."""

    def __init__(self, engine: Engine, between_processes: Turn) -> None:
        self._engine = engine
        self._between_processes = between_processes
        self._connection: Connection | None = None
        self._turn = threading.Lock()
        self._count = threading.Lock()
        self._waiting = 0
        self._writing_thread = 0
        self._group: _Group | None = None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        if self._writing_thread == threading.get_ident():
            raise RuntimeError("a transaction is already open in this thread: pass its connection on")
        asked_at = time.monotonic()
        with self._count:
            self._waiting += 1
        with self._turn:
            with self._count:
                self._waiting -= 1
            self._writing_thread = threading.get_ident()
            try:
                connection, group = self._join(asked_at)
                try:
                    with connection.begin_nested() if group.size else self._first(group):
                        yield connection
                    group.size += 1
                finally:
                    self._leave(group)
            finally:
                self._writing_thread = 0
        group.done.wait()
        if group.error is not None:
            raise group.error

    @contextmanager
    def _first(self, group: _Group) -> Iterator[None]:
        """The first of a group needs no savepoint: when it fails, nothing of others is lost with the group."""
        try:
            yield
        except BaseException as error:
            self._group = None
            try:
                group.transaction.rollback()
            except BaseException:
                self._lose(group, error)
                raise
            self._between_processes.give_back()
            raise

    def _join(self, asked_at: float) -> tuple[Connection, _Group]:
        if self._connection is not None and self._group is not None:
            return self._connection, self._group
        self._between_processes.take(asked_at)
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            self._group = _Group(self._connection.begin())
        except BaseException:
            self._between_processes.give_back()
            raise
        return self._connection, self._group

    def _leave(self, group: _Group) -> None:
        """The last one out commits. A full or failing disk makes SQLite roll back the whole transaction, not only the
        statement (https://sqlite.org/lang_transaction.html, 3.1), and sqlite3's commit() then does nothing, silently.
        """
        if self._group is not group:
            return
        if not self._is_open():
            self._lose(group, Unavailable("the database could not write to its disk; nothing was kept, send it again"))
        elif self._waiting == 0 or group.size >= GROUP_LIMIT or self._between_processes.is_wanted():
            self._commit(group)

    def _is_open(self) -> bool:
        driver = self._connection.connection.driver_connection if self._connection is not None else None
        return driver is not None and bool(driver.in_transaction)

    def _commit(self, group: _Group) -> None:
        self._group = None
        try:
            group.transaction.commit()
            self._between_processes.give_back()
            group.done.set()
        except BaseException as error:
            self._lose(group, error)
            raise

    def _lose(self, group: _Group, error: BaseException) -> None:
        """Tell everybody in the group that nothing of theirs was kept, and begin afresh on a new connection."""
        self._group, group.error = None, error
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None
        self._between_processes.give_back()
        group.done.set()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._turn:
            self._between_processes.take(time.monotonic())
            try:
                yield
            finally:
                self._between_processes.give_back()

    def close(self) -> None:
        with self._turn:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            self._between_processes.close()


def _sqlite_engine(url: str, begin: str, *pragmas: str, **options: Any) -> Engine:
    waiting = {"check_same_thread": False, "timeout": SQLITE_BUSY_MS / 1000}
    engine = create_engine(url, connect_args=waiting, hide_parameters=True, **options)

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy, not sqlite3, begins transactions
        for pragma in (
            "PRAGMA journal_mode=WAL",
            "PRAGMA synchronous=FULL",
            "PRAGMA foreign_keys=1",
            *pragmas,
        ):
            connection.execute(pragma)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
