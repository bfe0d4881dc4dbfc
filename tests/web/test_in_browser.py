"""The pages in a real browser with a fake camera, under the product's own Content-Security-Policy.

They run against the preview server, whose answers are samples; skipped where Chromium or the built assets are missing.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qs

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
    pytest.mark.real,
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
    sync_api.expect(page.get_by_role("button", name="Compare", exact=True)).to_be_disabled()
    boxes.nth(3).click(modifiers=["Shift"])
    sync_api.expect(page.locator("#picked")).to_have_text("4 photos selected")
    sync_api.expect(page.get_by_role("button", name="Compare", exact=True)).to_be_enabled()


def timeline_of(numbers: range, **more: Any) -> str:
    photos = [samples.photo(number, samples.NOW) for number in numbers]
    group = {
        "key": "e1",
        "title": "Today",
        "subtitle": None,
        "capture_href": None,
        "compare_href": None,
        "photos": photos,
    }
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


REFUSED = {"verdict": "not-aligned", "reasons": ["Too few points in common."], "pictures": {}, "change": None}


def test_photos_that_cannot_be_aligned_stay_side_by_side_and_say_why(page: Page) -> None:
    page.route("**/comparison?*", lambda route: route.fulfill(json=REFUSED))
    page.goto("/compare")
    sync_api.expect(page.locator("#verdict")).to_contain_text("Too few points in common.")
    page.keyboard.press("2")
    sync_api.expect(page.locator("#panes")).to_be_visible()


def test_marks_set_and_moved_by_keys_alone_align_two_photos(page: Page) -> None:
    sent: list[dict[str, list[str]]] = []

    def align(route: Route) -> None:
        if route.request.method == "GET":
            route.fulfill(json=REFUSED)
            return
        sent.append(parse_qs(route.request.post_data or ""))
        by_hand = {"by": "Dr. R. Okafor", "at": "2026-11-23T09:30:00Z"}
        route.fulfill(json=REFUSED | {"verdict": "approximate", "reasons": ["By 3 points."], "by_hand": by_hand})

    page.route("**/comparison?*", align)
    page.route("**/comparison", align)
    page.goto("/compare")
    sync_api.expect(page.locator("#verdict")).to_contain_text("Too few points")
    page.keyboard.press("h")
    said = page.locator("#marking-next")
    for number, (arrow, times) in enumerate([("ArrowRight", 0), ("ArrowRight", 4), ("ArrowDown", 5)], start=1):
        for pane in (0, 1):
            sync_api.expect(said).to_contain_text(f"Mark {number} of 3 to 6")
            stage = page.locator(".stage").nth(pane)
            stage.focus()
            page.keyboard.press("Enter")
            stage.locator(".mark").last.focus()
            for _ in range(times):
                page.keyboard.press(f"Shift+{arrow}")
    page.get_by_role("button", name="Align", exact=True).click()
    sync_api.expect(page.locator("#verdict")).to_contain_text("Points placed by Dr. R. Okafor, 23 Nov 2026.")
    sync_api.expect(page.get_by_role("button", name="Take back")).to_be_visible()
    (fields,) = sent
    assert (fields["left"], fields["right"]) == (["m6"], ["m1"])
    points = json.loads(fields["points"][0])
    (first, _), (right, _), (down, _) = points
    assert first == pytest.approx([1999.5, 1499.5], abs=2)
    assert right[0] - first[0] == pytest.approx(down[1] - first[1], rel=0.3)
    assert right[1] == pytest.approx(first[1], abs=2)


def test_a_mark_is_removed_and_marking_is_given_up(page: Page) -> None:
    page.route("**/comparison?*", lambda route: route.fulfill(json=REFUSED))
    page.goto("/compare")
    page.get_by_role("button", name="Align by hand").click()
    page.locator(".stage").first.click(position={"x": 180, "y": 80})
    sync_api.expect(page.get_by_role("button", name="Mark 1, 14 Jul 2026")).to_be_visible()
    page.get_by_role("button", name="Mark 1, 14 Jul 2026").press("Delete")
    sync_api.expect(page.locator(".mark")).to_have_count(0)
    page.keyboard.press("Escape")
    sync_api.expect(page.locator("#marking")).to_be_hidden()


def test_three_dates_follow_the_one_chosen_and_say_which_of_them_are_aligned(page: Page) -> None:
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url.partition("?")[2])
        if "m7" in route.request.url:
            route.fulfill(json=REFUSED)
        else:
            route.continue_()

    page.route("**/comparison?*", answer)
    page.goto("/compare-three")
    sync_api.expect(page.locator("#verdict")).to_have_text("1 of 2 aligned to 14 Jul 2026")
    verdicts = page.locator(".pane-verdict")
    sync_api.expect(verdicts.nth(1)).to_contain_text("Too few points in common.")
    sync_api.expect(verdicts.nth(2)).to_contain_text("Aligned")
    page.locator(".stage").nth(2).focus()
    page.keyboard.press("r")
    sync_api.expect(page.locator("#verdict")).to_have_text("1 of 2 aligned to 23 Nov 2026")
    assert sorted(asked) == ["media=m1&media=m6", "media=m1&media=m7", "media=m6&media=m1", "media=m6&media=m7"]


def test_an_answer_that_comes_after_another_date_was_chosen_says_nothing_of_that_date(page: Page) -> None:
    by_hand = {"by": "Dr. R. Okafor", "at": "2026-11-23T09:30:00Z"}
    held: list[Route] = []
    page.route("**/comparison?*", lambda route: route.fulfill(json=REFUSED | {"by_hand": by_hand}))
    page.route("**/comparison/take-back", lambda route: held.append(route))  # noqa: PLW0108 - playwright needs one
    page.goto("/compare-three")
    sync_api.expect(page.locator("#verdict")).to_have_text("0 of 2 aligned to 14 Jul 2026")
    page.get_by_role("button", name="Take back").first.click()
    page.locator(".stage").nth(2).focus()
    page.keyboard.press("r")
    sync_api.expect(page.locator("#verdict")).to_have_text("0 of 2 aligned to 23 Nov 2026")
    with page.expect_response("**/comparison/take-back"):
        held[0].fulfill(json=REFUSED | {"verdict": "aligned"})
    page.wait_for_timeout(200)
    sync_api.expect(page.locator("#verdict")).to_have_text("0 of 2 aligned to 23 Nov 2026")


def test_the_loupe_shows_every_photo_while_its_key_is_held(page: Page) -> None:
    page.goto("/compare")
    sync_api.expect(page.locator("#verdict")).to_have_text("Aligned")
    page.locator(".stage").first.focus()
    page.keyboard.down("m")
    sync_api.expect(page.locator(".lens:visible canvas")).to_have_count(2)
    page.keyboard.up("m")
    sync_api.expect(page.locator(".lens:visible")).to_have_count(0)


def test_a_closer_look_fetches_tiles_and_a_photo_seen_whole_does_not(page: Page) -> None:
    page.goto("/compare")
    sync_api.expect(page.locator("#verdict")).to_have_text("Aligned")
    seen = "performance.getEntriesByType('resource').filter(one => one.name.includes('/tiles')).length"
    assert page.evaluate(seen) == 0
    page.locator(".stage").first.focus()
    with page.expect_response(re.compile(r"/tiles/0/\d+/\d+$")) as tile:
        page.keyboard.press("9")
    assert tile.value.ok
    page.keyboard.press("2")
    page.locator(".divider").wait_for(state="attached")
    with page.expect_response(re.compile(r"/captures/m2/tiles/0/\d+/\d+$")) as laid_over:
        page.keyboard.press("9")
    assert laid_over.value.ok


def test_wheel_fingers_and_a_long_press_do_what_people_expect(browser: Browser, site: str) -> None:
    context = browser.new_context(base_url=site, viewport=PHONE, has_touch=True)
    opened = context.new_page()
    opened.goto("/compare")
    sync_api.expect(opened.locator("#verdict")).to_have_text("Aligned")
    zoom, fingers = opened.locator("#zoom"), context.new_cdp_session(opened)
    box = opened.locator(".stage").first.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def touch(kind: str, *places: float) -> None:
        points = [{"x": place, "y": y, "id": number} for number, place in enumerate(places)]
        fingers.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})

    opened.mouse.move(x, y)
    opened.mouse.wheel(0, -300)
    sync_api.expect(zoom).to_have_text("120 %")
    opened.keyboard.press("0")
    sync_api.expect(zoom).to_have_text("100 %")
    touch("Start", x - 20, x + 20)
    for step in range(1, 7):
        touch("Move", x - 20 - 10 * step, x + 20 + 10 * step)
    touch("End")
    sync_api.expect(zoom).to_have_text(re.compile(r"[2-5]\d\d %"))
    touch("Start", x)
    sync_api.expect(opened.locator(".lens:visible")).to_have_count(2)
    touch("End")
    sync_api.expect(opened.locator(".lens:visible")).to_have_count(0)
    context.close()


def test_blinking_waits_to_be_asked_where_motion_is_not_wanted(browser: Browser, site: str) -> None:
    context = browser.new_context(base_url=site, viewport=PHONE, reduced_motion="reduce")
    opened = context.new_page()
    opened.goto("/compare")
    sync_api.expect(opened.locator("#verdict")).to_have_text("Aligned")
    opened.keyboard.press("4")
    shown = opened.locator("#blink-shown")
    sync_api.expect(opened.locator("#blink-pause")).to_have_attribute("aria-pressed", "true")
    sync_api.expect(shown).to_have_text("14 Jul 2026")
    opened.locator("#laid").focus()
    opened.keyboard.press("Space")
    sync_api.expect(shown).to_have_text("23 Nov 2026")
    opened.locator("#blink-pause").click()
    sync_api.expect(shown).to_have_text("14 Jul 2026")
    context.close()


def test_the_filmstrip_and_the_list_of_keys_are_reached_by_keys(page: Page) -> None:
    page.goto("/compare")
    page.keyboard.press("?")
    sync_api.expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    page.locator("#strip a").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "/compare?media=m7&media=m1"


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
