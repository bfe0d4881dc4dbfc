"""FHIR date search: intervals compared with intervals (http://hl7.org/fhir/R4/search.html#date).

A search value means all moments of its precision, a half-open interval [low, high), and so does a stored date that is
vague (a day, a month, a year) or a Period. A stored time of day counts as a moment.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, String, and_, func, literal, not_, or_, select

from adapter.errors import BadInput
from adapter.records.date_intervals import date_interval
from adapter.records.search_parameters import SearchParameter

Condition = ColumnElement[bool]

_VALUE = re.compile(
    r"(?P<prefix>eq|ne|gt|lt|ge|le|sa|eb|ap)?"
    r"(?P<date>\d{4}(-\d\d(-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?)?)?)"
)
_WIDEST = timedelta(days=366)  # of a vague date, that of a year
_FEW = 200
_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Interval:
    """The stored side: `low`, and `high` where the end is kept.

    Of a Period (`open_ended`) a missing start or end means always. Of a dateTime a missing end means a moment. Dates
    kept as text (birthDate) are compared as text: a moment at the start of what they name.
    """

    tx: Connection
    low: Column[Any]
    high: Column[Any] | None
    open_ended: bool

    def starts_from(self, at: datetime) -> Condition:
        return and_(self._start >= self._as_kept(at))

    def starts_before(self, at: datetime) -> Condition:
        return and_(self._start < self._as_kept(at))

    def ends_by(self, at: datetime) -> Condition:
        if self.high is None:
            return self.starts_before(at)
        if self.open_ended:
            return and_(func.coalesce(self.high, literal(_LAST, self.high.type)) <= at)
        return and_(self.starts_before(at), or_(self.high.is_(None), self.high <= at))

    def starts_or_lasts(self, start: datetime, end: datetime) -> list[Condition]:
        """It starts from `start`, or it started before and lasts beyond `end`: alternatives that exclude each other."""
        begun = self.starts_from(start)
        if self.high is None:
            return [begun]
        if self.open_ended:
            lasting = func.coalesce(self.high, literal(_LAST, self.high.type)) > end
            return [begun, and_(self.starts_before(start), lasting)]
        return [begun, *self._vague_around(self.high, start, end)]

    def _vague_around(self, high: Column[Any], start: datetime, end: datetime) -> list[Condition]:
        """Looked up first: hardly ever there are any, and without them the search is one range of one index."""
        ids = self.low.table.c.id
        until = start + _WIDEST if _LAST - start > _WIDEST else _LAST
        around = and_(high > end, high <= until, self.low < start)
        found = self.tx.execute(select(ids).where(around).limit(_FEW + 1)).scalars().all()
        if len(found) > _FEW:
            return [around]
        return [ids.in_(found)] if found else []

    def is_known(self) -> Condition:
        if self.open_ended and self.high is not None:
            return or_(self.low.is_not(None), self.high.is_not(None))
        return self.low.is_not(None)

    @property
    def _start(self) -> ColumnElement[Any]:
        return func.coalesce(self.low, literal(_FIRST, self.low.type)) if self.open_ended else self.low

    def _as_kept(self, at: datetime) -> Any:
        """As text without trailing -01: `1980` is the start of 1980 as much as `1980-01-01` is."""
        if not isinstance(self.low.type, String):
            return at
        return at.date().isoformat().removesuffix("-01").removesuffix("-01")


_Comparison = Callable[[Interval, datetime, datetime], list[Condition]]

COMPARISONS: dict[str, _Comparison] = {
    "eq": lambda kept, low, high: [and_(kept.starts_from(low), kept.starts_before(high), kept.ends_by(high))],
    "ne": lambda kept, low, high: [not_(and_(kept.starts_from(low), kept.ends_by(high)))],
    "gt": lambda kept, _low, high: kept.starts_or_lasts(high, high),
    "lt": lambda kept, low, _high: [kept.starts_before(low)],
    "ge": lambda kept, low, high: kept.starts_or_lasts(low, high),
    "le": lambda kept, low, high: [and_(kept.starts_before(high), or_(kept.starts_before(low), kept.ends_by(high)))],
    "sa": lambda kept, _low, high: [kept.starts_from(high)],
    "eb": lambda kept, low, _high: [and_(kept.starts_before(low), kept.ends_by(low))],
    "ap": lambda kept, low, high: [and_(kept.starts_before(high), each) for each in kept.starts_or_lasts(low, low)],
}


def date_conditions(
    tx: Connection, column: Column[Any], parameter: SearchParameter, value: str, now: datetime
) -> list[Condition]:
    """Alternatives that exclude each other. Raises BadInput when `value` is no FHIR date with an optional prefix."""
    prefix, low, high = parse_date(parameter.name, value)
    if prefix == "ap":
        margin = abs(now - low) / 10  # FHIR suggests a tenth of the distance to now
        low = low - margin if low - _FIRST > margin else _FIRST
        high = high + margin if _LAST - high > margin else _LAST
    end = column.table.c[parameter.end_column] if parameter.end_column else None
    kept = Interval(tx, column, end, parameter.open_ended)
    return [and_(kept.is_known(), each) for each in COMPARISONS[prefix](kept, low, high)]


def parse_date(name: str, value: str) -> tuple[str, datetime, datetime]:
    """(prefix, low, high) of a search value; a `+` that became a space in the query string is read as `+`."""
    match = _VALUE.fullmatch(value.replace(" ", "+"))
    try:
        if match is None:
            raise ValueError
        low, high = date_interval(match["date"])
    except (ValueError, OverflowError):
        raise BadInput(
            f"the value of '{name}' is not a date; write for example ge2026-11-23 or 2026-11-23T09:30:00Z"
        ) from None
    return match["prefix"] or "eq", low, high
