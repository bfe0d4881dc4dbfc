"""How fast a destination is spoken to, and what its own codes mean."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.contract import AlreadyThere, DeliveryError, Retry, RouteRefused
from connectors.knobs import Limits, Signal
from connectors.pace import Pace
from connectors.signals import as_error, codes_at, find_signal, seconds_to_midnight, seconds_to_minute

START = datetime(2026, 11, 23, 9, 30, 20, tzinfo=UTC)


class Paced:
    """A pace with a clock of its own that sleeping moves."""

    def __init__(self, **limits: Any) -> None:
        self.time = START
        self.pace = Pace(Limits(**limits), now=lambda: self.time, sleep=self.pass_by)

    def pass_by(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)

    def take(self, times: int = 1) -> None:
        for _ in range(times):
            with self.pace.turn():
                pass

    def refusal(self) -> float:
        with pytest.raises(DeliveryError) as error:
            self.take()
        assert error.value.retry is Retry.LATER and error.value.retry_after is not None
        return error.value.retry_after


def test_a_sliding_minute_lets_one_in_for_each_that_left_it() -> None:
    paced = Paced(per_minute=3)
    paced.take(2)
    paced.pass_by(30)
    paced.take()
    assert paced.refusal() == pytest.approx(30, abs=1)  # counted by the second
    paced.pass_by(31)
    paced.take(2)
    assert paced.refusal() > 25


def test_a_fixed_minute_begins_anew_at_its_full_minute() -> None:
    paced = Paced(per_minute=3, window="minute")
    paced.take(3)
    assert paced.refusal() == pytest.approx(40)
    paced.pass_by(40)
    paced.take(3)


def test_what_a_request_counts_is_its_weight() -> None:
    paced = Paced(per_minute=100, weights={"write": 60})
    with paced.pace.turn("write"):
        paced.take(40)
    assert paced.refusal() > 55


def test_a_request_heavier_than_the_limit_is_refused_by_the_profile() -> None:
    with pytest.raises(ValueError, match="never be made"):
        Limits(per_minute=10, weights={"write": 11})


@pytest.mark.parametrize(("at", "many"), [("18:59", 1), ("19:00", 3), ("05:00", 3), ("07:00", 1)])
def test_other_hours_have_another_limit_in_the_destinations_time_zone(at: str, many: int) -> None:
    off_peak = {"begins": "19:00", "ends": "07:00", "per_minute": 3}
    here = datetime.fromisoformat(f"2026-11-23T{at}:00-05:00")
    pace = Pace(
        Limits.model_validate({"per_minute": 1, "off_peak": off_peak}), now=lambda: here, zone="America/New_York"
    )
    for _ in range(many):
        with pace.turn():
            pass
    with pytest.raises(DeliveryError), pace.turn():
        pass


def test_a_daily_quota_begins_anew_at_midnight() -> None:
    paced = Paced(per_day=2)
    paced.take(2)
    wait = paced.refusal()
    assert START + timedelta(seconds=wait) > datetime(2026, 11, 24, tzinfo=UTC)
    paced.pass_by(wait)
    paced.take(2)


def test_a_short_wait_is_waited_out() -> None:
    paced = Paced(per_minute=1)
    paced.take()
    paced.pass_by(59)
    paced.take()
    assert paced.time - START >= timedelta(seconds=60)


@pytest.mark.parametrize(
    ("limits", "asked", "wait"), [({}, 7.0, 7.0), ({}, None, 60.0), ({"window": "minute"}, None, 41)]
)
def test_a_busy_destination_is_asked_by_nobody_for_as_long_as_it_said_or_the_profile_says(
    limits: dict[str, Any], asked: float | None, wait: float
) -> None:
    paced = Paced(**limits)
    assert paced.pace.pause(asked) == wait
    assert paced.refusal() == pytest.approx(wait)
    paced.pass_by(wait)
    paced.take()


@given(st.datetimes(timezones=st.just(UTC)))
def test_the_next_minute_and_day_are_never_in_the_past_and_never_far(now: datetime) -> None:
    assert 0 < seconds_to_minute(now) <= 61
    if now.year < 9999:
        assert 0 < seconds_to_midnight(now) <= 86_460


@pytest.mark.parametrize(
    ("body", "codes"),
    [
        ({"issue": [{"details": {"coding": [{"code": "4135"}]}}, {"details": {}}]}, {"4135"}),
        ({"status": [{"code": 139}]}, {"139"}),
        ({"status": "139"}, {"139"}),
        (None, set()),
        ([1, 2], set()),
        ({"issue": "x"}, set()),
    ],
)
def test_vendor_codes_are_found_wherever_the_profile_says(body: Any, codes: set[str]) -> None:
    assert codes_at(body, ["issue.details.coding.code", "status.code", "status"]) == codes


def test_the_first_signal_that_fits_counts() -> None:
    coded = Signal(code="1", means="never")
    signals = (Signal(status=400, code="1", means="later"), coded, Signal(status=400, means="look"))
    assert find_signal(signals, 400, {"1"}) is signals[0]
    assert find_signal(signals, 500, {"1"}) is coded
    assert find_signal(signals, 400, set()) is signals[2]
    assert find_signal(signals, 500, set()) is None


@pytest.mark.parametrize(
    ("means", "kind", "retry", "waits"),
    [
        ("duplicate", AlreadyThere, Retry.UNKNOWN, False),
        ("never", DeliveryError, Retry.NEVER, False),
        ("later", DeliveryError, Retry.LATER, False),
        ("look", DeliveryError, Retry.UNKNOWN, False),
        ("next-day", DeliveryError, Retry.LATER, True),
        ("next-minute", DeliveryError, Retry.LATER, True),
        ("next-route", RouteRefused, Retry.NEVER, False),
    ],
)
def test_a_signal_says_whether_and_when_to_try_again(means: Any, kind: type, retry: Retry, waits: bool) -> None:
    error = as_error(Signal(status=400, code="42", means=means), doing="Creating Media", now=START)
    assert (type(error), error.retry, error.retry_after is not None) == (kind, retry, waits)
    assert "42" in str(error) and error.remedy
