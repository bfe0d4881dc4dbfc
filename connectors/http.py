"""HTTP to one destination: time limits, seconds-long retries, and what a broken connection means for a write.

Two retry clocks, never stacked: here at most `timeouts.attempts` tries within one attempt, and only where nothing can
have been written; the delivery queue does the minutes to days.
"""

from __future__ import annotations

import logging
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Final, Protocol
from urllib.parse import unquote, urlencode, urljoin, urlsplit

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from connectors.answers import BUSY, Answer, check_answer, find_retry_after
from connectors.contract import DeliveryError, Retry
from connectors.knobs import Auth, Counted, Limits, Signal, Timeouts
from connectors.pace import Pace
from connectors.reaching import tls_context, usual_tls, why_unreachable
from connectors.signals import as_error, codes_at, find_signal

FHIR_JSON: Final = "application/fhir+json"
JSON_LIMIT: Final = 16 * 1024 * 1024  # bytes of an answer we are willing to hold
LONGEST_WAIT: Final = 5.0  # seconds; longer waits belong to the delivery queue
NOT_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
)

# httpx logs every address at INFO and httpcore every header at DEBUG: searches hold identifiers, reads hold signed
# addresses, requests hold tokens.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class _Transient(DeliveryError):
    """Failed without any effect; worth another try within this attempt."""


class Authoriser(Protocol):
    """Where the Authorization header comes from."""

    def authorization(self) -> str | None: ...

    def secret_headers(self) -> dict[str, str]:
        """Headers whose values are secrets, such as API keys."""
        ...

    def renew(self) -> bool:
        """Forget what was refused; true when the next `authorization` may be better."""
        ...


def open_transport(auth: Auth | None = None) -> httpx.HTTPTransport:
    """One connection pool for one destination. Idle connections are dropped early: a create on a connection the server
    just closed would count as a lost answer. Raises ProfileError when a certificate file of `auth` is of no use."""
    limits = httpx.Limits(max_connections=20, max_keepalive_connections=10, keepalive_expiry=4.0)
    own = auth is not None and (auth.ca_file or auth.client_certificate)
    verify = tls_context(auth.ca_file, auth.client_certificate) if auth and own else usual_tls()
    return httpx.HTTPTransport(limits=limits, trust_env=False, verify=verify)


