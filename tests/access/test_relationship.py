"""Staff outside an EHR open the charts of those whom they treat, one at a time; all others need the glass."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest

from adapter.access import Actor
from adapter.access.handoff import PHONE_SCOPES
from adapter.access.policy import grants_of
from adapter.access.sessions import COOKIE, NOBODY, start_session
from adapter.bridge import Bridge
from adapter.records import create_all, find_where
from tests.access.conftest import Serve, photo
from tests.conftest import Clock
from tests.fhir_api.conftest import InProcess
from tests.web.conftest import Browser, patient, visit

NUMBERS = "urn:oid:2.16.840.1.113883.19.5.9"
ME = {"identifier": {"system": NUMBERS, "value": "D7"}, "display": "Dr. Seven"}


def taking_part(visit_id: str, patient_id: str, who: dict[str, Any], **more: Any) -> dict[str, Any]:
    return visit(visit_id, patient_id) | {"participant": [{"individual": who}]} | more


@pytest.fixture
def staff(serve: Serve) -> tuple[Bridge, Browser]:
    """A clinician who signed in outside an EHR, known to ADT as D7."""
    bridge, client = serve(treating_days=30)
    scopes, rights = grants_of("clinician")
    actor = Actor(
        "person", "Person/x", "Dr. X", "clinician", scopes, rights, patient_id=NOBODY, practitioner=f"D7|{NUMBERS}"
    )
    with bridge.db.transaction() as tx:
        cookie, session = start_session(tx, actor, at=bridge.now(), lifetime=timedelta(days=60))
    transport = InProcess(client._transport._inner.app)  # type: ignore[attr-defined]
    signed_in = httpx.Client(transport=transport, base_url="http://testserver", cookies={COOKIE: cookie})
    return bridge, Browser(signed_in, session.csrf)


def told(bridge: Bridge, *records: dict[str, Any]) -> None:
    with bridge.db.transaction() as tx:
        create_all(tx, records, at=bridge.now())


def test_the_chart_of_a_visit_one_takes_part_in_opens_and_no_other(staff: tuple[Bridge, Browser]) -> None:
    bridge, browser = staff
    told(bridge, taking_part("e3", "p1", ME))
    assert browser.get("/").headers["location"] == "/charts"
    listed = browser.get("/charts").text
    assert "/charts/p1/open" in listed and "/charts/p2/open" not in listed
    assert browser.get("/patients/p1").status_code == 404  # not before it is opened
    assert browser.post("/charts/p2/open").status_code == 404
    assert browser.post("/charts/p1/open").headers["location"] == "/patients/p1"
    assert browser.get("/patients/p1").status_code == 200
    assert browser.get("/patients/p2").status_code == 404
    assert browser.get("/photos/secret").status_code == 403  # a relationship is no reason for what is very restricted
    with bridge.db.snapshot() as tx:
        events = str([one.resource for one in find_where(tx, "AuditEvent")])
    assert "chart opened by relationship: visit" in events


def test_opening_a_second_chart_closes_the_first(staff: tuple[Bridge, Browser]) -> None:
    bridge, browser = staff
    told(bridge, taking_part("e3", "p1", ME), taking_part("e4", "p2", {"reference": "Person/x"}))
    for opened, closed in (("p1", "p2"), ("p2", "p1")):
        assert browser.post(f"/charts/{opened}/open").status_code == 303
        assert browser.get(f"/patients/{opened}").status_code == 200
        assert browser.get(f"/patients/{closed}").status_code == 404


def test_a_phone_that_was_handed_one_chart_opens_no_other(staff: tuple[Bridge, Browser]) -> None:
    bridge, browser = staff
    told(bridge, taking_part("e3", "p1", ME), taking_part("e4", "p2", ME))
    phone = Actor("person", "Person/x", "X", "clinician", PHONE_SCOPES, patient_id="p1", practitioner=f"D7|{NUMBERS}")
    with bridge.db.transaction() as tx:
        cookie, session = start_session(tx, phone, at=bridge.now(), lifetime=timedelta(hours=1))
    browser.client.cookies.clear()
    browser.client.cookies.set(COOKIE, cookie)
    assert Browser(browser.client, session.csrf).post("/charts/p2/open").status_code == 403


def test_whom_one_photographed_one_may_see_again(staff: tuple[Bridge, Browser]) -> None:
    bridge, browser = staff
    mine = {"operator": {"reference": "Person/x"}, "createdDateTime": "2026-11-20T09:10:00Z"}
    told(bridge, photo("mine", "p1", **mine))
    assert browser.post("/charts/p1/open").status_code == 303


@pytest.mark.parametrize(
    "record",
    [
        taking_part("e3", "p1", {"identifier": {"system": NUMBERS, "value": "D8"}}),
        taking_part("e3", "p1", {"identifier": {"system": "urn:oid:1.2", "value": "D7"}}),
        taking_part("e3", "p1", ME, status="cancelled"),
        taking_part("e3", "p1", ME, period={"start": "2026-01-01", "end": "2026-01-02"}),
        photo("mine", "p1", operator={"reference": "Person/x"}, createdDateTime="2026-01-02T09:10:00Z"),
    ],
    ids=["somebody else", "another authority", "cancelled", "long ago", "photographed long ago"],
)
def test_what_is_no_relationship_opens_nothing(staff: tuple[Bridge, Browser], record: dict[str, Any]) -> None:
    bridge, browser = staff
    told(bridge, record)
    assert "/charts/p1/open" not in browser.get("/charts").text
    assert browser.post("/charts/p1/open").status_code == 404


def test_a_visit_counts_for_a_while_after_it_ended(staff: tuple[Bridge, Browser], clock: Clock) -> None:
    bridge, browser = staff
    told(bridge, taking_part("e3", "p1", ME, period={"start": "2026-11-20", "end": "2026-11-22"}))
    for days, status in ((0, 303), (29, 303), (3, 404)):
        clock.advance(days=days)
        with bridge.db.transaction() as tx:
            scopes, rights = grants_of("clinician")
            again = Actor("person", "Person/x", "X", "clinician", scopes, rights, NOBODY, practitioner=f"D7|{NUMBERS}")
            cookie, session = start_session(tx, again, at=bridge.now(), lifetime=timedelta(hours=1))
        browser.client.cookies.clear()
        browser.client.cookies.set(COOKIE, cookie)
        assert Browser(browser.client, session.csrf).post("/charts/p1/open").status_code == status


def test_a_relationship_with_a_merged_number_is_one_with_the_survivor(staff: tuple[Bridge, Browser]) -> None:
    bridge, browser = staff
    merged = patient("old", "0999", "Lindqvist") | {
        "active": False,
        "link": [{"other": {"reference": "Patient/p1"}, "type": "replaced-by"}],
    }
    told(bridge, merged, taking_part("e3", "p1", ME))
    assert browser.post("/charts/old/open").status_code == 303
    assert browser.get("/patients/p1").status_code == 200
