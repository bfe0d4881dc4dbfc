"""INSERT of many rows as the driver itself would do it: what SQLAlchemy does for each row costs more than the row.

The statement and the conversions of its values are SQLAlchemy's own, made once for each table and set of columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Dialect, Table, insert

Row = Mapping[str, Any]


class _Prepared(NamedTuple):
    statement: str
    named: bool
    names: tuple[str, ...]
    convert: tuple[tuple[str, Callable[[Any], Any]], ...]


def insert_rows(tx: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Rows that all have the same columns; what they lack is NULL. Raises what `tx.execute` raises."""
    if not rows:
        return
    made = _prepared(table, tx.dialect, tuple(rows[0]))
    values = [{**row, **{name: convert(row[name]) for name, convert in made.convert}} for row in rows]
    if made.named:
        tx.exec_driver_sql(made.statement, values)
    else:
        tx.exec_driver_sql(made.statement, [tuple(row[name] for name in made.names) for row in values])


@lru_cache(256)
def _prepared(table: Table, dialect: Dialect, names: tuple[str, ...]) -> _Prepared:
    compiled = insert(table).compile(dialect=dialect, column_keys=list(names))
    types = {name: table.c[name].type.dialect_impl(dialect) for name in names}
    convert = tuple(
        (name, found) for name, kind in types.items() if (found := kind.bind_processor(dialect)) is not None
    )
    ordered = tuple(compiled.positiontup or names)
    return _Prepared(str(compiled), not compiled.positional, ordered, convert)
