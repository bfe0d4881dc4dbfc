"""How each kind of client identifies itself to the token endpoint, and how long a token is used."""

from __future__ import annotations

import base64
import json
import time
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from connectors.auth import Credentials, find_missing_scopes
from connectors.contract import DeliveryError, Retry
from connectors.http import Http
from connectors.knobs import Auth, Timeouts
from connectors.signing_key import new_signing_key, read_signing_key

TOKEN_URL = "https://ehr.example/token"


class TokenEndpoint:
    def __init__(self, **answer: Any) -> None:
        self.answer = {"access_token": "t", "expires_in": 300} | answer
        self.status = 200
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("smart-configuration"):
            return httpx.Response(200, json={"token_endpoint": TOKEN_URL})
        self.requests.append(request)
        return httpx.Response(self.status, json=self.answer | {"access_token": f"t{len(self.requests)}"})

    @property
    def form(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.requests[-1].content.decode()).items()}


def credentials(endpoint: TokenEndpoint, kind: str, secret: str = "s3:cret%", **changes: Any) -> Credentials:
    name = changes.pop("secret_name", "ehr")
    clock = changes.pop("clock", time.monotonic)
    table = {"kind": kind, "client_id": "derm", "secret": name, "token_url": TOKEN_URL, **changes}
    http = Http(httpx.MockTransport(endpoint), "https://ehr.example/fhir", timeouts=Timeouts(attempts=1))
    return Credentials(Auth.model_validate(table), http, {"ehr": secret}.__getitem__, clock)


def test_basic_needs_no_token() -> None:
    endpoint = TokenEndpoint()
    header = credentials(endpoint, "basic").authorization()
    assert header == "Basic " + base64.b64encode(b"derm:s3:cret%").decode()
    assert not endpoint.requests


def test_a_client_secret_in_the_header_is_form_encoded_first() -> None:
    endpoint = TokenEndpoint()
    assert credentials(endpoint, "client_secret_basic", scope="system/Media.c").authorization() == "Bearer t1"
    sent = base64.b64decode(endpoint.requests[0].headers["authorization"].removeprefix("Basic "))
    assert sent == b"derm:s3%3Acret%25"
    assert endpoint.form == {"grant_type": "client_credentials", "scope": "system/Media.c"}


def test_a_client_secret_in_the_body_leaves_an_empty_scope_out() -> None:
    endpoint = TokenEndpoint()
    credentials(endpoint, "client_secret_post").authorization()
    assert endpoint.form == {"grant_type": "client_credentials", "client_id": "derm", "client_secret": "s3:cret%"}


RSA_KEY, EC_KEY = RSAKey.generate_key(2048, {"kid": "r1"}), ECKey.generate_key("P-384", {"kid": "e1"})
KEYS: dict[str, tuple[str, RSAKey | ECKey, str]] = {
    "rsa-jwk": (json.dumps(RSA_KEY.as_dict(private=True)), RSA_KEY, "RS384"),
    "rsa-pem": (RSA_KEY.as_pem(private=True).decode(), RSA_KEY, "RS384"),
    "ec-jwk": (json.dumps(EC_KEY.as_dict(private=True)), EC_KEY, "ES384"),
    "ec-pem": (EC_KEY.as_pem(private=True).decode(), EC_KEY, "ES384"),
}


@pytest.mark.parametrize("name", KEYS)
def test_a_signed_assertion_is_what_smart_backend_services_asks_for(name: str) -> None:
    secret, key, algorithm = KEYS[name]
    endpoint = TokenEndpoint(expires_in=1)
    client = credentials(endpoint, "private_key_jwt", secret, key_id="k9" if name.endswith("pem") else "")
    assert client.authorization() == "Bearer t1"
    token = jwt.decode(endpoint.form["client_assertion"], key, algorithms=[algorithm])
    assert token.header == {"alg": algorithm, "typ": "JWT", "kid": "k9" if name.endswith("pem") else key.kid}
    assert token.claims["iss"] == token.claims["sub"] == "derm"
    assert token.claims["aud"] == TOKEN_URL
    assert 0 < token.claims["exp"] - token.claims["iat"] <= 300
    client.renew()
    client.authorization()
    again = jwt.decode(endpoint.form["client_assertion"], key, algorithms=[algorithm])
    assert again.claims["jti"] != token.claims["jti"]


@pytest.mark.parametrize("secret", ["", "not a key", json.dumps(ECKey.generate_key("P-256").as_dict(private=True))])
def test_a_key_that_cannot_sign_is_named_without_showing_it(secret: str) -> None:
    with pytest.raises(DeliveryError, match="private key cannot be used") as error:
        credentials(TokenEndpoint(), "private_key_jwt", secret).authorization()
    assert "P-384" in error.value.remedy


def test_a_token_is_used_until_shortly_before_its_end() -> None:
    clock = [1000.0]
    endpoint = TokenEndpoint(expires_in=3600)
    client = credentials(endpoint, "client_secret_post", clock=lambda: clock[0])
    assert client.authorization() == "Bearer t1"
    clock[0] += 3560
    assert client.authorization() == "Bearer t1"
    clock[0] += 20
    assert client.authorization() == "Bearer t2"


