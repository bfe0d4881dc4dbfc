"""SMART App Launch 2.2 as a client (https://hl7.org/fhir/smart-app-launch/): launch, callback, context.

`begin_launch` answers the EHR's launch (or starts a standalone one) with the address to send the browser to;
`complete_launch` turns the code that comes back into a verified `LaunchContext`. Which local patient and session that
means is decided by the caller. Nothing is fetched from an `iss` that is not configured.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode, urljoin

import httpx
import orjson
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from sqlalchemy import delete, insert

from adapter.access.tokens import digest
from adapter.bridge import Bridge
from adapter.db.tables import launch
from adapter.errors import BadInput, Forbidden, Unavailable
from adapter.settings import Ehr

BROWSER_COOKIE = "dermbridge-launch"
LAUNCH_LIFETIME = timedelta(minutes=10)
CLOCK_SKEW_SECONDS = 60
_ID_TOKEN_ALGORITHMS = ["RS256", "RS384", "ES256", "ES384"]


@dataclass(frozen=True)
class LaunchContext:
    """What the EHR vouched for; `patient` and `encounter` are its own FHIR resources, read with the granted token."""

    ehr: Ehr
    user_reference: str
    user_display: str
    scopes: frozenset[str]
    patient: dict[str, Any] | None
    encounter: dict[str, Any] | None
    show_banner: bool


def get_ehr(bridge: Bridge, iss: str) -> Ehr:
    """The registration of an EHR. Raises Forbidden for any other `iss`, without asking it anything."""
    for ehr in bridge.settings.ehrs:
        if ehr.iss == iss.rstrip("/"):
            return ehr
    raise Forbidden("this EHR is not registered here; add its FHIR base address under [[ehrs]] in dermbridge.toml")


def begin_launch(bridge: Bridge, http: httpx.Client, *, iss: str, launch_token: str | None) -> tuple[str, str]:
    """(authorize URL, value of BROWSER_COOKIE). Raises Forbidden or Unavailable."""
    ehr = get_ehr(bridge, iss)
    configuration = _discover(http, ehr)
    state, verifier, nonce, browser = (secrets.token_urlsafe(32) for _ in range(4))
    request = {
        "iss": ehr.iss,
        "verifier": verifier,
        "nonce": nonce,
        "token_endpoint": configuration["token_endpoint"],
        "issuer": configuration.get("issuer"),
        "jwks_uri": configuration.get("jwks_uri"),
    }
    with bridge.db.transaction() as tx:
        tx.execute(delete(launch).where(launch.c.created_at < bridge.now() - LAUNCH_LIFETIME))
        row = {
            "state": digest(state),
            "browser": digest(browser),
            "request": orjson.dumps(request).decode(),
            "created_at": bridge.now(),
        }
        tx.execute(insert(launch), row)
    scope = ehr.scope if launch_token else ehr.scope.replace("launch ", "launch/patient ", 1)
    query = {
        "response_type": "code",
        "client_id": ehr.client_id,
        "redirect_uri": redirect_uri(bridge),
        "scope": scope,
        "state": state,
        "nonce": nonce,
        "aud": ehr.iss,
        "code_challenge": _s256(verifier),
        "code_challenge_method": "S256",
    }
    if launch_token:
        query["launch"] = launch_token
    return f"{configuration['authorization_endpoint']}?{urlencode(query)}", browser


def complete_launch(
    bridge: Bridge, http: httpx.Client, *, state: str, code: str, browser_cookie: str | None
) -> LaunchContext:
    """Exchange the code and verify who came. Raises BadInput, Forbidden or Unavailable."""
    request = _take_request(bridge, state, browser_cookie)
    ehr = get_ehr(bridge, request["iss"])
    answer = _exchange(http, ehr, request, code, redirect_uri(bridge))
    claims = _verified_claims(http, ehr, request, answer.get("id_token"), bridge.now())
    user = str(claims.get("fhirUser") or claims["sub"]).removeprefix(f"{ehr.iss}/")
    read = _Reader(http, ehr, answer["access_token"])
    return LaunchContext(
        ehr=ehr,
        user_reference=user,
        user_display=read.display_of(user),
        scopes=frozenset(str(answer.get("scope", "")).split()),
        patient=read.optional("Patient", answer.get("patient")),
        encounter=read.optional("Encounter", answer.get("encounter")),
        show_banner=answer.get("need_patient_banner", True) is not False,
    )


def redirect_uri(bridge: Bridge) -> str:
    return f"{bridge.settings.base_url}/callback"


def _s256(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _discover(http: httpx.Client, ehr: Ehr) -> dict[str, Any]:
    configuration = _get_json(http, f"{ehr.iss}/.well-known/smart-configuration", ehr)
    if "S256" not in configuration.get("code_challenge_methods_supported", []):
        raise Unavailable(f"{ehr.name} does not announce PKCE with S256; a launch without it would not be safe")
    for key in ("authorization_endpoint", "token_endpoint"):
        if key not in configuration:
            raise Unavailable(f"{ehr.name} does not announce its {key} in .well-known/smart-configuration")
    return configuration


def _take_request(bridge: Bridge, state: str, browser_cookie: str | None) -> dict[str, Any]:
    """The launch this `state` belongs to; each can be used once, by the browser that began it."""
    with bridge.db.transaction() as tx:
        row = tx.execute(
            delete(launch)
            .where(launch.c.state == digest(state))
            .returning(launch.c.browser, launch.c.request, launch.c.created_at)
        ).one_or_none()
    if row is None or row.created_at + LAUNCH_LIFETIME <= bridge.now():
        raise BadInput("this launch has expired or was already used; open DermBridge from the chart again")
    if browser_cookie is None or not secrets.compare_digest(digest(browser_cookie), row.browser):
        raise Forbidden("this launch was begun in another browser; open DermBridge from the chart again")
    request: dict[str, Any] = orjson.loads(row.request)
    return request


def _exchange(http: httpx.Client, ehr: Ehr, request: dict[str, Any], code: str, redirect: str) -> dict[str, Any]:
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect,
        "code_verifier": request["verifier"],
    }
    if ehr.client_secret is None:
        auth: httpx.Auth = httpx.Auth()
        form["client_id"] = ehr.client_id
    else:
        auth = httpx.BasicAuth(ehr.client_id, ehr.client_secret.get_secret_value())
    try:
        response = http.post(request["token_endpoint"], data=form, auth=auth, headers={"Accept": "application/json"})
    except httpx.HTTPError as error:
        raise Unavailable(f"{ehr.name} did not answer the token request ({type(error).__name__}); try again") from None
    if response.status_code != 200:
        raise Forbidden(f"{ehr.name} refused the launch (HTTP {response.status_code}); open DermBridge again")
    answer: dict[str, Any] = response.json()
    if "access_token" not in answer or str(answer.get("token_type", "")).lower() != "bearer":
        raise Unavailable(f"{ehr.name} answered the token request without a bearer token")
    return answer


def _verified_claims(
    http: httpx.Client, ehr: Ehr, request: dict[str, Any], id_token: str | None, now: datetime
) -> dict[str, Any]:
    if id_token is None or not request.get("jwks_uri"):
        raise Forbidden(f"{ehr.name} did not say who is signing in (no id_token); grant the scopes openid fhirUser")
    keys = KeySet.import_key_set(_get_json(http, request["jwks_uri"], ehr))  # type: ignore[arg-type]
    try:
        claims = dict(jwt.decode(id_token, keys, algorithms=_ID_TOKEN_ALGORITHMS).claims)
    except (JoseError, ValueError) as error:
        raise Forbidden(f"the id_token of {ehr.name} could not be verified ({type(error).__name__})") from None
    audience = claims.get("aud")
    timestamp = now.timestamp()
    problems = {
        "iss": claims.get("iss") != request.get("issuer"),
        "aud": ehr.client_id not in (audience if isinstance(audience, list) else [audience]),
        "exp": float(claims.get("exp", 0)) + CLOCK_SKEW_SECONDS < timestamp,
        "iat": float(claims.get("iat", 0)) - CLOCK_SKEW_SECONDS > timestamp,
        "nonce": claims.get("nonce") != request["nonce"],
        "sub": not claims.get("sub"),
    }
    if wrong := [claim for claim, bad in problems.items() if bad]:
        raise Forbidden(f"the id_token of {ehr.name} is not valid here: {', '.join(wrong)}")
    return claims


def _get_json(http: httpx.Client, url: str, ehr: Ehr) -> dict[str, Any]:
    try:
        response = http.get(url, headers={"Accept": "application/json"})
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
    except (httpx.HTTPError, ValueError) as error:
        raise Unavailable(f"{ehr.name} did not answer usefully ({type(error).__name__}); try again") from None
    return answer


@dataclass(frozen=True)
class _Reader:
    http: httpx.Client
    ehr: Ehr
    access_token: str

    def optional(self, resource_type: str, resource_id: str | None) -> dict[str, Any] | None:
        return None if not resource_id else self.read(f"{resource_type}/{resource_id}")

    def read(self, reference: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.access_token}", "Accept": "application/fhir+json"}
        try:
            response = self.http.get(urljoin(f"{self.ehr.iss}/", reference), headers=headers)
            response.raise_for_status()
            resource: dict[str, Any] = response.json()
        except (httpx.HTTPError, ValueError) as error:
            kind = reference.partition("/")[0]
            raise Unavailable(f"{self.ehr.name} would not show its {kind} ({type(error).__name__})") from None
        return resource

    def display_of(self, reference: str) -> str:
        """A person's name for pages and audit; the reference itself where the EHR will not say."""
        try:
            name = (self.read(reference).get("name") or [{}])[0]
        except Unavailable:
            return reference
        return name.get("text") or " ".join([*name.get("prefix", []), *name.get("given", []), name.get("family", "")])
