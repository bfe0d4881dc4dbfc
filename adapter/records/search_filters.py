"""One search parameter with its value as a condition on the type's table.

What a parameter means stands in ``search_parameters``; here is only how each kind compares. Multi-valued parameters
look into ``search_index``: identifiers and references, which name few rows, drive the query (IN); codes, which many
rows share, are looked up row by row (EXISTS).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from itertools import chain
from typing import Any, Literal

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    Select,
    Table,
    and_,
    bindparam,
    exists,
    false,
    func,
    not_,
    or_,
    select,
)

from adapter.db.tables import search_index
from adapter.errors import BadInput
from adapter.records.confinement import confinement, same_patients
from adapter.records.extraction import folded, token_value
from adapter.records.search_dates import date_conditions, parse_date
from adapter.records.search_parameters import TABLES, SearchParameter, fitted, search_parameters

Condition = ColumnElement[bool]

COMMON_PARAMETERS = (
    SearchParameter("_id", "reference", lambda resource: resource["id"], "Resource.id", "id"),
    SearchParameter("_lastUpdated", "date", lambda _: None, "Resource.meta.lastUpdated", "last_updated"),
)
MODIFIERS: dict[str, frozenset[str]] = {
    "token": frozenset({"", "not", "missing"}),
    "reference": frozenset({"", "identifier", "missing", *TABLES}),
    "date": frozenset({"", "missing"}),
    "string": frozenset({"", "exact", "contains", "missing"}),
}
CHAIN_LIMIT = 500
MOST_VALUES = 200  # between commas
MOST_BRANCHES = 8  # alternatives read each by itself; beyond, sorting what was found is cheaper
_FIRST_LETTER = "\x01"  # of what is stored: U+0000 is refused
_LAST_LETTER = "\U0010ffff"
_AFTER_BAR = "}"  # the letter after "|", which ends the code in a stored token


@dataclass(frozen=True)
class Filter:
    """`parameter:modifier.chain=value`, already known to be supported."""

    parameter: SearchParameter
    modifier: str
    chain: str
    value: str


Alternatives = list[Condition]
"""Conditions of which one must hold; when there are several, they exclude each other."""
Reached = Callable[[Literal["r", "s"], str], list[Alternatives]]
"""The conditions under which a caller may read (r) or search (s) records of a type; see adapter.access.reach."""


def everything(_letter: str, _resource_type: str) -> list[Alternatives]:
    """No limits but the patients."""
    return []


@dataclass(frozen=True)
class Scope:
    """What compiling needs besides the filter itself."""

    tx: Connection
    resource_type: str
    patient_ids: frozenset[str] | None
    base_url: str
    now: datetime
    reached: Reached = everything
    is_granted: bool = False  # the query of a SMART scope, which its holder cannot narrow

    @property
    def table(self) -> Table:
        return TABLES[self.resource_type]


def known_parameters(resource_type: str) -> dict[str, SearchParameter]:
    return {p.name: p for p in (*COMMON_PARAMETERS, *search_parameters(resource_type))}


def find_filter(resource_type: str, name: str, value: str) -> Filter | None:
    """The filter a query parameter stands for; None when parameter, modifier or chain is not supported."""
    head, _, chain = name.partition(".")
    bare, _, modifier = head.partition(":")
    parameter = known_parameters(resource_type).get(bare)
    if parameter is None or modifier not in MODIFIERS[parameter.kind]:
        return None
    if chain:
        target = modifier or parameter.target
        if parameter.target is None or target != parameter.target or find_filter(target, chain, value) is None:
            return None
    elif parameter.column in ("id", "replaced_by") and modifier not in ("", "missing"):
        return None
    return Filter(parameter, modifier, chain, value)


def check_value(wanted: Filter) -> None:
    """What can be told of a value without looking for it. Raises BadInput when it cannot be one of this parameter's."""
    name = wanted.parameter.name
    if "\x00" in wanted.value:
        raise BadInput("a search value may not hold the character U+0000")
    if wanted.chain:
        check_value(_on_target(wanted)[1])
    elif wanted.modifier == "missing":
        if wanted.value not in ("true", "false"):
            raise BadInput(f"'{name}:missing' takes true or false")
    elif not (values := split_or(wanted.value)):  # no condition at all would find everything
        raise BadInput(f"'{name}' has no value between its commas")
    elif wanted.parameter.kind == "date":
        for value in values:
            parse_date(name, value)


def alternatives(scope: Scope, wanted: Filter) -> Alternatives:
    """Raises BadInput when the value cannot be one of this parameter's."""
    found = _condition(scope, wanted)
    return found if isinstance(found, list) else [found]


