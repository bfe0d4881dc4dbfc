"""DTM: the precision and zone that were sent, and nothing more."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappings.hl7v2.dtm import DTM
from mappings.hl7v2.errors import MessageError

# http://hl7.org/fhir/R4/datatypes.html#dateTime
FHIR_DATETIME = re.compile(
    r"([0-9]([0-9]([0-9][1-9]|[1-9]0)|[1-9]00)|[1-9]000)(-(0[1-9]|1[0-2])(-(0[1-9]|[1-2][0-9]|3[0-1])"
    r"(T([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?(Z|(\+|-)((0[0-9]|1[0-3]):[0-5][0-9]|14:00)))?)?)?"
)
PLUS_2 = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    ("text", "fhir_date", "fhir_datetime"),
    [
        ("1988", "1988", "1988"),
        ("198808", "1988-08", "1988-08"),
        ("19880818", "1988-08-18", "1988-08-18"),
        ("1988081811", "1988-08-18", "1988-08-18"),
        ("198808181126", "1988-08-18", "1988-08-18T11:26:00+02:00"),
        ("198808181126-0430", "1988-08-18", "1988-08-18T11:26:00-04:30"),
        ("19880818112633.25+0000", "1988-08-18", "1988-08-18T11:26:33.25+00:00"),
        ("19880818+0500", "1988-08-18", "1988-08-18"),
        (" 20240229 ", "2024-02-29", "2024-02-29"),
    ],
)
def test_precision_and_zone_are_kept(text: str, fhir_date: str, fhir_datetime: str) -> None:
    moment = DTM.parse(text)
    assert (moment.fhir_date(), moment.fhir_datetime(PLUS_2)) == (fhir_date, fhir_datetime)


def test_a_time_without_any_zone_becomes_a_date() -> None:
    assert DTM.parse("198808181126").fhir_datetime() == "1988-08-18"
    assert DTM.parse("198808181126").instant() is None


def test_the_site_zone_is_that_of_the_day_summer_time_included() -> None:
    zurich = ZoneInfo("Europe/Zurich")
    assert DTM.parse("202607011200").fhir_datetime(zurich).endswith("+02:00")
    assert DTM.parse("202612011200").fhir_datetime(zurich).endswith("+01:00")
    assert DTM.parse("188001011200").fhir_datetime(zurich).endswith("12:00:00+00:30")  # local mean time, 29 min 46 s


def test_the_instant_is_the_first_of_what_was_sent() -> None:
    assert DTM.parse("2026").instant(PLUS_2) == datetime(2025, 12, 31, 22, tzinfo=UTC)
    assert DTM.parse("20260101003000.5-0130").instant(PLUS_2) == datetime(2026, 1, 1, 2, 0, 0, 500000, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "0",
            '""',
            "00000000",
            "20230229",
            "20231301",
            "202301012500",
            "202301010060",
            "2023-01-01",
            "20230101T10",
        ),
        *("２０２３", "202301011200+1500", "202301011200+0160", "202301011200Z", "20230101120000."),
    ],
)
def test_what_is_no_time_is_refused_with_its_place(text: str) -> None:
    assert DTM.find(text) is None
    with pytest.raises(MessageError) as caught:
        DTM.parse(text, "PID^1^7")
    assert (caught.value.condition, caught.value.location) == (102, "PID^1^7")


@given(st.datetimes().filter(lambda local: 1 < local.year < 9999), st.integers(-14 * 60, 14 * 60))
def test_every_moment_round_trips_through_its_dtm(local: datetime, minutes: int) -> None:
    zone = timezone(timedelta(minutes=minutes))
    sign, (hours, rest) = "-" if minutes < 0 else "+", divmod(abs(minutes), 60)
    text = f"{local.isoformat(timespec='microseconds'):s}".translate(str.maketrans("", "", "-:T"))
    moment = DTM.parse(f"{text}{sign}{hours:02}{rest:02}")
    assert moment.instant() == local.replace(tzinfo=zone).astimezone(UTC)
    assert datetime.fromisoformat(moment.fhir_datetime()) == local.replace(tzinfo=zone)
    assert FHIR_DATETIME.fullmatch(moment.fhir_datetime())


@given(st.from_regex(r"\d{4,14}(\.\d{1,4})?([+-]\d{4})?", fullmatch=True, alphabet="0123456789.+-"))
def test_whatever_is_accepted_is_valid_fhir(text: str) -> None:
    if moment := DTM.find(text):
        assert FHIR_DATETIME.fullmatch(moment.fhir_datetime(PLUS_2))
        assert FHIR_DATETIME.fullmatch(moment.fhir_date())
