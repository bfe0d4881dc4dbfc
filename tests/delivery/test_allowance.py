"""One allowance for all workers, in the database."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import select

from adapter.bridge import Bridge
from adapter.db.tables import allowance
from adapter.delivery.allowance import SharedTally
from connectors.contract import DeliveryError
from connectors.knobs import Limits
from connectors.pace import Pace
from tests.conftest import Clock


def workers(bridge: Bridge, clock: Clock, count: int, name: str = "ehr fhir", **limits: int) -> list[Pace]:
    return [
        Pace(Limits(**limits), now=clock, tally=SharedTally(bridge.db, name), sleep=lambda _: None)
        for _ in range(count)
    ]


def sent_by(pace: Pace, tries: int) -> int:
    sent = 0
    for _ in range(tries):
        try:
            with pace.turn("write"):
                sent += 1
        except DeliveryError:
            break
    return sent


def test_two_workers_share_one_allowance(bridge: Bridge, clock: Clock) -> None:
    one, other = workers(bridge, clock, 2, per_minute=10)
    assert sent_by(one, 7) + sent_by(other, 20) == 10
    assert sent_by(one, 20) == 0
    clock.advance(seconds=62)
    assert sent_by(other, 20) == 10


def test_a_daily_quota_outlives_the_process_that_used_it(bridge: Bridge, clock: Clock) -> None:
    assert sent_by(workers(bridge, clock, 1, per_day=5)[0], 9) == 5
    (restarted,) = workers(bridge, clock, 1, per_day=5)
    assert sent_by(restarted, 9) == 0
    clock.advance(days=1)
    assert sent_by(restarted, 9) == 5


def test_workers_at_once_never_send_more_than_is_allowed(bridge: Bridge, clock: Clock) -> None:
    counts: list[int] = []
    paces = workers(bridge, clock, 4, per_minute=300)
    threads = [threading.Thread(target=lambda each=each: counts.append(sent_by(each, 200))) for each in paces]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < sum(counts) <= 300


def test_a_pause_that_one_worker_was_told_of_holds_for_all(bridge: Bridge, clock: Clock) -> None:
    one, other = workers(bridge, clock, 2, per_minute=10)
    assert one.pause(30.0) == 30.0
    with pytest.raises(DeliveryError) as error, other.turn():
        pass
    assert error.value.retry_after == pytest.approx(30, abs=1)
    clock.advance(seconds=32)
    assert sent_by(other, 1) == 1


def test_one_destinations_allowance_is_not_another_ones(bridge: Bridge, clock: Clock) -> None:
    (one,), (other,) = (workers(bridge, clock, 1, name, per_minute=3) for name in ("a fhir", "b fhir"))
    assert (sent_by(one, 9), sent_by(other, 9)) == (3, 3)


def test_counting_keeps_a_few_rows_however_long_it_goes_on(bridge: Bridge, clock: Clock) -> None:
    (pace,) = workers(bridge, clock, 1, per_minute=10, per_day=100_000)
    for _ in range(100):
        clock.advance(seconds=10)
        assert sent_by(pace, 1) == 1
    with bridge.db.snapshot() as tx:
        assert len(tx.execute(select(allowance)).all()) <= 9


def test_a_second_token_waits_until_it_may_be_asked_for(bridge: Bridge, clock: Clock) -> None:
    from connectors.contract import Rule

    one, other = (SharedTally(bridge.db, "ehr token") for _ in range(2))
    at = clock().timestamp()
    assert one.take([Rule(60, 1)], at, 1, 1).granted == 1
    assert other.take([Rule(60, 1)], at + 10, 1, 1).wait == pytest.approx(51, abs=1)
    assert other.take([Rule(60, 1)], (clock() + timedelta(seconds=62)).timestamp(), 1, 1).granted == 1
