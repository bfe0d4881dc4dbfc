"""The pages in a real browser with a fake camera, under the product's own Content-Security-Policy.

They run against the preview server, whose answers are samples; skipped where Chromium or the built assets are missing.
"""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
import uvicorn

from tests.web import samples
from tests.web.preview import build
from tests.web.test_templates import PAGES, ROOT, STATIC, render

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route, ViewportSize

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
FLAGS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
PHONE: ViewportSize = {"width": 390, "height": 844}

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.skipif(not (STATIC / "manifest.json").exists(), reason="assets are not built"),
]


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(build(None), port=port, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser, site: str) -> Iterator[Page]:
    """A phone-sized page; anything the browser complains about (CSP, script errors) fails the test."""
    context = browser.new_context(base_url=site, viewport=PHONE, permissions=["camera"])
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    yield opened
    context.close()
    assert [said for said in complaints if "Failed to load resource" not in said] == []


def test_a_photo_goes_from_the_shutter_to_in_chart(page: Page) -> None:
    page.goto("/capture")
    page.locator("#shutter:enabled").wait_for()
    page.keyboard.press("Space")
    page.locator("#shot").wait_for()
    page.keyboard.press("Enter")
    state = page.locator(".shot-state")
    sync_api.expect(state).to_contain_text("In chart")
    assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]


def test_a_photo_without_body_site_asks_for_it_and_then_goes_on(page: Page) -> None:
    page.goto("/capture-new")
    page.locator("#shutter:enabled").click()
    page.locator("#keep").click()
    page.get_by_role("combobox").fill("low back")
    page.keyboard.press("Enter")
    sync_api.expect(page.locator(".shot-name")).to_have_text("Lower back")
    sync_api.expect(page.locator(".shot-state")).to_contain_text("In chart")


def test_a_file_waits_in_the_tray_until_it_is_saved(page: Page, tmp_path: Path) -> None:
    photo = tmp_path / "IMG_0001.jpg"
    photo.write_bytes(b"\xff\xd8\xff\xd9")
    page.goto("/capture")
    page.locator("#files").set_input_files(photo)
    sync_api.expect(page.locator(".shot-state")).to_have_text("Ready to save")
    page.get_by_role("button", name="Save 1 photo").click()
    sync_api.expect(page.locator(".shot-state")).to_contain_text("In chart")


def test_a_photo_the_server_cannot_take_is_kept_and_sent_again_under_the_same_key(page: Page) -> None:
    keys: list[str] = []

    def refuse_once(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        outcome = '{"issue": [{"diagnostics": "The disk is full. Tell the operator."}]}'
        if len(keys) == 1:
            route.fulfill(status=507, body=outcome)
        else:
            route.continue_()

    page.route("**/captures", refuse_once)
    page.goto("/capture")
    page.locator("#shutter:enabled").click()
    page.locator("#keep").click()
    sync_api.expect(page.locator(".shot-state")).to_have_text("Not saved: The disk is full. Tell the operator.")
    page.get_by_role("button", name="Try again").click()
    sync_api.expect(page.locator(".shot-state")).to_contain_text("In chart")
    assert len(set(keys)) == 1
    assert len(keys) == 2


def test_a_signature_is_asked_for_and_then_recorded(page: Page) -> None:
    page.goto("/capture-new")
    page.get_by_role("radio", name="Sign here").check()
    page.get_by_role("button", name="Record consent").click()
    sync_api.expect(page.locator("#consent-error")).to_contain_text("sign in the box")
    pad = page.locator("#signature")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 120, box["y"] + 50, steps=4)
    page.mouse.up()
    page.get_by_role("button", name="Record consent").click()
    sync_api.expect(page.locator("#consent-summary")).to_have_text("Consent recorded: signature.")


def test_shift_click_selects_a_range_and_the_bar_counts_it(page: Page) -> None:
    page.goto("/timeline")
    boxes = page.locator('input[name="media"]')
    boxes.nth(0).check()
    sync_api.expect(page.get_by_role("button", name="Compare")).to_be_disabled()
    boxes.nth(3).click(modifiers=["Shift"])
    sync_api.expect(page.locator("#picked")).to_have_text("4 photos selected")
    sync_api.expect(page.get_by_role("button", name="Compare")).to_be_enabled()


def timeline_of(numbers: range, **more: Any) -> str:
    photos = [samples.photo(number, samples.NOW) for number in numbers]
    group = {"key": "e1", "title": "Today", "subtitle": None, "capture_href": None, "photos": photos}
    return render("timeline.html", samples.timeline() | {"groups": [group]} | more)


