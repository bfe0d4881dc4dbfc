"""The gates that every request passes: who is it, does a change come from our own pages, which headers protect the
answer, and is what it shows in the audit log. Plain ASGI, so that bodies are streamed through untouched."""

from __future__ import annotations

import secrets
from asyncio import CancelledError
from collections.abc import Callable
from datetime import timedelta
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

import httpx
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapter import governance
from adapter.access import Actor
from adapter.access.attempts import check_not_locked, count_failure
from adapter.access.ehr_grants import keep_alive
from adapter.access.sessions import Session, find_sessions, is_session_cookie
from adapter.access.tokens import find_token_actor
from adapter.bridge import Bridge
from adapter.errors import BadInput, DermBridgeError, Forbidden, NotAuthenticated, Unavailable
from adapter.governance.looks import Looked, LooksTogether, answering
from adapter.web.bodies import check_storable
from adapter.web.charts import find_patient_named, session_of_chart
from adapter.web.headers import security_headers
from adapter.web.routes import is_public

UNSAFE = {"POST", "PUT", "PATCH", "DELETE"}
APP_PATHS = ("/fhir/", "/captures/")
MAX_FORM_BYTES = 2**20
_REFUSED = {401: b'Bearer error="invalid_token"', 403: b'Bearer error="insufficient_scope"'}  # RFC 6750 section 3.1


