"""The worklist asks the EHR whose photo it is, and gives the photo to whom a person chose there."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from adapter.app import build_app
from adapter.batch import run_job
from adapter.records import create
from adapter.sandbox.ehr import MRN_SYSTEM
from adapter.work import Lane, WorkLoop
from tests.identity.asked_ehr import ASTRID, Site, ehr, open_site, served, site
from tests.web.conftest import Browser, sign_in

__all__ = ["ehr", "open_site", "served", "site"]


@pytest.fixture
def photographer(site: Site) -> Browser:
    return sign_in(site.bridge, build_app(site.bridge), "photographer", None)


def version(page: str) -> str:
    found = re.search(r'name="version" value="(\d+)"', page)
    assert found
    return found[1]


def test_asking_binds_who_is_certain(site: Site, photographer: Browser) -> None:
    photo = site.store(ASTRID | {"birthDate": "1961-03-12"})
    assert f'action="/worklist/photos/{photo}/ask"' in photographer.get("/worklist").text
    assert photographer.post(f"/worklist/photos/{photo}/ask").status_code == 303
    assert site.state(photo) == "bound"
    (asker,) = {one["name"] for told in site.queries() for one in told["agent"] if "Practitioner" in str(one["who"])}
    assert asker == "Dr. R. Okafor"


def test_who_is_less_certain_stands_beside_ours_with_why_and_is_bound_when_chosen(
    site: Site, photographer: Browser
) -> None:
    photo = site.store(ASTRID | {"gender": "female"})
    back = photographer.post(f"/worklist/photos/{photo}/ask").headers["location"]
    page = photographer.get(back).text
    assert "Larkfield: One patient there fits, not certainly enough" in page.replace("larkfield", "Larkfield")
    assert "LINDQVIST, Åsa Märta" in page
    assert "known to larkfield" in page
    assert "identifier agrees" in page
    chosen = {"patient": "larkfield/astrid", "version": version(page)}
    answer = photographer.post(f"/worklist/photos/{photo}", chosen)
    assert "said=bound" in answer.headers["location"]
    assert site.state(photo) == "bound"
    (known,) = site.patients()
    assert known["identifier"][0]["value"] == "4711-0815"
    assert "encounter" in site.media(photo)


def test_whom_the_ehr_knows_otherwise_is_registered_and_the_photo_moved_by_a_job(
    site: Site, photographer: Browser
) -> None:
    photo = site.store({"system": MRN_SYSTEM, "value": "4711-0851", "family": "Lindqvist", "birthDate": "1961-03-12"})
    page = photographer.get(photographer.post(f"/worklist/photos/{photo}/ask").headers["location"]).text
    photographer.post(f"/worklist/photos/{photo}", {"patient": "larkfield/astrid", "version": version(page)})
    assert site.state(photo) == "awaiting-patient"  # until the job is done, which can be undone
    lanes = {"job": Lane(lambda item: run_job(site.bridge, item))}
    WorkLoop(site.bridge.db, lanes, now=site.bridge.now).run_until_idle()
    assert site.state(photo) == "bound"
    assert "encounter" in site.media(photo)


def test_a_patient_known_here_and_there_is_shown_once(site: Site, photographer: Browser) -> None:
    photo = site.store({"system": MRN_SYSTEM, "value": "4711-0851", "family": "Lindqvist", "birthDate": "1961-03-12"})
    with site.bridge.db.transaction() as tx:
        ours = {"resourceType": "Patient", "id": "ours", "identifier": [ASTRID], "name": [{"family": "Lindqvist"}]}
        create(tx, ours | {"birthDate": "1961-03-12"}, at=site.bridge.now())
    page = photographer.get(photographer.post(f"/worklist/photos/{photo}/ask").headers["location"]).text
    assert page.count('type="radio"') == 1
    assert 'value="ours"' in page
    assert "known to larkfield" in page


def test_a_candidate_nobody_named_cannot_be_chosen(site: Site, photographer: Browser) -> None:
    photo = site.store(ASTRID)
    site.run()
    chosen = {"patient": "larkfield/jose", "version": str(site.media(photo)["meta"]["versionId"])}
    assert photographer.post(f"/worklist/photos/{photo}", chosen).status_code == 404
    assert site.patients() == []


def test_only_who_may_settle_may_ask(site: Site) -> None:
    photo = site.store(ASTRID)
    app = build_app(site.bridge)
    for role, patient in (("engineer", None), ("clinician", "p1")):
        browser = sign_in(site.bridge, app, role, patient)
        assert browser.post(f"/worklist/photos/{photo}/ask").status_code in (403, 404)
    assert site.queries() == []


@pytest.mark.parametrize(("ways", "patient"), [([], ASTRID), (["identifier"], None)])
def test_nothing_is_offered_where_no_ehr_can_be_asked_or_nothing_is_known(
    open_site: Callable[..., Site], ways: list[str], patient: dict[str, str] | None
) -> None:
    opened = open_site(patient_lookup={"ways": ways})
    opened.store(patient)
    page = sign_in(opened.bridge, build_app(opened.bridge), "photographer", None).get("/worklist").text
    assert "Whose photo is it?" in page
    assert "Ask the EHR <kbd" not in page
