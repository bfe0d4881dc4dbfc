"""Messages applied many at a time have the effect they would have had one by one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from sqlalchemy import event, select

from adapter.bridge import Bridge, open_bridge
from adapter.db.tables import adt_message, metadata
from adapter.identity import apply_message, apply_messages, receive_messages
from adapter.records import create, find_where, new_id
from adapter.work import Lane, WorkLoop
from tests.identity.conftest import MRN
from tests.identity.test_merges import photo
from tests.identity.world import message, mr, mrg, pid, pv1

Apply = Callable[[], int]

FEED = [
    *(message("A01", f"1{n}", pid(f"{n}"), pv1(f"V{n}")) for n in range(12)),
    *(message("A08", f"2{n}", pid(f"{n}", f5=f"Name{n}^Jane"), pv1(f"V{n}", f3="ICU")) for n in range(12)),
    message("A08", "30", pid("3"), pv1("V5")),  # the visit is another patient's
    message("A08", "31", pid("3", f5="Never^Applied")),  # waits behind it
    message("A40", "32", pid("7"), mrg(f1=mr("8"))),
    message("A28", "33", pid("99", f7="not a date")),
    message("A20", "34", "NPU|DERM"),
    message("A31", "35", pid("1", f5="Last^Jane")),
]


def _apply(site: Bridge, *, together: bool) -> None:
    lane = Lane(partial(apply_message, site), dead_blocks=True)
    if together:
        lane = Lane(lane.handler, dead_blocks=True, claims=64, together=partial(apply_messages, site))
    WorkLoop(site.db, {"apply-adt": lane}, now=site.now).run_until_idle()


_BY_ARRIVAL = select(adt_message.c.state, adt_message.c.reason).order_by(adt_message.c.id)


def _outcome(site: Bridge) -> tuple[list[Any], list[Any]]:
    """What became of the messages, and the records by their identifiers, without ids and times."""
    with site.db.snapshot() as tx:
        states = [tuple(row) for row in tx.execute(_BY_ARRIVAL)]
        records = [one for kind in ("Patient", "Encounter") for one in find_where(tx, kind)]
        audited = len(find_where(tx, "AuditEvent"))
    told = [
        (
            one.resource_type,
            one.version_id,
            [identifier["value"] for identifier in one.resource["identifier"]],
            one.resource.get("name"),
            one.resource.get("location"),
            one.resource.get("status"),
            one.resource.get("active"),
        )
        for one in records
    ]
    return sorted(told, key=str), [*states, audited]


@pytest.fixture
def another(site: Bridge, tmp_path_factory: pytest.TempPathFactory) -> Bridge:
    """A second, empty installation with the same settings, on SQLite."""
    folder = tmp_path_factory.mktemp("another")
    settings = site.settings.model_copy(update={"data_dir": folder, "database_url": None})
    opened = open_bridge(settings, now=site.now)
    metadata.create_all(opened.db.writing_engine)
    return opened


def test_together_is_as_one_by_one(site: Bridge, another: Bridge) -> None:
    for one, together in ((site, True), (another, False)):
        receive_messages(one, FEED, "test")
        _apply(one, together=together)
    assert _outcome(site) == _outcome(another)
    another.close()


def test_a_broken_message_holds_up_none_of_those_claimed_with_it(site: Bridge) -> None:
    receive_messages(site, FEED, "test")
    _apply(site, together=True)
    states = _outcome(site)[1][:-1]
    assert [state for state, _ in states].count("queued") == 2
    assert [state for state, _ in states].count("received") == 1
    assert "another patient" in next(reason for state, reason in states if state == "queued")


def test_a_hundred_messages_take_a_few_statements(site: Bridge) -> None:
    receive_messages(site, [message("A01", f"{n}", pid(f"{n}"), pv1(f"V{n}")) for n in range(100)], "test")
    statements: list[str] = []
    engine = site.db.writing_engine
    event.listen(engine, "before_cursor_execute", lambda _c, _cursor, sql, *_rest: statements.append(sql))
    lane = Lane(partial(apply_message, site), claims=128, together=partial(apply_messages, site))
    WorkLoop(site.db, {"apply-adt": lane}, now=site.now).run_until_idle()
    locks = sum("advisory" in sql for sql in statements)
    assert len(statements) - locks < 40


def test_waiting_photos_are_bound_by_messages_applied_together(site: Bridge) -> None:
    with site.db.transaction() as tx:
        waiting = photo(tx, site, (MRN, "5"))
        create(
            tx,
            {"resourceType": "Patient", "id": new_id(), "identifier": [{"system": "x", "value": "y"}]},
            at=site.now(),
        )
    receive_messages(site, FEED[:12], "test")
    _apply(site, together=True)
    with site.db.snapshot() as tx:
        (bound,) = find_where(tx, "Media")
        (owner,) = [one for one in find_where(tx, "Patient") if (MRN, "5") in _tokens(one.resource)]
    assert bound.id == waiting.id
    assert bound.resource["subject"]["reference"] == owner.reference


def _tokens(patient: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["system"], one["value"]) for one in patient["identifier"]]
