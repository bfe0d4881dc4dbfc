"""A clinician's way through the real service, launched from the real sandbox EHR, in a real browser with a fake camera.

Nothing is answered by samples here: SMART launch, cookies, iframe, Content-Security-Policy, upload, delivery and
read-back are those of the product. Anything the browser complains about, and any request that fails, fails the test.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from adapter.demo import Story, first_visit, running_demo, second_visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FrameLocator, Page, Request, Response

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MANIFEST = Path(__file__).parents[2] / "adapter" / "web" / "static" / "manifest.json"
FLAGS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
DELIVERED = 30_000  # ms a delivery may take, from sending to read-back

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
    pytest.mark.skipif(not MANIFEST.exists(), reason="the pages' scripts are not built: make assets"),
]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Service and sandbox EHR with one patient, three photos of her forearm, all in chart."""
    with running_demo(tmp_path_factory.mktemp("hospital"), Console(quiet=True)) as story:
        patient, first = first_visit(story)
        second_visit(story, patient, first)
        yield story


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@contextmanager
def signed_on(browser: Browser, story: Story, name: str) -> Iterator[Page]:
    """A page of the EHR's ward list; ends with an assertion that the browser had nothing to complain about."""
    complaints: list[str] = []

    def failed(request: Request) -> None:
        # A page that is left ends its own event stream and lazy images; that is not a failure.
        if request.failure != "net::ERR_ABORTED":
            complaints.append(f"{request.url} {request.failure}")

    def answered(response: Response) -> None:
        if response.status >= 400:
            complaints.append(f"{response.url} {response.status}")

    context = browser.new_context(base_url=story.ehr.settings.origin, permissions=["camera"])
    context.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    context.on("weberror", lambda thrown: complaints.append(str(thrown.error)))
    context.on("requestfailed", failed)
    context.on("response", answered)
    try:
        page = context.new_page()
        page.goto("/")
        page.get_by_role("button", name=name).click()
        expect(page.get_by_role("heading", name="Dermatology clinic")).to_be_visible()
        yield page
    finally:
        context.close()
    assert complaints == []


def open_chart(page: Page) -> None:
    page.get_by_role("link", name="Lindström").click()


def launched_in_frame(page: Page) -> FrameLocator:
    page.get_by_role("link", name="DermBridge", exact=True).click()
    frame = page.frame_locator("iframe.app")
    expect(frame.get_by_role("heading", name=re.compile("Photos"))).to_be_visible()
    return frame


def launched_in_tab(page: Page, heading: str = "Photos") -> Page:
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Open DermBridge in a tab").click()
    tab: Page = opened.value
    expect(tab.get_by_role("heading", level=1, name=heading)).to_be_visible()
    return tab


def test_the_chart_shows_dermbridge_in_its_frame_without_a_second_banner(browser: Browser, hospital: Story) -> None:
    with signed_on(browser, hospital, "Rivera") as page:
        open_chart(page)
        frame = launched_in_frame(page)
        expect(frame.locator(".tile")).to_have_count(3)
        expect(frame.locator(".tile-states", has_text="in chart")).to_have_count(3)
        expect(frame.locator(".banner")).to_have_count(0)
        expect(frame.get_by_role("button", name="Log out")).to_have_count(0)
        frame.locator(".tile-photo").first.click()
        expect(frame.get_by_role("heading", name="In the chart?")).to_be_visible()


def test_a_clinician_looks_compares_photographs_and_finds_it_in_the_chart(browser: Browser, hospital: Story) -> None:
    with signed_on(browser, hospital, "Rivera") as page:
        open_chart(page)
        tab = launched_in_tab(page)
        expect(tab.locator(".banner")).to_contain_text("LINDSTRÖM")

        tab.locator(".tile-photo").last.click()
        expect(tab.get_by_role("heading", level=1)).to_contain_text("forearm")
        expect(tab.locator("#stage canvas")).to_be_visible()
        tab.locator(".banner-name").click()

        regional = tab.locator(".tile").filter(has_not_text="Dermoscopic")
        for number in range(2):
            regional.nth(number).locator("input").check()
        tab.get_by_role("button", name="Compare", exact=True).click()
        expect(tab.locator(".pane")).to_have_count(2)
        expect(tab.locator(".pane canvas")).to_have_count(2)
        expect(tab.locator("#verdict")).to_have_text("Aligned", timeout=60_000)
        expect(tab.get_by_text("Beside each other: the same site, the same side")).to_be_visible()
        tab.keyboard.press("6")
        expect(tab.get_by_role("button", name="Place 1")).to_be_visible()
        tab.get_by_role("link", name="Photos", exact=True).first.click()

        take_photo(tab, site="low back")
        tab.get_by_role("link", name="Done").click()
        expect(tab.locator(".tile")).to_have_count(4)

        page.get_by_role("link", name=re.compile("^Photos")).click()
        expect(page.locator(".filed li")).to_have_count(4)
        newest = page.locator(".filed li").first
        expect(newest.locator("strong")).to_contain_text(re.compile("back", re.IGNORECASE))
        assert newest.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def take_photo(tab: Page, *, site: str) -> None:
    """From the timeline to "in chart" for a photo of the fake camera."""
    tab.get_by_role("link", name="Take photo").click()
    tab.locator("#shutter:enabled").click()
    tab.locator("#keep").click()
    tab.get_by_role("combobox").fill(site)
    tab.keyboard.press("Enter")
    side = tab.locator("#laterality.missing label").first
    expect(tab.locator("#laterality.missing, .shot-state").first).to_be_visible()
    if side.is_visible():
        side.click()
        tab.locator("#keep").click()
    expect(tab.locator(".shot-state")).to_contain_text("In chart", timeout=DELIVERED)


def test_the_engineer_sees_every_delivery_but_no_photo(browser: Browser, hospital: Story) -> None:
    with signed_on(browser, hospital, "Ivy") as page:
        open_chart(page)
        tab = launched_in_tab(page, "Deliveries")
        expect(tab.locator("tbody tr").first).to_contain_text("in chart")
        expect(tab.locator(".card")).to_contain_text("Everything sent")
        expect(tab.locator("main img")).to_have_count(0)
