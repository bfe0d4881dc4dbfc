"""A destination that is down, on each database; and what leaves again when consent ends."""

from __future__ import annotations

from datetime import timedelta

from adapter.bridge import Bridge
from adapter.delivery.circuit import (
    FAILURES,
    LONGEST,
    PROBE,
    SHORTEST,
    circuits,
    find_circuit,
    note_answer,
    note_outage,
    wait_until,
)
from tests.conftest import Clock


def fail(bridge: Bridge, clock: Clock, times: int = 1) -> None:
    for _ in range(times):
        with bridge.db.transaction() as tx:
            note_outage(tx, "x", "the answer was lost", at=clock())


def wait(bridge: Bridge, clock: Clock) -> timedelta | None:
    """How long the next delivery has to wait; None: it goes ahead."""
    with bridge.db.transaction() as tx:
        row = find_circuit(tx, "x")
        until = row and wait_until(tx, row, at=clock())
    return until - clock() if until else None


def test_a_few_outages_stop_nothing(bridge: Bridge, clock: Clock) -> None:
    fail(bridge, clock, FAILURES - 1)
    assert wait(bridge, clock) is None


def test_one_more_opens_the_circuit_and_an_answer_closes_it(bridge: Bridge, clock: Clock) -> None:
    fail(bridge, clock, FAILURES)
    assert wait(bridge, clock) == SHORTEST
    with bridge.db.transaction() as tx:
        assert [(row.destination, row.failures, row.reason) for row in circuits(tx)] == [
            ("x", FAILURES, "the answer was lost")
        ]
        note_answer(tx, "x")
    assert wait(bridge, clock) is None


def test_when_its_time_is_over_one_goes_ahead_and_the_others_wait_for_the_outcome(bridge: Bridge, clock: Clock) -> None:
    fail(bridge, clock, FAILURES)
    clock.advance(seconds=31)
    assert [wait(bridge, clock), wait(bridge, clock)] == [None, PROBE]


def test_each_further_outage_waits_longer_up_to_a_limit(bridge: Bridge, clock: Clock) -> None:
    fail(bridge, clock, FAILURES + 1)
    assert wait(bridge, clock) == 2 * SHORTEST
    fail(bridge, clock, 20)
    assert wait(bridge, clock) == LONGEST
