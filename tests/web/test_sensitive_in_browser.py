"""On the camera page: what makes photos sensitive is ticked, stays visible, and goes with each."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api")  # before what needs it as well, and is half imported without

from tests.web.test_in_browser import browser, page, pytestmark, site  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Page, Request

__all__ = ["browser", "page", "pytestmark", "site"]


def take(page: Page) -> None:
    page.locator("#shutter:enabled").click()
    page.locator("#keep").click()


def test_what_is_ticked_goes_with_each_photo_and_is_said_while_the_panel_is_closed(page: Page) -> None:
    sent: list[Any] = []

    def note(request: Request) -> None:
        if request.url.endswith("/captures") and request.method == "POST":
            sent.append(json.loads(base64.urlsafe_b64decode(request.headers["dermbridge-metadata"] + "==")))

    page.on("request", note)
    page.goto("/capture")
    take(page)
    sync_api.expect(page.locator(".shot-state")).to_contain_text("In chart")
    page.locator("#sensitive > summary").click()
    page.get_by_label("HIV").check()
    page.get_by_label("Suspected abuse or violence").check()
    page.locator("#sensitive > summary").click()
    sync_api.expect(page.locator("#sensitive-said")).to_have_text("HIV, Suspected abuse or violence")
    take(page)
    sync_api.expect(page.locator(".shot-state")).to_have_count(2)
    sync_api.expect(page.locator(".shot-state").first).to_contain_text("In chart")
    assert [one["sensitivity"] for one in sent] == [[], ["hiv", "suspected-abuse"]]


def test_a_photo_taken_after_consent_was_recorded_is_stored(page: Page) -> None:
    page.goto("/capture-new")
    page.get_by_role("radio", name="Spoken").check()
    page.get_by_label("I explained why").check()
    page.get_by_role("button", name="Record consent").click()
    sync_api.expect(page.locator("#consent-summary")).to_contain_text("Consent recorded")
    page.locator("#shutter:enabled").click()
    page.locator("#keep").click()
    page.get_by_role("combobox").fill("low back")
    page.keyboard.press("Enter")
    sync_api.expect(page.locator(".shot-state")).to_contain_text("In chart")
