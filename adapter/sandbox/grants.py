"""What the authorization server remembers: clients, launches, codes and access tokens; its key and its secrets.

Launches, codes and tokens are kept in memory by their digest: a sandbox that restarts signs everybody off.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Generic, TypeVar

from joserfc.jwk import RSAKey
from pydantic import SecretStr

from adapter.access import Actor
from adapter.access.clients import Register
from adapter.access.jwks import read_keys
from adapter.access.scopes import Grant, grants_in, meet, parse_scopes
from adapter.access.tokens import digest
from adapter.errors import BadInput
from adapter.sandbox.ehr import INTERACTIONS, SandboxSettings
from adapter.settings import Client

T = TypeVar("T")
_LETTERS = {"read": "r", "search-type": "s", "create": "c", "update": "u"}
GRANTABLE = [
    Grant("", resource_type, "".join(letter for letter in "crus" if letter in {_LETTERS.get(code) for code in codes}))
    for resource_type, codes in INTERACTIONS.items()
]
_CONTEXT_SCOPES = frozenset({"launch", "launch/patient", "openid", "fhirUser", "online_access"})


@dataclass(frozen=True)
class Launch:
    """What was open in the chart when DermBridge was opened, and by whom."""

    user_id: str
    patient_id: str
    encounter_id: str | None
    need_patient_banner: bool = True


@dataclass(frozen=True)
class Code:
    """An authorization code, bound to the client, redirect URI and PKCE challenge of its request."""

    client_id: str
    redirect_uri: str
    challenge: str
    nonce: str | None
    scope: str
    user_id: str
    launch: Launch | None


class Secrets(Generic[T]):
    """Random words, each standing for a value until it ends or, with `take`, is used."""

    def __init__(self, now: Callable[[], datetime], lifetime: timedelta) -> None:
        self._now = now
        self.lifetime = lifetime
        self._held: dict[str, tuple[T, datetime]] = {}
        self._lock = threading.Lock()

    def give(self, value: T) -> str:
        word, now = secrets.token_urlsafe(32), self._now()
        with self._lock:
            self._held = {key: held for key, held in self._held.items() if held[1] > now}
            self._held[digest(word)] = (value, now + self.lifetime)
        return word

    def find(self, word: str) -> T | None:
        value, ends_at = self._held.get(digest(word), (None, self._now()))
        return value if ends_at > self._now() else None

    def drop(self, ended: Callable[[T], bool]) -> None:
        with self._lock:
            self._held = {key: held for key, held in self._held.items() if not ended(held[0])}

    def take(self, word: str) -> T | None:
        """`find`, once."""
        with self._lock:
            value, ends_at = self._held.pop(digest(word), (None, self._now()))
        return value if ends_at > self._now() else None


class Grants:
    """All of it, for one sandbox."""

    def __init__(self, settings: SandboxSettings, now: Callable[[], datetime]) -> None:
        backend_secret = settings.backend_secret or _own_file(
            settings.data_dir / "backend.secret", lambda: secrets.token_urlsafe(32)
        )
        named = {"client_id": settings.client_id, "name": "DermBridge", "scope": "patient/*.crus user/*.crus"}
        proof = {"client_secret": settings.client_secret, "jwks": settings.client_jwks}
        registered = (
            Client.model_validate(named | proof | {"redirect_uris": [settings.redirect_uri]}),
            Client(
                client_id=settings.backend_client_id,
                name="DermBridge",
                scope="system/*.crus",
                client_secret=SecretStr(backend_secret),
            ),
        )
        self.clients = {one.client_id: one for one in registered}
        self.register = Register(
            self.clients,
            f"{settings.origin}/token",
            now,
            keys=lambda client, _kid: read_keys(client.jwks or {}, client.name),
            use_once=lambda *_: True,
        )
        self.launches: Secrets[Launch] = Secrets(now, timedelta(minutes=10))
        self.codes: Secrets[Code] = Secrets(now, timedelta(minutes=1))
        self.tokens: Secrets[Actor] = Secrets(now, timedelta(hours=1))
        self.refreshes: Secrets[Code] = Secrets(now, timedelta(hours=12))
        pem = _own_file(
            settings.data_dir / "id-token.pem", lambda: RSAKey.generate_key(2048).as_pem(private=True).decode()
        )
        self.key = RSAKey.import_key(pem, {"use": "sig", "alg": "RS256"})
        self.key.ensure_kid()


def granted_scope(client: Client, asked: str) -> str:
    """The asked scopes, each trimmed to what the client may have; those we do not know are left out (RFC 6749 3.3)."""
    levels = {one.level for one in grants_in(client.scope.split())}
    granted = []
    for scope in asked.split():
        if scope in _CONTEXT_SCOPES and "patient" in levels:
            granted.append(scope)
            continue
        try:
            (wanted,) = grants_in(parse_scopes(scope))
        except (BadInput, ValueError):
            continue
        if wanted.level in levels and not wanted.query:
            granted += map(str, meet(wanted, GRANTABLE))
    return " ".join(dict.fromkeys(granted))


def _own_file(path: Path, make: Callable[[], str]) -> str:
    """The text of an owner-only file, made when it is not there."""
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(make())
    return path.read_text("ascii").strip()
