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
    enqueue,
    finish,
    finish_all,
    postpone,
    revive,
)
from tests.conftest import Clock


def _enqueue(bridge: Bridge, *names: str, keys: tuple[str, ...] = ()) -> None:
    with bridge.db.transaction() as tx:
        enqueue(tx, *(Work("k", name, {"name": name}, order_keys=keys) for name in names), at=bridge.now())


def _claim(bridge: Bridge, limit: int = 10) -> list[Work]:
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