class Http:
    """Requests relative to `base_url`, with the destination's extra headers and, if given, authorization.

    Over httpx's transport alone: a client's redirects, cookies and hooks are not wanted here, and cost a quarter more.
    """

    def __init__(
        self,
        transport: httpx.BaseTransport,
        base_url: str,
        *,
        timeouts: Timeouts,
        headers: Mapping[str, str] | None = None,
        authoriser: Authoriser | None = None,
        pace: Pace | None = None,
        signals: Sequence[Signal] = (),
        code_paths: Sequence[str] = (),
        query: Mapping[str, str] | None = None,
        method_override: bool = False,
    ) -> None:
        self._transport = transport
        self._base_url = base_url
        limits = httpx.Timeout(timeouts.read, connect=timeouts.connect, write=timeouts.write)
        self._time_limits = {"timeout": limits.as_dict()}
        self._retrying = Retrying(
            stop=stop_after_attempt(timeouts.attempts),
            retry=retry_if_exception_type(_Transient),
            wait=_wait,
            reraise=True,
        )
        self._headers = dict(headers or {})
        self._authoriser = authoriser
        self._pace = pace or Pace(Limits())
        self._signals = signals
        self._code_paths = code_paths
        self._query = dict(query or {})
        self._method_override = method_override

    def request(
        self,
        method: str,
        path: str,
        *,
        doing: str,
        write: bool,
        type_level: bool = False,
        limit: int = JSON_LIMIT,
        accepted: frozenset[int] = frozenset(),
        answered: Answer | None = None,
        counts: int = 1,
        **content: Any,
    ) -> Answer:
        """Send one request and return an answer below 300 or in `accepted`; raise DeliveryError for everything else.

        `content` is httpx's: `json`, `content`, `data`, `headers`. A `write` is sent once, unless the connection was
        refused before it left. `answered` is what a batch has brought already: taken as the answer to the first try.
        `counts` says how many requests of the allowance this one is.
        """
        if answered and answered.status < 300 and not self._signals:
            return answered
        known = deque([answered] if answered else [])

        def attempt() -> Answer:
            answer = known.popleft() if known else self._exchange(method, path, doing, write, limit, content, counts)
            if answer.status == 401 and self._authoriser is not None and self._authoriser.renew():
                answer = self._exchange(method, path, doing, write, limit, content, counts)
            if answer.status not in accepted:
                self.check(answer, doing=doing, write=write, type_level=type_level)
            return answer

        return self._retrying(attempt)

    def check(self, answer: Answer, *, doing: str, write: bool, type_level: bool = False) -> None:
        """Raise the DeliveryError that an answer taken as `accepted` means after all."""
        self._check_signals(answer, doing)
        try:
            check_answer(answer, doing=doing, write=write, type_level=type_level)
        except DeliveryError as error:
            if answer.status == 429:
                error.retry_after = self._pace.pause(error.retry_after)
            if write or answer.status not in BUSY or (error.retry_after or 0) > LONGEST_WAIT:
                raise
            raise _Transient(
                str(error),
                remedy=error.remedy,
                retry=error.retry,
                retry_after=error.retry_after,
                outage=error.outage,
            ) from error

    def _check_signals(self, answer: Answer, doing: str) -> None:
        if not self._signals:
            return
        codes = codes_at(answer.parsed(), self._code_paths)
        fitting = [signal for signal in self._signals if signal.code or answer.status >= 300]
        if signal := find_signal(fitting, answer.status, codes):
            error = as_error(signal, doing=doing, now=self._pace.now())
            if error.retry is Retry.LATER and error.retry_after is None:
                error.retry_after = find_retry_after(answer.headers, self._pace.now())
            # A code of the vendor's speaks of this photo; a bare status may be anybody's, a proxy's too.
            error.outage = not signal.code and answer.status in BUSY - {429} and error.retry is not Retry.NEVER
            if answer.status == 429:
                error.retry_after = self._pace.pause(error.retry_after)
            raise error

    def _exchange(
        self, method: str, path: str, doing: str, write: bool, limit: int, content: dict[str, Any], counts: int
    ) -> Answer:
        request_id = str(uuid.uuid4())
        # X-Intermediary: "SHALL be added by interface engines that change content" (R4 http.html#custom).
        headers = {"Accept": FHIR_JSON, "X-Request-Id": request_id, "X-Intermediary": "DermBridge"}
        headers |= self._headers | content.get("headers", {})
        if self._method_override and method in {"PUT", "DELETE"}:
            headers["X-HTTP-Method-Override"] = method
            method = "POST"
        if self._authoriser is not None:
            headers |= self._authoriser.secret_headers()
            if authorization := self._authoriser.authorization():
                headers["Authorization"] = authorization
        with self._pace.turn(_counted(method, path, write=write), counts):
            return self._send(method, path, doing, write, limit, {**content, "headers": headers}, request_id)

    def _send(
        self, method: str, path: str, doing: str, write: bool, limit: int, content: dict[str, Any], request_id: str
    ) -> Answer:
        request = httpx.Request(method, self._addressed(path), extensions=self._time_limits, **content)
        try:
            with closing(self._transport.handle_request(request)) as response:
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status_code, headers, _read(response, limit), request_id)
        except NOT_SENT as error:
            why, remedy = why_unreachable(error)
            told = f"{doing}: {request.url.netloc.decode()} could not be reached: {why}."
            raise _Transient(told, remedy=remedy, retry=Retry.LATER, outage=True) from error
        except httpx.RequestError as error:
            raise _lost(doing, write, error) from error

    def _addressed(self, path: str) -> str:
        url = self.absolute(path)
        if not self._query or not self.is_ours(url):
            return url
        return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(self._query)}"

    def absolute(self, path: str) -> str:
        return urljoin(self._base_url + "/", path)

    def is_ours(self, url: str) -> bool:
        """Whether `url` is below base_url, so that it may see our authorization."""
        ours, theirs = urlsplit(self._base_url), urlsplit(url)
        same_host = (ours.scheme, ours.netloc) == (theirs.scheme, theirs.netloc)
        if {".", ".."} & set(unquote(theirs.path).split("/")):  # httpx would walk out of our path with them
            return False
        return same_host and theirs.path.startswith(ours.path.rstrip("/") + "/")


def _counted(method: str, path: str, *, write: bool) -> Counted:
    """How the request counts: a name of `limits.weights`."""
    if path.endswith("/token"):
        return "token"
    return "write" if write else "search" if "?" in path or method == "POST" else "read"


def _read(response: httpx.Response, limit: int) -> bytes:
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > limit:
            break
    return bytes(body[: limit + 1])


def _lost(doing: str, write: bool, error: httpx.RequestError) -> DeliveryError:
    reason = f"{doing}: the answer was lost ({why_unreachable(error)[0]})."
    if not write:
        return _Transient(reason, remedy="Nothing to do: it is tried again.", retry=Retry.LATER, outage=True)
    return DeliveryError(
        reason,
        remedy="Nothing to do: the destination is asked what it holds before anything is sent again.",
        retry=Retry.UNKNOWN,
        outage=True,
    )


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, DeliveryError) else None
    return float(min(asked if asked is not None else 0.2 * 2 ** (state.attempt_number - 1), LONGEST_WAIT))