def test_a_refused_token_is_asked_for_again_only_as_often_as_the_profile_allows() -> None:
    clock = [1000.0]
    endpoint = TokenEndpoint(expires_in=3600)
    client = credentials(endpoint, "client_secret_post", clock=lambda: clock[0], minimum_refresh_seconds=60)
    assert client.authorization() == "Bearer t1"
    assert not client.renew()
    clock[0] += 61
    assert client.renew()
    assert client.authorization() == "Bearer t2"


def test_a_token_without_the_scopes_a_profile_requires_is_not_used() -> None:
    endpoint = TokenEndpoint(scope="system/DocumentReference.read system/Patient.rs")
    client = credentials(endpoint, "client_secret_post", require_scopes=["DocumentReference.rc"])
    with pytest.raises(DeliveryError, match=r"without DocumentReference\.c") as error:
        client.authorization()
    assert error.value.retry is Retry.LATER


@pytest.mark.parametrize("granted", ["system/DocumentReference.crus", "system/*.write system/*.read", None])
def test_scopes_are_understood_in_both_spellings_and_silence_is_believed(granted: str | None) -> None:
    endpoint = TokenEndpoint(scope=granted)
    client = credentials(endpoint, "client_secret_post", require_scopes=["DocumentReference.cu"])
    assert client.authorization() == "Bearer t1"


def test_api_keys_go_with_the_token_request_as_well() -> None:
    endpoint = TokenEndpoint()
    credentials(endpoint, "client_secret_post", secret_headers={"x-api-key": "ehr"}).authorization()
    assert endpoint.requests[-1].headers["x-api-key"] == "s3:cret%"


def test_a_vendor_that_wants_rs256_gets_it() -> None:
    endpoint = TokenEndpoint()
    credentials(endpoint, "private_key_jwt", KEYS["rsa-pem"][0], algorithm="RS256").authorization()
    head = endpoint.form["client_assertion"].partition(".")[0]
    assert json.loads(base64.urlsafe_b64decode(head + "=="))["alg"] == "RS256"


def test_the_token_endpoint_is_discovered_when_the_profile_does_not_name_it() -> None:
    endpoint = TokenEndpoint()
    assert credentials(endpoint, "client_secret_post", token_url="").authorization() == "Bearer t1"
    assert str(endpoint.requests[0].url) == TOKEN_URL


def test_a_refused_client_is_tried_later_and_its_secret_stays_secret() -> None:
    endpoint = TokenEndpoint(error="invalid_client")
    endpoint.status = 401
    with pytest.raises(DeliveryError, match="access token") as error:
        credentials(endpoint, "client_secret_post").authorization()
    assert error.value.retry is Retry.LATER
    assert "s3:cret" not in str(error.value) + error.value.remedy


def test_a_missing_secret_is_named() -> None:
    client = credentials(TokenEndpoint(), "client_secret_post", secret_name="other")
    with pytest.raises(DeliveryError, match="'other' is not there"):
        client.authorization()


@pytest.mark.parametrize(
    ("granted", "missing"),
    [
        ("system/Media.cruds system/Patient.rs", []),
        ("system/*.*", []),
        ("system/Media.write system/Patient.read", []),
        ("system/Media.r system/Patient.rs", ["Media.c"]),
        ("system/Media.c?category=x user/Patient.s", []),
        ("openid launch", ["Media.c", "Patient.s"]),
    ],
)
def test_granted_scopes_are_read_in_both_spellings(granted: str, missing: list[str]) -> None:
    assert find_missing_scopes(granted, [("Media", "c"), ("Patient", "s")]) == missing


def test_a_key_that_follows_signs_from_its_moment_on_and_both_are_known_before_and_after() -> None:
    secrets = {"old": new_signing_key("ec"), "new": new_signing_key("rsa")}
    old, new = (read_signing_key(text).key_id for text in secrets.values())
    assert old != new
    for begins, kid in (("2999-01-01T00:00:00Z", old), ("2020-01-01T00:00:00Z", new)):
        auth = Auth.model_validate(
            {"kind": "private_key_jwt", "client_id": "c", "secret": "old", "next_secret": "new", "next_from": begins}
        )
        credentials = Credentials(auth, None, secrets.__getitem__)  # type: ignore[arg-type]
        assert [each.key_id for each in credentials.signing_keys()] == [old, new]
        head = json.loads(
            base64.urlsafe_b64decode(credentials._assertion("https://e.example/token").split(".")[0] + "==")
        )
        assert head["kid"] == kid and head["alg"] == ("ES384" if kid == old else "RS384")


def test_what_is_published_of_a_key_holds_no_private_part() -> None:
    for kind in ("rsa", "ec"):
        entry = read_signing_key(new_signing_key(kind)).public()
        assert entry["kid"] and entry["use"] == "sig" and not {"d", "p", "q", "dp", "dq", "qi"} & set(entry)
