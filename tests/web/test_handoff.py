"""From the desk to a phone: one link, one patient, once, within minutes; and the phone can do no more than that."""

from __future__ import annotations

import re

import httpx
import pytest
import segno

from adapter.access.tokens import issue_token
from adapter.bridge import Bridge
from adapter.web import handoff as pages
from tests.conftest import Clock
from tests.fhir_api.conftest import InProcess
from tests.web.conftest import Browser, picture


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the codes say: read where they are drawn, since a test has no camera."""
    said: list[str] = []
    draw = segno.make

    def drawn(text: str, **options: object) -> segno.QRCode:
        said.append(text)
        return draw(text, **options)

    monkeypatch.setattr(pages.segno, "make", drawn)
    return said


def scan(browser: Browser, links: list[str]) -> str:
    answer = browser.get("/handoff?patient=p1&encounter=e1")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("image/svg")
    return links[-1].split("/h/")[1]


def phone(app: object) -> httpx.Client:
    return httpx.Client(transport=InProcess(app), base_url="http://testserver")


def capture(on: httpx.Client, page: str, **headers: str) -> httpx.Response:
    csrf = re.search(r'name="csrf-token" content="([^"]+)"', page)
    assert csrf is not None
    sent = {"Content-Type": "image/jpeg", "X-CSRF-Token": csrf[1]} | headers
    return on.post("/captures", content=picture(), headers=sent)


def test_a_phone_takes_a_photo_for_the_patient_of_the_desk(app: object, clinician: Browser, links: list[str]) -> None:
    clinician.capture(picture(91))
    with phone(app) as mobile:
        opened = mobile.get(f"/h/{scan(clinician, links)}")
        assert opened.status_code == 303 and opened.headers["location"] == "/capture?patient=p1&encounter=e1"
        page = mobile.get(opened.headers["location"], headers={"Accept": "text/html"})
        assert page.status_code == 200 and "LINDQVIST" in page.text
        assert '"priors": []' in page.text and "/handoff" not in page.text
        stored = capture(mobile, page.text)
        assert stored.status_code == 201, stored.text
        assert mobile.get(f"/captures/{stored.json()['id']}").status_code == 200
    shown = clinician.get("/patients/p1").text
    assert stored.json()["id"] in shown


def test_the_phone_can_do_nothing_else(app: object, clinician: Browser, colleague: Browser, links: list[str]) -> None:
    other = colleague.capture(picture(92)).json()["id"]
    with phone(app) as mobile:
        mobile.get(f"/h/{scan(clinician, links)}")
        page = mobile.get("/capture?patient=p1", headers={"Accept": "text/html"}).text
        for path in ("/patients/p1", "/jobs", "/deliveries", "/worklist", "/audit", "/admin", "/handoff?patient=p1"):
            assert mobile.get(path).status_code == 403, path
        assert mobile.get("/fhir/Media").status_code == 403
        assert mobile.get("/capture?patient=p2").status_code == 404
        assert mobile.get(f"/captures/{other}/display").status_code == 404
        metadata = "eyJwYXRpZW50IjogIlBhdGllbnQvcDIifQ"  # {"patient": "Patient/p2"}
        assert capture(mobile, page, **{"DermBridge-Metadata": metadata}).status_code == 404


def test_a_link_opens_once_and_not_after_ten_minutes(
    bridge: Bridge, clock: Clock, app: object, clinician: Browser, links: list[str]
) -> None:
    secret = scan(clinician, links)
    with phone(app) as first, phone(app) as second:
        assert first.get(f"/h/{secret}").status_code == 303
        assert second.get(f"/h/{secret}").status_code == 403
        assert second.get("/capture?patient=p1").status_code == 401
        late = scan(clinician, links)
        clock.advance(minutes=10)
        assert second.get(f"/h/{late}").status_code == 403
        assert second.get("/h/guessed").status_code == 403


def test_the_session_of_the_phone_ends_by_itself(
    clock: Clock, app: object, clinician: Browser, links: list[str]
) -> None:
    with phone(app) as mobile:
        mobile.get(f"/h/{scan(clinician, links)}")
        for _ in range(3):
            assert mobile.get("/capture?patient=p1").status_code == 200
            clock.advance(minutes=10)
        assert mobile.get("/capture?patient=p1").status_code == 401


@pytest.mark.parametrize("mended", [False, True], ids=["at its time", "before"])
def test_what_broken_glass_handed_to_a_phone_ends_with_it(
    bridge: Bridge, clock: Clock, app: object, clinician: Browser, links: list[str], mended: bool
) -> None:
    object.__setattr__(bridge, "settings", bridge.settings.model_copy(update={"emergency_minutes": 12}))
    clinician.post("/break-glass", {"reason": "ETREAT", "why": "bleeding wound seen in clinic"})
    clock.advance(minutes=8)
    with phone(app) as opened, phone(app) as late:
        opened.get(f"/h/{scan(clinician, links)}")
        unopened = scan(clinician, links)
        assert opened.get("/capture?patient=p1").status_code == 200
        if mended:
            assert clinician.post("/break-glass/end").status_code == 303
        else:
            clock.advance(minutes=4)
        assert opened.get("/capture?patient=p1").status_code == 401
        assert late.get(f"/h/{unopened}").status_code == 403


def test_only_who_may_take_photos_of_the_patient_makes_a_link(bridge: Bridge, app: object, colleague: Browser) -> None:
    assert colleague.get("/handoff?patient=p1").status_code == 404
    with bridge.db.transaction() as tx:
        _, secret = issue_token(tx, name="camera", scope="system/*.crs", at=bridge.now())
    with phone(app) as machine:
        answer = machine.get("/handoff?patient=p1", headers={"Authorization": f"Bearer {secret}"})
        assert answer.status_code == 403


def test_the_database_holds_no_secret(bridge: Bridge, clinician: Browser, links: list[str]) -> None:
    secret = scan(clinician, links)
    with bridge.db.snapshot() as tx:
        rows = tx.exec_driver_sql("SELECT * FROM handoff").all()
    assert len(rows) == 1 and secret not in str(rows)
