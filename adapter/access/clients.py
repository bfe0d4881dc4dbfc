"""Machines come in by SMART Backend Services (https://hl7.org/fhir/smart-app-launch/backend-services.html).

A registered client signs an assertion with its private key and gets an access token for a few minutes, never with more
than its registration allows. The same proof revokes (RFC 7009) and introspects (RFC 7662) tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from sqlalchemy import Connection, delete, insert, select, update

from adapter.access.jwks import PublishedKeys, claims_of, header_of, read_keys
from adapter.access.scopes import RIGHT, find_grant, is_narrowed, parse_scopes
from adapter.access.tokens import digest, issue_token
from adapter.bridge import Bridge
from adapter.db.tables import access_token, used_assertion
from adapter.errors import BadInput, DermBridgeError, Misconfigured
from adapter.settings import Client

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ALGORITHMS = ["RS384", "ES384"]
LONGEST_ASSERTION = timedelta(minutes=5)
CLOCK_SKEW = timedelta(seconds=30)
TOKEN_LIFETIME = timedelta(minutes=5)


class OAuthError(DermBridgeError):
    """An error of RFC 6749 section 5.2; `code` is its registered word."""

    http_status = 400

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class TokenEndpoint:
    """The authorization server for machines; `keys` fetches what clients publish."""

    bridge: Bridge
    keys: PublishedKeys

    @property
    def url(self) -> str:
        """What an assertion must name as its audience."""
        return f"{self.bridge.settings.base_url}/auth/token"

    def issue(self, form: Mapping[str, str]) -> tuple[Client, dict[str, Any]]:
        """(client, token response). Raises OAuthError."""
        if form.get("grant_type") != "client_credentials":
            raise OAuthError("unsupported_grant_type", "grant_type must be client_credentials")
        client = self.authenticate(form)
        scopes = granted_scopes(client, form.get("scope", ""))
        now = self.bridge.now()
        with self.bridge.db.transaction() as tx:
            _, secret = issue_token(
                tx,
                name=client.name,
                scope=" ".join(scopes),
                at=now,
                lifetime=TOKEN_LIFETIME,
                client_id=client.client_id,
            )
            # What ended a day ago is of no use any more, not even to somebody who asks about it.
            tx.execute(
                delete(access_token).where(
                    access_token.c.expires_at < now - timedelta(days=1), access_token.c.client_id.is_not(None)
                )
            )
        answer = {
            "access_token": secret,
            "token_type": "Bearer",
            "expires_in": int(TOKEN_LIFETIME.total_seconds()),
            "scope": " ".join(sorted(scopes)),
        }
        return client, answer

    def revoke(self, form: Mapping[str, str]) -> Client:
        """A client ends a token of its own; anybody else's, or one that is none, is left alone without a word."""
        client, now = self.authenticate(form), self.bridge.now()
        mine = access_token.c.client_id == client.client_id, access_token.c.revoked_at.is_(None)
        with self.bridge.db.transaction() as tx:
            this = access_token.c.secret_sha256 == digest(_required(form, "token"))
            tx.execute(update(access_token).where(this, *mine).values(revoked_at=now))
        return client

    def introspect(self, form: Mapping[str, str]) -> dict[str, Any]:
        """What a token is good for, to whom it was issued or who may ask about all."""
        client = self.authenticate(form)
        with self.bridge.db.snapshot() as tx:
            return self._told(tx, client, _required(form, "token"))

    def _told(self, tx: Connection, client: Client, token: str) -> dict[str, Any]:
        row = tx.execute(select(access_token).where(access_token.c.secret_sha256 == digest(token))).one_or_none()
        if row is None or row.revoked_at is not None or (row.expires_at and row.expires_at <= self.bridge.now()):
            return {"active": False}
        if row.client_id != client.client_id and not client.may_introspect:
            return {"active": False}
        told = {
            "active": True,
            "scope": row.scope,
            "client_id": row.client_id or row.name,
            "token_type": "Bearer",
            "iat": int(row.created_at.timestamp()),
            "aud": f"{self.bridge.settings.base_url}/fhir",
            "jti": row.id,
        }
        return told | ({"exp": int(row.expires_at.timestamp())} if row.expires_at else {})

    # --- who asks ---------------------------------------------------------------------------------------------------

    def authenticate(self, form: Mapping[str, str]) -> Client:
        """The client whose assertion this is; each works once. Raises OAuthError."""
        if form.get("client_assertion_type") != ASSERTION_TYPE:
            raise _invalid_client(f"client_assertion_type must be {ASSERTION_TYPE}")
        assertion = form.get("client_assertion", "")
        client = self._claimed(assertion)
        if form.get("client_id", client.client_id) != client.client_id:
            raise _invalid_client("client_id is not the one in the assertion")
        claims, now = self._verified(client, assertion), self.bridge.now()
        expires_at = _checked_end(claims, client, self.url, now)
        self._use_once(client, str(claims["jti"]), expires_at)
        return client

    def _claimed(self, assertion: str) -> Client:
        client_id = claims_of(assertion).get("iss")
        for client in self.bridge.settings.clients:
            if client.client_id == client_id:
                return client
        raise _invalid_client("this client is not registered; add it under [[clients]] in dermbridge.toml")

    def _verified(self, client: Client, assertion: str) -> dict[str, Any]:
        header = header_of(assertion)
        if not isinstance(header.get("kid"), str) or header.get("typ", "JWT") != "JWT":
            raise _invalid_client("the assertion's header needs typ JWT and the kid of its key")
        if header.get("jku", client.jwks_url) != client.jwks_url:
            raise _invalid_client("jku is not the registered address of this client's keys")
        try:
            return dict(jwt.decode(assertion, self._keys_of(client, header["kid"]), algorithms=ALGORITHMS).claims)
        except (JoseError, ValueError):
            raise _invalid_client("the assertion's signature does not verify; sign it with RS384 or ES384") from None

    def _keys_of(self, client: Client, kid: str) -> KeySet:
        if client.jwks_url:
            return self.keys.get(client.jwks_url, client.name, kid=kid, now=self.bridge.now())
        return read_keys(client.jwks or {}, client.name)

    def _use_once(self, client: Client, jti: str, expires_at: datetime) -> None:
        use = digest(f"{client.client_id}\x00{jti}")
        with self.bridge.db.transaction() as tx:
            self.bridge.db.lock(tx, use)
            tx.execute(delete(used_assertion).where(used_assertion.c.expires_at < self.bridge.now() - CLOCK_SKEW))
            if tx.execute(select(used_assertion.c.id).where(used_assertion.c.id == use)).first():
                raise _invalid_client("this assertion was used before; make a new one with a new jti")
            tx.execute(insert(used_assertion), {"id": use, "expires_at": expires_at})


