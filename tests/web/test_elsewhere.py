"""/patients/{id}/elsewhere: what an EHR holds of the patient, copied by choice, beside a photo of ours, and removed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import func, select

from adapter.bridge import Bridge
from adapter.db.tables import audit_event
from adapter.sandbox.vendors import Fault, RunningVendor, running_vendor
from adapter.sandbox.vendors.photos_there import file_photo
from tests.connectors.vendor_site import photo
from tests.web.conftest import Browser, picture, sign_in

PAGE = "/patients/p1/elsewhere"


@pytest.fixture
def ehr() -> Iterator[RunningVendor]:
    with running_vendor("hapi") as running:
        running.vendor.admit("1001", "1961-03-12")
        running.vendor.admit("1002", "1961-03-12")
        yield running


@pytest.fixture
def bridge(bridge: Bridge, ehr: RunningVendor) -> Bridge:
    entry = ehr.destination("main-ehr", timeouts={"read": 2.0, "attempts": 1})
    return dataclasses.replace(bridge, settings=bridge.settings.model_copy(update={"destinations": (entry,)}))


def audited(bridge: Bridge) -> int:
    with bridge.db.snapshot() as tx:
        return int(tx.execute(select(func.count()).select_from(audit_event)).scalar_one())


def test_the_page_names_what_is_there_and_shows_no_picture_of_it(
    bridge: Bridge, clinician: Browser, ehr: RunningVendor
) -> None:
    file_photo(ehr.vendor, "1001", photo(1))
    file_photo(ehr.vendor, "1001", photo(2), content={"contentType": "application/pdf", "url": "Binary/1"})
    before = audited(bridge)
    page = clinician.get(PAGE).text
    assert 'value="main-ehr Media/1"' in page and "2 Mar 2026" in page and "Left cheek" in page
    assert "Stays there: it is no photo but application/pdf" in page and "/thumbnail" not in page
    assert audited(bridge) == before + 1
    assert f'href="{PAGE}"' in clinician.get("/patients/p1").text


def test_a_copy_stands_beside_ours_on_the_comparison_and_the_timeline(
    bridge: Bridge, clinician: Browser, ehr: RunningVendor
) -> None:
    ours = clinician.capture(picture()).json()["id"]
    photo_id = file_photo(ehr.vendor, "1001", photo(1))
    answer = clinician.post(PAGE, {"photo": f"main-ehr {photo_id}", "beside": ours})
    assert answer.status_code == 303
    compared = parse_qs(urlsplit(answer.headers["location"]).query)["media"]
    assert compared[1] == ours and len(compared) == 2
    page = clinician.get(answer.headers["location"]).text
    assert f"/captures/{compared[0]}/display" in page and f"{PAGE}?beside=" in page
    assert clinician.get(f"/captures/{compared[0]}/clean").content.startswith(b"\xff\xd8")
    assert "from main-ehr" in clinician.get("/patients/p1").text
    shown = clinician.get(f"/photos/{compared[0]}").text
    assert "A copy of a photo at main-ehr" in shown and "Correct the details" not in shown
    assert "copied" in clinician.get(PAGE).text


def test_a_copy_can_be_removed_at_once_and_a_photo_of_ours_cannot(clinician: Browser, ehr: RunningVendor) -> None:
    ours = clinician.capture(picture()).json()["id"]
    photo_id = file_photo(ehr.vendor, "1001", photo(1))
    place = clinician.post(PAGE, {"photo": f"main-ehr {photo_id}"}).headers["location"]
    copy = urlsplit(place).path.rpartition("/")[2]
    assert clinician.post(PAGE, {"forget": ours}).status_code == 404
    assert clinician.post(PAGE, {"forget": copy}).status_code == 303
    assert clinician.get(f"/photos/{copy}").status_code in (404, 410)
    assert clinician.get(f"/photos/{ours}").status_code == 200


def test_what_somebody_saved_outlives_a_copy_removed_by_hand(
    bridge: Bridge, clinician: Browser, ehr: RunningVendor
) -> None:
    ours = [clinician.capture(picture(seed)).json()["id"] for seed in (1, 2)]
    copied = clinician.post(PAGE, {"photo": f"main-ehr {file_photo(ehr.vendor, '1001', photo(3))}"})
    copy = urlsplit(copied.headers["location"]).path.rpartition("/")[2]
    saved = clinician.post("/saved-comparisons", {"media": [*ours, copy], "version": ["1"] * 3}).headers["location"]
    clinician.post(PAGE, {"forget": copy})
    shown = clinician.get(saved)
    assert shown.status_code == 200 and "Photo 3: It is not in this record any more." in shown.text


def test_enter_on_a_choice_removes_no_copy(clinician: Browser, ehr: RunningVendor) -> None:
    copied, _ = (file_photo(ehr.vendor, "1001", photo(seed)) for seed in (1, 2))
    clinician.post(PAGE, {"photo": f"main-ehr {copied}"})
    page = clinician.get(PAGE).text
    assert 'form="forget" name="forget"' in page  # a button of another form than the choices
    assert '<form id="forget" method="post"' in page and page.count('name="forget"') == 1


def test_a_photo_of_another_patient_there_is_refused(clinician: Browser, ehr: RunningVendor) -> None:
    theirs = file_photo(ehr.vendor, "1002", photo(1))
    answer = clinician.post(PAGE, {"photo": f"main-ehr {theirs}"})
    assert answer.status_code == 422 and "not in this patient" in answer.text
    assert clinician.post(PAGE, {}).status_code == 400


def test_a_system_that_is_away_is_said_to_be_while_the_page_opens(clinician: Browser, ehr: RunningVendor) -> None:
    ehr.vendor.faults = [Fault("lost-before", "", "")]
    page = clinician.get(PAGE)
    assert page.status_code == 200 and "notice-warning" in page.text


def test_who_may_not_copy_sees_the_list_alone(bridge: Bridge, app: Any, ehr: RunningVendor) -> None:
    file_photo(ehr.vendor, "1001", photo(1))
    officer = sign_in(bridge, app, "privacy-officer", None)
    page = officer.get(PAGE).text
    assert "Left cheek" in page and 'name="photo"' not in page
    assert officer.post(PAGE, {"photo": "main-ehr Media/1"}).status_code == 403


def test_without_a_system_to_ask_nothing_offers_to(clinician: Browser, bridge: Bridge, app: Any) -> None:
    nobody = dataclasses.replace(bridge, settings=bridge.settings.model_copy(update={"destinations": ()}))
    from adapter.web.elsewhere_link import elsewhere_href
    from tests.capture.test_external import CLINICIAN

    assert elsewhere_href(nobody, CLINICIAN, "p1") is None
    assert elsewhere_href(bridge, CLINICIAN, "p1") == PAGE
