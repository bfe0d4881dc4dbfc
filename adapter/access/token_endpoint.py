"""The token endpoint: tokens for machines (SMART Backend Services), and for apps that a person launched (SMART App
Launch); their revocation (RFC 7009) and introspection (RFC 7662).

https://hl7.org/fhir/smart-app-launch/backend-services.html, https://hl7.org/fhir/smart-app-launch/app-launch.html
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from joserfc.jwk import KeySet
from sqlalchemy import Connection, Row, insert, select, update

from adapter.access.actor import Actor
from adapter.access.app_grants import (
    AppGrant,
    client_of,
    end_grant,
    find_app_grant,
    find_refreshable,
    leave_visit,
    new_refresh_token,
    rotate,
    take_code,
)
from adapter.access.app_launch import may_go_on, needs_patient, visit_goes_on
from adapter.access.authorization import fits
from adapter.access.clients import CLOCK_SKEW, Asking, OAuthError, Register
from adapter.access.ehr_grants import keep_alive
from adapter.access.granting import granted_to_machine
from adapter.access.id_tokens import fhir_user, id_token, subject_of
from adapter.access.jwks import PublishedKeys, read_keys
from adapter.access.tokens import digest, find_token_row, issue_app_token, issue_token
from adapter.bridge import Bridge
from adapter.db.tables import access_token, session, used_assertion
from adapter.settings import Client

TOKEN_LIFETIME = timedelta(minutes=5)
APP_TOKEN_LIFETIME = timedelta(minutes=15)


Told = Callable[[Connection, str, Actor, str | None], None]
"""Writes (event, who, detail) into the audit log, in the transaction of what it tells."""


@dataclass(frozen=True)
class TokenEndpoint:
    """The authorization server's own side; `keys` fetches what clients publish."""

    bridge: Bridge
    keys: PublishedKeys
    tell: Told

    @property
    def url(self) -> str:
        """What an assertion must name as its audience."""
        return f"{self.bridge.settings.base_url}/auth/token"

    @cached_property
    def register(self) -> Register:
        clients = {client.client_id: client for client in self.bridge.settings.clients}
        return Register(clients, self.url, self.bridge.now, self._keys_of, self._use_once)

    def issue(self, asking: Asking) -> dict[str, Any]:
        """The token response. Raises OAuthError."""
        grants: dict[str, Callable[[Client, Asking], dict[str, Any] | None]] = {
            "client_credentials": self._for_machine,
            "authorization_code": self._by_code,
            "refresh_token": self._by_refresh_token,
        }
        grant = grants.get(asking.form.get("grant_type", ""))
        if grant is None:
            raise OAuthError("unsupported_grant_type", f"grant_type must be one of {', '.join(grants)}")
        answer = grant(self.register.authenticate(self._named(asking)), asking)
        if answer is None:  # now that it is committed what ended for it
            raise OAuthError(
                "invalid_grant", "this code or refresh token is unknown, used, expired or not for this client"
            )
        return answer

    def revoke(self, asking: Asking) -> None:
        """A client ends a token of its own, with a refresh token all of that grant; any other is left alone without a
        word."""
        client, token, now = self.register.authenticate(asking), asking["token"], self.bridge.now()
        mine = access_token.c.client_id == client.client_id, access_token.c.revoked_at.is_(None)
        with self.bridge.db.transaction() as tx:
            this = access_token.c.secret_sha256 == digest(token)
            tx.execute(update(access_token).where(this, *mine).values(revoked_at=now))
            grant = find_refreshable(tx, token, now=now)
            if grant is not None and grant.client_id == client.client_id:
                end_grant(tx, grant.id, at=now)
            self._tell(tx, "logout", _machine(client), asking)

    def introspect(self, asking: Asking) -> dict[str, Any]:
        """What a token is good for, to whom it was issued or who may ask about all."""
        client, token = self.register.authenticate(asking), asking["token"]
        if client.is_public:
            raise OAuthError("unauthorized_client", "an app without key or secret cannot ask about tokens")
        with self.bridge.db.snapshot() as tx:
            return self._told(tx, client, token)

    def _told(self, tx: Connection, client: Client, token: str) -> dict[str, Any]:
        now = self.bridge.now()
        row, grant = find_token_row(tx, token, now=now), find_refreshable(tx, token, now=now)
        found: Row[Any] | AppGrant | None = row if row is not None else grant
        if found is None or (found.client_id != client.client_id and not client.may_introspect):
            return {"active": False}
        if row is not None:
            grant = find_app_grant(tx, row.grant_id) if row.grant_id else None
        told = {
            "active": True,
            "scope": found.scope,
            "client_id": found.client_id or (row.name if row is not None else ""),
            "token_type": "Bearer" if row is not None else "refresh_token",
            "iat": int(found.created_at.timestamp()),
            "aud": f"{self.bridge.settings.base_url}/fhir",
            "jti": found.id,
        }
        told |= {"exp": int(found.expires_at.timestamp())} if found.expires_at else {}
        return told | (_context(grant) | self._who(grant) if grant else {})

    def _who(self, grant: AppGrant) -> dict[str, str]:
        told = {"iss": self.bridge.settings.base_url, "sub": subject_of(grant.actor)}
        return told | ({"fhirUser": fhir_user(self.bridge, grant.actor)} if "fhirUser" in grant.scopes else {})

    # --- the three grants -------------------------------------------------------------------------------------------

    def _for_machine(self, client: Client, asking: Asking) -> dict[str, Any]:
        if not client.has_key:
            raise OAuthError("unauthorized_client", "client_credentials is for machines with a key")
        scope = " ".join(sorted(granted_to_machine(client, asking.form.get("scope", ""))))
        now = self.bridge.now()
        with self.bridge.db.transaction() as tx:
            _, secret = issue_token(
                tx, name=client.name, scope=scope, at=now, lifetime=TOKEN_LIFETIME, client_id=client.client_id
            )
            self._tell(tx, "login", _machine(client), asking)
        return _bearer(secret, scope, TOKEN_LIFETIME)

    def _by_code(self, client: Client, asking: Asking) -> dict[str, Any] | None:
        code, redirect_uri, verifier = asking["code"], asking["redirect_uri"], asking["code_verifier"]
        now = self.bridge.now()
        with self.bridge.db.transaction() as tx:
            grant, ended = take_code(tx, code, at=now)
            if grant is None:
                self._ended(tx, ended, asking, "its code came twice")
                return None
            asked = grant.request
            is_same = (grant.client_id, asked["redirect_uri"]) == (client.client_id, redirect_uri)
            if not is_same or not fits(asked["code_challenge"], verifier):
                end_grant(tx, grant.id, at=now)
                why = "its code came with another client_id, redirect_uri or code_verifier"
                self._ended(tx, grant, asking, why)
                return None
            refreshes = grant.is_offline or "online_access" in grant.scopes
            refresh = new_refresh_token(tx, grant.id) if refreshes else None
            answer = self._bearer_of(tx, client, grant, grant.scope, refresh)
            self._tell(tx, "login", grant.actor, asking)
        return answer | ({"id_token": id_token(self.bridge, grant)} if "openid" in grant.scopes else {})

    def _by_refresh_token(self, client: Client, asking: Asking) -> dict[str, Any] | None:
        token, now = asking["refresh_token"], self.bridge.now()
        if not self._goes_on_in_ehr(token, asking):
            return None
        with self.bridge.db.transaction() as tx:
            renewed, ended = rotate(tx, token, client_id=client.client_id, at=now)
            if renewed is None:
                self._ended(tx, ended, asking, "a refresh token came twice")
                return None
            grant, following = renewed
            if grant.is_offline and not may_go_on(tx, self.bridge, grant.actor):
                end_grant(tx, grant.id, at=now)
                self._ended(tx, grant, asking, "the role or relationship of its person has ended")
                return None
            if grant.actor.encounter_id and not visit_goes_on(tx, self.bridge, grant):
                grant = leave_visit(tx, grant)
            scope = asking.form.get("scope", grant.scope)
            if not set(scope.split()) <= grant.scopes:
                raise OAuthError("invalid_scope", "a refresh can only ask for scopes that were granted")
            self._tell(tx, "login", grant.actor, asking)
            return self._bearer_of(tx, client, grant, scope, following)

    def _goes_on_in_ehr(self, token: str, asking: Asking) -> bool:
        """Whether the EHR stands behind the session that this is granted in; no page may have asked."""
        with self.bridge.db.snapshot() as tx:
            grant = find_refreshable(tx, token, now=self.bridge.now())
            if grant is None or grant.is_offline:
                return True
            sealed = tx.execute(select(session.c.ehr_grant).where(session.c.id == grant.session_id)).scalar()

        def ended(tx: Connection) -> None:
            self._ended(tx, grant, asking, "the EHR has ended the session of its person")

        return sealed is None or keep_alive(self.bridge, self.keys.http, grant.session_id, sealed, ended=ended)

    # --- what the audit log is told ---------------------------------------------------------------------------------

    def _tell(self, tx: Connection, event: str, who: Actor, asking: Asking, detail: str | None = None) -> None:
        self.tell(tx, event, replace(who, address=asking.address), detail)

    def _ended(self, tx: Connection, grant: AppGrant | None, asking: Asking, why: str) -> None:
        """Nothing is issued, and why a grant ended for it."""
        if grant is not None:
            self._tell(tx, "app-ended", grant.actor, asking, f"app {grant.client_id}: {why}")

    def _bearer_of(
        self, tx: Connection, client: Client, grant: AppGrant, scope: str, refresh: str | None
    ) -> dict[str, Any]:
        now = self.bridge.now()
        lifetime = min(APP_TOKEN_LIFETIME, grant.expires_at - now)
        secret = issue_app_token(
            tx,
            name=client.name,
            scopes=frozenset(scope.split()),
            at=now,
            lifetime=lifetime,
            client_id=client.client_id,
            grant_id=grant.id,
        )
        return _bearer(secret, scope, lifetime) | _context(grant) | ({"refresh_token": refresh} if refresh else {})

    # --- who asks ---------------------------------------------------------------------------------------------------

    def _named(self, asking: Asking) -> Asking:
        """A public app that refreshes need not say who it is (RFC 6749 section 6): its refresh token does."""
        if asking.claimed or not (token := asking.form.get("refresh_token")):
            return asking
        with self.bridge.db.snapshot() as tx:
            return replace(asking, form={**asking.form, "client_id": client_of(tx, token) or ""})

    def _keys_of(self, client: Client, kid: str) -> KeySet:
        if client.jwks_url:
            return self.keys.get(client.jwks_url, client.name, kid=kid, now=self.bridge.now())
        return read_keys(client.jwks or {}, client.name)

    def _use_once(self, client: Client, jti: str, expires_at: datetime) -> bool:
        use = digest(f"{client.client_id}\x00{jti}")
        with self.bridge.db.transaction() as tx:
            self.bridge.db.lock(tx, use)
            if tx.execute(select(used_assertion.c.id).where(used_assertion.c.id == use)).first():
                return False
            tx.execute(insert(used_assertion), {"id": use, "expires_at": expires_at + CLOCK_SKEW})
        return True


def _bearer(secret: str, scope: str, lifetime: timedelta) -> dict[str, Any]:
    seconds = int(lifetime.total_seconds())
    return {"access_token": secret, "token_type": "Bearer", "expires_in": seconds, "scope": scope}


def _context(grant: AppGrant) -> dict[str, Any]:
    """The launch context: which patient and visit, and that the app must show whose record it is."""
    if not needs_patient(grant.scope) or not grant.actor.patient_id:
        return {}
    visit = {"encounter": grant.actor.encounter_id} if grant.actor.encounter_id else {}
    return {"patient": grant.actor.patient_id, "need_patient_banner": True} | visit


def _machine(client: Client) -> Actor:
    return Actor("machine", client.client_id, client.name, "machine")
