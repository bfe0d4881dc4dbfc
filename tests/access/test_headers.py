"""What every answer carries, whoever asks and whatever comes of it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from adapter.access import Actor
from adapter.access.policy import grants_of
from adapter.access.sessions import cookie_name, start_session
from adapter.web.headers import security_headers
from tests.access.conftest import Serve
from tests.web.conftest import sign_in

ADDRESSES = ("/healthz", "/patients/p1", "/nowhere", "/fhir/metadata", "/fhir/Media", "/launch", "/auth/token")
EHR = {"name": "L", "iss": "https://ehr.test/fhir", "client_id": "x", "frame_ancestors": ["https://ehr.test"]}


@pytest.mark.parametrize("address", ADDRESSES)
def test_every_answer_carries_the_security_headers(serve: Serve, address: str) -> None:
    _, client = serve(public_url="https://bridge.test")
    headers = client.get(address).headers
    policy = headers["content-security-policy"]
    for directive in ("default-src 'none'", "object-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"):
        assert directive in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"


def test_only_registered_ehrs_may_frame_us(serve: Serve) -> None:
    _, client = serve(ehrs=[EHR])
    assert "frame-ancestors https://ehr.test" in client.get("/healthz").headers["content-security-policy"]


def test_a_page_leaves_the_screen_when_its_session_is_idle(serve: Serve) -> None:
    bridge, client = serve(session_idle_minutes=10)
    browser = sign_in(bridge, client._transport._inner.app, "clinician", "p1")  # type: ignore[attr-defined]
    assert browser.get("/patients/p1").headers["refresh"] == "605"
    assert "refresh" not in browser.get("/capture?patient=p1").headers
    assert "refresh" not in browser.get("/fhir/Media").headers
    assert "refresh" not in client.get("/patients/p1", headers={"Accept": "text/html"}).headers


def test_a_refused_token_is_told_why_in_the_words_of_rfc_6750(serve: Serve) -> None:
    _, client = serve()
    refused = client.get("/fhir/Media", headers={"Authorization": "Bearer dbt_nonsense"})
    assert refused.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert "www-authenticate" in client.get("/fhir/Media").headers


def test_over_https_browsers_are_told_to_stay_with_it_for_a_year() -> None:
    assert (
        dict(security_headers([], https=True))[b"strict-transport-security"] == b"max-age=31536000; includeSubDomains"
    )
    assert b"strict-transport-security" not in dict(security_headers([], https=False))


def test_over_https_another_host_of_the_domain_cannot_plant_a_session(serve: Serve) -> None:
    bridge, client = serve(public_url="https://bridge.test")
    scopes, rights = grants_of("clinician")
    actor = Actor("person", "Practitioner/a", "A", "clinician", scopes, rights, patient_id="p1")
    with bridge.db.transaction() as tx:
        cookie, _ = start_session(tx, actor, at=bridge.now(), lifetime=timedelta(hours=1))
    name = cookie_name(actor, https=True)
    for sent, status in ((name, 200), (name.removeprefix("__Host-"), 401)):
        assert client.get("/patients/p1", headers={"Cookie": f"{sent}={cookie}"}).status_code == status
