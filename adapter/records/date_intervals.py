"""What a FHIR date stands for: all moments of its precision."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def date_interval(text: str) -> tuple[datetime, datetime]:
    """The half-open interval [low, high) that a FHIR date, dateTime or instant stands for; UTC where it has no zone.

    Raises ValueError for anything else.
    """
    if len(text) == 4:
        return _utc(f"{text}-01-01"), _utc(f"{int(text) + 1:04}-01-01")
    if len(text) == 7:
        low = _utc(f"{text}-01")
        return low, (_later(low, timedelta(days=32))).replace(day=1) if low.year < 9999 else _LAST
    low = _utc(text.replace(":60", ":59"))  # FHIR lets a leap second pass
    if len(text) == 10:
        return low, _later(low, timedelta(days=1))
    if "." in text:
        return low, _later(low, timedelta(milliseconds=1))
    has_seconds = text[16:17] == ":"
    return low, _later(low, timedelta(seconds=1) if has_seconds else timedelta(minutes=1))


_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)  # 9999-12-31 is how many systems say "for ever"


def _utc(text: str) -> datetime:
    at = _LAST if text.startswith("10000") else datetime.fromisoformat(text)
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError:  # the first and the last day there are, in a zone beside ours
        return _LAST if at.year > 1 else _FIRST


def _later(at: datetime, span: timedelta) -> datetime:
    return at + span if _LAST - at > span else _LAST
