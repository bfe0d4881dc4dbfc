"""Looks that happen at once are written at once: each durable when its reader goes on, and a failure everybody's."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import func, select

from adapter import governance
from adapter.access import Actor
from adapter.bridge import Bridge
from adapter.db.tables import audit_event, audit_tail
from adapter.governance import looks
from adapter.governance.looks import write_looks

DOCTOR = Actor("person", "Practitioner/d1", "Dr. D", "clinician", address="10.0.0.7")


def look(bridge: Bridge, photo: str) -> int:
    """How many events of this look are in the log when it returns."""
    governance.audit_look(bridge, DOCTOR, patient_id="p1", references=[f"Media/{photo}/_history/1"])
    with bridge.db.snapshot() as tx:
        return sum(f"Media/{photo}/" in body for body in tx.execute(select(audit_event.c.body)).scalars())


def test_every_look_is_durable_when_it_returns_and_written_once(bridge: Bridge) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda n: look(bridge, f"m{n}"), range(40))) == [1] * 40
    with bridge.db.snapshot() as tx:
        for table in (audit_event, audit_tail):
            assert tx.execute(select(func.count()).select_from(table)).scalar_one() == 40


def test_who_comes_while_one_writes_is_written_together_by_the_next(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    writing, go_on = threading.Event(), threading.Event()
    original = looks.create_all

    def slowly(tx: Any, told: list[Any], **more: Any) -> Any:
        sizes.append(len(told))
        writing.set()
        assert go_on.wait(10)
        return original(tx, told, **more)

    monkeypatch.setattr(looks, "create_all", slowly)
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(look, bridge, "m0")
        assert writing.wait(10)
        others = [pool.submit(look, bridge, f"m{n}") for n in range(1, 6)]
        while (filling := looks._OF[bridge.db]._open) is None or len(filling.told) < 5:
            pass
        go_on.set()
        assert [one.result() for one in [first, *others]] == [1] * 6
    assert sizes == [1, 5]


def test_a_look_that_cannot_be_written_is_an_error_of_everybody_who_waited_for_it(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(looks, "create_all", lambda *_, **__: 1 / 0)
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(look, bridge, f"m{n}") for n in range(4)]:
                with pytest.raises(ZeroDivisionError):
                    done.result()
    assert look(bridge, "m9") == 1


def test_nothing_looked_at_is_nothing_written(bridge: Bridge) -> None:
    write_looks(bridge, [])
    with bridge.db.snapshot() as tx:
        assert tx.execute(select(func.count()).select_from(audit_event)).scalar_one() == 0
