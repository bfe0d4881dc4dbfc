"""SMART App Launch through the whole service, launched from the sandbox EHR over a socket (docs/smart.md)."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from joserfc.jwk import ECKey, RSAKey
from PIL import Image
from sqlalchemy import select, update

from adapter.access.ehr_grants import unseal
from adapter.app import build_app
from adapter.bridge import Bridge, open_bridge
from adapter.db.schema import prepare
from adapter.db.tables import session
from adapter.records import create_all, find_where, get
from adapter.sandbox import smart
from adapter.sandbox.ehr import SandboxEhr, SandboxSettings, open_ehr
from adapter.settings import load_settings
from tests.access.apps import APP, asked, bearer, refresh, tokens
from tests.fhir_api.conftest import InProcess
from tests.sandbox.conftest import browser, free_port, sandbox_template, served
from tests.web.conftest import Browser

__all__ = ["browser", "sandbox_template", "served"]


KEYS: list[Any] = [RSAKey.generate_key(2048), ECKey.generate_key("P-384")]


def public(key: Any) -> dict[str, Any]:
    return {"keys": [key.as_dict(private=False) | {"kid": key.thumbprint()}]}


class Service:
    """DermBridge with a browser of its own; `ahead` moves its clock, not the EHR's."""

    def __init__(
        self, folder: Path, ehr: SandboxEhr, options: dict[str, Any] | None = None, **registration: Any
    ) -> None:
        self.ahead = timedelta()
        registered = {"name": "Larkfield", "iss": ehr.settings.fhir_base, "client_id": "dermbridge"} | registration
        settings = load_settings(environment={}, data_dir=folder, ehrs=[registered], **(options or {}))
        self.bridge: Bridge = open_bridge(settings, now=lambda: datetime.now(UTC) + self.ahead)
        self.app = build_app(self.bridge)
        self.client = self.new_browser()

    def close(self) -> None:
        self.app.state.http.close()
        self.bridge.close()

    def new_browser(self) -> httpx.Client:
        return httpx.Client(transport=InProcess(self.app), base_url="http://testserver")

    def launch(self, ehr_browser: httpx.Client, chart: str = "astrid", query: str = "") -> httpx.Response:
        """From the chart to our callback's answer."""
        return self.client.get(self.authorized(ehr_browser, chart) + query)

    def authorized(self, ehr_browser: httpx.Client, chart: str = "astrid") -> str:
        """Our callback's address as the EHR sends the browser to it."""
        to_us = path_of(ehr_browser.get(f"/patients/{chart}/launch").headers["location"])
        to_ehr = self.client.get(to_us)
        assert to_ehr.status_code == 302, to_ehr.text
        return path_of(ehr_browser.get(to_ehr.headers["location"]).headers["location"])

    def audited(self, subtype: str) -> int:
        with self.bridge.db.snapshot() as tx:
            events = [one.resource for one in find_where(tx, "AuditEvent")]
        return sum(subtype in {code["code"] for code in event.get("subtype", [])} for event in events)


def path_of(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.path}?{parts.query}"


