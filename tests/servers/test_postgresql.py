"""The throw-away PostgreSQL really serves, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from tests.servers import postgresql

server = contextmanager(postgresql.postgresql_server)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    programs = postgresql.find_postgresql()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed here")
    yield programs


@pytest.mark.real
def test_a_server_starts_answers_in_utf8_and_leaves_nothing_behind(installed: Path) -> None:
    with server() as url:
        folder = Path(str(make_url(url).query["host"]))
        assert folder.is_dir()
        engine = create_engine(url)
        with engine.begin() as connection:
            assert connection.scalar(text("show server_encoding")) == "UTF8"
            assert connection.scalar(text("show fsync")) == "off"
            connection.execute(text("create table photo (id int primary key)"))
        engine.dispose()
    assert not folder.exists()


def test_a_url_of_the_environment_is_used_as_it_is_with_our_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://somebody@db.test/photos")
    with server() as url:
        assert url == "postgresql+psycopg://somebody@db.test/photos"


def test_no_server_at_all_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setattr(postgresql, "DEBIAN_INSTALLATIONS", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LookupError, match="apt-get install postgresql"), server():
        pass
