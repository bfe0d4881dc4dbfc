"""The schema and its age: Alembic migrations, applied by ``dermbridge db upgrade`` or to an empty database.

A service never runs on a schema older or newer than its code: `check_schema` says which command to run.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from adapter.db.engine import Database
from adapter.errors import Misconfigured

MIGRATIONS = Path(__file__).parent / "migrations"


def _config(db: Database) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["engine"] = db.writing_engine
    return config


def head() -> str:
    """The revision this code is written for."""
    revision = ScriptDirectory(str(MIGRATIONS)).get_current_head()
    if revision is None:
        raise Misconfigured("this installation lacks its database migrations; install the package again")
    return revision


def current(db: Database) -> str | None:
    """The revision the database is at; None when it was never set up."""
    with db.snapshot() as tx:
        return MigrationContext.configure(tx).get_current_revision()


def upgrade(db: Database) -> None:
    """Bring the database to `head`. Stop services first: there is no mixed-version running yet."""
    command.upgrade(_config(db), "head")


def prepare(db: Database) -> None:
    """Set up an empty database, else check it. Raises Misconfigured for an old or a newer schema."""
    with db.snapshot() as tx:
        empty = not inspect(tx).get_table_names()
    if empty:
        upgrade(db)
    check_schema(db)


def check_schema(db: Database) -> None:
    if (found := current(db)) == head():
        return
    if found is not None and found not in {
        script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()
    }:
        raise Misconfigured(
            f"the database is at revision {found}, which this version does not know; upgrade DermBridge"
        )
    raise Misconfigured("the database schema is older than this version; back up, then run: dermbridge db upgrade")
