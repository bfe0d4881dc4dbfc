"""The service as one ASGI application, and the lanes of work beside it: where the rooms are put together.

Every request passes three gates before it reaches a room: who is it (session or bearer token, unless the path is in
``PUBLIC``), does the change come from our own pages (CSRF), and which headers protect the answer.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import timedelta
from functools import partial
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs

import httpx
import orjson
import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapter import identity
from adapter.access.outbound import outbound_client
from adapter.access.sessions import COOKIE, Session, find_session
from adapter.access.tokens import find_token_actor
from adapter.bridge import Bridge
from adapter.capture.render import render_photo
from adapter.delivery.deliver import deliver
from adapter.delivery.destinations import Destinations
from adapter.errors import DermBridgeError, Forbidden, NotAuthenticated
from adapter.fhir_api import fhir_routes
from adapter.fhir_api.offered import fhir_server
from adapter.web.auth import auth_routes
from adapter.web.metrics import Metrics, Timed
from adapter.web.pages import error_page
from adapter.web.routes import is_public, web_routes
from adapter.work import Lane
from mappings.error_to_outcome import error_to_outcome

log = structlog.get_logger()

UNSAFE = {"POST", "PUT", "PATCH", "DELETE"}
MAX_FORM_BYTES = 2**20
MACHINE_PATHS = ("/fhir", "/captures", "/auth")


def build_app(
    bridge: Bridge, *, lifespan: Callable[[Starlette], AbstractAsyncContextManager[Any]] | None = None
) -> Starlette:
    """All routes behind the gates. `lifespan` starts and stops what runs beside it."""
    http = outbound_client(bridge.settings)
    app = Starlette(
        routes=[*auth_routes(bridge, http), *fhir_routes(fhir_server(bridge)), *web_routes(bridge, http)],
        exception_handlers={DermBridgeError: _on_expected, 404: _on_unknown_path, 500: _on_unexpected},
        lifespan=_closing(http, lifespan),
    )
    app.state.bridge = bridge
    app.state.metrics = Metrics(bridge)
    app.add_middleware(Gate, bridge=bridge)
    app.add_middleware(Timed, metrics=app.state.metrics)
    return app


def _closing(
    http: httpx.Client, beside: Callable[[Starlette], AbstractAsyncContextManager[Any]] | None
) -> Callable[[Starlette], AbstractAsyncContextManager[Any]]:
    """The lifespan `beside` the application, after which its connections to EHRs are closed."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        with http:
            async with beside(app) if beside else nullcontext():
                yield

    return lifespan


def work_lanes(bridge: Bridge, destinations: Destinations) -> Mapping[str, Lane]:
    """Which handler does which kind of work, and how many at once."""
    from adapter.batch import run_job

    threads = bridge.settings.worker_threads
    return {
        "apply-adt": Lane(
            partial(identity.apply_message, bridge),
            dead_blocks=True,
            claims=128,
            together=partial(identity.apply_messages, bridge),
        ),
        "application-ack": Lane(partial(identity.send_application_ack, bridge), threads=2),
        "deliver": Lane(partial(deliver, bridge, destinations), threads=threads),
        "render": Lane(partial(render_photo, bridge), threads=2),
        "job": Lane(partial(run_job, bridge), threads=2),
    }