def query_of(address: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


@pytest.fixture
def sandbox_options() -> dict[str, Any]:
    return {}


@pytest.fixture
def ehr(tmp_path: Path, sandbox_template: Path, sandbox_options: dict[str, Any]) -> Iterator[SandboxEhr]:
    shutil.copytree(sandbox_template, tmp_path / "ehr")
    opened = open_ehr(
        SandboxSettings(tmp_path / "ehr", http_port=free_port(), mllp_port=free_port(), **sandbox_options)
    )
    yield opened
    opened.bridge.close()


@pytest.fixture
def start(tmp_path: Path, ehr: SandboxEhr, sqlite_template: Path) -> Iterator[Callable[..., Service]]:
    opened: list[Service] = []

    def begin(**registration: Any) -> Service:
        folder = tmp_path / f"service{len(opened)}"
        folder.mkdir(mode=0o700)
        shutil.copyfile(sqlite_template, folder / "dermbridge.sqlite3")
        opened.append(Service(folder, ehr, **registration))
        return opened[-1]

    yield begin
    for one in opened:
        one.close()


@pytest.fixture
def service(start: Callable[..., Service]) -> Service:
    return start()


def page(service: Service, path: str, **headers: str) -> httpx.Response:
    return service.client.get(path, headers={"Accept": "text/html"} | headers)


# --- coming in ------------------------------------------------------------------------------------------------------


def test_a_launch_opens_the_patients_photos_and_is_in_the_audit_log(service: Service, browser: httpx.Client) -> None:
    answer = service.launch(browser)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/patients/")
    assert page(service, answer.headers["location"]).status_code == 200
    assert service.audited("110122") == 1
    cookie = answer.headers.get_list("set-cookie")[0]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie  # http: no partitioned cookie is to be had


def test_under_https_cookies_are_bound_to_the_host_and_partitioned(
    tmp_path: Path, ehr: SandboxEhr, browser: httpx.Client
) -> None:
    settings = load_settings(
        environment={},
        data_dir=tmp_path / "https",
        public_url="https://bridge.test",
        ehrs=[{"name": "L", "iss": ehr.settings.fhir_base, "client_id": "dermbridge"}],
    )
    bridge = open_bridge(settings)
    prepare(bridge.db)
    app = build_app(bridge)
    with app.state.http, httpx.Client(transport=InProcess(app), base_url="https://bridge.test") as client:
        to_us = path_of(browser.get("/patients/astrid/launch").headers["location"])
        cookie = client.get(to_us).headers["set-cookie"]
    bridge.close()
    for part in ("__Host-", "SameSite=None", "Secure", "Partitioned", "HttpOnly", "Path=/"):
        assert part in cookie


@pytest.mark.parametrize("sandbox_options", [{"client_jwks": public(key)} for key in KEYS], ids=["RS384", "ES384"])
def test_an_ehr_that_knows_our_key_needs_no_secret(
    start: Callable[..., Service], browser: httpx.Client, tmp_path: Path, sandbox_options: dict[str, Any]
) -> None:
    (known,) = sandbox_options["client_jwks"]["keys"]
    file = tmp_path / "key.pem"
    file.write_bytes(next(key for key in KEYS if key.thumbprint() == known["kid"]).as_pem(private=True))
    assert start(private_key=str(file)).launch(browser).status_code == 303
    assert start().launch(browser).status_code == 403


# --- who may not ----------------------------------------------------------------------------------------------------


def test_an_ehr_that_is_not_registered_is_not_asked_anything(service: Service) -> None:
    answer = service.client.get("/launch", params={"iss": "http://169.254.169.254/fhir", "launch": "x"})
    assert answer.status_code == 403
    assert "location" not in answer.headers


def test_a_code_comes_back_once_and_to_the_browser_that_asked(service: Service, browser: httpx.Client) -> None:
    address = service.authorized(browser)
    stranger = service.new_browser()
    assert stranger.get(address).status_code == 403
    assert service.client.get(address).status_code == 400


def test_an_answer_that_names_another_issuer_is_refused(service: Service, browser: httpx.Client) -> None:
    address = service.authorized(browser)
    assert "iss=" in address
    kept = "&".join(part for part in address.split("&") if not part.startswith("iss="))
    assert service.client.get(f"{kept}&iss=https%3A%2F%2Fevil.test").status_code == 403


def test_an_answer_at_another_ehrs_address_is_refused(start: Callable[..., Service], browser: httpx.Client) -> None:
    service = start()
    address = service.authorized(browser)
    assert service.client.get(address.replace("/callback?", "/callback/south?")).status_code == 403
    assert service.audited("110122") == 1  # the failure is an event of its own


def test_what_an_ehr_says_in_its_error_is_not_repeated(service: Service, browser: httpx.Client) -> None:
    state = query_of(service.authorized(browser))["state"]
    answer = page(service, f"/callback?state={state}&error=access_denied&error_description=<b>call+555</b>")
    assert answer.status_code == 403
    assert "555" not in answer.text


def test_an_ehr_that_grants_less_than_the_patient_opens_nothing(
    start: Callable[..., Service], browser: httpx.Client
) -> None:
    answer = start(scope="launch openid fhirUser patient/Encounter.rs").launch(browser)
    assert answer.status_code == 403
    assert "patient/Patient.r" in answer.text


def test_without_the_scope_for_visits_photos_go_without_a_visit(
    start: Callable[..., Service], browser: httpx.Client
) -> None:
    service = start(scope="launch openid fhirUser patient/Patient.r")
    assert service.launch(browser).status_code == 303
    with service.bridge.db.snapshot() as tx:
        assert find_where(tx, "Encounter") == []


def test_the_pages_of_a_chart_look_like_its_ehr_as_far_as_photos_allow(service: Service, browser: httpx.Client) -> None:
    opened = page(service, service.launch(browser).headers["location"])
    address = re.search(r'href="(/style\.css\?patient=[^"]+)"', opened.text)
    assert address is not None
    sheet = service.client.get(address[1])
    assert sheet.headers["content-type"].startswith("text/css")
    assert "--accent: #45446f" in sheet.text and "--radius: 2px" in sheet.text
    assert "#f7f8fa" not in sheet.text  # its background would tint what surrounds a photo
    assert "style-src 'self'" in opened.headers["content-security-policy"]


def test_a_style_that_cannot_be_had_stops_no_launch(
    service: Service, browser: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smart, "STYLE", ["not", "an", "object"])
    opened = page(service, service.launch(browser).headers["location"])
    assert opened.status_code == 200
    assert "style.css" not in opened.text


# --- charts side by side --------------------------------------------------------------------------------------------


def csrf_of(text: str) -> str:
    return text.partition('name="csrf-token" content="')[2].partition('"')[0]


def jpeg(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 48), (shade, 80, 70)).save(out, "JPEG")
    return out.getvalue()


