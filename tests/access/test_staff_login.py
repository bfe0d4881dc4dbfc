"""Staff sign in outside an EHR; the sandbox's OpenID Connect half is the provider."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from adapter.records import create_all
from tests.access.test_launch import (
    Service,
    browser,
    ehr,
    page,
    path_of,
    sandbox_options,
    sandbox_template,
    served,
    start,
)
from tests.web.conftest import patient, visit

__all__ = ["browser", "ehr", "sandbox_options", "sandbox_template", "served", "start"]
Start = Callable[..., Service]


def options(served: str, **more: Any) -> dict[str, Any]:
    login = {"name": "hospital", "issuer": f"{served}/fhir", "client_id": "dermbridge", "scope": "openid fhirUser"}
    roles = {"dr-rivera": "clinician", "quinn-privacy": "privacy-officer"}
    return {"staff_logins": [login | {"role_claim": "sub", "roles": roles} | more]}


def signed_in(service: Service, provider: httpx.Client) -> httpx.Response:
    to_provider = service.client.get("/login")
    assert to_provider.status_code == 302, to_provider.text
    back = provider.get(to_provider.headers["location"]).headers["location"]
    return service.client.get(path_of(back))


@contextmanager
def as_user(served: str, user: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served) as client:
        client.post("/login", data={"user": user, "next": "/patients"})
        yield client


def test_the_group_of_a_person_decides_the_role(start: Start, served: str) -> None:
    service = start(options=options(served))
    with as_user(served, "quinn-privacy") as provider:
        assert signed_in(service, provider).status_code == 303
    assert page(service, "/audit").status_code == 200
    assert page(service, "/worklist").status_code == 403


def test_who_signs_in_to_let_an_app_in_comes_back_to_it_and_nobody_is_led_elsewhere(
    start: Start, served: str, browser: httpx.Client
) -> None:
    service = start(options=options(served))
    asked = "/auth/authorize?client_id=app&state=1"
    for then, home in ((asked, asked), ("https://evil.example", "/"), ("//evil.example", "/"), ("/audit", "/")):
        to_provider = service.client.get("/login", params={"then": then})
        back = browser.get(to_provider.headers["location"]).headers["location"]
        assert service.client.get(path_of(back)).headers["location"] == home


def test_a_clinician_outside_the_ehr_has_no_chart(start: Start, served: str, browser: httpx.Client) -> None:
    service = start(options=options(served))
    assert signed_in(service, browser).status_code == 303
    assert page(service, "/").headers["location"] == "/charts"
    assert page(service, "/break-glass").status_code == 200
    assert page(service, "/audit").status_code == 403


def test_the_number_by_which_adt_calls_a_person_comes_with_the_sign_in(
    start: Start, served: str, browser: httpx.Client
) -> None:
    known = {"practitioner_claim": "sub", "practitioner_system": "urn:oid:1.2.3"}
    service = start(options=options(served, **known))
    takes_part = {"individual": {"identifier": {"system": "urn:oid:1.2.3", "value": "dr-rivera"}}}
    with service.bridge.db.transaction() as tx:
        told = [patient("p1", "1001", "Lindqvist"), visit("e1", "p1") | {"participant": [takes_part]}]
        create_all(tx, told, at=service.bridge.now())
    signed_in(service, browser)
    assert "/charts/p1/open" in page(service, "/charts").text


def test_who_has_no_role_is_refused(start: Start, served: str) -> None:
    service = start(options=options(served))
    with as_user(served, "pat-photo") as provider:
        refused = signed_in(service, provider)
    assert refused.status_code == 403
    assert "set-cookie" not in refused.headers


def test_a_provider_that_names_another_issuer_is_refused(start: Start, served: str) -> None:
    service = start(options=options(served, issuer=f"{served}/fhir/"))
    assert service.client.get("/login").status_code == 403


def test_without_a_configured_provider_nobody_signs_in_here(start: Start, served: str) -> None:
    assert start().client.get("/login").status_code == 404
    assert start(options=options(served)).client.get("/login?at=elsewhere").status_code == 404


def test_an_answer_that_nobody_asked_for_signs_nobody_in(start: Start, served: str) -> None:
    service = start(options=options(served))
    refused = service.client.get("/callback?code=x&state=y")
    assert refused.status_code == 400
    assert "set-cookie" not in refused.headers
