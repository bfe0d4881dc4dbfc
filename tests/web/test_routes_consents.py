"""Consent pages: what was agreed, by what evidence, its withdrawal and what came of it."""

from __future__ import annotations

import re

from adapter.bridge import Bridge
from adapter.db.tables import delivery
from adapter.records import new_id
from tests.web.conftest import Browser, picture

SIGNED = {"method": "signature", "given_by": "patient", "use.treatment-documentation": "permit", "use.teaching": "deny"}


def signed(browser: Browser) -> str:
    """The page of the consent for treatment, given with a signature."""
    files = {"evidence": ("signature.jpg", picture(), "image/jpeg")}
    answer = browser.client.post(
        "/patients/p1/consents",
        data={"csrf_token": browser.csrf} | SIGNED,
        files=files,
        headers={"X-CSRF-Token": browser.csrf},
    )
    assert answer.status_code == 303, answer.text
    page = browser.get("/patients/p1/consents").text
    found = re.search(r'<a href="(/consents/[^"]+)">Documentation of the patient', page)
    assert found, page
    return found[1]


def test_a_consent_is_listed_and_shown_with_its_evidence(clinician: Browser, colleague: Browser) -> None:
    href = signed(clinician)
    page = clinician.get(href).text
    assert "The patient" in page and "Signed on a screen" in page and "by Dr. R. Okafor" in page
    evidence = clinician.get(f"{href}/evidence")
    assert evidence.content == picture() and evidence.headers["content-type"] == "image/jpeg"
    for path in (href, f"{href}/evidence", "/patients/p1/consents"):
        assert colleague.get(path).status_code == 404


def test_a_withdrawal_says_what_it_stopped_and_who_has_copies(
    bridge: Bridge, clinician: Browser, colleague: Browser
) -> None:
    href = signed(clinician)
    photo = clinician.capture(picture()).json()["id"]
    with bridge.db.transaction() as tx:
        known = {"media_id": photo, "patient": "p1", "created_at": bridge.now(), "updated_at": bridge.now()}
        gone = {"id": new_id(), "media_version": 1, "destination": "ehr", "state": "confirmed"}
        earlier = {"id": new_id(), "media_version": 0, "destination": "ehr", "state": "superseded"}
        tx.execute(delivery.insert(), known | earlier | {"accepted_at": bridge.now()})
        stopped = {"id": new_id(), "media_version": 1, "destination": "pacs", "state": "withheld"}
        tx.execute(delivery.insert(), known | gone | {"accepted_at": bridge.now()})
        tx.execute(delivery.insert(), known | stopped)
    exported = clinician.post("/jobs", {"operation": "export", "patient": "p1", "media": [photo]})
    assert exported.status_code == 200
    assert colleague.post(f"{href}/withdraw", {"how": "said"}).status_code == 404
    assert clinician.post(f"{href}/withdraw", {"how": "dreamt"}).status_code == 400
    assert clinician.post(f"{href}/withdraw", {"how": "paper"}).status_code == 422
    answer = clinician.post(f"{href}/withdraw", {"how": "said", "reason": "Changed her mind"})
    assert answer.status_code == 303, answer.text
    page = clinician.get(href).text
    assert "Changed her mind" in page
    assert "1</strong> delivery is stopped here" in page and "1</strong> copy left before" in page
    assert '"Who has it">ehr</td>' in page and "1 photo, as files" in page
    assert "Withdraw this consent" not in page
    assert "withdrawn" in clinician.get("/patients/p1/consents").text
