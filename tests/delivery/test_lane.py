"""The lane of deliveries: what is begun where, and what an error of ours leaves in the ledger."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adapter import consent
from adapter.bridge import Bridge
from adapter.delivery import lane
from adapter.delivery.circuit import FAILURES, note_answer, note_outage
from adapter.delivery.deliver import QUICK_SECONDS
from adapter.delivery.lane import AT_MOST, Rounds, delivery_lane, room
from adapter.work import Work, WorkLoop, loop
from adapter.work.loop import ATTEMPTS
from connectors.contract import DeliveryError, Parcel, Receipt, Retry
from tests.conftest import Clock
from tests.delivery.test_deliver import Site


@pytest.fixture
def site(bridge: Bridge, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    said = SimpleNamespace(permit=True, because="", consent_ids=(), policy_id=None)
    monkeypatch.setattr(consent, "decide_each", lambda tx, bridge, asked: [said for _ in asked])
    entry = {"name": "x", "based_on": "directory", "folder": str(tmp_path / "out")}
    settings = bridge.settings.model_copy(update={"destinations": (entry,)})
    opened = Site(dataclasses.replace(bridge, settings=settings), clock)
    yield opened
    opened.destinations.close()


def run(site: Site) -> None:
    lanes = {"deliver": delivery_lane(site.bridge, site.destinations)}
    WorkLoop(site.bridge.db, lanes, now=site.clock).run_until_idle()


def break_once(site: Site, monkeypatch: pytest.MonkeyPatch, method: str, times: int = 1) -> None:
    """An error of ours, after the destination did what it was asked."""
    connector = site.destinations.get("x")
    real, left = getattr(connector, method), [None] * times

    def broken(*arguments: Any) -> Any:
        answer = real(*arguments)
        if left:
            left.pop()
            raise KeyError("a defect")
        return answer

    monkeypatch.setattr(connector, method, broken)


def test_nothing_is_begun_where_it_is_left_alone_and_then_one_to_try_it(bridge: Bridge, clock: Clock) -> None:
    assert room(bridge, "x") is None
    with bridge.db.transaction() as tx:
        for _ in range(FAILURES):
            note_outage(tx, "x", "down", at=clock())
    assert (room(bridge, "x"), room(bridge, "y")) == (0, None)
    clock.advance(seconds=31)
    assert room(bridge, "x") == 1
    with bridge.db.transaction() as tx:
        note_answer(tx, "x")
    assert room(bridge, "x") is None


@pytest.mark.parametrize(("limits", "expected"), [({}, None), ({"at_once": 2}, 2)])
def test_the_profile_says_how_many_are_under_way_at_once(
    site: Site, limits: dict[str, int], expected: int | None
) -> None:
    entry = {**site.bridge.settings.destinations[0], "limits": limits}
    settings = site.bridge.settings.model_copy(update={"destinations": (entry,)})
    lane = delivery_lane(dataclasses.replace(site.bridge, settings=settings), site.destinations)
    assert lane.at_once is not None
    assert (lane.at_once("x"), lane.at_once("no longer configured")) == (expected, None)


def test_after_an_error_of_ours_the_photo_is_looked_for_and_not_sent_twice(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.capture()
    break_once(site, monkeypatch, "send")
    run(site)
    row = site.row()
    assert (row.state, row.reason, row.remedy) == (
        "unknown",
        "internal error (KeyError)",
        "nothing to do yet: it is tried again",
    )
    site.clock.advance(minutes=1)
    run(site)
    assert site.states() == {1: "confirmed"} and site.attempts()[0] == ("find", "duplicate")


@pytest.mark.parametrize(("method", "state"), [("send", "unknown"), ("read_back", "accepted")])
def test_an_error_of_ours_that_stays_waits_for_a_person_who_can_send_it_again(
    site: Site, monkeypatch: pytest.MonkeyPatch, method: str, state: str
) -> None:
    site.capture()
    for each in {method, "find"} if method == "send" else {method}:
        break_once(site, monkeypatch, each, times=ATTEMPTS)
    for _ in range(ATTEMPTS + 1):
        run(site)
        site.clock.advance(hours=7)
    row = site.row()
    assert row.state == state and "look into the log" in row.remedy
    monkeypatch.undo()
    said = SimpleNamespace(permit=True, because="", consent_ids=())
    monkeypatch.setattr(consent, "decide_each", lambda tx, bridge, asked: [said for _ in asked])
    site.again()
    run(site)
    assert site.states() == {1: "confirmed"}


@pytest.mark.parametrize("arrived", [True, False])
def test_a_worker_that_is_stopped_waits_for_no_answer_and_the_next_one_looks_for_the_photo(
    site: Site, monkeypatch: pytest.MonkeyPatch, arrived: bool
) -> None:
    monkeypatch.setattr(loop, "GRACE_SECONDS", 0.05)
    site.capture()
    connector = site.destinations.get("x")
    send, begun, never = connector.send, threading.Event(), threading.Event()

    def silent(parcel: Parcel) -> Receipt:
        if arrived:
            send(parcel)
        begun.set()
        never.wait(20)
        raise DeliveryError("lost", remedy="", retry=Retry.UNKNOWN)

    with monkeypatch.context() as changed:
        changed.setattr(connector, "send", silent)
        lanes = {"deliver": delivery_lane(site.bridge, site.destinations)}
        worker = WorkLoop(site.bridge.db, lanes, now=site.clock)
        worker.start()
        assert begun.wait(20)
        worker.stop()
    row = site.row()
    assert (row.state, row.reason) == ("unknown", loop.STOPPED)
    run(site)
    never.set()  # much too late
    for thread in threading.enumerate():
        if thread.name.startswith("work-deliver-"):
            thread.join(20)
    assert site.row().state == "confirmed"
    assert site.attempts()[0] == (("find", "duplicate") if arrived else ("send", "accepted"))


def test_a_round_is_as_large_as_the_destination_is_quick_and_goes_on_with_what_was_not_begun(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, took = list[int](), iter((0.0, 2 * QUICK_SECONDS, 10.0, 10.0 + QUICK_SECONDS / 4))

    def first_alone(_bridge: Bridge, _destinations: Any, items: Sequence[Work]) -> Sequence[Work]:
        given.append(len(items))
        return items[1:] if len(given) == 1 else ()

    monkeypatch.setattr(lane, "deliver_together", first_alone)
    monkeypatch.setattr(lane, "time", SimpleNamespace(monotonic=lambda: next(took)))
    rounds = Rounds(site.bridge, site.destinations)
    assert list(rounds.deliver([Work("deliver", f"d{n}", destination="x") for n in range(3)])) == []
    assert given == [3, 2] and rounds.at_a_time("x") == AT_MOST
