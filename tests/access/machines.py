"""A machine with a key of its own, registered with the service under test."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from adapter.access.signing import ASSERTION_TYPE
from adapter.bridge import Bridge
from adapter.records import new_id
from adapter.settings import Client

TOKEN_URL = "http://127.0.0.1:8000/auth/token"


@dataclass
class Machine:
    """`registration` goes into the settings; `ask` is one request for a token."""

    client_id: str = "archive"
    scope: str = "system/Media.rs system/Patient.r"
    key: Any = field(default_factory=lambda: ECKey.generate_key("P-384", {"kid": "k1", "use": "sig"}))
    algorithm: str = "ES384"
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def registration(self) -> Client:
        keys = {"keys": [self.key.as_dict(private=False)]}
        return Client(client_id=self.client_id, name="The archive", scope=self.scope, jwks=keys, **self.more)

    def claims(self, bridge: Bridge, **changed: Any) -> dict[str, Any]:
        now = bridge.now()
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": TOKEN_URL,
            "iat": int(now.timestamp()),
            "exp": int((now + timedelta(minutes=4)).timestamp()),
            "jti": new_id(),
        }
        return {name: value for name, value in (claims | changed).items() if value is not None}

    def assertion(self, bridge: Bridge, header: dict[str, Any] | None = None, **claims: Any) -> str:
        told = {"alg": self.algorithm, "typ": "JWT", "kid": self.key.kid} | (header or {})
        shown = {name: value for name, value in told.items() if value is not None}
        return jwt.encode(shown, self.claims(bridge, **claims), self.key, algorithms=[self.algorithm])

    def form(self, bridge: Bridge, assertion: str | None = None, **fields: str) -> dict[str, str]:
        return {
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": assertion or self.assertion(bridge),
        } | fields

    def ask(self, client: httpx.Client, bridge: Bridge, assertion: str | None = None, **fields: str) -> httpx.Response:
        given = {"grant_type": "client_credentials", "scope": self.scope} | fields
        return client.post("/auth/token", data=self.form(bridge, assertion, **given))


def rsa_machine() -> Machine:
    return Machine("rsa", key=RSAKey.generate_key(2048, {"kid": "r1", "use": "sig"}), algorithm="RS384")
