"""The work table: in order, under a lease, fenced, never lost."""

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from adapter.bridge import Bridge
from adapter.db.tables import work, work_key
from adapter.work import (
    Lane,
    LeaseLost,
    Work,
    WorkLoop,
    bury,
    cancel,
    claim,
    due_lines,
    enqueue,
    finish,
    finish_all,
    postpone,
    release_expired,
    revive,
)
from tests.conftest import Clock


def _enqueue(bridge: Bridge, *names: str, keys: tuple[str, ...] = ()) -> None:
    with bridge.db.transaction() as tx:
        enqueue(tx, *(Work("k", name, {"name": name}, order_keys=keys) for name in names), at=bridge.now())


def _claim(bridge: Bridge, limit: int = 10) -> list[Work]:
    release_expired(bridge.db, now=bridge.now())
    return claim(bridge.db, "k", limit=limit, now=bridge.now())


def _left(bridge: Bridge) -> tuple[int, int]:
    with bridge.db.snapshot() as tx:
        return (
            tx.execute(select(func.count()).select_from(work)).scalar_one(),
            tx.execute(select(func.count()).select_from(work_key)).scalar_one(),
        )


def test_the_same_key_is_in_line_once(bridge: Bridge) -> None:
    _enqueue(bridge, "a", "a", "b")
    _enqueue(bridge, "a")
    assert [item.payload["name"] for item in _claim(bridge)] == ["a", "b"]


def test_a_leased_item_is_not_claimed_again_until_its_lease_runs_out(bridge: Bridge, clock: Clock) -> None:
    _enqueue(bridge, "a")
    first = _claim(bridge)[0]
    assert _claim(bridge) == []
    clock.advance(minutes=2)
    second = _claim(bridge)[0]
    assert (second.id, second.attempts) == (first.id, 2)
    with pytest.raises(LeaseLost), bridge.db.transaction() as tx:
        finish(tx, first)
    with bridge.db.transaction() as tx:
        finish(tx, second)
    assert _left(bridge) == (0, 0)


def test_items_with_a_common_key_are_done_one_after_the_other(bridge: Bridge) -> None:
    _enqueue(bridge, "a", "b", keys=("patient-1",))
    _enqueue(bridge, "c", keys=("patient-2",))
    first = _claim(bridge)
    assert [item.payload["name"] for item in first] == ["a", "c"]
    with bridge.db.transaction() as tx:
        finish(tx, first[0])
    assert [item.payload["name"] for item in _claim(bridge)] == ["b"]


def test_an_item_that_names_two_keys_waits_for_both_and_holds_both(bridge: Bridge) -> None:
    _enqueue(bridge, "one", keys=("p1",))
    _enqueue(bridge, "merge", keys=("p1", "p2"))
    _enqueue(bridge, "two", keys=("p2",))
    one = _claim(bridge)
    assert [item.payload["name"] for item in one] == ["one"]
    with bridge.db.transaction() as tx:
        finish(tx, one[0])
    assert [item.payload["name"] for item in _claim(bridge)] == ["merge"]


@pytest.mark.parametrize(("blocks", "then"), [(True, []), (False, ["b"])])
def test_a_dead_item_blocks_its_keys_only_when_told(bridge: Bridge, blocks: bool, then: list[str]) -> None:
    _enqueue(bridge, "a", "b", keys=("patient-1",))
    claimed = _claim(bridge)[0]
    with bridge.db.transaction() as tx:
        bury(tx, claimed, reason="no", remedy="mend", blocks=blocks)
    assert [item.payload["name"] for item in _claim(bridge)] == then


def test_a_revived_item_runs_again_and_a_cancelled_one_never(bridge: Bridge, clock: Clock) -> None:
    _enqueue(bridge, "a", "b")
    a, b = _claim(bridge)
    with bridge.db.transaction() as tx:
        bury(tx, a, reason="no", remedy="mend", blocks=False)
        postpone(tx, b, due_at=bridge.now() + timedelta(hours=1), reason="later")
    with bridge.db.transaction() as tx:
        assert revive(tx, "a", at=bridge.now())
        assert cancel(tx, "b")
        assert not cancel(tx, "b")
    clock.advance(hours=2)
    assert [item.payload["name"] for item in _claim(bridge)] == ["a"]


def test_enqueue_vanishes_with_its_transaction(bridge: Bridge) -> None:
    with pytest.raises(ValueError), bridge.db.transaction() as tx:
        enqueue(tx, Work("k", "a"), at=bridge.now())
        raise ValueError("no")
    assert _claim(bridge) == []


def _loop(bridge: Bridge, handler: Callable[[Work], None]) -> WorkLoop:
    return WorkLoop(bridge.db, {"k": Lane(handler)}, now=bridge.now)


def test_a_failing_handler_is_tried_again_later_and_others_go_on(bridge: Bridge, clock: Clock) -> None:
    seen: list[str] = []

    def handler(item: Work) -> None:
        seen.append(item.payload["name"])
        if item.payload["name"] == "bad" and item.attempts == 1:
            raise RuntimeError("defect")
        with bridge.db.transaction() as tx:
            finish(tx, item)

    _enqueue(bridge, "bad", "good")
    _loop(bridge, handler).run_until_idle()
    assert seen == ["bad", "good"]
    clock.advance(minutes=1)
    _loop(bridge, handler).run_until_idle()
    assert seen == ["bad", "good", "bad"]
    assert _left(bridge) == (0, 0)


