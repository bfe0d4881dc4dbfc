"""INSERT of many rows as the driver itself would do it: what SQLAlchemy does for each row costs more than the row.

The statement and the conversions of its values are SQLAlchemy's own, made once for each table and set of columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection, Dialect, Table, insert
from sqlalchemy.exc import DBAPIError


class _Prepared(NamedTuple):
    statement: str
    columns: tuple[str, ...]
    in_order: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    conversions: tuple[tuple[int, Callable[[Any], Any]], ...]
    is_named: bool


def insert_rows(tx: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows that all have the same columns, two or more; other columns stay NULL. Raises what `tx.execute` raises."""
    if not rows:
        return
    made = _prepared(table, tx.dialect, tuple(rows[0]))
    values = list(map(made.in_order, rows))
    if made.conversions:
        columns = list(zip(*values, strict=True))
        for n, convert in made.conversions:
            columns[n] = tuple(map(convert, columns[n]))
        values = list(zip(*columns, strict=True))
    named = [dict(zip(made.columns, row, strict=True)) for row in values] if made.is_named else values
    dbapi = tx.dialect.loaded_dbapi
    cursor = tx.connection.cursor()
    try:
        cursor.executemany(made.statement, named)
    except dbapi.Error as error:
        raise DBAPIError.instance(made.statement, None, error, dbapi.Error, True, dialect=tx.dialect) from error
    finally:
        cursor.close()


@lru_cache(256)
def _prepared(table: Table, dialect: Dialect, names: tuple[str, ...]) -> _Prepared:
    compiled = insert(table).compile(dialect=dialect, column_keys=list(names))
    columns = tuple(compiled.positiontup or names)
    processors = [table.c[name].type.dialect_impl(dialect).bind_processor(dialect) for name in columns]
    conversions = tuple((n, one) for n, one in enumerate(processors) if one is not None)
    return _Prepared(str(compiled), columns, itemgetter(*columns), conversions, not compiled.positional)