def test_two_charts_in_two_tabs_never_mix(
    start: Callable[..., Service], browser: httpx.Client, ehr: SandboxEhr
) -> None:
    service = start(options={"suspicion": {"other_chart": False}})
    charts = two_charts(ehr)
    homes = [service.launch(browser, chart).headers["location"] for chart in charts]
    assert homes[0] != homes[1]
    tabs = [page(service, home) for home in homes]
    assert [tab.status_code for tab in tabs] == [200, 200]
    assert csrf_of(tabs[0].text) != csrf_of(tabs[1].text)
    for shade, (home, tab) in enumerate(zip(homes, tabs, strict=True)):
        sent = {"Content-Type": "image/jpeg", "X-CSRF-Token": csrf_of(tab.text)}
        captured = service.client.post("/captures", content=jpeg(shade * 90), headers=sent)  # names no patient
        assert captured.status_code == 201, captured.text
        media = captured.json()["id"]
        with service.bridge.db.snapshot() as tx:
            (stored,) = [one for one in find_where(tx, "Media") if one.id == media]
        assert f"/patients/{stored.resource['subject']['reference'].removeprefix('Patient/')}" == home
        assert stored.resource["operator"]["reference"].startswith(f"{ehr.settings.fhir_base}/Practitioner/")
        assert page(service, f"/photos/{media}").status_code == 200


def test_a_change_that_does_not_say_its_chart_is_refused_while_two_are_open(
    service: Service, browser: httpx.Client, ehr: SandboxEhr
) -> None:
    for chart in two_charts(ehr):
        service.launch(browser, chart)
    sent = {"Content-Type": "image/jpeg", "Sec-Fetch-Site": "same-origin"}
    assert service.client.post("/captures", content=jpeg(9), headers=sent).status_code == 403


def test_another_user_at_the_same_browser_ends_the_first_ones_session(
    service: Service, browser: httpx.Client, ehr: SandboxEhr, served: str
) -> None:
    first, second = two_charts(ehr)
    home = service.launch(browser, first).headers["location"]
    with httpx.Client(base_url=served) as other:
        other.post("/login", data={"user": "pat-photo", "next": "/patients"})
        assert service.launch(other, second).status_code == 303
    assert page(service, home).status_code in (401, 404)


