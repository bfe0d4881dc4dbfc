"""Measuring by mouse, by keys and by finger, against the running service in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from adapter.access import SYSTEM
from adapter.access.sessions import COOKIE
from adapter.bridge import Bridge
from adapter.capture.receive import Upload, receive
from adapter.capture.render import render_photo
from adapter.records import create, find_where
from adapter.work import Lane, WorkLoop
from mappings.measurement_to_observation import observation_to_measurement
from tests.measure.scenes import scene
from tests.web.conftest import sign_in
from tests.web.test_templates import ROOT, STATIC
from tests.web.test_worklist_in_browser import served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
expect.set_options(timeout=20_000)  # the child that decodes starts with the first question
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
    pytest.mark.skipif(not (STATIC / "manifest.json").exists(), reason="the pages' scripts are not built: make assets"),
]


@pytest.fixture
def media(bridge: Bridge, app: Any) -> str:
    """A photo of a followed lesion beside a card, ready to be seen."""
    with bridge.db.transaction() as tx:
        lesion = {"resourceType": "BodyStructure", "id": "mole", "patient": {"reference": "Patient/p1"}}
        create(tx, lesion | {"description": "Naevus, left forearm"}, at=bridge.now())
    told = {"patient": "Patient/p1", "lesion": "BodyStructure/mole", "taken_at": "2026-11-23T09:00:00Z"}
    stored = receive(bridge, SYSTEM, Upload(scene("card").jpeg, told)).id
    WorkLoop(bridge.db, {"render": Lane(lambda item: render_photo(bridge, item))}, now=bridge.now).run_until_idle()
    return stored


@pytest.fixture
def signed_in(bridge: Bridge, app: Any) -> Iterator[tuple[str, Browser, list[dict[str, Any]]]]:
    at = datetime.now(UTC)
    object.__setattr__(bridge, "now", lambda: at)  # cookies and sessions live in the browser's time
    clinician = sign_in(bridge, app, "clinician", "p1")
    with served(app) as origin, sync_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield origin, chromium, [{"name": COOKIE, "value": clinician.client.cookies[COOKIE], "url": origin}]
        chromium.close()


@pytest.fixture
def opened(signed_in: Any) -> Iterator[Any]:
    """Opens a page; anything the browser complains about fails the test."""
    origin, chromium, cookies = signed_in
    complaints: list[str] = []

    def open_page(path: str, **how: Any) -> Page:
        context = chromium.new_context(base_url=origin, **how)
        context.add_cookies(cookies)
        page: Page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path)
        page.locator("#stage canvas").wait_for()
        page.wait_for_timeout(300)  # the photo is laid out
        return page

    yield open_page
    assert [said for said in complaints if "status of 422" not in said] == []


DESK = {"viewport": {"width": 1280, "height": 860}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def place(page: Page, at: tuple[float, float]) -> tuple[float, float]:
    """Where a pixel of the photo is on the screen while all of it is shown."""
    box = page.locator("#stage").bounding_box()
    assert box is not None
    width, height = 1400, 1050
    scale = min(box["width"] / width, box["height"] / height)
    left, top = box["x"] + (box["width"] - width * scale) / 2, box["y"] + (box["height"] - height * scale) / 2
    return left + (at[0] + 0.5) * scale, top + (at[1] + 0.5) * scale


def kept(bridge: Bridge) -> list[dict[str, Any]]:
    with bridge.db.snapshot() as tx:
        return [observation_to_measurement(one.resource) for one in find_where(tx, "Observation")]


def axe(page: Page) -> list[str]:
    """What axe-core finds against WCAG 2.2 AA; nothing where it is not installed."""
    if not AXE.exists():
        return []
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa']})")
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found["violations"]]


def test_a_lesion_is_outlined_with_one_click_kept_and_withdrawn(bridge: Bridge, media: str, opened: Any) -> None:
    photo = scene("card")
    page = opened(f"/photos/{media}", **DESK)
    page.get_by_role("button", name="Measure", exact=True).click()
    expect(page.locator("#measure-scale-said")).to_contain_text("mm a pixel ±")
    expect(page.locator("#measure-scale")).to_have_value("card")
    page.mouse.click(*place(page, photo.middle))
    expect(page.locator("#measure-values")).to_contain_text("mm²")
    expect(page.locator("#measure-colour")).to_contain_text("calibrated by the card")
    page.locator("#measure-normalise").click()
    expect(page.locator("#measure-normalise")).to_have_attribute("aria-pressed", "true")
    assert axe(page) == []
    page.get_by_role("button", name="Keep measurement").click()
    expect(page.get_by_text("The measurement is kept in the record.")).to_be_visible()
    [found] = kept(bridge)
    assert found["measures"][0]["value"] == pytest.approx(photo.area, rel=0.06)
    assert found["scale"]["source"] == "card"
    page.get_by_role("button", name="Show").click()
    expect(page.locator(".shape-kept")).to_be_attached()
    page.locator(".withdraw summary").click()
    page.get_by_label("Why it is wrong").fill("outlined the wrong mole")
    page.get_by_role("button", name="Withdraw measurement").click()
    expect(page.get_by_text("stays in the record as entered in error")).to_be_visible()
    assert kept(bridge)[0]["status"] == "entered-in-error"


def test_a_length_is_measured_by_keys_alone(bridge: Bridge, media: str, opened: Any) -> None:
    page = opened(f"/photos/{media}", **DESK)
    page.keyboard.press("m")
    expect(page.locator("#measure-scale-said")).to_contain_text("mm a pixel ±")
    page.locator('[name="measure-tool"][value="find"]').focus()
    page.keyboard.press("ArrowLeft")  # round to the last of the three
    page.locator("#stage").focus()
    page.keyboard.press("+")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(600)  # the photo has come to rest
    page.keyboard.press("Enter")
    expect(page.locator("#measure-values")).to_contain_text("mm")
    before = page.locator("#measure-values dd").inner_text()
    page.locator('.handle[tabindex="0"]').focus()
    for _ in range(8):
        page.keyboard.press("Shift+ArrowRight")
    expect(page.locator("#measure-values dd")).not_to_have_text(before)
    page.get_by_role("button", name="Keep measurement").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("The measurement is kept in the record.")).to_be_visible()
    [found] = kept(bridge)
    assert (found["kind"], found["measures"][0]["unit"]) == ("length", "mm")


def test_a_finger_on_a_phone_takes_the_scale_from_two_points_and_draws_an_outline(
    bridge: Bridge, media: str, opened: Any
) -> None:
    page = opened(f"/photos/{media}", **PHONE)
    page.get_by_role("button", name="Measure", exact=True).tap()
    expect(page.locator("#measure-scale-said")).to_contain_text("mm a pixel ±")
    page.locator("#measure-scale").select_option("points")
    for end in ((300.0, 300.0), (900.0, 300.0)):
        page.touchscreen.tap(*place(page, end))
        page.wait_for_timeout(350)
    page.locator("#measure-mm").fill("12")
    page.get_by_role("button", name="Use this scale").tap()
    expect(page.locator("#measure-scale-said")).to_contain_text("from 12 mm marked")
    page.locator("label:has([value='hand'])").tap()
    expect(page.locator("#stage")).to_be_in_viewport(ratio=0.7)  # the photo stays in sight while its tools are used
    for corner in ((400.0, 500.0), (1000.0, 500.0), (1000.0, 900.0), (400.0, 900.0), (400.0, 500.0)):
        page.touchscreen.tap(*place(page, corner))
        page.wait_for_timeout(350)
    expect(page.locator("#measure-values")).to_contain_text("mm²")
    assert axe(page) == []
    page.get_by_role("button", name="Keep measurement").tap()
    expect(page.get_by_text("The measurement is kept in the record.")).to_be_visible()
    [found] = kept(bridge)
    assert found["scale"]["source"] == "points"


def test_a_faint_lesion_is_refused_in_words(bridge: Bridge, media: str, opened: Any) -> None:
    page = opened(f"/photos/{media}", **DESK)
    page.keyboard.press("m")
    page.mouse.click(*place(page, (1100.0, 900.0)))
    expect(page.locator("#measure-hint")).to_contain_text("Draw the outline by hand.")


def test_a_comparison_shows_the_colours_of_the_card_and_says_where_there_is_none(
    signed_in: Any, bridge: Bridge, media: str
) -> None:
    told = {"patient": "Patient/p1", "taken_at": "2026-11-22T09:00:00Z"}
    bare = receive(bridge, SYSTEM, Upload(scene("no card").jpeg, told)).id
    WorkLoop(bridge.db, {"render": Lane(lambda item: render_photo(bridge, item))}, now=bridge.now).run_until_idle()
    origin, chromium, cookies = signed_in
    context = chromium.new_context(base_url=origin, **DESK)
    context.add_cookies(cookies)
    page = context.new_page()
    page.goto(f"/compare?media={bare}&media={media}")
    expect(page.locator(".pane .stage canvas").first).to_be_visible()
    page.keyboard.press("c")
    without, with_card = (page.locator(f'.pane[data-id="{one}"] .pane-colours') for one in (bare, media))
    expect(with_card).to_have_text("Colours by the card")
    expect(without).to_contain_text("card")
    expect(page.get_by_role("button", name="Colours by the calibration card")).to_have_attribute("aria-pressed", "true")
    assert axe(page) == []
    page.keyboard.press("c")
    expect(with_card).to_be_empty()
    expect(without).to_be_empty()
