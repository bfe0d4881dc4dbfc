"""Statements for many rows as the driver itself would do them: what SQLAlchemy does for each costs more than the row.

The statement and the conversions of its values are SQLAlchemy's own, made once for each statement and set of names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection, Dialect, Insert, Table, insert
from sqlalchemy.exc import DBAPIError


class _Prepared(NamedTuple):
    statement: str
    names: tuple[str, ...]
    in_order: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    literals: Mapping[str, Any]
    conversions: tuple[tuple[int, Callable[[Any], Any]], ...]
    is_named: bool


def insert_rows(tx: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows that all have the same columns, two or more; other columns stay NULL. Raises what `tx.execute` raises."""
    change_rows(tx, _insert(table), rows)


def change_rows(tx: Connection, statement: Any, rows: Sequence[Mapping[str, Any]]) -> int:
    """Do `statement`, which must be one that is kept, with the parameters of each row; all have the same names, two or
    more. Returns how many rows were changed. Raises what `tx.execute` raises."""
    if not rows:
        return 0
    made = _prepared(statement, tx.dialect, tuple(rows[0]))
    told = [{**made.literals, **row} for row in rows] if made.literals else rows
    values = list(map(made.in_order, told))
    if made.conversions:
        columns = list(zip(*values, strict=True))
        for n, convert in made.conversions:
            columns[n] = tuple(map(convert, columns[n]))
        values = list(zip(*columns, strict=True))
    named = [dict(zip(made.names, row, strict=True)) for row in values] if made.is_named else values
    dbapi = tx.dialect.loaded_dbapi
    cursor = tx.connection.cursor()
    try:
        cursor.executemany(made.statement, named)
        return int(cursor.rowcount)
    except dbapi.Error as error:
        raise DBAPIError.instance(made.statement, None, error, dbapi.Error, True, dialect=tx.dialect) from error
    finally:
        cursor.close()


@cache
def _insert(table: Table) -> Insert:
    return insert(table)


@lru_cache(256)
def _prepared(statement: Any, dialect: Dialect, given: tuple[str, ...]) -> _Prepared:
    compiled = statement.compile(dialect=dialect, column_keys=list(given))
    parameters = {name: parameter for parameter, name in compiled.bind_names.items()}
    names = tuple(compiled.positiontup or parameters)
    processors = [parameters[name].type.dialect_impl(dialect).bind_processor(dialect) for name in names]
    conversions = tuple((n, one) for n, one in enumerate(processors) if one is not None)
    literals = {name: value for name, value in compiled.params.items() if name not in given}
    return _Prepared(str(compiled), names, itemgetter(*names), literals, conversions, not compiled.positional)
