"""A comparison saved and opened again in a real browser: the same mode, place, magnification and blend."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import Any

import pytest

from adapter.access.sessions import COOKIE
from adapter.bridge import Bridge
from tests.compare.conftest import compared, draw, keep_rendition
from tests.web.conftest import sign_in
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


@pytest.mark.parametrize("db_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("mode", ["side", "slider"])
def test_a_saved_comparison_shows_again_what_was_seen(bridge: Bridge, app: Any, mode: str) -> None:
    at = datetime.now(UTC)
    object.__setattr__(bridge, "now", lambda: at)  # cookies and sessions live in the browser's time
    clinician = sign_in(bridge, app, "clinician", "p1")
    pair = [str(clinician.capture(draw(seed)).json()["id"]) for seed in (1, 2)]
    for one in pair:
        keep_rendition(bridge, f"Media/{one}", "display", draw(1), patient="p1")
    for left, right in (pair, pair[::-1]):
        compared(bridge, left, right, patient="p1")
    with served(app) as origin, sync_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = chromium.new_context(base_url=origin, viewport={"width": 1280, "height": 900})
        context.add_cookies([{"name": COOKIE, "value": clinician.client.cookies[COOKIE], "url": origin}])
        page = context.new_page()
        page.goto(f"/compare?media={pair[0]}&media={pair[1]}")
        page.locator('[data-do="slider"]:enabled').wait_for()
        page.locator('[data-do="swap"]').click()
        page.locator(f'[data-do="{mode}"]').click()
        page.locator("#laid canvas, #panes canvas").locator("visible=true").first.wait_for()
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
        chromium.close()
