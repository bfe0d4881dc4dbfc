"""Behind the proxy as documented: whole photos, events at once, cookies for https alone, and who really came."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from adapter.access import Actor
from adapter.access.attempts import LIMITS
from adapter.access.handoff import make_handoff
from adapter.access.policy import grants_of
from adapter.access.sessions import cookie_name, start_session
from tests.integration.tls.conftest import Proxy
from tests.web.conftest import picture

pytestmark = pytest.mark.real

VISITOR, NEIGHBOUR = "127.0.0.5", "127.0.0.6"


@pytest.fixture
def client(nginx: Proxy, ours: Path) -> Iterator[httpx.Client]:
    """A camera somewhere in the hospital."""
    trusted = ssl.create_default_context(cafile=str(ours))
    transport = httpx.HTTPTransport(verify=trusted, local_address=VISITOR)
    headers = {"Authorization": f"Bearer {nginx.token}", "Content-Type": "image/jpeg"}
    address = f"https://127.0.0.1:{nginx.port}"
    with httpx.Client(base_url=address, transport=transport, headers=headers, timeout=30) as opened:
        yield opened


def sign_in(nginx: Proxy, *, patient_id: str = "p1") -> tuple[dict[str, str], str]:
    """(cookie of a clinician who opened the chart, secret of a link for the phone)"""
    actor = Actor("person", "Practitioner/d1", "Eve", "clinician", *grants_of("clinician"), patient_id=patient_id)
    with nginx.bridge.db.transaction() as tx:
        at = nginx.bridge.now()
        cookie, session = start_session(tx, actor, at=at, lifetime=timedelta(hours=1))
        secret = make_handoff(tx, session, patient_id=patient_id, encounter_id=None, at=at)
    return {cookie_name(actor, https=True): cookie}, secret


def test_every_answer_keeps_our_headers_and_names_no_version(client: httpx.Client) -> None:
    answer = client.get("/captures/none")
    assert answer.status_code == 404 and answer.http_version == "HTTP/1.1"
    assert answer.headers["server"] == "nginx"
    for name in ("strict-transport-security", "x-content-type-options"):
        assert len(answer.headers.get_list(name)) == 1, name


def test_photos_pass_up_to_our_own_limit_and_what_is_more_is_refused_in_our_words(
    client: httpx.Client, nginx: Proxy
) -> None:
    most = nginx.bridge.settings.max_capture_bytes
    stored = client.post("/captures", content=picture() + bytes(most - len(picture())))
    assert stored.status_code != 413 and stored.json()["resourceType" if stored.status_code > 299 else "id"]
    refused = client.post("/captures", content=bytes(most + 1))
    assert refused.status_code == 413 and "64 MiB" in refused.text


def test_who_came_is_what_the_proxy_saw_whatever_the_visitor_says(client: httpx.Client, ours: Path) -> None:
    """Wrong tokens lock out the address they come from, and no other."""
    wrong = {"Authorization": "Bearer dbt_wrong"}
    answers = [client.get("/captures/none", headers=wrong).status_code for _ in range(LIMITS["bearer"].failures + 1)]
    assert (answers[0], answers[-1]) == (401, 429)
    for forged in ({"X-Forwarded-For": "203.0.113.9"}, {"Forwarded": "for=203.0.113.9"}, {"X-Real-IP": "203.0.113.9"}):
        assert client.get("/captures/none", headers=wrong | forged).status_code == 429
    transport = httpx.HTTPTransport(verify=ssl.create_default_context(cafile=str(ours)), local_address=NEIGHBOUR)
    with httpx.Client(base_url=client.base_url, transport=transport) as neighbour:
        assert neighbour.get("/captures/none", headers=wrong).status_code == 401


def test_a_cookie_is_for_https_and_this_host_alone(client: httpx.Client, nginx: Proxy) -> None:
    _, secret = sign_in(nginx)
    answer = client.get(f"/h/{secret}")
    given = answer.headers["set-cookie"]
    assert answer.status_code == 303 and given.startswith("__Host-")
    assert {"secure", "httponly", "path=/"} <= set(given.lower().split("; "))
    page = client.get(answer.headers["location"], headers={"Accept": "text/html", "Authorization": ""})
    assert page.status_code == 200 and "LINDQVIST" in page.text


def test_events_arrive_when_they_happen(client: httpx.Client, nginx: Proxy) -> None:
    cookies, _ = sign_in(nginx)
    headers = {"Authorization": "", "Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
    with client.stream("GET", "/patients/p1/events", headers=headers) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        said = stream.iter_text()
        assert next(said).startswith("retry:")
        photo = {"DermBridge-Metadata": "eyJwYXRpZW50IjogIlBhdGllbnQvcDEifQ"}  # {"patient": "Patient/p1"}
        assert (
            httpx.post(
                f"http://127.0.0.1:{nginx.bridge.settings.http_port}/captures",
                content=picture(),
                headers={"Authorization": f"Bearer {nginx.token}", "Content-Type": "image/jpeg"} | photo,
            ).status_code
            == 201
        )
        sent_at = time.monotonic()
        assert "event: media" in next(said) and time.monotonic() - sent_at < 10
