"""Public keys of others: given in the settings or fetched from where they publish them (RFC 7517), kept for a while.

An unknown `kid` makes us look again, at most once a minute: keys may be rotated, but nobody makes us a battering ram.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from adapter.access.outbound import get_json
from adapter.errors import Unavailable

KEPT = timedelta(minutes=5)
AGAIN = timedelta(minutes=1)
FAILED = timedelta(seconds=10)
PATIENCE = timedelta(seconds=3)


@dataclass
class PublishedKeys:
    """The key sets of many addresses, for one process. `now` comes with each call.

    An address is asked in a thread of its own, once at a time: whoever needs its keys waits PATIENCE at most from then
    on, so that one that hangs, however slowly it trickles, holds up no others.
    """

    http: httpx.Client
    _asked: dict[str, tuple[Future[KeySet], datetime]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, url: str, whose: str, *, kid: str | None, now: datetime) -> KeySet:
        """The keys published at `url`. Raises Unavailable."""
        with self._lock:
            found = self._asked.get(url)
            if found is None or not _is_good(*found, kid, now):
                found = self._asked[url] = self._ask(url, whose), now
        answer, asked_at = found
        wait = PATIENCE - max(now - asked_at, timedelta())
        try:
            return answer.result(max(wait.total_seconds(), 0))
        except TimeoutError:
            raise Unavailable(f"{whose} has not answered yet; try again") from None
        except Unavailable as error:
            raise Unavailable(str(error)) from None  # one's own: several threads may raise it

    def _ask(self, url: str, whose: str) -> Future[KeySet]:
        answer: Future[KeySet] = Future()

        def fetch() -> None:
            try:
                answer.set_result(read_keys(get_json(self.http, url, whose), whose))
            except Exception as error:  # noqa: BLE001 (outermost edge of a thread: whoever waits is told)
                answer.set_exception(error)

        threading.Thread(target=fetch, name="jwks", daemon=True).start()
        return answer


def _is_good(answer: Future[KeySet], asked_at: datetime, kid: str | None, now: datetime) -> bool:
    """Whether this is still the answer, or will be."""
    if not answer.done():
        return True
    if answer.exception() is not None:
        return now < asked_at + FAILED
    return now < asked_at + (KEPT if kid is None or any(key.kid == kid for key in answer.result().keys) else AGAIN)


def read_keys(content: dict[str, Any], whose: str) -> KeySet:
    """Raises Unavailable when it is not a key set, or holds private keys, which are then burnt."""
    listed = content.get("keys")
    if not isinstance(listed, list) or any(not isinstance(one, dict) or "d" in one for one in listed):
        raise Unavailable(f"{whose} does not publish a set of public keys")
    usable = [one for one in listed if one.get("use", "sig") == "sig" and one.get("kty") in ("RSA", "EC")]
    try:
        return KeySet.import_key_set({"keys": usable})
    except (JoseError, ValueError, KeyError, TypeError):
        raise Unavailable(f"{whose} publishes keys that cannot be read") from None


def header_of(token: str) -> dict[str, Any]:
    """A JWT's header, unverified; empty when it has none that can be read."""
    return _part(token, 0)


def claims_of(token: str) -> dict[str, Any]:
    """A JWT's claims, unverified: only to find out whose keys must verify them."""
    return _part(token, 1)


_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


def _part(token: str, which: int) -> dict[str, Any]:
    if not _JWT.fullmatch(token) or len(token) > 16_384:
        return {}
    text = token.split(".")[which]
    try:
        found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