class Gate:
    """Authentication, CSRF, security headers and the audit of looks."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        bridge: Bridge,
        http: httpx.Client,
        refuse: Callable[[Request, DermBridgeError], Response],
    ) -> None:
        self._app = app
        self._bridge = bridge
        self._http = http
        self._refuse = refuse
        self._looks = LooksTogether(bridge)
        self._idle = timedelta(minutes=bridge.settings.session_idle_minutes)
        ancestors = {origin for ehr in bridge.settings.ehrs for origin in ehr.frame_ancestors}
        self._https = bridge.settings.base_url.startswith("https:")
        self._headers = security_headers(sorted(ancestors), https=self._https)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request, began = Request(scope, receive), False

        async def begun(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        answer = self._protected(request, begun)
        try:
            await self._serve(request, scope, receive, answer)
        except CancelledError:  # by the end of this process, after its grace
            if began:
                raise
            error = Unavailable("DermBridge is being stopped or restarted and did not wait for this; send it again")
            await self._refuse(request, error)(scope, receive, answer)

    async def _serve(self, request: Request, scope: Scope, receive: Receive, answer: Send) -> None:
        try:
            session, actor, receive = await self._admit(request, receive)
            scope.setdefault("state", {}).update(session=session, actor=actor)
        except DermBridgeError as error:
            await self._refuse(request, error)(scope, receive, answer)
            return
        with answering() as looked:
            await self._app(scope, receive, self._after_looks(request, looked, answer))

    async def _admit(self, request: Request, receive: Receive) -> tuple[Session | None, Actor | None, Receive]:
        """Raises NotAuthenticated, Forbidden, BadInput or Throttled."""
        if "access_token" in request.query_params:
            raise BadInput("a token belongs into the Authorization header: addresses are logged and kept")
        check_storable([request.scope["path"], *(text for pair in request.query_params.multi_items() for text in pair)])
        kind, _, secret = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and secret:
            return None, await run_in_threadpool(self._machine, request, secret.strip()), receive
        sessions = await run_in_threadpool(self._sessions, request)
        if is_public(request.scope["path"]):
            session = sessions[0] if sessions else None
            return session, session.actor if session else None, receive
        if not sessions:
            raise NotAuthenticated("sign in by opening DermBridge from the patient's chart, or send a bearer token")
        given: str | None = None
        if request.method in UNSAFE:
            given, receive = await _csrf_token(request, receive)
        session = await run_in_threadpool(self._choose, request, sessions, given)
        if session.ehr_grant is not None:
            await run_in_threadpool(self._check_ehr, session, session.ehr_grant)
        return session, session.actor, receive

    def _machine(self, request: Request, secret: str) -> Actor:
        address, now = request.client.host if request.client else "", self._bridge.now()
        with self._bridge.db.snapshot() as tx:
            actor = find_token_actor(tx, secret, now=now)
            if actor is None:  # one device with an old token must not lock out its neighbours behind the same address
                check_not_locked(tx, "bearer", address, now=now)
        if actor is None:
            count_failure(self._bridge, "bearer", address)
            raise NotAuthenticated("this token is unknown, expired or revoked; issue one: dermbridge token issue")
        if actor.app is not None and not f"{request.url.path}/".startswith(APP_PATHS):
            raise Forbidden("an app that acts for a person has /fhir and /captures; pages are for the person")
        return actor

    def _sessions(self, request: Request) -> list[Session]:
        cookies = _session_cookies(request, https=self._https)
        if not cookies:
            return []
        # What a page asks by itself (polling, events, refresh) does not keep its user signed in.
        browser, chosen = "sec-fetch-mode" in request.headers, request.headers.get("sec-fetch-user") == "?1"
        touch = not browser or chosen or request.method in UNSAFE
        return find_sessions(self._bridge.db, cookies, now=self._bridge.now(), idle=self._idle, touch=touch)

    def _choose(self, request: Request, sessions: list[Session], csrf: str | None) -> Session:
        """The chart a request is about. A change must prove that it comes from a page of ours, and of which."""
        if csrf is not None:
            own = [one for one in sessions if secrets.compare_digest(csrf.encode(), one.csrf.encode())]
            if own:
                return own[0]
        elif request.method not in UNSAFE or request.headers.get("sec-fetch-site") == "same-origin":
            if len(sessions) == 1:
                return sessions[0]
            with self._bridge.db.snapshot() as tx:
                patient_id = find_patient_named(tx, request.url.path, request.query_params)
                found = session_of_chart(tx, sessions, patient_id)
            if found or request.method not in UNSAFE:
                return found or sessions[0]
        raise Forbidden(
            "this change did not come from a DermBridge page of this session; reload the page and repeat it"
        )

    def _check_ehr(self, session: Session, sealed: bytes) -> None:
        """Raises NotAuthenticated when the EHR has ended the session that this one came from."""

        def ended(tx: Connection) -> None:
            governance.audit(tx, self._bridge, "auto-logoff", session.actor)

        if not keep_alive(self._bridge, self._http, session.id, sealed, ended=ended):
            raise NotAuthenticated("your session in the EHR has ended, and with it this one; open DermBridge again")

    def _after_looks(self, request: Request, looked: Looked, send: Send) -> Send:
        """An answer begins when what it shows is durably in the log; where that fails, it says so instead."""
        is_refused = False

        async def held(message: Message) -> None:
            nonlocal is_refused
            if message["type"] == "http.response.start" and (told := looked.take()):
                try:
                    await self._looks.write(told)
                except DermBridgeError as error:
                    is_refused = True
                    await self._refuse(request, error)(request.scope, request.receive, send)
            if not is_refused:
                await send(message)

        return held

    def _protected(self, request: Request, send: Send) -> Send:
        bearer = request.headers.get("authorization", "").lower().startswith("bearer ")

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                added = [header for header in self._headers if header[0] not in present]
                if bearer and message["status"] in _REFUSED:
                    message["headers"] = [one for one in message["headers"] if one[0].lower() != b"www-authenticate"]
                    added.append((b"www-authenticate", _REFUSED[message["status"]]))
                if self._clears_itself(request, dict(message["headers"])):
                    added.append((b"refresh", str(int(self._idle.total_seconds()) + 5).encode()))
                message["headers"] = [*message["headers"], *added]
            await send(message)

        return protected

    def _clears_itself(self, request: Request, headers: dict[bytes, bytes]) -> bool:
        """Whether the page asks for itself again once its session is idle, which takes a patient off the screen.

        Not the camera page: what waits there to be sent must not vanish.
        """
        signed_in = request.scope.get("state", {}).get("session") is not None
        is_page = headers.get(b"content-type", b"").startswith(b"text/html")
        return signed_in and is_page and request.url.path != "/capture"


def _session_cookies(request: Request, *, https: bool) -> list[str]:
    jar: SimpleCookie = SimpleCookie()
    for header in request.headers.getlist("cookie"):
        try:
            jar.load(header)
        except CookieError:
            continue  # somebody else's malformed cookie on this host
    return [held.value for name, held in jar.items() if is_session_cookie(name, https=https)]


async def _csrf_token(request: Request, receive: Receive) -> tuple[str | None, Receive]:
    """What the page sent back as header or form field, and the body to be read again."""
    given = request.headers.get("x-csrf-token")
    if given is None and request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        body = await _read_small(receive)
        given = parse_qs(body.decode("utf-8", "replace")).get("csrf_token", [None])[0]
        receive = _replay(body, receive)
    return given, receive


async def _read_small(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if len(body) > MAX_FORM_BYTES:
            raise Forbidden("this form is too large")
        if not message.get("more_body", False):
            return body


def _replay(body: bytes, following: Receive) -> Receive:
    """A receive that gives the body once more, then what the server has to say."""
    waiting = [body]

    async def receive() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await following()

    return receive
