"""Asking the log: every question by itself and narrowed by others, page by page, in the same order as all at once."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from adapter import governance
from adapter.access import Actor
from adapter.bridge import Bridge
from adapter.errors import BadInput
from adapter.governance.log import Question, all_stored, find_events
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
