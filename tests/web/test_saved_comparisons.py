"""Comparisons kept over HTTP: saved from the page, opened as they were, listed, exported, sent and withdrawn."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from adapter.access import SYSTEM
from adapter.bridge import Bridge
from adapter.compare.pictures import raise_labels_of_pictures
from adapter.compare.reopening import comparisons_of
from adapter.governance import settle
from adapter.identity import Refiling, refile
from adapter.records import create, find_where, get, update_resource
from adapter.records.pictures import pictures_of
from mappings.comparison_to_observation import view_of
from mappings.terms import CONFIDENTIALITY, coding
from tests.compare.conftest import compared, draw, keep_rendition
from tests.web.conftest import Browser, sign_in, visit


@pytest.fixture
def pair(bridge: Bridge, clinician: Browser) -> tuple[str, str]:
    first, later = (str(clinician.capture(draw(seed)).json()["id"]) for seed in (1, 2))
    for one in (first, later):
        keep_rendition(bridge, f"Media/{one}", "display", draw(1), patient="p1")
    compared(bridge, first, later, patient="p1")
    return first, later


def _fields(pair: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"media": list(pair), "version": ["1", "1"], "note": "darker", "mode": "slider", "zoom": "2.5"} | more


def _save(browser: Browser, pair: tuple[str, str], **more: Any) -> str:
    answer = browser.post("/saved-comparisons", _fields(pair, **more))
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"]).partition("?")[0]


def _audited(bridge: Bridge, code: str) -> int:
    settle(bridge)
    with bridge.db.snapshot() as tx:
        told = [one.resource for one in find_where(tx, "AuditEvent")]
    return len([one for one in told if code in {c["code"] for c in [one["type"], *one.get("subtype", [])]}])


def test_a_saved_comparison_opens_at_its_address_as_it_was_looked_at(
    clinician: Browser, bridge: Bridge, pair: tuple[str, str]
) -> None:
    href = _save(clinician, pair, x="0.25", y="0.1", blend="0.75", linked="false", reference="2", other="1")
    before = _audited(bridge, "read")
    page = clinician.get(href)
    assert page.status_code == 200 and _audited(bridge, "read") == before + 1
    shown = re.findall(r'<figure class="pane" data-id="([^"]+)"', page.text)
    assert tuple(shown) == pair and "darker" in page.text
    with bridge.db.snapshot() as tx:
        view = view_of(get(tx, "Observation", href.rpartition("/")[2]).resource)
    assert (view.mode, view.zoom, view.x, view.y) == ("slider", 2.5, 0.25, 0.1)
    assert (view.blend, view.linked, view.reference, view.other) == (0.75, False, 2, 1)
    assert '"mode": "slider"' in page.text


def test_the_form_says_which_versions_were_seen_and_an_older_one_is_refused(
    clinician: Browser, bridge: Bridge, pair: tuple[str, str]
) -> None:
    page = clinician.get(f"/compare?media={pair[0]}&media={pair[1]}").text
    assert re.findall(r'name="(?:media|version)" value="([^"]+)"', page) == [pair[0], "1", pair[1], "1"]
    with bridge.db.transaction() as tx:
        update_resource(tx, get(tx, "Media", pair[0]).resource, at=bridge.now())
    assert clinician.post("/saved-comparisons", _fields(pair)).status_code == 409


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": ["1"]},
        {"version": ["1", "9" * 5000]},
        {"zoom": "near"},
        {"zoom": "nan"},
        {"x": "inf"},
        {"blend": "-1"},
        {"reference": "0"},
        {"other": "9" * 40},
        {"speed": "6"},
        {"hands": "0 0 1"},
        {"hands": "0 0 1 nan 0 1"},
        {"mode": "<script>"},
    ],
)
def test_a_view_that_no_page_has_is_refused(clinician: Browser, pair: tuple[str, str], wrong: dict[str, Any]) -> None:
    assert clinician.post("/saved-comparisons", _fields(pair) | wrong).status_code == 400


def test_saved_comparisons_are_listed_with_the_patients_photos_and_with_each_photo(
    clinician: Browser, pair: tuple[str, str]
) -> None:
    href = _save(clinician, pair)
    for page in ("/patients/p1", f"/photos/{pair[0]}", f"/photos/{pair[1]}"):
        assert f'href="{href}"' in clinician.get(page).text, page


def test_a_picture_made_of_photos_is_no_photo_of_the_patient(
    clinician: Browser, bridge: Bridge, pair: tuple[str, str]
) -> None:
    href = _save(clinician, pair)
    with bridge.db.snapshot() as tx:
        pictures = pictures_of(tx, f"Observation/{href.rpartition('/')[2]}")
    assert len(pictures) == 3
    chart = clinician.get("/patients/p1").text
    for one in pictures:
        assert one.id not in chart
        assert clinician.get(f"/photos/{one.id}").headers["location"] == href
        assert clinician.get("/compare", params={"media": [pair[0], one.id]}).status_code == 422
    accept = {"Accept": "application/fhir+json"}
    asked = {"patient": "p1", "derivation:missing": "true"}
    originals = clinician.get("/fhir/Media", params=asked, headers=accept).json()
    assert {one["resource"]["id"] for one in originals["entry"]} == set(pair)
    derived = clinician.get("/fhir/Media", params={"derived-from": f"Media/{pair[0]}"}, headers=accept).json()
    assert {one["resource"]["id"] for one in derived["entry"]} == {one.id for one in pictures}


def test_a_photo_that_left_is_never_shown_again(clinician: Browser, bridge: Bridge, pair: tuple[str, str]) -> None:
    href = _save(clinician, pair)
    with bridge.db.transaction() as tx:
        refile(tx, bridge, SYSTEM, pair[1], Refiling("p2", "the wrong chart was open"))
    page = clinician.get(href)
    assert page.status_code == 410 and "turned out not to be this patient" in page.text
    assert pair[1] not in page.text and pair[1] not in clinician.get("/patients/p1").text


def test_a_restricted_photo_leaves_the_note_and_the_other_photo(
    clinician: Browser, bridge: Bridge, pair: tuple[str, str]
) -> None:
    href = _save(clinician, pair)
    with bridge.db.transaction() as tx:
        media = get(tx, "Media", pair[1]).resource
        media["meta"]["security"] = [coding(CONFIDENTIALITY, "V")]
        media["operator"] = {"reference": "Practitioner/somebody-else"}
        update_resource(tx, media, at=bridge.now())
    page = clinician.get(href)
    assert page.status_code == 200 and "cannot be shown as it was saved" in page.text
    assert f"/captures/{pair[0]}/thumbnail" in page.text and f"/captures/{pair[1]}" not in page.text
    assert clinician.get(f"{href}/pdf").status_code == 422


def test_what_became_too_sensitive_is_found_over_fhir_by_its_author_only(
    clinician: Browser, bridge: Bridge, app: Any, pair: tuple[str, str]
) -> None:
    href = _save(clinician, pair).replace("saved-comparisons", "fhir/Observation")
    with bridge.db.transaction() as tx:
        media = get(tx, "Media", pair[1]).resource
        media["meta"]["security"] = [coding(CONFIDENTIALITY, "V")]
        raise_labels_of_pictures(tx, bridge, update_resource(tx, media, at=bridge.now()))
    accept = {"Accept": "application/fhir+json"}
    for browser, total, status in ((clinician, 1, 200), (sign_in(bridge, app, "photographer", "p1"), 0, 404)):
        assert len(browser.get("/fhir/Observation", headers=accept).json().get("entry", [])) == total
        assert browser.get(href, headers=accept).status_code == status
        derived = browser.get("/fhir/Media", params={"derived-from": f"Media/{pair[0]}"}, headers=accept).json()
        assert len(derived.get("entry", [])) == total * 3


def test_exported_sent_and_withdrawn_from_its_page_by_nobody_elses_session(
    clinician: Browser, colleague: Browser, bridge: Bridge, pair: tuple[str, str]
) -> None:
    href = _save(clinician, pair)
    for form, kind in (("pdf", "application/pdf"), ("png", "image/png")):
        before = _audited(bridge, "110106")
        answer = clinician.get(f"{href}/{form}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
        assert "attachment" in answer.headers["content-disposition"]
        assert _audited(bridge, "110106") == before + 1
    assert clinician.post(f"{href}/send").status_code == 422  # no destination takes comparisons here
    for asked in (colleague.get(href), colleague.get(f"{href}/pdf"), colleague.post(f"{href}/withdraw", {"why": "x"})):
        assert asked.status_code == 404
    assert clinician.post(f"{href}/withdraw", {"why": "other mole"}).status_code == 303
    assert clinician.get(href).status_code == 410
    with bridge.db.snapshot() as tx:
        assert comparisons_of(tx, SYSTEM, patient_id="p1") == []


def test_a_visit_is_compared_with_what_was_before_from_the_timeline(
    clinician: Browser, colleague: Browser, bridge: Bridge
) -> None:
    def metadata(encounter: str, day: str) -> str:
        told = {"encounter": f"Encounter/{encounter}", "taken_at": f"{day}T09:00:00Z", "body_site": "36141000"}
        return base64.urlsafe_b64encode(json.dumps(told).encode()).decode()

    with bridge.db.transaction() as tx:
        create(tx, visit("before", "p1"), at=bridge.now())
    first, later = (
        clinician.capture(draw(seed), **{"DermBridge-Metadata": metadata(*of)}).json()["id"]
        for seed, of in enumerate((("before", "2026-03-03"), ("e1", "2026-06-03")), 1)
    )
    compared(bridge, first, later, patient="p1")
    assert 'formaction="/jobs?visit=e1"' in clinician.get("/patients/p1").text
    asked = {"operation": "compare", "patient": "p1"}
    job = clinician.post("/jobs?visit=e1", asked).headers["location"]
    assert "with the photo of 2026-03-03" in clinician.get(job).text
    assert f"/compare?media={first}&amp;media={later}" in clinician.get(job).text
    assert colleague.post("/jobs?visit=e1", asked).status_code == 404
    assert colleague.post("/jobs?visit=e1", asked | {"patient": "p2"}).status_code == 400
