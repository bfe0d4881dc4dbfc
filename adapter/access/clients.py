"""Which client is asking: each proves it in the way it is registered for, at every request to a token endpoint.

With its key (RFC 7523, https://hl7.org/fhir/smart-app-launch/client-confidential-asymmetric.html), with its secret (RFC
6749 section 2.3.1), or not at all: a public app, whose code PKCE protects instead.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from adapter.access.jwks import claims_of, header_of
from adapter.access.signing import ASSERTION_TYPE
from adapter.errors import DermBridgeError
from adapter.settings import Client

ALGORITHMS = ["RS384", "ES384"]
METHODS = ["private_key_jwt", "client_secret_basic", "client_secret_post", "none"]
LONGEST_ASSERTION = timedelta(minutes=5)
CLOCK_SKEW = timedelta(seconds=30)


class OAuthError(DermBridgeError):
    """An error of RFC 6749 section 5.2; `code` is its registered word."""

    http_status = 400

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Asking:
    """What a client sends to a token endpoint: its form, and the Authorization header; and from where."""

    form: Mapping[str, str]
    authorization: str = ""
    address: str = ""

    def __getitem__(self, name: str) -> str:
        """A parameter that must be there. Raises OAuthError."""
        if not self.form.get(name):
            raise OAuthError("invalid_request", f"{name} is missing")
        return self.form[name]

    @property
    def assertion(self) -> str:
        return self.form.get("client_assertion", "")

    @property
    def named(self) -> tuple[str, str | None]:
        """(client_id, secret) as given in the header or the form; unverified."""
        if not self.authorization:
            return self.form.get("client_id", ""), self.form.get("client_secret")
        kind, _, encoded = self.authorization.partition(" ")
        try:
            pair = base64.b64decode(encoded, validate=True).decode() if kind.lower() == "basic" else ""
        except ValueError:
            pair = ""
        client_id, _, secret = pair.partition(":")
        return unquote(client_id), unquote(secret)

    @property
    def claimed(self) -> str:
        """Who it says it is; a name that could not be printed is none, for it is kept with every refusal."""
        name = str(claims_of(self.assertion).get("iss") if self.assertion else self.named[0])[:200]
        return name if name.isprintable() else ""


@dataclass(frozen=True)
class Register:
    """The clients of one authorization server.

    `keys` gives a client's public keys (by the `kid` wanted); `use_once` is told the jti of an assertion and until when
    it holds, and answers whether it is new.
    """

    clients: Mapping[str, Client]
    token_url: str
    now: Callable[[], datetime]
    keys: Callable[[Client, str], KeySet]
    use_once: Callable[[Client, str, datetime], bool]

    def authenticate(self, asking: Asking) -> Client:
        """Raises OAuthError (invalid_client)."""
        client = self.clients.get(asking.claimed)
        if client is None:
            raise invalid_client("this client is not registered; add it under [[clients]] in dermbridge.toml")
        if client.has_key:
            self._check_assertion(client, asking)
        elif client.client_secret is not None:
            given, held = asking.named[1] or "", client.client_secret.get_secret_value()
            if asking.assertion or not secrets.compare_digest(given.encode(), held.encode()):
                raise invalid_client("this client proves itself with its secret, and this is not it")
        elif asking.assertion or asking.named[1] is not None:
            raise invalid_client("this client is public: it sends its client_id and neither secret nor assertion")
        return client

    def _check_assertion(self, client: Client, asking: Asking) -> None:
        if asking.form.get("client_assertion_type") != ASSERTION_TYPE:
            raise invalid_client(f"client_assertion_type must be {ASSERTION_TYPE}")
        if asking.form.get("client_id", client.client_id) != client.client_id:
            raise invalid_client("client_id is not the one in the assertion")
        claims = self._verified(client, asking.assertion)
        expires_at = _checked_end(claims, client, self.token_url, self.now())
        if not self.use_once(client, str(claims["jti"]), expires_at):
            raise invalid_client("this assertion was used before; make a new one with a new jti")

    def _verified(self, client: Client, assertion: str) -> dict[str, Any]:
        header = header_of(assertion)
        if not isinstance(header.get("kid"), str) or header.get("typ", "JWT") != "JWT":
            raise invalid_client("the assertion's header needs typ JWT and the kid of its key")
        if header.get("jku", client.jwks_url) != client.jwks_url:
            raise invalid_client("jku is not the registered address of this client's keys")
        try:
            return dict(jwt.decode(assertion, self.keys(client, header["kid"]), algorithms=ALGORITHMS).claims)
        except (JoseError, ValueError):
            raise invalid_client("the assertion's signature does not verify; sign it with RS384 or ES384") from None


def invalid_client(message: str) -> OAuthError:
    return OAuthError("invalid_client", message)


def _checked_end(claims: Mapping[str, Any], client: Client, audience: str, now: datetime) -> datetime:
    """When the assertion ends. Raises OAuthError."""
    named = claims.get("aud")
    wrong = {
        "iss and sub must be the client_id": not claims.get("iss") == claims.get("sub") == client.client_id,
        f"aud must be {audience}": audience not in (named if isinstance(named, list) else [named]),
        "jti must be a text of up to 200 letters": not 0 < len(str(claims.get("jti") or "")) <= 200,
        "exp must be a number": not _is_number(claims.get("exp")),
        "nbf must not lie ahead": not _is_past(claims.get("nbf", 0), now),
        "iat must not lie ahead": not _is_past(claims.get("iat", 0), now),
    }
    if broken := [rule for rule, is_broken in wrong.items() if is_broken]:
        raise invalid_client(broken[0])
    if not now - CLOCK_SKEW < (ends := _instant(claims["exp"])) <= now + LONGEST_ASSERTION + CLOCK_SKEW:
        raise invalid_client("exp must lie ahead, by at most five minutes")
    return ends


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 2**33


def _is_past(value: object, now: datetime) -> bool:
    return _is_number(value) and _instant(value) <= now + CLOCK_SKEW


def _instant(value: Any) -> datetime:
    return datetime.fromtimestamp(value, UTC)
