"""/audit: what the privacy officer asks of the log, on pages and as CSV; nobody else may."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

import pytest

from adapter.access import SYSTEM
from adapter.bridge import Bridge
from adapter.governance import audit
from tests.web.conftest import Browser, picture, sign_in


@pytest.fixture
def officer(bridge: Bridge, app: object) -> Iterator[Browser]:
    yield sign_in(bridge, app, "privacy-officer", None)


def rows_of(answer: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(answer)))


def test_it_tells_who_saw_a_photo_a_patient_and_what_a_user_did(
    clinician: Browser, colleague: Browser, officer: Browser
) -> None:
    own, other = (who.capture(picture(90)).json()["id"] for who in (clinician, colleague))
    clinician.get(f"/photos/{own}")
    colleague.get(f"/photos/{other}")
    by_photo = rows_of(officer.get(f"/audit.csv?photo={own}").text)
    assert [row["did"] for row in by_photo] == ["Viewed", "Stored"]
    assert {row["patient"] for row in by_photo} == {"p1"} and by_photo[0]["who"] == "Dr. R. Okafor"
    by_number = rows_of(officer.get("/audit.csv?patient=1002").text)
    assert {row["patient"] for row in by_number} == {"p2"}
    by_user = rows_of(officer.get("/audit.csv?user=Practitioner/privacy-officer").text)
    assert {row["did"] for row in by_user} == {"Listed"}
    page = officer.get(f"/audit?photo=/photos/{own}").text
    assert "LINDQVIST" in page and "OKAFOR, " not in page
    assert rows_of(officer.get("/audit.csv?photo=none").text) == []
    assert rows_of(officer.get("/audit.csv?patient=none").text) == []
    assert rows_of(officer.get("/audit.csv?since=2026-11-24").text) == []
    assert officer.get("/audit?since=yesterday").status_code == 400


def test_a_long_log_is_read_page_by_page(bridge: Bridge, officer: Browser) -> None:
    with bridge.db.transaction() as tx:
        for number in range(120):
            audit(tx, bridge, "read", SYSTEM, patient_id="p1", references=[f"Media/m{number}/_history/1"])
    seen: list[str] = []
    href = "/audit?patient=p1"
    while href:
        page = officer.get(href).text
        seen += re.findall(r"photo=(m\d+)", page)
        found = re.search(r'href="([^"]+)">Older entries', page)
        href = found[1].replace("&amp;", "&") if found else ""
    assert [one for one in seen if one.startswith("m")] == [f"m{number}" for number in reversed(range(120))]


@pytest.mark.parametrize("query", ["since=yesterday", "until=9999-12-31"])
def test_a_day_that_is_none_is_refused(officer: Browser, query: str) -> None:
    for page in ("/audit", "/audit.csv"):
        assert officer.get(f"{page}?{query}").status_code == 400


def test_a_cell_is_never_a_formula(bridge: Bridge, officer: Browser) -> None:
    with bridge.db.transaction() as tx:
        audit(tx, bridge, "update", SYSTEM, patient_id="p1", references=["Media/m1"], detail="=1+1")
    assert "'=1+1" in [row["detail"] for row in rows_of(officer.get("/audit.csv").text)]


def test_only_the_right_to_audit_opens_it(clinician: Browser, administrator: Browser) -> None:
    for browser in (clinician, administrator):
        assert browser.get("/audit").status_code == 403
        assert browser.get("/audit.csv").status_code == 403
