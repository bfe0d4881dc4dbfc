"""The pictures of README.md and docs/, from the running product: `make screenshots` (ARGS="compare photo" for some).

Service and sandbox EHR run as in the demo, with drawn photos of invented patients; Chromium must be on the PATH.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright
from rich.console import Console

from adapter.access import SYSTEM
from adapter.demo import FOREARM, Story, first_visit, running_demo, second_visit
from adapter.measure.measuring import Drawn, find_outline, keep
from adapter.records import create, get
from benchmarks import lesions

FOLDER = Path(__file__).parents[1] / "docs" / "images"
SCREEN: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 780}
FLAGS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


def main() -> None:
    """Raises SystemExit where Chromium is missing."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("Chromium is missing: install it (Debian: apt-get install chromium) and repeat.")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_demo(Path(folder), Console(quiet=True)) as story,
        sync_playwright() as driver,
    ):
        patient, first = first_visit(story)
        second_visit(story, patient, first)
        three_measurements(story, patient)
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        for name in sys.argv[1:] or PICTURES:
            user, viewport, go = PICTURES[name]
            save(name, take(browser, story, user, viewport, go))
        browser.close()


def three_measurements(story: Story, patient: str) -> None:
    """A growing lesion beside a calibration card at three visits, outlined and measured."""
    bridge = story.bridge
    with bridge.db.transaction() as tx:
        lesion = {"resourceType": "BodyStructure", "id": "naevus", "patient": {"reference": f"Patient/{patient}"}}
        create(tx, lesion | {"description": "Naevus, left forearm"}, at=bridge.now())
    for months, radius in ((7, 2.6), (4, 2.8), (0, 3.5)):
        scene = lesions.take(lesions.Scene(1, radius=radius, irregular=0.1, width=2400, shows=120))
        stored = story.capture(
            scene.jpeg,
            "image/jpeg",
            patient=f"Patient/{patient}",
            lesion="BodyStructure/naevus",
            body_site=FOREARM,
            laterality="left",
            view="close-up",
            taken_at=(bridge.now() - timedelta(days=30 * months, hours=1)).isoformat(),
        )
        media = str(stored["id"])
        found = find_outline(bridge, SYSTEM, media, scene.middle)
        points = tuple((x, y) for x, y in found["points"])
        with bridge.db.snapshot() as tx:
            version = get(tx, "Media", media).version_id
        drawn = Drawn("outline", points, 0.5, found["edge"], {"source": "card"}, "Found in the photo", version)
        keep(bridge, SYSTEM, media, drawn)


def take(browser: Browser, story: Story, user: str, viewport: ViewportSize, go: Callable[[Page], Page]) -> bytes:
    """A PNG of the page that `go` leads to from the patient's chart."""
    context = browser.new_context(base_url=story.ehr.settings.origin, viewport=viewport, permissions=["camera"])
    page = context.new_page()
    page.goto("/")
    page.get_by_role("button", name=user).click()
    page.get_by_role("link", name="Lindström").click()
    shown = go(page)
    shown.wait_for_timeout(1200)  # pictures decoded, zoomed to fit, transitions over
    picture: bytes = shown.screenshot()
    context.close()
    return picture


def save(name: str, picture: bytes) -> None:
    """In true colours, and small enough for a repository."""
    Image.open(io.BytesIO(picture)).convert("RGB").save(FOLDER / f"{name}.webp", quality=85, method=6)


def in_frame(page: Page) -> Page:
    page.get_by_role("link", name="DermBridge", exact=True).click()
    page.frame_locator("iframe.app").locator(".tile").first.wait_for()
    return page


def in_tab(page: Page) -> Page:
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Open DermBridge in a tab").click()
    opened.value.locator(".page-head").wait_for()
    return opened.value


def timeline(page: Page) -> Page:
    tab = in_tab(page)
    for number in range(2):
        tab.locator('input[name="media"]').nth(number).check()
    return tab


def photo(page: Page) -> Page:
    tab = in_tab(page)
    tab.locator(".tile-photo").first.click()
    tab.locator("#stage canvas").wait_for()
    return tab


def compare(page: Page) -> Page:
    """The two regional photos, months apart, the earlier one left."""
    tab = in_tab(page)
    regional = tab.locator(".tile").filter(has_text="Regional")
    for number in range(2):
        regional.nth(number).locator("input").check()
    tab.get_by_role("button", name="Compare", exact=True).click()
    tab.locator(".pane canvas").nth(1).wait_for()
    tab.locator("#verdict").get_by_text("Aligned", exact=True).wait_for()
    return tab


def compare_change(page: Page) -> Page:
    tab = compare(page)
    tab.keyboard.press("6")
    tab.locator("#overlay canvas").wait_for()
    return tab


def measure(page: Page) -> Page:
    """The newest close-up, its lesion outlined."""
    tab = lesion(page)
    tab.locator(".strip a").first.click()
    tab.locator("#stage canvas").wait_for()
    tab.wait_for_timeout(800)
    tab.get_by_role("button", name="Measure", exact=True).click()
    tab.locator("#measure-scale-said", has_text="mm a pixel").wait_for()
    box = tab.locator("#stage").bounding_box()
    x, y = lesions.take(lesions.Scene(1, radius=3.5, irregular=0.1, width=2400, shows=120)).middle
    if box:
        scale = min(box["width"] / 2400, box["height"] / 1800)
        left, top = box["x"] + (box["width"] - 2400 * scale) / 2, box["y"] + (box["height"] - 1800 * scale) / 2
        tab.mouse.click(left + x * scale, top + y * scale)
    tab.locator("#measure-values", has_text="mm²").wait_for()
    return tab


def lesion(page: Page) -> Page:
    tab = in_tab(page)
    tab.goto(f"{tab.url.partition('/patients/')[0]}/lesions/naevus")
    tab.locator(".chart").first.wait_for()
    return tab


def capture(page: Page) -> Page:
    tab = in_tab(page)
    tab.get_by_role("link", name="Take photo").click()
    tab.locator("#shutter:enabled").wait_for()
    return tab


PICTURES: dict[str, tuple[str, ViewportSize, Callable[[Page], Page]]] = {
    "chart": ("Rivera", SCREEN, in_frame),
    "timeline": ("Rivera", SCREEN, timeline),
    "photo": ("Rivera", SCREEN, photo),
    "compare": ("Rivera", SCREEN, compare),
    "compare-change": ("Rivera", SCREEN, compare_change),
    "compare-phone": ("Rivera", PHONE, compare),
    "measure": ("Rivera", SCREEN, measure),
    "lesion": ("Rivera", SCREEN, lesion),
    "capture": ("Rivera", PHONE, capture),
    "deliveries": ("Ivy", SCREEN, in_tab),
}

if __name__ == "__main__":
    main()
