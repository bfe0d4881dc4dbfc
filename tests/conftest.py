"""A running core for tests: settings, database, photos and a clock that only moves when told.

`bridge` and `db_url` come once for each database; PostgreSQL is left out, loudly, where there is none.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from adapter.bridge import Bridge, open_bridge
from adapter.db.tables import metadata
from adapter.logs import configure_logs
from adapter.settings import load_settings
from tests.servers.postgresql import postgresql_server


def pytest_configure() -> None:
    """Logs as the service writes them: structlog's default draws every local variable of a traceback."""
    configure_logs()


REQUIRED = os.environ.get("DERMBRIDGE_REQUIRE_REAL") == "1"
"""Real servers are required (CI): nothing may be skipped."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that skips has failed where real servers are required, and everywhere unless it is marked `real`."""
    report = yield
    may_skip = item.get_closest_marker("real") and not REQUIRED
    if report.skipped and not may_skip and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"required here, but skipped: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a whole file that lacks a module."""
    report = yield
    if report.skipped and REQUIRED:
        report.outcome = "failed"
        report.longrepr = f"required here, but skipped: {report.longrepr}"
    return report


class Clock:
    """Starts on a Monday morning; `clock()` tells the time, `clock.advance` moves it."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def advance(self, **span: float) -> datetime:
        self.time += timedelta(**span)
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with all tables, to be copied: making the tables costs more than most tests."""
    file = tmp_path_factory.mktemp("template") / "dermbridge.sqlite3"
    _create_tables(f"sqlite+pysqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A PostgreSQL database of this run's own, with all tables."""
    server = postgresql_server()
    try:
        url = next(server)
    except LookupError as missing:
        if os.environ.get("DERMBRIDGE_REQUIRE_REAL"):
            pytest.fail(str(missing))
        pytest.skip(f"{missing} (set DERMBRIDGE_REQUIRE_REAL=1 to make this a failure)")
    name = f"dermbridge_test_{os.getpid()}"
    _run(url, f"CREATE DATABASE {name}")
    own = make_url(url).set(database=name).render_as_string(hide_password=False)
    _create_tables(own)
    yield own
    _run(url, f"DROP DATABASE {name} WITH (FORCE)")
    server.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.real)])
def db_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database with all tables."""
    if request.param == "sqlite":
        (tmp_path / "data").mkdir(mode=0o700)
        file = tmp_path / "data" / "dermbridge.sqlite3"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), file)
        yield f"sqlite+pysqlite:///{file}"
    else:
        url = request.getfixturevalue("postgresql_url")
        yield url
        _run(url, "; ".join(f'DELETE FROM "{table.name}"' for table in metadata.sorted_tables))


@pytest.fixture
def bridge(db_url: str, tmp_path: Path, clock: Clock) -> Iterator[Bridge]:
    opened = open_bridge(load_settings(environment={}, data_dir=tmp_path / "data", database_url=db_url), now=clock)
    yield opened
    opened.close()


def _create_tables(url: str) -> None:
    engine = create_engine(url)
    metadata.create_all(engine)
    engine.dispose()


def _run(url: str, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
