"""Asking the EHR from the worklist by keys alone, in a real browser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from adapter.app import build_app
from adapter.capture.render import render_photo
from adapter.work import Lane, WorkLoop
from tests.identity.asked_ehr import ASTRID, Site, ehr, open_site, served, site
from tests.web.test_worklist_in_browser import AXE, expect, page, pytestmark

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["ehr", "open_site", "page", "pytestmark", "served", "site"]


@pytest.fixture
def app(site: Site) -> Any:
    return build_app(site.bridge)


@pytest.fixture
def photo(site: Site) -> str:
    """Its number is known at the EHR, and nothing else came with it."""
    stored = site.store(ASTRID)
    lanes = {"render": Lane(lambda item: render_photo(site.bridge, item))}
    WorkLoop(site.bridge.db, lanes, now=site.bridge.now).run_until_idle()
    return stored


def test_the_ehr_is_asked_and_its_patient_chosen_by_keys_alone(site: Site, photo: str, page: Page) -> None:
    page.goto("/worklist")
    page.keyboard.press("e")
    expect(page.locator(".candidate")).to_contain_text("LINDQVIST, Åsa Märta")
    expect(page.locator(".candidate")).to_contain_text("known to larkfield")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(page.locator("#confirm-name")).to_have_text("LINDQVIST, Åsa Märta")
    page.keyboard.press("Enter")
    expect(page.get_by_text("The photo is bound to its patient")).to_be_visible()
    assert site.state(photo) == "bound"


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed (npm ci)")
@pytest.mark.parametrize("width", [1280, 390])
def test_an_answer_of_the_ehr_breaks_no_accessibility_rule(site: Site, photo: str, page: Page, width: int) -> None:
    site.run()
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(f"/worklist?open={photo}")
    expect(page.locator(".candidate")).to_contain_text("known to larkfield")
    page.evaluate(AXE.read_text())
    assert page.evaluate("axe.run().then(found => found.violations.map(rule => rule.id))") == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
