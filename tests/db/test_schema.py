"""The schema's revision is told without Alembic, and told right."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from adapter.db import turn
from adapter.db.engine import Database
from adapter.db.schema import MIGRATIONS, check_schema, current, head, prepare, revisions, upgrade
from adapter.errors import Misconfigured, Unavailable


@pytest.fixture
def db(tmp_path: Path):
    opened = Database(f"sqlite+pysqlite:///{tmp_path / 'schema.sqlite3'}")
    yield opened
    opened.close()


def test_file_names_give_the_revisions_alembic_finds() -> None:
    scripts = ScriptDirectory(str(MIGRATIONS))
    assert head() == scripts.get_current_head()
    assert revisions() == [script.revision for script in scripts.walk_revisions()][::-1]


def test_an_empty_database_is_set_up_to_the_head(db: Database) -> None:
    assert current(db) is None
    prepare(db)
    assert current(db) == head()


def test_a_schema_is_upgraded_while_nobody_writes(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "PATIENCE_SECONDS", 0.05)
    writing = Database(db.url.render_as_string())
    with writing.transaction(), pytest.raises(Unavailable):
        upgrade(db)
    writing.close()
    upgrade(db)
    assert current(db) == head()


@pytest.mark.parametrize(("found", "remedy"), [("9999", "upgrade DermBridge"), ("0001", "dermbridge db upgrade")])
def test_another_schema_is_refused_with_what_to_do(
    db: Database, found: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(db)
    with db.transaction() as tx:
        tx.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{found}'")
    monkeypatch.setattr("adapter.db.schema.revisions", lambda: ["0001", "0002"])
    with pytest.raises(Misconfigured, match=remedy):
        check_schema(db)


def test_starting_a_service_does_not_import_alembic() -> None:
    program = "import sys, adapter.serve; sys.exit('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_database_without_tables_is_not_called_old(db: Database) -> None:
    with pytest.raises(Misconfigured, match="no tables yet"):
        check_schema(db)