def _condition(scope: Scope, wanted: Filter) -> Condition | Alternatives:
    check_value(wanted)
    parameter = wanted.parameter
    if wanted.chain:
        return _chained(scope, wanted)
    if wanted.modifier == "missing":
        return _missing(scope, parameter, wanted.value)
    values = split_or(wanted.value)
    match parameter.kind:
        case "token":
            return _token(scope, parameter, values, negated=wanted.modifier == "not")
        case "reference":
            return _reference(scope, parameter, values, wanted.modifier)
        case "date":
            column = scope.table.c[parameter.column or ""]
            each = [date_conditions(scope.tx, column, parameter, value, scope.now) for value in values]
            return each[0] if len(each) == 1 else or_(*chain(*each))
        case "string":
            return or_(*(_string(scope, parameter, unescape(value), wanted.modifier) for value in values))


def split_or(value: str) -> list[str]:
    r"""Alternatives between commas; `\,` is a comma in a value."""
    values = [part for part in re.split(r"(?<!\\),", value) if part]
    if len(values) > MOST_VALUES:
        raise BadInput(f"a parameter takes up to {MOST_VALUES} values", issue_type="too-costly")
    return values


def unescape(value: str) -> str:
    return re.sub(r"\\([,$|\\])", r"\1", value)


def _missing(scope: Scope, parameter: SearchParameter, value: str) -> Condition:
    if parameter.column is None:
        absent = not_(_indexed(scope, parameter.name, search_index.c.value.is_not(None), selective=False))
    elif parameter.end_column and parameter.open_ended:
        columns = scope.table.c
        absent = and_(columns[parameter.column].is_(None), columns[parameter.end_column].is_(None))
    else:
        absent = scope.table.c[parameter.column].is_(None)
    return absent if value == "true" else not_(absent)


# --- tokens ---------------------------------------------------------------------------------------------------------


def _token(scope: Scope, parameter: SearchParameter, values: list[str], *, negated: bool) -> Condition | Alternatives:
    if parameter.column is None:
        found = or_(*(_token_match(search_index.c.value, value) for value in values))
        matched = _indexed(scope, parameter.name, found, selective=parameter.name == "identifier" and not negated)
        return not_(matched) if negated else matched
    column = scope.table.c[parameter.column]
    if isinstance(column.type, Boolean):
        matched = column.in_([value.rpartition("|")[2] == "true" for value in values])
        return or_(column.is_(None), not_(matched)) if negated else matched
    if negated:
        return or_(column.is_(None), not_(or_(*(_token_match(column, value) for value in values))))
    return _token_column(scope, column, values)


def _token_column(scope: Scope, column: Any, values: list[str]) -> Condition | Alternatives:
    """As equalities where it can be: only then an index gives the rows in the order of its next column."""
    exact: list[str] = []
    others: list[Condition] = []
    for value in values:
        system, bar, code = _split_token(value)
        if bar and code:
            exact.append(fitted(token_value(code, system), column.type))
        elif code and any(next(iter(index.columns)) is column for index in scope.table.indexes):
            exact += _systems_of(scope.tx, column, code)
        else:
            others.append(_token_match(column, value))
    return or_(column.in_(exact), *others) if others else _equals_one(column, exact)


def _equals_one(column: Any, values: Iterable[str]) -> list[Condition]:
    distinct = sorted(set(values))
    if len(distinct) > MOST_BRANCHES:
        return [column.in_(distinct)]
    return [column == value for value in distinct] or [false()]


def _systems_of(tx: Connection, column: Any, code: str) -> list[str]:
    """The stored tokens with this code, one index look-up for each system in use."""
    found: list[str] = []
    bounds = {"least": f"{code}|", "beyond": f"{code}{_AFTER_BAR}"}
    while True:
        least, most = tx.execute(_ends(column), bounds).one()
        found += [] if least is None else [least]
        if least == most:
            return found
        bounds["least"] = f"{least}{_FIRST_LETTER}"


@cache
def _ends(column: ColumnElement[str]) -> Select[Any]:
    """The first and the last token; built once, since half the cost of so short a look-up is the statement."""
    within = column >= bindparam("least"), column < bindparam("beyond")
    return select(*(select(end(column)).where(*within).scalar_subquery() for end in (func.min, func.max)))


def _token_match(column: Any, value: str) -> Condition:
    system, bar, code = _split_token(value)
    matched: Condition
    if not bar:
        matched = and_(column >= f"{code}|", column < f"{code}{_AFTER_BAR}")
    elif code:
        matched = column == fitted(token_value(code, system), column.type)
    else:
        matched = column.endswith(f"|{system}", autoescape=True)
    return matched


def _split_token(value: str) -> tuple[str, str, str]:
    """(system, bar, code); the bar is empty when any system will do."""
    left, bar, right = re.match(r"((?:[^|\\]|\\.|\\)*)(\|?)(.*)", value, re.DOTALL).groups()  # type: ignore[union-attr]
    return (unescape(left), bar, unescape(right)) if bar else ("", "", unescape(left))


