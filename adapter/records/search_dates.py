"""FHIR date search: intervals compared with intervals (http://hl7.org/fhir/R4/search.html#date).

A search value means all moments of its precision, and so does a stored date. Both are half-open intervals [low, high).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Column, ColumnElement, String, and_, func, literal, not_, or_

from adapter.errors import BadInput
from adapter.records.search_parameters import SearchParameter, date_interval

Condition = ColumnElement[bool]

_VALUE = re.compile(
    r"(?P<prefix>eq|ne|gt|lt|ge|le|sa|eb|ap)?"
    r"(?P<date>\d{4}(-\d\d(-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?)?)?)"
)
_WIDEST = timedelta(days=366)  # of a dateTime, that of a year
_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Interval:
    """The stored side. `high` is None for a moment, which ends where it starts but is not empty.

    Dates kept as text (birthDate) are compared as text: a moment at the start of what they name.
    """

    low: Column[Any]
    high: Column[Any] | None
    open_ended: bool

    def starts_from(self, at: datetime) -> Condition:
        return and_(self._start >= self._as_kept(at))

    def starts_before(self, at: datetime) -> Condition:
        return and_(self._start < self._as_kept(at))

    def ends_after(self, at: datetime) -> Condition:
        return self.starts_from(at) if self.high is None else self._end > at

    def ends_by(self, at: datetime) -> Condition:
        return self.starts_before(at) if self.high is None else self._end <= at

    def is_known(self) -> Condition:
        if self.open_ended and self.high is not None:
            return or_(self.low.is_not(None), self.high.is_not(None))
        return self.low.is_not(None)

    def reaches_back(self, at: datetime) -> Condition:
        """Implied by `ends_after(at)`, but a range of the index on the start."""
        if self.open_ended:
            return self.is_known()
        return self.starts_from(at if self.high is None else max(at, _FIRST + _WIDEST) - _WIDEST)

    @property
    def _start(self) -> ColumnElement[Any]:
        return func.coalesce(self.low, literal(_FIRST, self.low.type)) if self.open_ended else self.low

    @property
    def _end(self) -> ColumnElement[Any]:
        if self.high is None:
            return self.low
        return func.coalesce(self.high, literal(_LAST, self.high.type)) if self.open_ended else self.high

    def _as_kept(self, at: datetime) -> Any:
        """As text without trailing -01: `1980` is the start of 1980 as much as `1980-01-01` is."""
        if not isinstance(self.low.type, String):
            return at
        return at.date().isoformat().removesuffix("-01").removesuffix("-01")


_Comparison = Callable[[Interval, datetime, datetime], Condition]

COMPARISONS: dict[str, _Comparison] = {
    "eq": lambda kept, low, high: and_(kept.starts_from(low), kept.starts_before(high), kept.ends_by(high)),
    "ne": lambda kept, low, high: not_(and_(kept.starts_from(low), kept.ends_by(high))),
    "gt": lambda kept, _low, high: and_(kept.ends_after(high), kept.reaches_back(high)),
    "lt": lambda kept, low, _high: kept.starts_before(low),
    "ge": lambda kept, low, high: and_(or_(kept.starts_from(low), kept.ends_after(high)), kept.reaches_back(low)),
    "le": lambda kept, low, high: and_(or_(kept.starts_before(low), kept.ends_by(high)), kept.starts_before(high)),
    "sa": lambda kept, _low, high: kept.starts_from(high),
    "eb": lambda kept, low, _high: and_(kept.ends_by(low), kept.starts_before(low)),
    "ap": lambda kept, low, high: and_(kept.starts_before(high), kept.ends_after(low), kept.reaches_back(low)),
}


def date_condition(column: Column[Any], parameter: SearchParameter, value: str, now: datetime) -> Condition:
    """Raises BadInput when `value` is no FHIR date with an optional prefix."""
    prefix, low, high = parse_date(parameter.name, value)
    if prefix == "ap":
        margin = abs(now - low) / 10  # FHIR suggests a tenth of the distance to now
        low = low - margin if low - _FIRST > margin else _FIRST
        high = high + margin if _LAST - high > margin else _LAST
    end = column.table.c[parameter.end_column] if parameter.end_column else None
    kept = Interval(column, end, parameter.open_ended)
    return and_(kept.is_known(), COMPARISONS[prefix](kept, low, high))


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
