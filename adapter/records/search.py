"""FHIR search over the typed tables (http://hl7.org/fhir/R4/search.html).

The story of a page: read the query (or open the page token that holds it), compile its filters, keep within the
patients the caller may see, fetch one keyset page, add what was asked to be included, make the links' tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from sqlalchemy import Connection, Row, and_, func, null, or_, select

from adapter.db.tables import search_index
from adapter.errors import BadInput, NotFound
from adapter.records.confinement import confinement
from adapter.records.paging import Condition, Cursor, PageCodec, Params, fetch, place_of
from adapter.records.rows import Stored
from adapter.records.search_filters import MOST_BRANCHES, Alternatives, Reached, Scope, alternatives, everything
from adapter.records.search_parameters import TABLES, search_parameters
from adapter.records.search_query import Include, Query, Summary, read_query

PAGE = "_page"  # the parameter that carries a page token
INCLUDE_DEPTH = 4
INCLUDE_LIMIT = 1000


@dataclass(frozen=True)
class Page:
    """One page of a search. `next`, `previous` and `here` are page tokens; `here` starts this same search over.

    `patient_ids`: whose records are on the page, for the audit log. `ignored`: parameters left out when lenient.
    """

    entries: list[Stored]
    includes: list[Stored]
    next: str | None
    previous: str | None
    here: str
    total: int | None
    self_params: Params
    ignored: tuple[str, ...]
    patient_ids: frozenset[str]
    summary: Summary
    elements: tuple[str, ...]


def search(
    tx: Connection,
    resource_type: str,
    params: Sequence[tuple[str, str]],
    *,
    patient_ids: frozenset[str] | None,
    codec: PageCodec,
    default_count: int = 50,
    max_count: int = 100,
    base_url: str = "",
    lenient: bool = False,
    may_include: Callable[[str], bool] = lambda _: True,
    reached: Reached = everything,
) -> Page:
    """The page that `params` (or the page token among them) ask for, within `patient_ids` (None: all).

    `may_include` tells which types the caller may see as includes, `reached` which records of a type. Raises BadInput,
    NotFound (unknown type) and Gone (expired page).
    """
    if resource_type not in TABLES:
        raise NotFound(f"{resource_type} cannot be searched here", issue_type="not-supported")

    def read(chosen: Iterable[tuple[str, str]]) -> Query:
        return read_query(resource_type, chosen, default_count=default_count, max_count=max_count, lenient=lenient)

    cursor: Cursor | None = None
    if token := dict(params).get(PAGE):
        params, cursor = codec.decode(resource_type, token, lambda held: read(held).sort)
    query = read(params)
    scope = Scope(tx, resource_type, patient_ids, base_url, codec.now(), reached)
    filters = [*(alternatives(scope, wanted) for wanted in query.filters), *reached("s", resource_type)]
    # Filters with alternatives are read alternative by alternative, everything else holding for each.
    branches = _branches(filters)
    conditions = [scope.table.c.deleted.is_(False), *confinement(resource_type, patient_ids)]
    conditions += [or_(*each) for each in filters if len(each) == 1 or not branches]
    total = None
    if query.total or query.summary == "count":
        total = _count(scope, [*conditions, or_(*branches)] if branches else conditions)
    rows, more = ([], False) if query.summary == "count" else _fetch(scope, query, conditions, branches, cursor)
    entries = [Stored(resource_type, row.id, row.version_id, row.last_updated, row.body) for row in rows]
    onward, back = _cursors(query, rows, cursor, more)
    return Page(
        entries=entries,
        includes=_included(scope, query, entries, may_include),
        next=codec.encode(resource_type, query.used, onward) if onward else None,
        previous=codec.encode(resource_type, query.used, back) if back else None,
        here=codec.encode(resource_type, query.used, None),
        total=total,
        self_params=query.used,
        ignored=tuple(query.ignored),
        patient_ids=frozenset(row.about for row in rows if row.about is not None),
        summary=query.summary,
        elements=query.elements,
    )


def _branches(filters: list[Alternatives]) -> list[Condition]:
    """Every combination of alternatives, unless there are too many."""
    several = [each for each in filters if len(each) > 1]
    if not several or prod(map(len, several)) > MOST_BRANCHES:
        return []
    return [and_(*combination) for combination in product(*several)]


def _count(scope: Scope, conditions: list[Condition]) -> int:
    return scope.tx.execute(select(func.count()).select_from(scope.table).where(*conditions)).scalar_one()


def _fetch(
    scope: Scope, query: Query, conditions: list[Condition], branches: list[Condition], cursor: Cursor | None
) -> tuple[list[Row[tuple[object, ...]]], bool]:
    columns = scope.table.c
    about = columns.id if scope.resource_type == "Patient" else columns.get("patient", null())
    shown = (columns.id, columns.version_id, columns.last_updated, columns.body, about.label("about"))
    return fetch(scope.tx, select(*shown).where(*conditions), query.sort, cursor, count=query.count, branches=branches)


def _cursors(
    query: Query, rows: list[Row[tuple[object, ...]]], cursor: Cursor | None, more: bool
) -> tuple[Cursor | None, Cursor | None]:
    """Where the next and the previous page start. Whoever came through a cursor can go back through it."""
    if not rows:
        return None, None
    ends = [place_of(row, query.sort) for row in (rows[0], rows[-1])]
    backward = cursor is not None and cursor.backward
    has_next = more or backward
    has_previous = more if backward else cursor is not None
    return (Cursor(ends[1]) if has_next else None), (Cursor(ends[0], backward=True) if has_previous else None)


# --- includes -------------------------------------------------------------------------------------------------------


def _included(scope: Scope, query: Query, entries: list[Stored], may_include: Callable[[str], bool]) -> list[Stored]:
    found = {one.reference: one for one in entries}
    latest, rules = entries, query.includes
    for _ in range(INCLUDE_DEPTH):
        wanted = {reference for rule in rules for reference in _pointed_at(rule, latest)} - found.keys()
        latest = _read_all(scope, wanted, may_include)
        found.update({one.reference: one for one in latest})
        rules = [rule for rule in rules if rule.iterate]
        if not latest or not rules:
            break
    for rule in query.revincludes:
        if entries and may_include(rule.resource_type):
            found.update({one.reference: one for one in _pointing(scope, rule, entries)})
    included = list(found.values())[len(entries) :]
    if len(included) > INCLUDE_LIMIT:
        raise BadInput("these includes are too many for one page; ask for a smaller _count", issue_type="too-costly")
    return included


def _pointed_at(rule: Include, entries: list[Stored]) -> set[str]:
    parameter = next(p for p in search_parameters(rule.resource_type) if p.name == rule.parameter)
    references: set[str] = set()
    for one in entries:
        if one.resource_type == rule.resource_type and (value := parameter.extract(one.resource)):
            values = value if isinstance(value, list) else [value]
            references.update(f"{parameter.target}/{each}" if parameter.target else each for each in values)
    return {each for each in references if not rule.target or each.startswith(f"{rule.target}/")}


def _read_all(scope: Scope, references: set[str], may_include: Callable[[str], bool]) -> list[Stored]:
    found: list[Stored] = []
    for resource_type in sorted({reference.partition("/")[0] for reference in references} & TABLES.keys()):
        if may_include(resource_type):
            prefix = f"{resource_type}/"
            ids = [each.removeprefix(prefix) for each in references if each.startswith(prefix)]
            found += _read_some(scope, resource_type, TABLES[resource_type].c.id.in_(ids))
    return found


def _pointing(scope: Scope, rule: Include, entries: list[Stored]) -> list[Stored]:
    index = search_index.c
    rows = select(index.resource_id).where(
        index.resource_type == rule.resource_type,
        index.param == rule.parameter,
        index.value.in_([one.reference for one in entries]),
    )
    return _read_some(scope, rule.resource_type, TABLES[rule.resource_type].c.id.in_(rows))


def _read_some(scope: Scope, resource_type: str, which: Condition) -> list[Stored]:
    columns = TABLES[resource_type].c
    statement = (
        select(columns.id, columns.version_id, columns.last_updated, columns.body)
        .where(columns.deleted.is_(False), which, *confinement(resource_type, scope.patient_ids))
        .where(*(or_(*each) for each in scope.reached("r", resource_type)))
        .order_by(columns.id)
        .limit(INCLUDE_LIMIT + 1)
    )
    return [Stored(resource_type, *row) for row in scope.tx.execute(statement)]