def check_clients(clients: tuple[Client, ...]) -> None:
    """What settings alone cannot tell. Raises Misconfigured."""
    for client in clients:
        try:
            foreign = [one for one in parse_scopes(client.scope) if not one.startswith(("system/", "right/"))]
        except BadInput as error:
            raise Misconfigured(f"[[clients]] {client.client_id}: scope: {error}") from None
        if foreign:
            raise Misconfigured(f"[[clients]] {client.client_id}: scope: {foreign[0]} is for people; write system/…")


def granted_scopes(client: Client, asked: str) -> frozenset[str]:
    """What of `asked` the registration allows, each scope as it was asked or not at all (RFC 6749 section 3.3).

    Raises OAuthError when nothing is left.
    """
    registered, granted = parse_scopes(client.scope), set()
    for scope in asked.split() or client.scope.split():
        try:
            (one,) = parse_scopes(scope)
        except (BadInput, ValueError):
            continue
        grant = find_grant(one)
        if one in registered if RIGHT.match(one) else grant is not None and is_narrowed(grant, registered):
            granted.add(one)
    if not granted:
        raise OAuthError("invalid_scope", "none of these scopes is granted to this client")
    return frozenset(granted)


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
        raise _invalid_client(broken[0])
    if not now - CLOCK_SKEW < (ends := _instant(claims["exp"])) <= now + LONGEST_ASSERTION + CLOCK_SKEW:
        raise _invalid_client("exp must lie ahead, by at most five minutes")
    return ends


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 2**33


def _is_past(value: object, now: datetime) -> bool:
    return _is_number(value) and _instant(value) <= now + CLOCK_SKEW


def _instant(value: Any) -> datetime:
    return datetime.fromtimestamp(value, UTC)


def _required(form: Mapping[str, str], name: str) -> str:
    if not form.get(name):
        raise OAuthError("invalid_request", f"{name} is missing")
    return form[name]


def _invalid_client(message: str) -> OAuthError:
    return OAuthError("invalid_client", message)
