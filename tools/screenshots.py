"""The pictures of README.md and docs/, from the running product: `make screenshots` (ARGS="compare photo" for some).

Service and sandbox EHR run as in the demo, with drawn photos of invented patients; Chromium must be on the PATH.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright
from rich.console import Console

from adapter.demo import Story, first_visit, running_demo, second_visit

FOLDER = Path(__file__).parents[1] / "docs" / "images"
SCREEN: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 780}
MAX_BYTES = 240_000
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
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        for name in sys.argv[1:] or PICTURES:
            user, viewport, go = PICTURES[name]
            save(name, take(browser, story, user, viewport, go))
        browser.close()


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
    """With as many colours as keep the file small in the repository."""
    colours = Image.open(io.BytesIO(picture)).convert("RGB")
    for count in (256, 128, 64, 32):
        out = io.BytesIO()
        colours.quantize(count, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        if out.tell() <= MAX_BYTES:
            break
    (FOLDER / f"{name}.png").write_bytes(out.getvalue())


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
    regional = tab.locator(".tile").filter(has_not_text="Dermoscopic")
    for number in range(2):
        regional.nth(number).locator("input").check()
    tab.get_by_role("button", name="Compare", exact=True).click()
    tab.locator(".pane canvas").nth(1).wait_for()
    tab.get_by_text("Aligning the photos").wait_for(state="hidden")
    return tab


def compare_change(page: Page) -> Page:
    tab = compare(page)
    tab.keyboard.press("6")
    tab.locator("#overlay canvas").wait_for()
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
    "capture": ("Rivera", PHONE, capture),
    "deliveries": ("Ivy", SCREEN, in_tab),
}

if __name__ == "__main__":
    main()