def test_no_more_of_a_destination_is_leased_to_all_workers_together_than_it_bears(bridge: Bridge) -> None:
    with bridge.db.transaction() as tx:
        items = [Work("k", f"{there}{number}", destination=there) for there in "ab" for number in range(9)]
        enqueue(tx, *items, at=bridge.now())
    claimed: list[Work] = []

    def worker() -> None:
        claimed.extend(claim(bridge.db, "k", "a", limit=2, now=bridge.now(), at_once=3))

    workers = [threading.Thread(target=worker) for _ in range(4)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    assert len(claimed) == 3
    with bridge.db.transaction() as tx:
        finish(tx, claimed[0])
    assert len(claim(bridge.db, "k", "a", limit=2, now=bridge.now(), at_once=3)) == 1
    assert len(claim(bridge.db, "k", "b", limit=2, now=bridge.now(), at_once=3)) == 2


def test_the_running_loop_does_what_arrives_and_stops_cleanly(bridge: Bridge) -> None:
    done = threading.Event()

    def handler(item: Work) -> None:
        with bridge.db.transaction() as tx:
            finish(tx, item)
        done.set()

    loop = _loop(bridge, handler)
    loop.start()
    _enqueue(bridge, "a")
    assert done.wait(10)
    loop.stop()
    assert _left(bridge) == (0, 0)


def test_a_lane_does_what_it_can_together_and_the_rest_one_by_one(bridge: Bridge) -> None:
    singly: list[str] = []

    def handler(item: Work) -> None:
        singly.append(item.payload["name"])
        with bridge.db.transaction() as tx:
            finish(tx, item)

    def together(items: Sequence[Work]) -> Sequence[Work]:
        able = [item for item in items if item.payload["name"] != "b"]
        with bridge.db.transaction() as tx:
            finish_all(tx, able)
        return [item for item in items if item not in able]

    _enqueue(bridge, "a", "b", "c", keys=())
    lane = Lane(handler, together=together)
    assert WorkLoop(bridge.db, {"k": lane}, now=bridge.now).run_until_idle() == 3
    assert singly == ["b"]
    assert _left(bridge) == (0, 0)


def test_when_doing_it_together_fails_each_is_done_by_itself(bridge: Bridge) -> None:
    singly: list[str] = []

    def handler(item: Work) -> None:
        singly.append(item.payload["name"])
        with bridge.db.transaction() as tx:
            finish(tx, item)

    def together(items: Sequence[Work]) -> Sequence[Work]:
        with bridge.db.transaction() as tx:
            finish_all(tx, items)
            raise ValueError("one of them is broken")

    _enqueue(bridge, "a", "b")
    WorkLoop(bridge.db, {"k": Lane(handler, together=together)}, now=bridge.now).run_until_idle()
    assert singly == ["a", "b"]
    assert _left(bridge) == (0, 0)


def test_finishing_together_needs_every_lease(bridge: Bridge, clock: Clock) -> None:
    _enqueue(bridge, "a", "b")
    mine = _claim(bridge)
    clock.advance(minutes=2)
    _claim(bridge, 1)
    with pytest.raises(LeaseLost), bridge.db.transaction() as tx:
        finish_all(tx, mine)
    assert _left(bridge)[0] == 2


def test_each_destination_in_which_something_is_due_is_a_line_of_its_own(bridge: Bridge, clock: Clock) -> None:
    with bridge.db.transaction() as tx:
        enqueue(tx, *(Work("k", f"{name}{n}", destination=name) for name in ("b", "a", "") for n in "12"), at=clock())
        enqueue(tx, Work("j", "x", destination="a"), at=clock())
        enqueue(tx, Work("k", "later", destination="c"), at=clock(), due_at=clock() + timedelta(hours=1))
    assert sorted(due_lines(bridge.db, ["k", "j", "i"], now=clock())) == [("j", "a"), ("k", ""), ("k", "a"), ("k", "b")]
    assert [item.idempotency_key for item in claim(bridge.db, "k", "b", limit=9, now=clock())] == ["b1", "b2"]
    assert sorted(due_lines(bridge.db, ["k"], now=clock())) == [("k", ""), ("k", "a")]


def test_a_destination_that_never_answers_keeps_no_other_waiting(bridge: Bridge) -> None:
    dead, answered = threading.Event(), threading.Event()

    def handle(item: Work) -> None:
        if item.destination == "dead":
            dead.wait()
        with bridge.db.transaction() as tx:
            finish(tx, item)
        if item.idempotency_key == "well9":
            answered.set()

    with bridge.db.transaction() as tx:
        enqueue(tx, *(Work("k", f"dead{n}", destination="dead") for n in range(10)), at=bridge.now())
        enqueue(tx, *(Work("k", f"well{n}", destination="well") for n in range(10)), at=bridge.now())
    loop = WorkLoop(bridge.db, {"k": Lane(handle, threads=2)}, now=bridge.now)
    loop.start()
    try:
        assert answered.wait(20)
        assert _left(bridge)[0] == 10
    finally:
        dead.set()
        loop.stop()


def test_a_lane_may_say_how_many_to_begin_at_a_destination(bridge: Bridge) -> None:
    done: list[str] = []

    def handle(item: Work) -> None:
        done.append(item.destination)
        with bridge.db.transaction() as tx:
            finish(tx, item)

    with bridge.db.transaction() as tx:
        enqueue(tx, *(Work("k", f"{name}{n}", destination=name) for name in ("a", "b") for n in "12"), at=bridge.now())
    lane = Lane(handle, room=lambda destination: 0 if destination == "b" else None)
    assert WorkLoop(bridge.db, {"k": lane}, now=bridge.now).run_until_idle() == 2
    assert done == ["a", "a"]
