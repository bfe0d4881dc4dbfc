"""Our half of an OAuth authorization code flow with PKCE and OpenID Connect, towards EHRs and staff identity providers
alike (RFC 6749, RFC 7636, RFC 9207, RFC 9700, OpenID Connect Core 3.1).

`begin` gives the address to send the browser to, `take` what was begun when the browser comes back, `exchange` the
token response and `verified_claims` who it was. Nothing here knows patients.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import httpx
import orjson
from joserfc import jwt
from joserfc.errors import JoseError
from pydantic import SecretStr
from sqlalchemy import delete, insert

from adapter.access.jwks import read_keys
from adapter.access.outbound import get_json, trouble
from adapter.access.signing import ASSERTION_TYPE, signing_key
from adapter.access.tokens import digest
from adapter.bridge import Bridge
from adapter.db.tables import launch
from adapter.errors import BadInput, Forbidden, Unavailable

BROWSER_COOKIE = "dermbridge-launch"
LAUNCH_LIFETIME = timedelta(minutes=10)
CLOCK_SKEW_SECONDS = 60
ID_TOKEN_ALGORITHMS = ["RS256", "RS384", "RS512", "ES256", "ES384", "PS256"]


@dataclass(frozen=True)
class Registration:
    """How we are known to one authorization server."""

    name: str
    client_id: str
    redirect_uri: str
    client_secret: SecretStr | None = field(default=None, repr=False)
    private_key: Path | None = None
    key_id: str | None = None


class Begun(NamedTuple):
    """Where the browser goes, and the value of the cookie it must come back with."""

    url: str
    browser: str

    @property
    def cookie_name(self) -> str:
        return launch_cookie(parse_qs(urlsplit(self.url).query)["state"][0])


def launch_cookie(state: str) -> str:
    """Each launch has a cookie of its own, since two tabs may be on their way at once."""
    return f"{BROWSER_COOKIE}-{digest(state)[:12]}"


def begin(
    bridge: Bridge,
    registration: Registration,
    endpoints: Mapping[str, Any],
    *,
    scope: str,
    kept: Mapping[str, Any],
    more: Mapping[str, str],
) -> Begun:
    """`kept` comes back from `take`; `more` are further parameters of the authorize request."""
    state, verifier, nonce, browser = (secrets.token_urlsafe(32) for _ in range(4))
    request = {**kept, "verifier": verifier, "nonce": nonce, "redirect_uri": registration.redirect_uri}
    request |= {name: endpoints.get(name) for name in ("token_endpoint", "issuer", "jwks_uri", "revocation_endpoint")}
    with bridge.db.transaction() as tx:
        row = {
            "state": digest(state),
            "browser": digest(browser),
            "request": orjson.dumps(request).decode(),
            "created_at": bridge.now(),
        }
        tx.execute(insert(launch), row)
    query = {
        "response_type": "code",
        "client_id": registration.client_id,
        "redirect_uri": registration.redirect_uri,
        "scope": scope,
        "state": state,
        "nonce": nonce,
        "code_challenge": s256(verifier),
        "code_challenge_method": "S256",
        **more,
    }
    joint = "&" if urlsplit(endpoints["authorization_endpoint"]).query else "?"
    return Begun(f"{endpoints['authorization_endpoint']}{joint}{urlencode(query)}", browser)


def take(bridge: Bridge, *, state: str, browser_cookie: str | None, iss: str | None, arrived_at: str) -> dict[str, Any]:
    """What this `state` belongs to; each can be used once, by the browser that began it.

    `iss` is the answer's own word about who sends it (RFC 9207), `arrived_at` our address it came to: both must be
    those of the server that was asked, or another server is passing off its codes. Raises BadInput or Forbidden.
    """
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
    if iss is not None and iss != (request["issuer"] or request.get("iss")):
        raise Forbidden("this answer names another issuer than the one that was asked; open DermBridge again")
    if arrived_at != request["redirect_uri"]:
        raise Forbidden("this answer came to an address that is registered with another EHR; open DermBridge again")
    return request


def exchange(
    http: httpx.Client, registration: Registration, request: Mapping[str, Any], grant: Mapping[str, str], now: datetime
) -> dict[str, Any]:
    """The token response to `grant`. Raises Forbidden when it is refused, Unavailable when there is no answer."""
    url = request["token_endpoint"]
    try:
        response = post_as(http, registration, url, grant, audience=url, now=now)
        answer = response.json() if response.status_code == 200 else {}
    except (httpx.HTTPError, ValueError) as error:
        raise Unavailable(f"{registration.name} did not answer the token request {trouble(error)}") from None
    if response.status_code >= 500:
        raise Unavailable(f"{registration.name} could not answer the token request; try again")
    if response.status_code != 200:
        raise Forbidden(f"{registration.name} {_refusal(response)}")
    if not isinstance(answer, dict) or not isinstance(answer.get("access_token"), str):
        raise Unavailable(f"{registration.name} answered the token request without an access token")
    if str(answer.get("token_type", "")).lower() != "bearer":
        raise Unavailable(f"{registration.name} answered the token request without a bearer token")
    return answer


def _refusal(response: httpx.Response) -> str:
    """What to do about a refused token request (RFC 6749 section 5.2)."""
    if response.status_code == 401 or b'"invalid_client"' in response.content:
        return "does not know us by our client_id and its secret or key; compare the settings with its registration"
    return f"refused the launch (HTTP {response.status_code}); open DermBridge again"


def post_as(
    http: httpx.Client, registration: Registration, url: str, form: Mapping[str, str], *, audience: str, now: datetime
) -> httpx.Response:
    """`form` sent with the proof of who we are, as registered; `audience` is that of an assertion: the token endpoint.

    Raises Misconfigured when our key cannot be read, and what httpx raises.
    """
    proof, auth = {}, httpx.Auth()
    if registration.private_key is not None:
        key = signing_key(registration.private_key, registration.key_id)
        assertion = key.assertion(client_id=registration.client_id, audience=audience, at=now.timestamp())
        proof = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
    elif registration.client_secret is not None:
        # RFC 6749 2.3.1: both are form-encoded before they are joined.
        pair = registration.client_id, registration.client_secret.get_secret_value()
        auth = httpx.BasicAuth(*(quote(part, safe="") for part in pair))
    else:
        proof = {"client_id": registration.client_id}
    return http.post(url, data={**form, **proof}, auth=auth, headers={"Accept": "application/json"})


def code_grant(request: Mapping[str, Any], code: str) -> dict[str, str]:
    return {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": request["redirect_uri"],
        "code_verifier": request["verifier"],
    }


def verified_claims(
    http: httpx.Client, registration: Registration, request: Mapping[str, Any], id_token: object, now: datetime
) -> dict[str, Any]:
    """Who signed in, by the id_token (OpenID Connect Core 3.1.3.7). Raises Forbidden or Unavailable."""
    name = registration.name
    if not isinstance(id_token, str) or not request.get("jwks_uri"):
        raise Forbidden(f"{name} did not say who is signing in (no id_token); grant the scopes openid fhirUser")
    keys = read_keys(get_json(http, request["jwks_uri"], name), name)
    try:
        claims = dict(jwt.decode(id_token, keys, algorithms=ID_TOKEN_ALGORITHMS).claims)
    except (JoseError, ValueError) as error:
        raise Forbidden(f"the id_token of {name} could not be verified ({type(error).__name__})") from None
    audience, timestamp = claims.get("aud"), now.timestamp()
    audiences = audience if isinstance(audience, list) else [audience]
    problems = {
        "iss": claims.get("iss") != request.get("issuer"),
        "aud": registration.client_id not in audiences,
        "azp": claims.get("azp", registration.client_id) != registration.client_id
        or (len(audiences) > 1 and "azp" not in claims),
        "exp": _number(claims.get("exp")) + CLOCK_SKEW_SECONDS < timestamp,
        "iat": _number(claims.get("iat")) - CLOCK_SKEW_SECONDS > timestamp,
        "nonce": not secrets.compare_digest(str(claims.get("nonce")).encode(), request["nonce"].encode()),
        "sub": not isinstance(claims.get("sub"), str) or not claims["sub"],
    }
    if wrong := [claim for claim, bad in problems.items() if bad]:
        raise Forbidden(f"the id_token of {name} is not valid here: {', '.join(wrong)}")
    return claims


def check_endpoints(found: Mapping[str, Any], names: tuple[str, ...], *, asked: str, whose: str) -> None:
    """Addresses from a discovery document are absolute, and encrypted when the document was. Raises Unavailable."""
    schemes = ("https",) if asked.startswith("https:") else ("https", "http")
    for name in names:
        parts = urlsplit(str(found.get(name) or ""))
        if parts.scheme not in schemes or not parts.hostname or parts.fragment:
            raise Unavailable(f"{whose} does not announce a usable {name}; its configuration must be put right")


def person_reference(issuer: str, subject: str) -> str:
    """Somebody whom the issuer names by a word of its own only: always the same, and a reference as others are."""
    return f"Person/{digest(f'{issuer}|{subject}')[:32]}"


def s256(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