def test_the_rest_of_a_long_timeline_joins_its_visit_and_keeps_the_selection(page: Page) -> None:
    first, second = timeline_of(range(1, 5), next_href="/long?page=2"), timeline_of(range(4, 8))
    page.route("**/long", lambda route: route.fulfill(body=first, content_type="text/html"))
    page.route("**/long?page=2", lambda route: route.fulfill(body=second, content_type="text/html"))
    page.goto("/long")
    page.locator('input[name="media"]').first.check()
    sync_api.expect(page.locator(".tile")).to_have_count(7)
    sync_api.expect(page.locator(".group")).to_have_count(1)
    sync_api.expect(page.locator("#more")).to_have_count(0)
    sync_api.expect(page.locator("#picked")).to_have_text("1 photo selected")


def test_a_photo_that_arrives_stands_first_without_reloading(page: Page) -> None:
    answers = iter([timeline_of(range(2, 4), events_href="/events"), timeline_of(range(1, 4))])
    page.route("**/live", lambda route: route.fulfill(body=next(answers), content_type="text/html"))
    said = "retry: 60000\nevent: media\ndata: {}\n\n"
    page.route("**/events", lambda route: route.fulfill(body=said, content_type="text/event-stream"))
    page.goto("/live")
    sync_api.expect(page.locator("#arrivals")).to_have_text("1 new photo")
    assert page.locator(".tile").evaluate_all("tiles => tiles.map(t => t.dataset.id)") == ["m1", "m2", "m3"]


def test_linked_photos_zoom_together_and_unlinked_ones_do_not(page: Page) -> None:
    page.goto("/compare")
    zoom = page.locator("#zoom")
    page.locator(".stage").nth(0).focus()
    sync_api.expect(page.locator(".stage-plain")).to_have_count(0)
    page.keyboard.press("+")
    sync_api.expect(zoom).to_have_text("140 %")
    page.locator(".stage").nth(1).focus()
    page.keyboard.press("+")  # the follower leads on from where its leader brought it
    sync_api.expect(zoom).to_have_text("196 %")
    page.keyboard.press("0")
    page.keyboard.press("l")
    page.keyboard.press("+")
    page.locator(".stage").nth(0).focus()
    page.keyboard.press("+")
    sync_api.expect(zoom).to_have_text("140 %")


def test_the_second_photo_is_laid_over_the_first_by_keys(page: Page) -> None:
    page.goto("/compare")
    sync_api.expect(page.locator("#verdict")).to_have_text("Aligned")
    for key, mode, share in (
        ("2", "slider", True),
        ("3", "blend", True),
        ("4", "blink", False),
        ("5", "difference", False),
        ("6", "change", False),
    ):
        page.keyboard.press(key)
        sync_api.expect(page.locator(f'#modes [data-do="{mode}"]')).to_have_attribute("aria-pressed", "true")
        sync_api.expect(page.locator("#overlay canvas").first).to_be_visible()
        sync_api.expect(page.locator("#panes")).to_be_hidden()
        assert page.locator("#share").is_visible() == share
        assert page.locator(".divider").evaluate("line => line.hidden") == (mode != "slider")
    page.get_by_role("button", name="Place 1").click()
    sync_api.expect(page.locator("#method")).to_contain_text("key points (1)")
    page.keyboard.press("1")
    sync_api.expect(page.locator("#panes")).to_be_visible()
    sync_api.expect(page.locator("#overlay")).to_be_hidden()


def test_photos_that_cannot_be_aligned_stay_side_by_side_and_say_why(page: Page) -> None:
    refused = {"verdict": "not-aligned", "reasons": ["Too few points in common."], "pictures": {}, "change": None}
    page.route("**/comparison?*", lambda route: route.fulfill(json=refused))
    page.goto("/compare")
    sync_api.expect(page.locator("#verdict")).to_contain_text("Too few points in common.")
    page.keyboard.press("2")
    sync_api.expect(page.locator("#panes")).to_be_visible()


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed (npm ci)")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_breaks_an_accessibility_rule(browser: Browser, site: str, scheme: Literal["light", "dark"]) -> None:
    context = browser.new_context(base_url=site, viewport=PHONE, color_scheme=scheme, permissions=["camera"])
    opened = context.new_page()
    broken = {}
    for name in PAGES:
        opened.goto(f"/{name}")
        opened.evaluate(AXE.read_text())
        rules = opened.evaluate("axe.run().then(found => found.violations.map(rule => rule.id))")
        wide = opened.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        if rules or wide:
            broken[name] = [*rules, *(["scrolls sideways"] if wide else [])]
    context.close()
    assert broken == {}