# --- references -----------------------------------------------------------------------------------------------------


def _reference(scope: Scope, parameter: SearchParameter, values: list[str], modifier: str) -> Condition | Alternatives:
    if modifier == "identifier":
        found = or_(*(_token_match(search_index.c.value, value) for value in values))
        return _indexed(scope, f"{parameter.name}:identifier", found, selective=True)
    references = {found for value in values for found in _references(scope, unescape(value), modifier, parameter)}
    references = _with_merged(scope, parameter, references)
    if parameter.column is None:
        return _indexed(scope, parameter.name, search_index.c.value.in_(references), selective=True)
    column = scope.table.c[parameter.column]
    if target := parameter.target or (scope.resource_type if parameter.column == "id" else None):
        prefix = f"{target}/"
        references = {one.removeprefix(prefix) for one in references if one.startswith(prefix)}
    return _equals_one(column, references)


def _references(scope: Scope, value: str, modifier: str, parameter: SearchParameter) -> list[str]:
    """`Type/id` for every way to write it: id, Type/id, a URL under our base; foreign URLs stay as they are."""
    relative = value.removeprefix(f"{scope.base_url}/") if scope.base_url else value
    if "/" in relative or ":" in relative:
        return [relative.partition("/_history/")[0]]
    if parameter.column == "id":
        return [f"{scope.resource_type}/{relative}"]
    return [
        f"{each}/{relative}"
        for each in ([modifier] if modifier else [parameter.target] if parameter.target else TABLES)
    ]


def _with_merged(scope: Scope, parameter: SearchParameter, references: set[str]) -> set[str]:
    """A patient is meant with all ids merged into or out of it, since some records keep the old one."""
    if scope.resource_type == "Patient":
        return references
    patients = {one.removeprefix("Patient/") for one in references if one.startswith("Patient/")}
    if not patients or parameter.target not in (None, "Patient"):
        return references
    return references | {f"Patient/{one}" for one in same_patients(scope.tx, patients)}


def _on_target(wanted: Filter) -> tuple[str, Filter]:
    """The type that a chain leads to, and what it asks there."""
    target = str(wanted.parameter.target)
    inner = find_filter(target, wanted.chain, wanted.value)
    if inner is None:
        raise BadInput(f"'{wanted.chain}' is not a search parameter of {target}", issue_type="not-supported")
    return target, inner


def _chained(scope: Scope, wanted: Filter) -> Condition | Alternatives:
    """The targets first, then rows that point to them: `patient.identifier=…` is two short look-ups.

    Too many are refused; of a scope they are looked up row by row.
    """
    target, inner = _on_target(wanted)
    within = replace(scope, resource_type=target)
    # Nobody learns from a chain what a search of its target would not have told.
    told = [*scope.reached("s", target), alternatives(within, inner)]
    conditions = [*confinement(target, scope.patient_ids), *(or_(*each) for each in told)]
    statement = select(within.table.c.id).where(within.table.c.deleted.is_(False), *conditions)
    ids = scope.tx.execute(statement.limit(CHAIN_LIMIT + 1)).scalars().all()
    if len(ids) > CHAIN_LIMIT and scope.is_granted and within.table is not scope.table:
        points_there = within.table.c.id == scope.table.c[wanted.parameter.column or ""]
        return statement.where(points_there).correlate(scope.table).exists()
    if len(ids) > CHAIN_LIMIT:
        raise BadInput(f"'{wanted.chain}' matches too many {target} records; narrow it", issue_type="too-costly")
    if not ids:
        return false()
    return _reference(scope, wanted.parameter, [f"{target}/{one}" for one in ids], "")


# --- strings and the index ------------------------------------------------------------------------------------------


def _string(scope: Scope, parameter: SearchParameter, value: str, modifier: str) -> Condition:
    column = scope.table.c[parameter.column or ""]
    sought = fitted(folded(value), column.type)
    matched: Condition
    match modifier:
        case "exact":  # the column is folded, so the JSON decides about case and accents
            quoted = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
            matched = and_(column == sought, func.replace(scope.table.c.body, quoted, "") != scope.table.c.body)
        case "contains":
            matched = column.contains(sought, autoescape=True)
        case _:
            matched = and_(column >= sought, column < sought + _LAST_LETTER)
    return matched


def _indexed(scope: Scope, param: str, value: Condition, *, selective: bool) -> Condition:
    index = search_index.c
    these = and_(index.resource_type == scope.resource_type, index.param == param, value)
    if selective:
        return scope.table.c.id.in_(select(index.resource_id).where(these))
    return exists().where(these, index.resource_id == scope.table.c.id)
