"""A comparison saved and opened again in a real browser: the same mode, place, magnification and blend."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from adapter.access.sessions import COOKIE
from adapter.bridge import Bridge
from tests.compare.conftest import RESULT, compared, draw, keep_rendition
from tests.web.conftest import Browser, sign_in
from tests.web.test_templates import STATIC
from tests.web.test_worklist_in_browser import served

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
    pytest.mark.skipif(not (STATIC / "manifest.json").exists(), reason="the pages' scripts are not built: make assets"),
]
SHOWN = """() => [document.querySelector('#modes [aria-pressed=true]').dataset.do,
    document.querySelector('#share').value, document.querySelector('#zoom').textContent,
    [...document.querySelectorAll('.pane')].map(one => one.dataset.id).join()]"""
FILLED_IN = """() => {
    const form = document.querySelector('#keep');
    form.dispatchEvent(new Event('submit', { cancelable: true }));
    return Object.fromEntries(new FormData(form));
}"""
"""What saving it now would say of how it is looked at."""


@pytest.mark.parametrize("db_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("mode", ["side", "slider"])
def test_a_saved_comparison_shows_again_what_was_seen(bridge: Bridge, app: Any, mode: str) -> None:
    at = datetime.now(UTC)
    object.__setattr__(bridge, "now", lambda: at)  # cookies and sessions live in the browser's time
    clinician = sign_in(bridge, app, "clinician", "p1")
    pair = _pair(bridge, clinician, RESULT)
    with _open(app, clinician, pair) as page:
        page.locator('[data-do="slider"]:enabled').wait_for()
        page.locator('[data-do="swap"]').click()
        page.locator(f'[data-do="{mode}"]').click()
        page.locator("#laid canvas, #panes canvas").locator("visible=true").first.wait_for()
        page.wait_for_load_state("networkidle")  # a picture that opens is shown whole, whatever was asked before
        for _ in range(2):
            page.locator('[data-do="in"]').click()
        page.locator("#share").evaluate("one => { one.value = '80'; one.dispatchEvent(new Event('input')); }")
        page.wait_for_timeout(600)  # zoomed
        seen = page.evaluate(SHOWN)
        page.get_by_label("Note").fill("the same")
        page.get_by_role("button", name="Save comparison").click()
        page.locator("#kept").wait_for()
        page.locator(f'[data-do="{mode}"][aria-pressed="true"]').wait_for()
        page.wait_for_timeout(1000)  # opened and moved there
        assert page.evaluate(SHOWN) == seen
        assert seen[0] == mode and seen[2] != "100 %" and seen[3] == ",".join(pair[::-1])


@pytest.mark.parametrize("db_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("linked", [True, False])
def test_photos_moved_by_hand_and_the_speed_of_blinking_come_back(bridge: Bridge, app: Any, linked: bool) -> None:
    at = datetime.now(UTC)
    object.__setattr__(bridge, "now", lambda: at)
    clinician = sign_in(bridge, app, "clinician", "p1")
    refused = {"verdict": "not-aligned", "reasons": ["too little in common"], "transform": None, "change": None}
    with _open(app, clinician, _pair(bridge, clinician, RESULT | refused)) as page:
        page.get_by_text("too little in common").first.wait_for()
        page.locator(".stage").nth(1).focus()
        for _ in range(3):
            page.keyboard.press("Shift+ArrowRight")
        if not linked:
            page.keyboard.press("l")
            page.keyboard.press("+")
        page.locator("#blink-speed").evaluate("one => one.value = '5'")
        page.wait_for_timeout(600)  # moved
        seen = page.evaluate(FILLED_IN)
        assert seen["speed"] == "5" and seen["linked"] == str(linked).lower()
        moved = [float(one) for one in seen["hands"].split()]
        assert moved[:3] == [0, 0, 1] and moved[3] < -0.01 and (moved[5] == 1) == linked
        page.get_by_role("button", name="Save comparison").click()
        page.locator("#kept").wait_for()
        page.get_by_role("button", name="Reset").locator("visible=true").nth(0).wait_for()
        page.wait_for_timeout(1000)  # opened and moved there
        again = page.evaluate(FILLED_IN)
        assert [float(one) for one in again["hands"].split()] == pytest.approx(moved, abs=1e-3)
        assert [again[name] for name in ("speed", "linked")] == [seen[name] for name in ("speed", "linked")]


def _pair(bridge: Bridge, clinician: Browser, result: dict[str, Any]) -> list[str]:
    """Two photos that were compared, either way, with this result."""
    pair = [str(clinician.capture(draw(seed)).json()["id"]) for seed in (1, 2)]
    for one in pair:
        keep_rendition(bridge, f"Media/{one}", "display", draw(1, (1280, 960)), patient="p1")  # large enough to zoom
    for left, right in (pair, pair[::-1]):
        compared(bridge, left, right, result, patient="p1")
    return pair


@contextmanager
def _open(app: Any, clinician: Browser, pair: list[str]) -> Iterator[Any]:
    """The page that compares them."""
    with served(app) as origin, sync_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = chromium.new_context(base_url=origin, viewport={"width": 1280, "height": 900})
        context.add_cookies([{"name": COOKIE, "value": clinician.client.cookies[COOKIE], "url": origin}])
        page = context.new_page()
        page.goto(f"/compare?media={pair[0]}&media={pair[1]}")
        yield page
        chromium.close()
