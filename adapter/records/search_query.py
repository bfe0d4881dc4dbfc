"""Query parameters read into a Query: filters, order, size and what to add to the page.

Names that are not known are an error under strict handling and left out under lenient handling; either way the caller
is told. Values are checked when they are compiled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from adapter.errors import BadInput
from adapter.records.paging import Params, SortKey
from adapter.records.search_filters import MODIFIERS, Filter, find_filter, known_parameters
from adapter.records.search_parameters import DEFAULT_SORT, TABLES, search_parameters

Summary = Literal["true", "false", "count"]

RESULT_PARAMETERS = (
    "_sort",
    "_count",
    "_total",
    "_summary",
    "_elements",
    "_include",
    "_include:iterate",
    "_revinclude",
)
REVINCLUDES = (("Provenance", "target"),)  # bounded: what happened to one record, not all records of a patient
ELSEWHERE = frozenset({"_format", "_pretty"})  # of every interaction, read by the HTTP edge


@dataclass(frozen=True)
class Include:
    """`Type:parameter[:Target]`; `iterate` follows it from included resources too."""

    resource_type: str
    parameter: str
    target: str
    iterate: bool = False


@dataclass
class Query:
    """A search as understood; `used` are the parameters that took part in it."""

    resource_type: str
    count: int
    filters: list[Filter] = field(default_factory=list)
    sort: list[SortKey] = field(default_factory=list)
    total: bool = False
    summary: Summary = "false"
    elements: tuple[str, ...] = ()
    includes: list[Include] = field(default_factory=list)
    revincludes: list[Include] = field(default_factory=list)
    used: Params = ()
    ignored: list[str] = field(default_factory=list)


def read_query(
    resource_type: str, params: Iterable[tuple[str, str]], *, default_count: int, max_count: int, lenient: bool
) -> Query:
    """Raises BadInput for an unknown parameter (unless `lenient`) or a malformed result parameter."""
    query = Query(resource_type, default_count)
    for name, value in params:
        if name in ELSEWHERE or not value:
            continue
        if name in RESULT_PARAMETERS:
            _read_result_parameter(query, name, value, max_count)
        elif (found := find_filter(resource_type, name, value)) is not None:
            query.filters.append(found)
        elif lenient:
            query.ignored.append(name)
            continue
        else:
            raise _unknown(resource_type, name)
        query.used += ((name, value),)
    query.sort = query.sort or sort_keys(resource_type, DEFAULT_SORT.get(resource_type, "_id"))
    return query


def sort_keys(resource_type: str, text: str) -> list[SortKey]:
    """`-created,_id` as columns, ending with the id, which makes the order total."""
    parameters, table = known_parameters(resource_type), TABLES[resource_type]
    keys: list[SortKey] = []
    for name in filter(None, text.split(",")):
        parameter = parameters.get(name.removeprefix("-"))
        if parameter is None or parameter.column is None:
            sortable = ", ".join(p.name for p in parameters.values() if p.column)
            raise BadInput(f"{resource_type} can be sorted by {sortable}", issue_type="not-supported")
        column = table.c[parameter.column]
        if all(key.column is not column for key in keys):
            keys.append(SortKey(column, name.startswith("-")))
        if parameter.column == "id":
            return keys
    return [*keys, SortKey(table.c.id, bool(keys) and keys[-1].descending)]


def _read_result_parameter(query: Query, name: str, value: str, max_count: int) -> None:
    match name:
        case "_count":
            query.count = _count(value, max_count)
            query.summary = "count" if query.count == 0 else query.summary
        case "_sort":
            query.sort = sort_keys(query.resource_type, value)
        case "_total":
            query.total = _one_of(name, value, "none", "estimate", "accurate") != "none"
        case "_summary":
            query.summary = _one_of(name, value, "true", "false", "count")  # type: ignore[assignment]
        case "_elements":
            query.elements = tuple(filter(None, value.split(",")))
        case "_include" | "_include:iterate":
            query.includes.append(_include(value, iterate=name != "_include"))
        case "_revinclude":
            query.revincludes.append(_revinclude(value))


def _count(value: str, most: int) -> int:
    if not value.isascii() or not value.isdecimal():
        raise BadInput("_count takes a number of entries per page, such as 50")
    return min(int(value[:9]), most)


def _one_of(name: str, value: str, *allowed: str) -> str:
    if value not in allowed:
        raise BadInput(f"{name} takes {', '.join(allowed)}", issue_type="not-supported")
    return value


def _include(value: str, *, iterate: bool) -> Include:
    resource_type, name, target = (*value.split(":"), "", "")[:3]
    references = [p.name for p in search_parameters(resource_type) if p.kind == "reference"]
    if name not in references:
        offered = ", ".join(f"{resource_type}:{each}" for each in references) or "none for this type"
        raise BadInput(f"this _include is not supported; offered: {offered}", issue_type="not-supported")
    return Include(resource_type, name, target, iterate)


def _revinclude(value: str) -> Include:
    resource_type, name = (*value.split(":"), "")[:2]
    if (resource_type, name) not in REVINCLUDES:
        offered = ", ".join(":".join(each) for each in REVINCLUDES)
        raise BadInput(f"this _revinclude is not supported; offered: {offered}", issue_type="not-supported")
    return Include(resource_type, name, "")


def _unknown(resource_type: str, name: str) -> BadInput:
    parameters = known_parameters(resource_type)
    head, _, modifier = name.partition(".")[0].partition(":")
    if head in parameters and modifier:
        offered = ", ".join(sorted(f":{each}" for each in MODIFIERS[parameters[head].kind] if each and each.islower()))
        text = f"'{head}' is not searchable with ':{modifier}'; supported: {offered}"
    else:
        text = f"{resource_type} is not searchable by '{name}'; known: {', '.join([*parameters, *RESULT_PARAMETERS])}"
    return BadInput(text, issue_type="not-supported")
