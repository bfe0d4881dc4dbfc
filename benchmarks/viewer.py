"""How long a clinician waits for a comparison: a real service, a real browser, photos of 12 and 48 megapixels.

    python -m benchmarks.viewer [--patients 5] [--json]

Every patient has two photos of the same skin (benchmarks/skin.py) at two visits. Measured from the click on the photo
page: until both photos are drawn, until they are aligned, the same once more, and with a third photo; then how long a
photo of 48 megapixels takes to be sharp at 1:1 and what a phone has to decode for it. Processor time is that of the
service and its children, which waits for nobody. Needs Chromium. Exits 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
from PIL import Image
from playwright.sync_api import Page, Response, sync_playwright

from adapter.access import Actor
from adapter.access.policy import grants_of
from adapter.access.sessions import COOKIE, start_session
from adapter.serve import open_prepared
from adapter.settings import Settings
from benchmarks.served import Service, prepare, report, serving
from benchmarks.skin import NORMAL, Recipe, make_pair

TARGETS = {
    "first view s": 1.5,
    "aligned s": 1.5,
    "aligned again s": 0.5,
    "with a third photo s": 1.5,
    "1:1 of 48 MP s": 1.5,
}
"""From the click; the most allowed at the median."""
DRAWN = "() => document.querySelector('.pane canvas') && !document.querySelector('.pane .stage-plain')"
ALIGNED = "() => document.querySelector('#verdict')?.textContent.startsWith('Aligned')"
WAIT_MS = 60_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("Chromium is missing: install it (Debian: apt-get install chromium) and repeat.")
    photos = make_photos()
    patients = [f"p{number}" for number in range(options.patients + 1)]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        settings, secret = prepare(Path(folder), patients)
        cookie = sign_in(settings)
        with serving(settings, secret) as service:
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            context = browser.new_context(base_url=settings.base_url, viewport={"width": 1280, "height": 800})
            context.add_cookies([{"name": COOKIE, "value": cookie, "url": settings.base_url}])
            page = context.new_page()
            rows = [measure(service, page, patient, photos) for patient in patients][1:]  # the first one warms up
            rows.append(large(service, page, patients[0], photos["48"]))
            browser.close()
    return tell(rows, as_json=options.json)


def make_photos() -> dict[str, bytes]:
    """Three of 12 megapixels, the third being the second once more, and one of 48."""
    recipe: dict[str, Any] = {"seed": 1000, "lesion": 120.0, **NORMAL}
    left, right = make_pair(Recipe(**recipe)).jpegs()
    out = io.BytesIO()
    with Image.open(io.BytesIO(left)) as image:
        image.resize((8064, 6048), Image.Resampling.BICUBIC).save(out, "JPEG", quality=92)
    return {"2025-03-03": left, "2026-02-02": right, "2026-11-20": right + b"\0", "48": out.getvalue()}


def sign_in(settings: Settings) -> str:
    bridge = open_prepared(settings)
    scopes, rights = grants_of("administrator")
    actor = Actor("person", "Practitioner/bench", "Benchmark", "administrator", scopes, rights)
    with bridge.db.transaction() as tx:
        cookie, _ = start_session(tx, actor, at=bridge.now(), lifetime=timedelta(hours=4))
    bridge.close()
    return cookie


def capture(service: Service, patient: str, photo: bytes, taken: str) -> str:
    """The id of the photo, once its renditions are there."""
    about = {"patient": f"Patient/{patient}", "taken_at": taken, "body_site": "113179006", "view": "close-up"}
    described = base64.urlsafe_b64encode(orjson.dumps(about)).decode()
    headers = {"Content-Type": "image/jpeg", "Authorization": f"Bearer {service.secret}"}
    connection = service.connect()
    connection.request("POST", "/captures", photo, headers | {"DermBridge-Metadata": described})
    answer = connection.getresponse()
    body = orjson.loads(answer.read())
    if answer.status not in (201, 202):
        raise SystemExit(f"a capture was refused: {body}")
    until = time.monotonic() + 60
    while time.monotonic() < until:
        connection.request("GET", f"/captures/{body['id']}/display", headers=headers)
        shown = connection.getresponse()
        if len(shown.read()) < len(photo):
            return str(body["id"])
        time.sleep(0.1)
    raise SystemExit("renditions were not made; see the service's log above")


def measure(service: Service, page: Page, patient: str, photos: dict[str, bytes]) -> dict[str, Any]:
    ids = {taken: capture(service, patient, photos[taken], taken) for taken in list(photos)[:2]}
    newest = ids["2026-02-02"]
    row: dict[str, Any] = {"patient": patient}

    def click() -> None:
        page.get_by_role("link", name="Compare with").click()

    page.goto(f"/photos/{newest}")
    page.wait_for_load_state("networkidle")
    row |= timed(service, page, click, {"first view s": DRAWN, "aligned s": ALIGNED}, "comparison CPU s")
    page.goto(f"/photos/{newest}")
    page.wait_for_load_state("networkidle")
    row |= timed(service, page, click, {"aligned again s": ALIGNED}, "again CPU s")
    third = capture(service, patient, photos["2026-11-20"], "2026-11-20")
    page.goto(f"/photos/{third}")
    page.wait_for_load_state("networkidle")
    return row | timed(service, page, click, {"with a third photo s": ALIGNED}, "third CPU s")


def large(service: Service, page: Page, patient: str, photo: bytes) -> dict[str, Any]:
    """A photo of 48 megapixels on its page: until the first tile of 1:1 is there, and what was decoded till then."""
    media_id = capture(service, patient, photo, "2026-11-22")
    seen: list[int] = []

    def note(answer: Response) -> None:
        if "/tiles/" in answer.url:
            seen.append(int(answer.headers["content-length"]))

    page.on("response", note)
    page.goto(f"/photos/{media_id}")
    page.wait_for_load_state("networkidle")
    tile = "() => performance.getEntriesByType('resource').some(one => /tiles\\/.*\\/0\\/\\d+\\/\\d+$/.test(one.name))"
    row = timed(service, page, lambda: page.keyboard.press("9"), {"1:1 of 48 MP s": tile}, "tiles CPU s")
    page.wait_for_load_state("networkidle")
    return {"patient": patient, **row, "48 MP: tiles fetched": len(seen), "48 MP: MB fetched": sum(seen) / 1e6}


def timed(service: Service, page: Page, act: Callable[[], object], until: dict[str, str], cpu: str) -> dict[str, float]:
    """Seconds until each condition holds, and processor seconds of the service until the last of them did."""
    spent, began = cpu_of_tree(service.pid), time.perf_counter()
    act()
    found = {}
    for name, condition in until.items():
        page.wait_for_function(condition, timeout=WAIT_MS, polling="raf")
        found[name] = time.perf_counter() - began
    return found | {cpu: cpu_of_tree(service.pid) - spent}


def cpu_of_tree(pid: int) -> float:
    """Seconds that a process and its children have spent (Linux; see proc_pid_stat(5))."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            own, fields = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if pid in (own, int(fields[1])):
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def tell(rows: list[dict[str, Any]], *, as_json: bool) -> int:
    names = list(dict.fromkeys(name for row in rows for name in row if name != "patient"))
    table = []
    for name in names:
        values = [row[name] for row in rows if name in row]
        seen, limit = statistics.median(values), TARGETS.get(name)
        met = None if limit is None else seen <= limit
        table.append({"measure": name, "median": seen, "worst": max(values), "target": limit, "met": met})
    load = os.getloadavg()[0]
    report(f"{len(rows) - 1} patients, {os.cpu_count()} cores, load {load:.1f}", table, as_json=as_json)
    return 0 if all(row["met"] is not False for row in table) else 1


if __name__ == "__main__":
    sys.exit(main())
