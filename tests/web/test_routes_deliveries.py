"""/deliveries: pages by keyset, filters served by an index, tries that are sends."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, select

from adapter.app import build_app
from adapter.bridge import Bridge
from adapter.db.tables import delivery, delivery_attempt
from adapter.delivery.circuit import circuits, note_outage
from adapter.records import create_all, delivery_list, find_where, new_id
from adapter.records.delivery_list import causes, confirmed_since, pace_of, page_of_deliveries, standings
from connectors.contract import CANNOT_LOOK
from tests.web.conftest import Browser, patient, sign_in

NAMES = ("ehr", "pacs")


@pytest.fixture
def administrator(bridge: Bridge) -> Browser:
    settings = bridge.settings.model_copy(update={"destinations": tuple({"name": name} for name in NAMES)})
    object.__setattr__(bridge, "settings", settings)
    with bridge.db.transaction() as tx:
        create_all(tx, [patient("p1", "1001", "Lindqvist")], at=bridge.now())
    return sign_in(bridge, build_app(bridge), "administrator", None)


def sent(bridge: Bridge, count: int, destination: str, state: str, **ago: float) -> list[str]:
    at = bridge.now() - timedelta(**ago)
    ids = [new_id(at) for _ in range(count)]
    rows = [
        {"id": one, "media_id": one, "media_version": 1, "patient": "p1", "destination": destination, "state": state}
        | {"created_at": at, "updated_at": at}
        for one in ids
    ]
    with bridge.db.transaction() as tx:
        tx.execute(delivery.insert(), rows)
    return ids


def rows_of(page: str) -> list[str]:
    return re.findall(r'<td data-label="Destination">(\w+)</td>', page)


def test_a_filtered_list_is_paged_without_losing_its_filter(bridge: Bridge, administrator: Browser) -> None:
    sent(bridge, 70, "ehr", "confirmed", hours=1)
    sent(bridge, 20, "pacs", "confirmed", minutes=30)
    sent(bridge, 5, "ehr", "failed", minutes=5)
    page = administrator.get("/deliveries?state=confirmed").text
    assert rows_of(page) == ["pacs"] * 20 + ["ehr"] * 30
    older = re.search(r'href="([^"]+)">Older deliveries', page)
    assert older is not None
    assert rows_of(administrator.get(older[1].replace("&amp;", "&")).text) == ["ehr"] * 40
    assert rows_of(administrator.get("/deliveries?destination=ehr").text)[:6] == ["ehr"] * 6
    assert len(rows_of(administrator.get("/deliveries").text)) == 50
    assert administrator.get("/deliveries?destination=nowhere").status_code == 400


def test_each_destination_says_what_is_in_chart_lately_and_how_old_the_oldest_unsent_is(
    bridge: Bridge, administrator: Browser
) -> None:
    sent(bridge, 3, "ehr", "confirmed", hours=2)
    sent(bridge, 4, "ehr", "confirmed", hours=30)
    sent(bridge, 2, "ehr", "pending", hours=3)
    with bridge.db.snapshot() as tx:
        assert confirmed_since(tx, NAMES, bridge.now() - timedelta(hours=24)) == {"ehr": 3}
        assert [(one.destination, one.state, one.count) for one in standings(tx, NAMES)] == [("ehr", "pending", 2)]
    page = administrator.get("/deliveries").text
    assert "Oldest unsent: <strong>3 h</strong>" in page and '3 <span class="muted">in 24 hours' in page


def test_tries_are_sends_not_looks(bridge: Bridge, administrator: Browser) -> None:
    (one,) = sent(bridge, 1, "ehr", "confirmed", minutes=1)
    at = bridge.now()
    with bridge.db.transaction() as tx:
        for action in ("find", "send", "read-back"):
            row = {"delivery_id": one, "action": action, "started_at": at, "ended_at": at, "outcome": "accepted"}
            tx.execute(delivery_attempt.insert(), row)
    assert '<td data-label="Tries">1</td>' in administrator.get("/deliveries").text


@pytest.mark.parametrize("db_url", ["sqlite"], indirect=True)  # whose plans are read
def test_a_filter_never_scans_the_ledger(bridge: Bridge, administrator: Browser) -> None:
    statements: list[tuple[str, Any]] = []
    with bridge.db.snapshot() as tx:
        event.listen(tx, "before_cursor_execute", lambda _c, _u, sql, given, *_: statements.append((sql, given)))
        page_of_deliveries(tx, destinations=NAMES, states=["failed", "held"], before=new_id())
        standings(tx, NAMES)
        confirmed_since(tx, NAMES, bridge.now())
        causes(tx, "ehr")
        pace_of(tx, "ehr", bridge.now())
        for sql, given in list(statements):
            plan = [row[3] for row in tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", given)]
            assert not any(re.match(r"SCAN (delivery|work)\b", step) for step in plan), plan


def test_a_destination_is_stopped_and_goes_on_and_the_card_says_so(bridge: Bridge, administrator: Browser) -> None:
    destinations = tuple({"name": name, "based_on": "hand-off"} for name in NAMES)
    object.__setattr__(bridge, "settings", bridge.settings.model_copy(update={"destinations": destinations}))
    said = {"say": "stop", "because": "maintenance until noon"}
    assert administrator.post("/deliveries/destinations/ehr", said).status_code == 303
    page = administrator.get("/deliveries").text
    assert "Stopped: maintenance until noon" in page and 'name="because"' in page
    assert 'id="resume-ehr"' in page and 'id="stop-pacs"' in page
    administrator.post("/deliveries/destinations/ehr", {"say": "resume"})
    assert "Stopped:" not in administrator.get("/deliveries").text
    with bridge.db.snapshot() as tx:
        told = [each.resource.get("outcomeDesc") or str(each.resource) for each in find_where(tx, "AuditEvent")]
    assert any("deliveries to ehr stopped" in one for one in told)
    assert administrator.post("/deliveries/destinations/ehr", {"say": "shout"}).status_code == 400
    assert administrator.post("/deliveries/destinations/nowhere", {"say": "stop"}).status_code == 404


def test_failures_are_told_by_cause_with_their_remedy_and_sent_again_at_once(
    bridge: Bridge, administrator: Browser
) -> None:
    destinations = tuple({"name": name, "based_on": "hand-off"} for name in NAMES)
    object.__setattr__(bridge, "settings", bridge.settings.model_copy(update={"destinations": destinations}))
    ids = sent(bridge, 3, "ehr", "failed", minutes=5)
    told = {"reason": "It answered 422.", "remedy": "Assign an open visit."}
    with bridge.db.transaction() as tx:
        tx.execute(delivery.update().values(**told))
    page = administrator.get("/deliveries").text
    assert "<strong>3</strong> It answered 422." in page and "Assign an open visit." in page
    assert page.count("Everything sent") == len(NAMES) - 1 and "Nothing waits" in page
    administrator.post("/deliveries/destinations/ehr", {"say": "replay"})
    with bridge.db.snapshot() as tx:
        again = tx.execute(select(delivery.c.id).where(delivery.c.state == "pending")).scalars().all()
        assert sorted(again) == sorted(ids)


def test_who_looked_where_nobody_can_ask_says_what_they_saw_and_the_log_keeps_it(
    bridge: Bridge, administrator: Browser
) -> None:
    there, absent, refused = sent(bridge, 3, "ehr", "failed", minutes=5)
    with bridge.db.transaction() as tx:
        lost = delivery.update().where(delivery.c.id.in_([there, absent]))
        tx.execute(lost.values(reason=CANNOT_LOOK, remedy="Look there for document 7."))
    page = administrator.get("/deliveries").text
    assert page.count("I looked there") == 2 and f'id="retry-{refused}"' in page and f'id="retry-{there}"' not in page
    administrator.post("/deliveries/destinations/ehr", {"say": "replay"})  # sends nothing that may be there
    assert administrator.post(f"/deliveries/{there}/looked", {"there": "yes", "because": " "}).status_code == 400
    assert administrator.post(f"/deliveries/{refused}/looked", {"there": "yes", "because": "x"}).status_code == 409
    administrator.post(f"/deliveries/{there}/looked", {"there": "yes", "because": "in the inbox"})
    administrator.post(f"/deliveries/{absent}/looked", {"there": "no", "because": "nothing of today"})
    with bridge.db.snapshot() as tx:
        state = {row.id: row.state for row in tx.execute(select(delivery.c.id, delivery.c.state))}
        told = [str(each.resource) for each in find_where(tx, "AuditEvent")]
        looks = tx.execute(select(delivery_attempt.c.outcome).where(delivery_attempt.c.action == "look")).scalars()
        assert sorted(looks) == ["absent", "there"]
    assert (state[there], state[absent]) == ("accepted", "pending")
    assert any(": seen there, says" in one and "in the inbox" in one for one in told)
    page = administrator.get("/deliveries?state=accepted").text
    assert "seen there by" in page and "duplicate" not in page  # no receipt, for there is none


def test_the_card_tells_outages_pace_and_the_time_to_the_chart(bridge: Bridge, administrator: Browser) -> None:
    ids = sent(bridge, 20, "ehr", "confirmed", seconds=30)
    with bridge.db.transaction() as tx:
        tx.execute(delivery.update().values(accepted_at=bridge.now(), confirmed_at=bridge.now()))
        note_outage(tx, "ehr", "It refused the connection.", at=bridge.now() - timedelta(minutes=5))
        note_outage(tx, "ehr", "It refused the connection.", at=bridge.now())
        began_at = circuits(tx)[0].began_at
    assert began_at == bridge.now() - timedelta(minutes=5)
    page = administrator.get("/deliveries").text
    assert "2 a minute, in chart after 30 s (at most 30 s for 95 %)" in page
    assert "2 outages since" in page and "It refused the connection." in page
    assert page.count("In chart after 30 s") == len(ids)


def test_counts_of_many_end_where_a_person_stops_counting(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_list, "COUNTED", 5)
    sent(bridge, 9, "ehr", "accepted", hours=1)
    with bridge.db.snapshot() as tx:
        assert [(one.state, one.count) for one in standings(tx, NAMES)] == [("accepted", 5)]
