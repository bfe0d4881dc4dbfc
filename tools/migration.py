"""Writes the next migration from the difference between db/tables.py and the migrations there are.

python -m tools.migration "why the schema changes"
"""

import sys
import tempfile
from pathlib import Path

from alembic import command

from adapter.db import schema
from adapter.db.engine import Database

with tempfile.TemporaryDirectory() as folder:
    db = Database(f"sqlite+pysqlite:///{Path(folder) / 'empty.sqlite3'}")
    config = schema._config(db)
    if schema.revisions():
        command.upgrade(config, "head")
    number = f"{len(schema.revisions()) + 1:04d}"
    command.revision(config, message=sys.argv[1], autogenerate=True, rev_id=number)
    db.close()
