"""FHIR dates and times (http://hl7.org/fhir/R4/datatypes.html#dateTime) from and to aware datetimes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Literal, TypeAlias

Precision: TypeAlias = Literal["year", "month", "day", "second"]


def fhir_instant(at: datetime) -> str:
    """`2026-11-23T09:30:00.123Z`; ValueError for a time without a zone."""
    if at.tzinfo is None:
        raise ValueError("A FHIR instant needs a time with a zone.")
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def fhir_date_time(at: datetime, precision: Precision = "second") -> str:
    """A FHIR dateTime in the offset the clock had, no more precise than it was known."""
    if precision == "second":
        if at.tzinfo is None:
            raise ValueError("A FHIR dateTime with a time of day needs a zone.")
        return at.isoformat(timespec="seconds").replace("+00:00", "Z")
    return at.date().isoformat()[: {"year": 4, "month": 7, "day": 10}[precision]]


def period_bounds(period: dict[str, str], zone: tzinfo) -> tuple[datetime | None, datetime | None]:
    """First instant of `period.start` and first instant after `period.end`, None where open.

    FHIR counts a partial end as all of it: `2031-03` lasts to the end of March. Dates without a zone are read in
    `zone`. ValueError for text that is no FHIR dateTime.
    """
    start, end = period.get("start"), period.get("end")
    return (span(start, zone)[0] if start else None, span(end, zone)[1] if end else None)


def span(text: str, zone: tzinfo) -> tuple[datetime, datetime]:
    """The half-open span of time that a FHIR dateTime stands for: a year, a month, a day, a second or less.

    What would end after year 9999 (`9999-12-31` is a common "for ever") ends with its last second; a leap second
    counts as the second before it.
    """
    if len(text) > 10:
        at = datetime.fromisoformat(f"{text[:17]}59{text[19:]}" if text[17:19] == "60" else text)
        if at.tzinfo is None:
            raise ValueError(f"{text!r} has a time of day but no zone.")
        return at, at + timedelta(microseconds=1 if "." in text else 1_000_000)
    year, month, day = (*(int(part) for part in text.split("-")), 0, 0)[:3]
    start = datetime(year, month or 1, day or 1, tzinfo=zone)
    if year == 9999 and (month, day) in {(0, 0), (12, 0), (12, 31)}:
        return start, datetime(9999, 12, 31, 23, 59, 59, tzinfo=zone)
    if day:
        return start, start + timedelta(days=1)
    following = (year + month // 12, month % 12 + 1) if month else (year + 1, 1)
    return start, datetime(*following, 1, tzinfo=zone)


def told_in(text: str, zone: tzinfo) -> str:
    """A FHIR dateTime for people of that place, the zone named: `2026-11-23 10:00 CET`. What has no time of day stays
    as it is, and so does what is no dateTime."""
    try:
        at = datetime.fromisoformat(text) if len(text) > 10 else None
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        return text
    local = at.astimezone(zone)
    name = local.strftime("%Z")
    return f"{local:%Y-%m-%d %H:%M} {name if name[:1].isalpha() else f'UTC{name}'}"


def is_date_time(text: str) -> bool:
    """Whether it is a dateTime of the calendar: what other systems tell may match the pattern and be 30 February."""
    try:
        span(text, UTC)
    except (ValueError, OverflowError):
        return False
    return True
