"""DTM (and TS, DT): a time as precise as it was sent, with the zone it was sent with.

`YYYY[MM[DD[HH[MM[SS[.S[S[S[S]]]]]]]]][+/-ZZZZ]`, HL7 v2.9.1 section 2A.2.22.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo

from mappings.hl7v2.errors import DATA_TYPE_ERROR, MessageError

_GRAMMAR = re.compile(
    r"(?P<year>\d{4})(?:(?P<month>\d\d)(?:(?P<day>\d\d)(?:(?P<hour>\d\d)(?:(?P<minute>\d\d)"
    r"(?:(?P<second>\d\d)(?:\.(?P<fraction>\d{1,6}))?)?)?)?)?)?(?P<offset>[+-]\d{4})?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class DTM:
    """A moment with its precision: parts that were not sent are None, `zone` is the offset as sent or None."""

    year: int
    month: int | None = None
    day: int | None = None
    hour: int | None = None
    minute: int | None = None
    second: int | None = None
    fraction: str = ""
    zone: timezone | None = None

    @classmethod
    def parse(cls, text: str, location: str = "") -> DTM:
        """Read a DTM; raises MessageError (condition 102, at `location`) for what is not in grammar or calendar."""
        if found := cls.find(text):
            return found
        raise MessageError(
            "The field does not hold a valid date or time.", condition=DATA_TYPE_ERROR, location=location
        )

    @classmethod
    def find(cls, text: str) -> DTM | None:
        """Read a DTM, None when the text is empty or invalid: for fields that may be wrong without harm."""
        match = _GRAMMAR.fullmatch(text.strip())
        if not match:
            return None
        parts = match.groupdict()
        numbers = {part: int(parts[part]) for part in _NUMBERS if parts[part] is not None}
        try:
            found = cls(**numbers, fraction=parts["fraction"] or "", zone=_zone(parts["offset"]))
            found._local()
        except ValueError:
            return None
        return found

    def _local(self) -> datetime:
        """The first instant of what was sent, without zone; raises ValueError outside the calendar."""
        day = date(self.year, 1 if self.month is None else self.month, 1 if self.day is None else self.day)
        microsecond = int(self.fraction.ljust(6, "0")) if self.fraction else 0
        clock = (self.hour or 0, self.minute or 0, self.second or 0, microsecond)
        return datetime(day.year, day.month, day.day, *clock)  # noqa: DTZ001

    def fhir_date(self) -> str:
        """`YYYY`, `YYYY-MM` or `YYYY-MM-DD`."""
        parts = (f"{self.year:04}", *(f"{part:02}" for part in (self.month, self.day) if part is not None))
        return "-".join(parts)

    def fhir_datetime(self, default_offset: tzinfo | None = None) -> str:
        """FHIR dateTime. Hours need minutes and a zone: seconds default to `:00`; without a zone (own, else
        `default_offset`: the offset of MSH-7 or the site's zone) or without minutes only the date is kept.
        """
        local = self._local()
        zone = self.zone or default_offset
        if self.minute is None or zone is None:
            return self.fhir_date()
        fraction = f".{self.fraction}" if self.fraction else ""
        minutes = round((zone.utcoffset(local) or timedelta()) / timedelta(minutes=1))
        sign, (hours, rest) = "-" if minutes < 0 else "+", divmod(abs(minutes), 60)
        return f"{local.isoformat(timespec='seconds')[:19]}{fraction}{sign}{hours:02}:{rest:02}"

    def instant(self, default_offset: tzinfo | None = None) -> datetime | None:
        """First instant of what was sent, in UTC, for comparing; None when the zone is not known."""
        return self._in_utc(self._local(), default_offset)

    def last_instant(self, default_offset: tzinfo | None = None) -> datetime | None:
        """Last instant that may be meant, in UTC: the end of the day, minute or second that was sent, and the second
        time round in the hour that is repeated when summer time ends; None when the zone is not known.
        """
        first, month = self._local(), self.month or 12
        end = first.replace(
            month=month,
            day=self.day or monthrange(self.year, month)[1],
            hour=23 if self.hour is None else self.hour,
            minute=59 if self.minute is None else self.minute,
            second=59 if self.second is None else self.second,
            microsecond=first.microsecond if self.fraction else 999_999,
        )
        meant = (self._in_utc(end.replace(fold=fold), default_offset) for fold in (0, 1))
        return max(filter(None, meant), default=None)

    def _in_utc(self, local: datetime, default_offset: tzinfo | None) -> datetime | None:
        zone = self.zone or default_offset
        try:
            return local.replace(tzinfo=zone).astimezone(UTC) if zone else None
        except OverflowError:
            return None


_NUMBERS = ("year", "month", "day", "hour", "minute", "second")


def _zone(offset: str | None) -> timezone | None:
    """FHIR allows offsets to 14 hours; raises ValueError beyond."""
    if not offset:
        return None
    hours, minutes = int(offset[1:3]), int(offset[3:])
    if hours > 14 or minutes > 59 or (hours == 14 and minutes):
        raise ValueError("offset out of range")
    span = timedelta(hours=hours, minutes=minutes)
    return timezone(-span if offset[0] == "-" else span)