class Gate:
    """Authentication, CSRF and security headers, as plain ASGI so that bodies are streamed through untouched."""

    def __init__(self, app: ASGIApp, *, bridge: Bridge) -> None:
        self._app = app
        self._bridge = bridge
        ancestors = {origin for ehr in bridge.settings.ehrs for origin in ehr.frame_ancestors}
        self._headers = _security_headers(sorted(ancestors), https=bridge.settings.base_url.startswith("https:"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        answer = self._protected(send)
        try:
            session, actor = await run_in_threadpool(self._who, request)
            scope.setdefault("state", {}).update(session=session, actor=actor)
            if actor is None and not is_public(scope["path"]):
                raise NotAuthenticated("sign in by opening DermBridge from the patient's chart, or send a bearer token")
            if session is not None and scope["method"] in UNSAFE and not is_public(scope["path"]):
                receive = await self._check_origin(request, session, receive)
        except DermBridgeError as error:
            await error_response(request, error)(scope, receive, answer)
            return
        await self._app(scope, receive, answer)

    def _who(self, request: Request) -> tuple[Session | None, Any]:
        kind, _, secret = request.headers.get("authorization", "").partition(" ")
        now = self._bridge.now()
        if kind.lower() == "bearer" and secret:
            with self._bridge.db.snapshot() as tx:
                actor = find_token_actor(tx, secret.strip(), now=now)
            if actor is None:
                raise NotAuthenticated("this token is unknown, expired or revoked; issue one: dermbridge token issue")
            return None, actor
        cookie = _cookie(request, COOKIE)
        if cookie is None:
            return None, None
        idle = timedelta(minutes=self._bridge.settings.session_idle_minutes)
        session = find_session(self._bridge.db, cookie, now=now, idle=idle)
        return session, session.actor if session else None

    async def _check_origin(self, request: Request, session: Session, receive: Receive) -> Receive:
        """A change must come from our own pages: by the browser's word or by the session's CSRF token."""
        given = request.headers.get("x-csrf-token")
        if given is None and request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            body = await _read_small(receive)
            given = parse_qs(body.decode("utf-8", "replace")).get("csrf_token", [None])[0]
            receive = _replay(body, receive)
        if given is not None:
            if secrets.compare_digest(given.encode(), session.csrf.encode()):
                return receive
        elif request.headers.get("sec-fetch-site") == "same-origin":
            return receive
        raise Forbidden(
            "this change did not come from a DermBridge page of this session; reload the page and repeat it"
        )

    def _protected(self, send: Send) -> Send:
        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(h for h in self._headers if h[0] not in present)]
            await send(message)

        return protected


def _security_headers(frame_ancestors: list[str], *, https: bool) -> list[tuple[bytes, bytes]]:
    policy = "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob: data:",
            "connect-src 'self'",
            "font-src 'self'",
            "media-src 'self' blob:",
            "form-action 'self'",
            "base-uri 'none'",
            f"frame-ancestors {' '.join(frame_ancestors) or chr(39) + 'none' + chr(39)}",
        )
    )
    headers = {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "private, no-store",
        "permissions-policy": "camera=(self), geolocation=(), microphone=()",
        "cross-origin-resource-policy": "same-origin",
    }
    if https:
        headers["strict-transport-security"] = "max-age=31536000; includeSubDomains"
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def _cookie(request: Request, name: str) -> str | None:
    jar: SimpleCookie = SimpleCookie()
    for header in request.headers.getlist("cookie"):
        jar.load(header)
    return jar[name].value if name in jar else None


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


# --- errors at the edge ---------------------------------------------------------------------------------------------


def error_response(request: Request, error: DermBridgeError) -> Response:
    """An OperationOutcome for programs, a page for people."""
    path = request.url.path
    if path.startswith(MACHINE_PATHS) or "text/html" not in request.headers.get("accept", ""):
        issue = ("error", error.issue_type, str(error), error.expression or "")
        response = Response(
            orjson.dumps(error_to_outcome([issue])), error.http_status, media_type="application/fhir+json"
        )
    else:
        response = error_page(request, error)
    if error.http_status == NotAuthenticated.http_status:
        response.headers["www-authenticate"] = "Bearer"
    return response


async def _on_expected(request: Request, error: Exception) -> Response:
    if not isinstance(error, DermBridgeError):
        raise error
    return error_response(request, error)


async def _on_unknown_path(request: Request, _error: Exception) -> Response:
    from adapter.errors import NotFound

    return error_response(request, NotFound("there is no such page"))


async def _on_unexpected(request: Request, error: Exception) -> Response:
    log.error("http.failed", path=request.scope.get("route_path", ""), error=type(error).__name__, exc_info=error)
    return error_response(request, DermBridgeError("something went wrong here; nothing you sent was lost halfway"))
