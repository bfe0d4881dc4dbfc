"""What lets somebody in is gone once it is of no use, and nothing sooner."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Column, Table, func, insert, select

from adapter.access import expiry
from adapter.access.expiry import KEPT, KIND, forget_expired, put_in_line
from adapter.bridge import Bridge
from adapter.db.tables import metadata, work
from adapter.work import Lane, WorkLoop
from tests.conftest import Clock

OF_USE: dict[Any, Any] = {str: "", bytes: b"", bool: False, int: 0}


def row(column: Column[Any], at: Any, number: int) -> dict[str, Any]:
    """One that has only what it must have."""
    needed = [one for one in column.table.c if not one.nullable]
    values = {one.name: OF_USE.get(one.type.python_type, at) for one in needed}
    unique = {one.name: f"{number}" for one in needed if one.primary_key or one.unique}
    return values | unique | {column.name: at}


def run(bridge: Bridge) -> None:
    WorkLoop(bridge.db, {KIND: Lane(partial(forget_expired, bridge))}, now=bridge.now).run_until_idle()


@pytest.mark.parametrize("column", KEPT, ids=str)
def test_what_has_ended_is_forgotten_when_its_time_is_over(
    column: Column[Any], bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "_AT_ONCE", 2)
    due = bridge.now() - KEPT[column]
    times = [due - timedelta(seconds=one) for one in (1, 2, 3)] + [due, due + timedelta(seconds=1)]
    with bridge.db.transaction() as tx:
        tx.execute(insert(column.table), [row(column, at, number) for number, at in enumerate(times)])
        put_in_line(tx, bridge)
    run(bridge)
    with bridge.db.snapshot() as tx:
        assert tx.execute(select(func.min(column), func.count()).select_from(column.table)).one() == (due, 2)


def test_it_is_done_again_every_hour_and_by_one_process_only(bridge: Bridge, clock: Clock) -> None:
    def in_line() -> list[Any]:
        with bridge.db.snapshot() as tx:
            return list(tx.execute(select(work.c.due_at).where(work.c.kind == KIND)).scalars())

    for _ in range(2):  # two processes start
        with bridge.db.transaction() as tx:
            put_in_line(tx, bridge)
    assert in_line() == [clock()]
    run(bridge)
    assert in_line() == [clock() + timedelta(hours=1)]


def test_whatever_ends_is_forgotten_and_found_by_an_index() -> None:
    assert all(column.index for column in KEPT)
    ends: list[Table] = [table for table in metadata.sorted_tables if "expires_at" in table.c]
    assert {table.name for table in ends} <= {column.table.name for column in KEPT}
