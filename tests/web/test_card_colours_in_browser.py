"""Photos in two lights laid over each other in the colours of their cards, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from adapter.access.sessions import COOKIE
from adapter.bridge import Bridge
from tests.measure.scenes import scene
from tests.web.conftest import sign_in
from tests.web.test_saved_in_browser import CHROMIUM, pytestmark, sync_api  # noqa: F401 - the marks are this module's too
from tests.web.test_worklist_in_browser import served

BRIGHTNESS = """() => {
    const seen = document.querySelector('#laid canvas').getContext('2d');
    const { data } = seen.getImageData(0, 0, seen.canvas.width, seen.canvas.height);
    let [sum, count] = [0, 0];
    for (let at = 0; at < data.length; at += 4) if (data[at + 3]) [sum, count] = [sum + data[at + 2], count + 1];
    return sum / count;
}"""
"""Mean of blue, which the warm light takes away."""


@pytest.fixture
def open_pair(bridge: Bridge, app: Any) -> Iterator[Any]:
    """Opens the comparison of two scenes."""
    at = datetime.now(UTC)
    object.__setattr__(bridge, "now", lambda: at)  # cookies and sessions live in the browser's time
    clinician = sign_in(bridge, app, "clinician", "p1")
    with served(app) as origin, sync_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = chromium.new_context(base_url=origin, viewport={"width": 1280, "height": 900})
        context.add_cookies([{"name": COOKIE, "value": clinician.client.cookies[COOKIE], "url": origin}])

        def opened(*lights: str) -> Any:
            left, right = (clinician.capture(scene(light).jpeg).json()["id"] for light in lights)
            page = context.new_page()
            page.route("**/display", lambda route: route.fulfill(body=scene(lights[0]).jpeg))  # no worker made any
            page.goto(f"/compare?media={left}&media={right}")
            page.locator('[data-do="difference"]:enabled').click()
            page.locator("#laid canvas").first.wait_for()
            page.wait_for_timeout(1500)  # drawn
            return page

        yield opened
        chromium.close()


@pytest.mark.parametrize("db_url", ["sqlite"], indirect=True)
def test_two_lights_differ_less_in_the_colours_of_the_cards(open_pair: Any) -> None:
    page = open_pair("card", "coloured light")
    before = page.evaluate(BRIGHTNESS)
    page.keyboard.press("c")
    page.get_by_text("Colours by the cards").wait_for()
    page.wait_for_timeout(1500)
    assert page.evaluate(BRIGHTNESS) < before / 3
    page.keyboard.press("c")
    sync_api.expect(page.locator("#laid-colours")).to_be_empty()
    page.wait_for_timeout(500)
    assert page.evaluate(BRIGHTNESS) == pytest.approx(before, rel=0.05)


@pytest.mark.parametrize("db_url", ["sqlite"], indirect=True)
def test_a_photo_without_a_card_says_so_and_both_stay_as_photographed(open_pair: Any) -> None:
    page = open_pair("card", "no card")
    before = page.evaluate(BRIGHTNESS)
    page.keyboard.press("c")
    page.get_by_text("Colours as photographed").wait_for()
    assert "no calibration card" in page.locator("#laid-colours").inner_text()
    assert page.evaluate(BRIGHTNESS) == pytest.approx(before, rel=0.05)