def two_charts(ehr: SandboxEhr) -> tuple[str, str]:
    with ehr.bridge.db.transaction() as tx:
        known = get(tx, "Patient", "astrid").resource
        other = {**known, "id": "bruno", "birthDate": "1950-01-01", "name": [{"family": "Okafor", "given": ["Bruno"]}]}
        number = [{**known["identifier"][0], "value": "4711-9999"}]
        create_all(tx, [{**other, "identifier": number}], at=ehr.bridge.now())
    return "astrid", "bruno"


# --- the end --------------------------------------------------------------------------------------------------------


def test_refresh_tokens_rotate_and_the_session_ends_with_the_ehrs(service: Service, browser: httpx.Client) -> None:
    home = service.launch(browser).headers["location"]
    grants = [row_of(service)]
    for _ in range(2):
        service.ahead += timedelta(hours=1, minutes=1)
        awake(service)
        assert page(service, home).status_code == 200
        grants.append(row_of(service))
    assert len(set(grants)) == 3
    sign_off(browser)
    service.ahead += timedelta(hours=1, minutes=1)
    awake(service)
    assert page(service, home).status_code == 401
    assert service.audited("auto-logoff") == 1


def test_an_app_that_nobody_looks_after_ends_with_the_ehrs_session(
    start: Callable[..., Service], browser: httpx.Client
) -> None:
    service = start(options={"clients": [APP.model_dump()]})
    home = service.launch(browser).headers["location"]
    person = Browser(service.client, csrf_of(page(service, home).text))
    granted = tokens(service.client, person, home.rpartition("/")[2])
    service.ahead += timedelta(hours=1, minutes=1)
    granted = refresh(service.client, granted["refresh_token"]).json()
    assert service.client.get("/fhir/Media", headers=bearer(granted["access_token"])).status_code == 200
    sign_off(browser)
    service.ahead += timedelta(hours=1, minutes=1)
    assert refresh(service.client, granted["refresh_token"]).json()["error"] == "invalid_grant"
    assert service.audited("app-ended") == 1


def test_the_page_that_asks_for_an_app_asks_the_ehr_as_well(
    start: Callable[..., Service], browser: httpx.Client
) -> None:
    service = start(options={"clients": [APP.model_dump()]})
    service.launch(browser)
    asking = f"/auth/authorize?{urlencode(asked())}"
    assert "asks for access" in page(service, asking).text
    sign_off(browser)
    service.ahead += timedelta(hours=1, minutes=1)
    awake(service)
    assert "Sign in first" in page(service, asking).text


def sign_off(ehr_browser: httpx.Client) -> None:
    chart = ehr_browser.get("/patients").text
    ehr_browser.post("/logout", data={"csrf_token": chart.partition('name="csrf_token" value="')[2].partition('"')[0]})


def row_of(service: Service) -> bytes:
    with service.bridge.db.snapshot() as tx:
        sealed: bytes = tx.execute(select(session.c.ehr_grant)).scalar_one()
    return sealed


def awake(service: Service) -> None:
    """As if the user had clicked a moment ago."""
    with service.bridge.db.transaction() as tx:
        tx.execute(update(session).values(seen_at=service.bridge.now()))


def test_logging_out_ends_every_chart_and_revokes_what_the_ehr_granted(
    service: Service, browser: httpx.Client, ehr: SandboxEhr
) -> None:
    home = service.launch(browser).headers["location"]
    grant = unseal(service.bridge, row_of(service))
    assert grant is not None
    out = service.client.post("/logout", data={"csrf_token": csrf_of(page(service, home).text)})
    assert out.status_code == 303
    assert page(service, home).status_code == 401
    form = {"grant_type": "refresh_token", "refresh_token": grant.refresh_token, "client_id": "dermbridge"}
    assert browser.post("/token", data=form).json()["error"] == "invalid_grant"


def test_an_idle_session_ends_and_pages_that_ask_by_themselves_do_not_keep_it(
    service: Service, browser: httpx.Client
) -> None:
    home = service.launch(browser).headers["location"]
    for _ in range(3):
        service.ahead += timedelta(minutes=6)
        polled = page(service, home, **{"Sec-Fetch-Mode": "navigate"})
    assert polled.status_code == 401
