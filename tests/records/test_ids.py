"""UUIDv7 ids: layout, order, and what happens at the edges of a millisecond."""

from __future__ import annotations

import multiprocessing
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.records.ids import new_id

TIMES = st.datetimes(datetime(1970, 1, 2), datetime(9999, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(TIMES)
def test_an_id_is_a_version_7_uuid_that_carries_its_millisecond(now: datetime) -> None:
    text = new_id(now)
    parsed = uuid.UUID(text)
    assert (str(parsed), parsed.version, parsed.variant) == (text, 7, uuid.RFC_4122)
    carried = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=parsed.int >> 80)
    assert abs(carried - now) <= timedelta(milliseconds=1)


def test_ids_rise_strictly_even_when_thousands_share_a_millisecond() -> None:
    now = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
    stated = [new_id(now) for _ in range(10_000)]
    running = [new_id() for _ in range(10_000)]
    assert stated == sorted(set(stated))
    assert running == sorted(set(running))


def test_ids_keep_rising_when_the_system_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = new_id()
    an_hour_ago = time.time_ns() - 3600 * 10**9
    monkeypatch.setattr("adapter.records.ids.time.time_ns", lambda: an_hour_ago)
    assert first < new_id() < new_id()


def test_an_id_for_a_future_time_does_not_drag_later_ids_into_the_future() -> None:
    future = new_id(datetime(2090, 1, 1, tzinfo=UTC))
    assert new_id() < future
    assert new_id(datetime(2020, 1, 1, tzinfo=UTC)) < future


def test_threads_never_get_the_same_id() -> None:
    ids: list[str] = []
    threads = [threading.Thread(target=lambda: ids.extend([new_id() for _ in range(2000)])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 16_000


def _ids_of_one_moment(count: int) -> list[str]:
    return [new_id(datetime(2026, 11, 23, tzinfo=UTC)) for _ in range(count)]


def test_forked_processes_never_get_the_same_id() -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        batches = pool.map(_ids_of_one_moment, [500] * 4, chunksize=1)
    assert len(set().union(*batches)) == 2000


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        new_id(datetime(2026, 11, 23))  # noqa: DTZ001
