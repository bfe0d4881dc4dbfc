"""A person in Chromium launches an app written with the SMART team's `fhirclient` against our FHIR server.

The app is on an origin of its own; the person signs in at the sandbox EHR, chooses the patient there, and lets the app
in. Needs Chromium, Node.js packages (`npm ci` in this folder) and nothing else.
"""

from __future__ import annotations

import base64
import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from adapter.bridge import Bridge
from adapter.records import find_where
from adapter.sandbox.ehr import SandboxSettings, open_ehr
from adapter.settings import Settings, load_settings
from tests.access.conftest import RECORDS
from tests.sandbox.conftest import free_port, sandbox_template, served
from tests.servers.dermbridge import dermbridge
from tests.web.conftest import picture

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from adapter.sandbox.ehr import SandboxEhr

__all__ = ["sandbox_template", "served"]
pytestmark = pytest.mark.real
sync_api = pytest.importorskip("playwright.sync_api")

HERE = Path(__file__).parent
CLIENT = HERE / "node_modules" / "fhirclient" / "build" / "fhir-client.js"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCOPE = "openid fhirUser launch/patient online_access patient/Media.crs patient/Patient.r patient/Binary.r"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def app_origin(tmp_path: Path) -> Iterator[str]:
    """The app's own server."""
    if not CLIENT.exists() or CHROMIUM is None:
        pytest.skip(f"no fhirclient or no Chromium here: install them and run npm ci in {HERE}")
    folder = shutil.copytree(HERE / "app", tmp_path / "app")
    shutil.copyfile(CLIENT, folder / "fhir-client.js")
    (folder / "photo.txt").write_bytes(base64.b64encode(picture()))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def our_port() -> int:
    return free_port()


@pytest.fixture
def ehr(tmp_path: Path, sandbox_template: Path, our_port: int) -> Iterator[SandboxEhr]:
    shutil.copytree(sandbox_template, tmp_path / "ehr")
    ours = f"http://127.0.0.1:{our_port}"
    opened = open_ehr(
        SandboxSettings(tmp_path / "ehr", dermbridge_url=ours, http_port=free_port(), mllp_port=free_port())
    )
    yield opened
    opened.bridge.close()


@pytest.fixture
def service(tmp_path: Path, served: str, our_port: int, app_origin: str) -> Iterator[tuple[Settings, Bridge]]:
    app = {"client_id": "tracker", "name": "Lesion Tracker", "scope": "patient/*.cruds"}
    settings = load_settings(
        environment={},
        data_dir=tmp_path / "ours",
        http_port=our_port,
        ehrs=[{"name": "Larkfield", "iss": f"{served}/fhir", "client_id": "dermbridge"}],
        clients=[app | {"redirect_uris": [f"{app_origin}/index.html"], "launch_url": f"{app_origin}/launch.html"}],
    )
    with dermbridge(settings, RECORDS) as bridge:
        yield settings, bridge


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium.new_page()
        chromium.close()


def to_consent(page: Page, settings: Settings, app_origin: str) -> None:
    """From the app to our page that asks, by way of the EHR's sign-in and its list of patients."""
    asked = urlencode({"iss": f"{settings.base_url}/fhir", "scope": SCOPE})
    page.goto(f"{app_origin}/launch.html?{asked}")
    page.get_by_role("link", name="Larkfield").click()
    page.get_by_role("button", name="Rivera").click()
    page.get_by_role("link", name="Lindqvist").click()
    page.get_by_role("heading", name="Lesion Tracker asks for access").wait_for()


def told_by(page: Page, app_origin: str) -> dict[str, Any]:
    """What the app has found out and done."""
    page.wait_for_url(f"{app_origin}/index.html*")
    page.wait_for_function("document.getElementById('told').textContent")
    told: dict[str, Any] = json.loads(page.locator("#told").inner_text())
    assert "error" not in told, told
    return told


def test_a_launched_app_reads_and_adds_photos_of_the_chosen_patient_and_no_more(
    page: Page, service: tuple[Settings, Bridge], app_origin: str
) -> None:
    settings, bridge = service
    to_consent(page, settings, app_origin)
    page.get_by_role("button", name="Allow").click()
    told = told_by(page, app_origin)
    assert told["user"] == "Dr. Inés Rivera" and told["patient"].lower() == "lindqvist"
    assert told["created"] in told["found"] and told["again"] == told["created"]
    assert told["shown"] == "image/jpeg" and told["rotated"]
    assert (told["elsewhere"], told["consents"]) == (404, 403)
    with bridge.db.snapshot() as tx:
        (media,) = (one.resource for one in find_where(tx, "Media") if one.id == told["created"])
        patients = {one.id for one in find_where(tx, "Patient")}
    of = media["subject"]["reference"].removeprefix("Patient/")
    bearer = {"Authorization": f"Bearer {told['token']}"}
    with httpx.Client(base_url=f"{settings.base_url}/fhir", headers=bearer) as client:
        assert client.get(f"/Patient/{of}").status_code == 200
        others = patients - {of}
        assert others and {client.get(f"/Patient/{one}").status_code for one in others} == {404}
        assert client.get("/Media/m1").status_code == 404


def test_an_app_that_is_opened_from_a_chart_knows_its_patient(
    page: Page, service: tuple[Settings, Bridge], ehr: SandboxEhr, app_origin: str
) -> None:
    page.goto(f"{ehr.settings.origin}/login")
    page.get_by_role("button", name="Rivera").click()
    page.goto(f"{ehr.settings.origin}/patients/astrid/launch")  # DermBridge, in this patient's chart
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Lesion Tracker").click()
    tab = opened.value
    tab.get_by_role("heading", name="Lesion Tracker asks for access").wait_for()
    assert tab.get_by_role("radio").count() == 1
    tab.get_by_role("button", name="Allow").click()
    assert told_by(tab, app_origin)["patient"].lower() == "lindqvist"


def test_a_person_who_says_no_sends_the_app_away_with_nothing(
    page: Page, service: tuple[Settings, Bridge], app_origin: str
) -> None:
    to_consent(page, service[0], app_origin)
    page.get_by_role("button", name="Deny").click()
    page.wait_for_url(f"{app_origin}/index.html*")
    answer = parse_qs(urlsplit(page.url).query)
    assert answer["error"] == ["access_denied"] and "code" not in answer
