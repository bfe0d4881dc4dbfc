"""The worklist by keys alone, against the running service in a real browser."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from adapter.access.sessions import COOKIE
from adapter.bridge import Bridge
from adapter.capture.render import render_photo
from adapter.work import Lane, WorkLoop
from tests.web.conftest import SYSTEM as MRN
from tests.web.conftest import sign_in
from tests.web.test_templates import ROOT, STATIC
from tests.web.test_worklist import media_of, store, work

if TYPE_CHECKING:
    from playwright.sync_api import Page

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
    pytest.mark.skipif(not (STATIC / "manifest.json").exists(), reason="the pages' scripts are not built: make assets"),
]


@contextmanager
def served(app: Any) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", ws="none", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def page(bridge: Bridge, app: Any) -> Iterator[Page]:
    """A photographer's browser; anything it complains about fails the test."""
    at = datetime.now(UTC)
    object.__setattr__(bridge, "now", lambda: at)  # cookies and sessions live in the browser's time
    signed_in = sign_in(bridge, app, "photographer", None)
    complaints: list[str] = []
    with served(app) as origin, sync_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = chromium.new_context(base_url=origin, viewport={"width": 1280, "height": 860})
        context.add_cookies([{"name": COOKIE, "value": signed_in.client.cookies[COOKIE], "url": origin}])
        opened = context.new_page()
        opened.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        yield opened
        chromium.close()
    assert complaints == []


@pytest.fixture
def waiting(bridge: Bridge, app: Any) -> list[str]:
    """Two photos: one typed with a slip, one without anything."""
    typed = {"system": MRN, "value": "1011", "family": "Lindkvist", "birthDate": "1961-03-12"}
    stored = [store(bridge, typed, 120), store(bridge, None, 121)]
    WorkLoop(bridge.db, {"render": Lane(lambda item: render_photo(bridge, item))}, now=bridge.now).run_until_idle()
    return stored


def test_a_photo_finds_its_patient_by_keys_alone(bridge: Bridge, waiting: list[str], page: Page) -> None:
    page.goto("/worklist")
    expect(page.locator("#detail")).to_have_attribute("data-id", waiting[0])
    page.keyboard.press("j")
    expect(page.locator("#detail")).to_have_attribute("data-id", waiting[1])
    page.keyboard.press("/")
    page.keyboard.type("1002")
    page.keyboard.press("Enter")
    expect(page.locator(".candidate")).to_contain_text("OKAFOR")
    page.keyboard.press("?")
    expect(page.get_by_role("heading", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("k")
    expect(page.locator("#detail")).to_have_attribute("data-id", waiting[0])
    expect(page.locator(".candidate").first).to_contain_text("identifier differs by one keystroke")
    page.keyboard.press("Enter")
    expect(page.locator("#confirm")).not_to_be_visible()  # nobody was chosen yet
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(page.locator("#confirm-name")).to_have_text("LINDQVIST, Åsa")
    page.keyboard.press("Enter")
    expect(page.get_by_text("The photo goes to its patient.")).to_be_visible()
    expect(page.locator(".wait")).to_have_count(1)
    work(bridge)
    assert media_of(bridge, waiting[0])["subject"] == {"reference": "Patient/p1"}


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed (npm ci)")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_worklist_breaks_no_accessibility_rule(waiting: list[str], page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    for path in ("/worklist", f"/refile?media={waiting[1]}&q=okafor", f"/refile?media={waiting[1]}&patient=p2"):
        page.goto(path)
        page.evaluate(AXE.read_text())
        assert page.evaluate("axe.run().then(found => found.violations.map(rule => rule.id))") == [], path
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), path
