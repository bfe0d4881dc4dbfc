"""Authorization for one destination: basic, or OAuth client credentials with a secret or a signed assertion.

SMART backend services (http://hl7.org/fhir/smart-app-launch/backend-services.html): RS384 or ES384, `aud` is the token
endpoint, the assertion lives at most five minutes and its `jti` is used once.
"""

from __future__ import annotations

import base64
import math
import re
import threading
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from connectors.contract import DeliveryError, Retry, Rule, Secrets, Tally
from connectors.http import Http
from connectors.knobs import Auth
from connectors.pace import OwnTally
from connectors.signing_key import ASSERTION_TYPE, SigningKey, read_signing_key

MARGIN_SECONDS: Final = 30.0  # a token is renewed this long before it ends, or after 9/10 of its life


class Credentials:
    """The Authorization header, with the access token kept in memory until shortly before its end."""

    def __init__(
        self,
        auth: Auth,
        http: Http,
        secrets: Secrets,
        clock: Callable[[], float] = time.monotonic,
        refreshes: Tally | None = None,
    ) -> None:
        self._auth = auth
        self._http = http  # without authorization
        self._secrets = secrets
        self._clock = clock  # seconds
        self._refreshes: Tally = refreshes or OwnTally()
        self._lock = threading.Lock()
        self._token: str | None = None
        self._ends = 0.0  # by the clock
        self._fetched = -float("inf")  # by the clock
        self.granted: str | None = None  # the scope the server said it granted

    def authorization(self) -> str | None:
        """The header value, or None for kind `none`. Raises DeliveryError when no token is to be had."""
        if self._auth.kind in {"none", "sign_in"}:
            return None
        if self._auth.kind == "basic":
            return _basic(self._auth.client_id, self.get_secret(self._auth.secret))
        with self._lock:
            if self._token is None or self._clock() >= self._ends:
                self._fetch()
            return f"Bearer {self._token}"

    def secret_headers(self) -> dict[str, str]:
        """The profile's `auth.secret_headers` with their values. Raises DeliveryError when a secret is missing."""
        return {header: self.get_secret(name) for header, name in self._auth.secret_headers.items()}

    def renew(self) -> bool:
        """Forget the token; false where there is none to forget, or where asking again so soon is not allowed."""
        with self._lock:
            if self._clock() < self._fetched + self._auth.minimum_refresh_seconds:
                return False
            had, self._token = self._token is not None, None
            return had

    def find_token_url(self) -> str:
        """The token endpoint of the profile, else of the server's SMART configuration. Raises DeliveryError."""
        if self._auth.token_url:
            return self._auth.token_url
        path, doing = ".well-known/smart-configuration", "Reading the SMART configuration"
        answer = self._http.request("GET", path, doing=doing, write=False, headers={"Accept": "application/json"})
        url = answer.resource().get("token_endpoint")
        if not isinstance(url, str):
            raise DeliveryError(
                "The SMART configuration names no token endpoint.", remedy="Set auth.token_url.", retry=Retry.NEVER
            )
        return url

    def _fetch(self) -> None:
        url = self.find_token_url()
        self._wait_for_refresh()
        form = {"grant_type": "client_credentials"} | ({"scope": self._auth.scope} if self._auth.scope else {})
        headers = {"Accept": "application/json"} | self.secret_headers()
        match self._auth.kind:
            case "client_secret_basic":
                # RFC 6749 2.3.1: both parts are form-encoded before they are joined.
                headers["Authorization"] = _basic(
                    quote(self._auth.client_id, ""), quote(self.get_secret(self._auth.secret), "")
                )
            case "client_secret_post":
                form |= {"client_id": self._auth.client_id, "client_secret": self.get_secret(self._auth.secret)}
            case "private_key_jwt":
                form |= {"client_assertion_type": ASSERTION_TYPE, "client_assertion": self._assertion(url)}
        doing = "Asking for an access token"
        try:
            answer = self._http.request("POST", url, doing=doing, write=False, data=form, headers=headers)
        except DeliveryError as error:
            # A refused client is often a matter of time (registrations spread slowly) or of one setting: the queue
            # goes on by itself once it is put right.
            remedy = "Check auth.client_id, auth.secret and auth.scope; deliveries go on once they are accepted."
            raise DeliveryError(
                str(error), remedy=remedy, retry=Retry.LATER, retry_after=error.retry_after, outage=error.outage
            ) from error
        body = answer.resource()
        if not isinstance(body.get("access_token"), str):
            raise DeliveryError(
                "The token endpoint answered without an access token.",
                remedy="Check auth.token_url.",
                retry=Retry.LATER,
            )
        self._check_scopes(body.get("scope"))
        said = body.get("expires_in")
        life = float(said) if isinstance(said, (int, float)) and said > 0 else self._auth.token_seconds
        self._fetched = self._clock()
        self._token = body["access_token"]
        self._ends = self._clock() + max(life - MARGIN_SECONDS, life * 0.9 if life < 300 else 0.0)
        self.granted = body.get("scope") if isinstance(body.get("scope"), str) else None

    def _wait_for_refresh(self) -> None:
        """All our workers together ask for a token no more often than the destination bears."""
        if seconds := math.ceil(self._auth.minimum_refresh_seconds):
            given = self._refreshes.take([Rule(seconds, 1)], self._clock(), 1, 1)
            if not given.granted:
                raise DeliveryError(
                    "A token was asked for less than auth.minimum_refresh_seconds ago.",
                    remedy="Nothing to do: it is tried again once it may be asked for.",
                    retry=Retry.LATER,
                    retry_after=given.wait,
                )

    def _check_scopes(self, granted: object) -> None:
        """Some servers grant what was registered, whatever was asked: what was granted counts."""
        needed = [
            (kind, letter)
            for each in self._auth.require_scopes
            for kind, _, letters in [each.partition(".")]
            for letter in letters
        ]
        missing = find_missing_scopes(granted, needed) if isinstance(granted, str) else []
        if missing:
            raise DeliveryError(
                f"The token was granted without {', '.join(missing)}.",
                remedy="Have these scopes granted to our client; deliveries go on once they are.",
                retry=Retry.LATER,
                retry_after=600.0,
            )

    def get_secret(self, name: str) -> str:
        """Raises DeliveryError when it is not there."""
        try:
            return self._secrets(name)
        except (KeyError, OSError, ValueError) as error:
            raise DeliveryError(
                f"The secret {name!r} is not there.",
                remedy="Put it into a file of that name among the secrets (docs/connectors.md); it is tried again.",
                retry=Retry.LATER,
            ) from error

    def _assertion(self, token_url: str) -> str:
        signing = self.signing_keys()[-1 if self._next_is_in_force() else 0]
        return signing.assertion(
            client_id=self._auth.client_id,
            audience=self._auth.audience or token_url,
            at=time.time(),
            algorithm=self._auth.algorithm,
            jku=self._auth.jwks_url if self._auth.names_key_set else "",
        )

    def signing_keys(self) -> list[SigningKey]:
        """The key in force and, where one is announced, the next. Raises DeliveryError."""
        key = read_signing_key(self.get_secret(self._auth.secret), self._auth.key_id)
        following = self._auth.next_secret
        return [key, *([read_signing_key(self.get_secret(following))] if following else [])]

    def _next_is_in_force(self) -> bool:
        begins = self._auth.next_from
        return begins is not None and time.time() >= begins.timestamp()


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def find_missing_scopes(granted: str, needed: list[tuple[str, str]]) -> list[str]:
    """Which of (resource type, letter) no granted SMART scope covers (v2 `.cruds` and v1 `.write`, `.*`)."""
    return [f"{kind}.{letter}" for kind, letter in needed if not _covers(granted, kind, letter)]


def _covers(granted: str, kind: str, letter: str) -> bool:
    v1 = {"read": "rs", "write": "cud", "*": "cruds"}
    for scope in granted.split():
        found = re.fullmatch(r"(?:system|user|patient)/(\*|[A-Za-z]+)\.([a-z*]+)(?:\?.*)?", scope)
        if found and found[1] in {"*", kind} and letter in v1.get(found[2], found[2]):
            return True
    return False
