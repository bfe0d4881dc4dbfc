"""The schema and its age: Alembic migrations, applied by ``dermbridge db upgrade`` or to an empty database.

A service never runs on a schema older or newer than its code: `check_schema` says which command to run. Migrations are
numbered in one line and named by their number, so that the check needs no Alembic, whose import takes a tenth of a
start; only `upgrade` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import column, inspect, select, table

from adapter.db.engine import Database
from adapter.errors import Misconfigured

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"


def _config(db: Database) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["engine"] = db.writing_engine
    return config


def revisions() -> list[str]:
    """The revisions this code knows, oldest first."""
    return sorted(file.name.partition("_")[0] for file in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def head() -> str:
    """The revision this code is written for."""
    known = revisions()
    if not known:
        raise Misconfigured("this installation lacks its database migrations; install the package again")
    return known[-1]


def current(db: Database) -> str | None:
    """The revision the database is at; None when it was never set up."""
    with db.snapshot() as tx:
        if not inspect(tx).has_table("alembic_version"):
            return None
        return tx.execute(select(column("version_num")).select_from(table("alembic_version"))).scalar_one_or_none()


def upgrade(db: Database) -> None:
    """Bring the database to `head`. Stop services first: there is no mixed-version running yet."""
    with db.alone():
        _migrate(db)


def _migrate(db: Database) -> None:
    from alembic import command

    command.upgrade(_config(db), "head")


def prepare(db: Database) -> None:
    """Set up an empty database, else check it. Raises Misconfigured for an old or a newer schema."""
    if _is_empty(db):
        with db.alone():
            if _is_empty(db):  # another process may have come first
                _migrate(db)
    check_schema(db)


def _is_empty(db: Database) -> bool:
    with db.snapshot() as tx:
        return not inspect(tx).get_table_names()


def check_schema(db: Database) -> None:
    if (found := current(db)) == head():
        return
    if found is None and _is_empty(db):
        raise Misconfigured(
            "the database has no tables yet: `dermbridge serve`, or `dermbridge db upgrade`, makes them"
        )
    if found is not None and found not in revisions():
        raise Misconfigured(
            f"the database is at revision {found}, which this version does not know; upgrade DermBridge"
        )
    raise Misconfigured("the database schema is older than this version; back up, then run: dermbridge db upgrade")
