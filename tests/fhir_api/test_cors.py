"""Browser apps of named origins may call /fhir with a token; nobody else, and never with a cookie."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from adapter.access.tokens import issue_token
from adapter.app import build_app
from adapter.bridge import Bridge
from tests.fhir_api.conftest import InProcess

APP = "https://app.example"
PREFLIGHT = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}


@pytest.fixture
def client(bridge: Bridge) -> Iterator[httpx.Client]:
    settings = bridge.settings.model_copy(update={"fhir_cors_origins": (APP,)})
    object.__setattr__(bridge, "settings", settings)
    with httpx.Client(transport=InProcess(build_app(bridge)), base_url="http://testserver") as opened:
        yield opened


def test_a_preflight_of_a_named_origin_passes_without_a_token(client: httpx.Client) -> None:
    answer = client.options("/fhir/Media", headers={"Origin": APP} | PREFLIGHT)
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == APP
    assert "access-control-allow-credentials" not in answer.headers
    other = client.options("/fhir/Media", headers={"Origin": "https://evil.example"} | PREFLIGHT)
    assert other.status_code == 400 and "access-control-allow-origin" not in other.headers
    page = client.options("/patients/p1", headers={"Origin": APP} | PREFLIGHT)
    assert page.status_code == 401 and "access-control-allow-origin" not in page.headers


def test_an_answer_is_shown_to_the_named_origin_only(bridge: Bridge, client: httpx.Client) -> None:
    with bridge.db.transaction() as tx:
        _, secret = issue_token(tx, name="app", scope="system/Media.rs", at=bridge.now())
    asking = {"Authorization": f"Bearer {secret}", "Origin": APP}
    answer = client.get("/fhir/Media", headers=asking)
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == APP
    assert "ETag" in answer.headers["access-control-expose-headers"]
    other = client.get("/fhir/Media", headers=asking | {"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


def test_without_the_setting_no_origin_is_let_in(bridge: Bridge) -> None:
    with httpx.Client(transport=InProcess(build_app(bridge)), base_url="http://testserver") as client:
        answer = client.options("/fhir/Media", headers={"Origin": APP} | PREFLIGHT)
        assert answer.status_code == 401
        assert client.get("/fhir/metadata").json()["rest"][0]["security"]["cors"] is False


@pytest.mark.parametrize(
    "query", ["_has:Provenance:target:agent=x", "view:in=x", "view:text=x", "_security=R", "_tag=x"]
)
def test_what_cannot_be_searched_by_is_refused_in_words_or_left_out_and_named(
    bridge: Bridge, client: httpx.Client, query: str
) -> None:
    with bridge.db.transaction() as tx:
        _, secret = issue_token(tx, name="app", scope="system/Media.rs", at=bridge.now())
    asking = {"Authorization": f"Bearer {secret}"}
    strict = client.get(f"/fhir/Media?{query}", headers=asking | {"Prefer": "handling=strict"})
    assert strict.status_code == 400
    issue = strict.json()["issue"][0]
    assert issue["code"] == "not-supported" and "searchable" in str(issue)
    lenient = client.get(f"/fhir/Media?{query}", headers=asking | {"Prefer": "handling=lenient"}).json()
    told = lenient["entry"][-1]
    assert told["search"]["mode"] == "outcome" and query.partition("=")[0] in str(told["resource"])


def test_a_patch_is_refused_in_words(bridge: Bridge, client: httpx.Client) -> None:
    with bridge.db.transaction() as tx:
        _, secret = issue_token(tx, name="app", scope="system/Media.u", at=bridge.now())
    answer = client.patch("/fhir/Media/1", json=[], headers={"Authorization": f"Bearer {secret}"})
    assert answer.status_code == 405 and answer.json()["resourceType"] == "OperationOutcome"
