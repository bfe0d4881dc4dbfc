"""Asking the log: every question by itself and narrowed by others, page by page, in the same order as all at once."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from sqlalchemy import Connection, event

from adapter import governance
from adapter.access import Actor
from adapter.bridge import Bridge
from adapter.errors import BadInput
from adapter.governance.log import Question, all_stored, find_events, find_stored
from tests.conftest import Clock

DOCTORS = [Actor("person", f"Practitioner/d{n}", f"Dr. {n}", "clinician") for n in range(2)]
START = Clock().time


@pytest.fixture(autouse=True)
def _log(bridge: Bridge, clock: Clock) -> None:
    """24 looks, an hour apart from each other: photo 0, 1, 2 in turn, by two doctors in turn."""
    for n in range(24):
        with bridge.db.transaction() as tx:
            photo, doctor = f"Media/m{n % 3}/_history/1", DOCTORS[n % 2]
            governance.audit(tx, bridge, "read", doctor, patient_id=f"p{n % 3}", references=[photo], detail=str(n))
        clock.advance(hours=1)


def hour(n: int) -> datetime:
    return START + timedelta(hours=n)


@pytest.mark.parametrize(
    ("asked", "hours"),
    [
        (Question(), range(24)),
        (Question(photo="m1"), range(1, 24, 3)),
        (Question(patient_ids=frozenset({"p0", "p2"})), [n for n in range(24) if n % 3 != 1]),
        (Question(user="Practitioner/d1"), range(1, 24, 2)),
        (Question(photo="m1", user="Practitioner/d1"), range(1, 24, 6)),
        (Question(photo="m1", patient_ids=frozenset({"p1"})), range(1, 24, 3)),
        (Question(photo="m1", patient_ids=frozenset({"p0"})), []),
        (Question(photo="m1", since=hour(4), until=hour(10)), [4, 7]),
        (Question(since=hour(4), until=hour(7)), [4, 5, 6]),
        (Question(photo="none"), []),
    ],
)
def test_a_question_finds_what_it_asks_for_newest_first_also_page_by_page(
    bridge: Bridge, asked: Question, hours: list[int]
) -> None:
    expected = [str(n) for n in sorted(hours, reverse=True)]
    before, paged = None, []
    with bridge.db.snapshot() as tx:
        assert [one.detail for one in find_events(tx, asked)[0]] == expected
        while True:
            page, before = find_events(tx, asked, before=before, count=3)
            paged += [one.detail for one in page]
            if before is None:
                break
    assert paged == expected
    assert sum(len(page) for page in all_stored(bridge.db, asked)) == len(expected)


def test_a_page_link_that_is_not_ours_is_refused(bridge: Bridge) -> None:
    with bridge.db.snapshot() as tx, pytest.raises(BadInput):
        find_events(tx, Question(), before="nothing")


def _plans(tx: Connection, asked: Question) -> list[str]:
    statements: list[tuple[str, object]] = []

    def note(_c: object, _cursor: object, statement: str, values: object, *_: object) -> None:
        statements.append((statement, values))

    event.listen(tx.engine, "before_cursor_execute", note)
    find_stored(tx, asked)
    event.remove(tx.engine, "before_cursor_execute", note)
    return [
        str(row[-1]) for one, values in statements for row in tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {one}", values)
    ]


@pytest.mark.parametrize(
    "asked",
    [Question(photo="m1"), Question(patient_ids=frozenset({"p1"})), Question(user="Practitioner/d1"), Question()],
)
def test_no_question_reads_the_whole_log_or_sorts_it(bridge: Bridge, asked: Question) -> None:
    if not bridge.db.is_sqlite:
        return  # PostgreSQL scans tables as small as these
    with bridge.db.snapshot() as tx:
        plans = _plans(tx, asked)
    assert plans
    for plan in plans[:1]:
        assert "INDEX" in plan
    assert not any("TEMP B-TREE" in plan for plan in plans[:1])
