"""SMART backend services against the whole service: what gets a token, what does not, and how tokens end."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from joserfc.jwk import ECKey

from tests.access.conftest import Serve
from tests.access.machines import Machine, rsa_machine
from tests.conftest import Clock


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("make", [Machine, rsa_machine])
def test_a_signed_assertion_gets_a_token_that_reads(serve: Serve, make: Any) -> None:
    machine = make()
    bridge, client = serve(clients=[machine.registration.model_dump()])
    answer = machine.ask(client, bridge)
    told = answer.json()
    assert answer.status_code == 200, told
    assert (told["token_type"], told["expires_in"]) == ("Bearer", 300)
    assert set(told["scope"].split()) == set(machine.scope.split())
    assert answer.headers["cache-control"] == "no-store"
    assert client.get("/fhir/Media/m1", headers=bearer(told["access_token"])).status_code == 200
    assert client.get("/fhir/Encounter/e1", headers=bearer(told["access_token"])).status_code == 403


REFUSED: dict[str, dict[str, Any]] = {
    "another audience": {"aud": "http://elsewhere.test/token"},
    "another subject": {"sub": "somebody"},
    "ended": {"exp": 1_000_000_000},
    "too long a life": {"exp": 2_000_000_000},
    "no end": {"exp": None},
    "an end that is no number": {"exp": "soon"},
    "an end beyond all time": {"exp": 1e300},
    "no jti": {"jti": None},
    "not yet valid": {"nbf": 2_000_000_000},
    "from the future": {"iat": 2_000_000_000},
    "an unknown client": {"iss": "stranger", "sub": "stranger"},
    "no key id": {"header": {"kid": None}},
    "an unknown key id": {"header": {"kid": "k9"}},
    "a foreign jku": {"header": {"jku": "https://evil.test/jwks.json"}},
    "another type of token": {"header": {"typ": "at+jwt"}},
}


@pytest.mark.parametrize("why", REFUSED)
def test_an_assertion_is_refused_with(why: str, serve: Serve, machine: Machine) -> None:
    bridge, client = serve(clients=[machine.registration.model_dump()])
    answer = machine.ask(client, bridge, machine.assertion(bridge, **REFUSED[why]))
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_an_assertion_signed_with_another_key_is_refused(serve: Serve, machine: Machine) -> None:
    bridge, client = serve(clients=[machine.registration.model_dump()])
    machine.key = ECKey.generate_key("P-384", {"kid": "k1"})
    assert machine.ask(client, bridge).json()["error"] == "invalid_client"


def test_an_assertion_without_signature_is_refused(serve: Serve, machine: Machine) -> None:
    bridge, client = serve(clients=[machine.registration.model_dump()])
    _, claims, _ = machine.assertion(bridge).split(".")
    for unsigned in (
        f"eyJhbGciOiJub25lIiwia2lkIjoiazEifQ.{claims}.",
        f"eyJhbGciOiJub25lIiwia2lkIjoiazEifQ.{claims}.AA",
    ):
        assert machine.ask(client, bridge, unsigned).json()["error"] == "invalid_client"


def test_an_assertion_works_once(serve: Serve, machine: Machine, clock: Clock) -> None:
    bridge, client = serve(clients=[machine.registration.model_dump()])
    assertion = machine.assertion(bridge)
    assert machine.ask(client, bridge, assertion).status_code == 200
    clock.advance(minutes=3)
    assert machine.ask(client, bridge, assertion).json()["error"] == "invalid_client"


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ("system/Media.r", {"system/Media.r"}),
        ("system/Media.read", {"system/Media.rs"}),
        ("system/Media.rs?patient=Patient/p1", {"system/Media.rs?patient=Patient/p1"}),
        ("system/Media.cruds system/Media.s", {"system/Media.s"}),
        ("system/*.r system/Patient.r", {"system/Patient.r"}),
        ("user/Media.r system/Patient.r", {"system/Patient.r"}),
        ("right/original system/Patient.r", {"system/Patient.r"}),
        ("system/Media.r?created=soon system/Media.r?shoesize=43 system/Patient.r", {"system/Patient.r"}),
        ("", {"system/Media.rs", "system/Patient.r"}),
    ],
)
def test_no_more_is_granted_than_was_registered(asked: str, granted: set[str], serve: Serve, machine: Machine) -> None:
    bridge, client = serve(clients=[machine.registration.model_dump()])
    assert set(machine.ask(client, bridge, scope=asked).json()["scope"].split()) == granted


def test_nothing_left_to_grant_is_an_invalid_scope(serve: Serve, machine: Machine) -> None:
    bridge, client = serve(clients=[machine.registration.model_dump()])
    answer = machine.ask(client, bridge, scope="system/Consent.u nonsense system/Media.r?created=soon")
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_scope")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"client_assertion_type": "secret"}, "invalid_client"),
        ({"client_id": "somebody"}, "invalid_client"),
    ],
)
def test_other_ways_in_are_shut(fields: dict[str, str], error: str, serve: Serve, machine: Machine) -> None:
    bridge, client = serve(clients=[machine.registration.model_dump()])
    assert machine.ask(client, bridge, **fields).json()["error"] == error


@pytest.mark.parametrize("name", ["\0", "\ud800", "a\nb"])
def test_a_name_that_no_database_keeps_is_no_clients(name: str, serve: Serve) -> None:
    _, client = serve()
    claims = base64.urlsafe_b64encode(json.dumps({"iss": name}).encode()).decode().rstrip("=")
    asserted = client.post(
        "/auth/token", data={"grant_type": "client_credentials", "client_assertion": f"e30.{claims}.x"}
    )
    basic = (quote(name, errors="replace"), "x")
    named = client.post("/auth/token", data={"grant_type": "client_credentials"}, auth=basic)
    assert [(one.status_code, one.json()["error"]) for one in (asserted, named)] == [(401, "invalid_client")] * 2


def test_a_parameter_given_twice_is_refused(serve: Serve, machine: Machine) -> None:
    bridge, client = serve(clients=[machine.registration.model_dump()])
    fields = [*machine.form(bridge, grant_type="client_credentials").items(), ("scope", "a"), ("scope", "b")]
    body = str(httpx.QueryParams(fields))
    sent = client.post("/auth/token", content=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert sent.json()["error"] == "invalid_request"


def test_a_token_ends_after_five_minutes(serve: Serve, machine: Machine, clock: Clock) -> None:
    bridge, client = serve(clients=[machine.registration.model_dump()])
    token = machine.ask(client, bridge).json()["access_token"]
    clock.advance(minutes=5)
    refused = client.get("/fhir/Media/m1", headers=bearer(token))
    assert refused.status_code == 401
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]


def test_a_token_is_introspected_and_revoked_by_its_own_client_only(serve: Serve, machine: Machine) -> None:
    other, auditor = Machine("other"), Machine("auditor", more={"may_introspect": True})
    everyone = [one.registration.model_dump() for one in (machine, other, auditor)]
    bridge, client = serve(clients=everyone)
    token = machine.ask(client, bridge).json()["access_token"]

    def told(asks: Machine) -> dict[str, Any]:
        found: dict[str, Any] = client.post("/auth/introspect", data=asks.form(bridge, token=token)).json()
        return found

    assert told(machine)["active"] and told(machine)["client_id"] == "archive"
    assert told(machine)["exp"] - told(machine)["iat"] == 300
    assert told(auditor)["active"]
    assert told(other) == {"active": False}
    assert client.post("/auth/revoke", data=other.form(bridge, token=token)).status_code == 200
    assert client.get("/fhir/Media/m1", headers=bearer(token)).status_code == 200
    assert client.post("/auth/revoke", data=machine.form(bridge, token=token)).status_code == 200
    assert client.get("/fhir/Media/m1", headers=bearer(token)).status_code == 401
    assert told(auditor) == {"active": False}


def test_ten_failures_lock_that_client_from_that_address_for_five_minutes(
    serve: Serve, machine: Machine, clock: Clock
) -> None:
    other = Machine("other")
    bridge, client = serve(clients=[machine.registration.model_dump(), other.registration.model_dump()])
    for _ in range(10):
        assert machine.ask(client, bridge, machine.assertion(bridge, aud="wrong")).status_code == 401
    locked = machine.ask(client, bridge)
    assert locked.status_code == 429 and int(locked.headers["retry-after"]) > 200
    assert other.ask(client, bridge).status_code == 200
    clock.advance(minutes=6)
    assert machine.ask(client, bridge).status_code == 200


def test_discovery_says_what_is_offered_to_every_origin(serve: Serve) -> None:
    _, client = serve()
    answer = client.get("/fhir/.well-known/smart-configuration")
    told = answer.json()
    assert answer.headers["access-control-allow-origin"] == "*"
    assert told["token_endpoint"].endswith("/auth/token")
    assert told["token_endpoint_auth_signing_alg_values_supported"] == ["RS384", "ES384"]
    assert "client-confidential-asymmetric" in told["capabilities"]
