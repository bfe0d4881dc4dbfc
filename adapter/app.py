"""The service as one ASGI application, and the lanes of work beside it: where the rooms are put together.

Every request passes the gates (web/gates.py) before it reaches a room.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import Any

import httpx
import orjson
import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from adapter import governance, identity
from adapter.access import expiry
from adapter.access.outbound import outbound_client
from adapter.bridge import Bridge
from adapter.capture import external_upkeep
from adapter.capture.render import render_photo
from adapter.delivery.destinations import Destinations
from adapter.delivery.lane import delivery_lane
from adapter.delivery.patient_lookup import ask_destination
from adapter.delivery.visit_sheets import make_sheets
from adapter.delivery.visits import KIND as VISIT_SHEET
from adapter.errors import DermBridgeError, NotAuthenticated, Unavailable
from adapter.fhir_api import fhir_routes
from adapter.fhir_api.cors import FhirCors, origins_of
from adapter.fhir_api.offered import fhir_server
from adapter.governance import feeds
from adapter.web.auth import auth_routes
from adapter.web.gates import Gate
from adapter.web.metrics import Metrics, Timed, route_of
from adapter.web.pages import error_page
from adapter.web.routes import web_routes
from adapter.work import Lane
from mappings.error_to_outcome import Issue, error_to_outcome

log = structlog.get_logger()

MACHINE_PATHS = ("/fhir", "/captures", "/auth/token", "/auth/revoke", "/auth/introspect")


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
    app.state.bridge, app.state.http = bridge, http
    app.state.metrics, app.state.is_ending = Metrics(bridge), False
    app.add_middleware(Gate, bridge=bridge, http=http, refuse=error_response)
    if origins := origins_of(bridge.settings):
        app.add_middleware(FhirCors, origins=origins)
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

    return {
        "apply-adt": Lane(
            partial(identity.apply_message, bridge),
            dead_blocks=True,
            claims=128,
            together=partial(identity.apply_messages, bridge),
        ),
        "application-ack": Lane(partial(identity.send_application_ack, bridge), threads=2),
        "deliver": delivery_lane(bridge, destinations),
        "look-up-patient": Lane(
            partial(identity.look_up_patient, bridge, partial(ask_destination, destinations)), threads=2
        ),
        expiry.KIND: Lane(partial(expiry.forget_expired, bridge)),
        external_upkeep.KIND: Lane(partial(external_upkeep.look_at_external, bridge, destinations)),
        VISIT_SHEET: Lane(partial(make_sheets, bridge)),
        "render": Lane(partial(render_photo, bridge), threads=max(1, 2 // bridge.settings.processes)),
        "job": Lane(partial(run_job, bridge), threads=2),
        feeds.KIND: Lane(partial(feeds.tell, bridge, feeds.open_repository(bridge))),
    }


# --- errors at the edge ---------------------------------------------------------------------------------------------


def error_response(request: Request, error: DermBridgeError) -> Response:
    """An OperationOutcome for programs, a page for people."""
    path = request.url.path
    if isinstance(error, Unavailable):
        log.error("http.unavailable", route=route_of(request.scope), exc_info=error)
    if path.startswith(MACHINE_PATHS) or "text/html" not in request.headers.get("accept", ""):
        issue = Issue("error", error.issue_type, error.expression or "", str(error))
        response = Response(
            orjson.dumps(error_to_outcome([issue])), error.http_status, media_type="application/fhir+json"
        )
    else:
        response = error_page(request, error)
    if error.http_status == NotAuthenticated.http_status:
        response.headers["www-authenticate"] = "Bearer"
    if error.retry_after:
        response.headers["retry-after"] = str(error.retry_after)
    return response


async def _on_expected(request: Request, error: Exception) -> Response:
    if not isinstance(error, DermBridgeError):
        raise error
    if (actor := getattr(request.state, "actor", None)) is not None:
        asked = f"{request.method} {request.url.path}"
        await run_in_threadpool(governance.audit_refusal, request.app.state.bridge, actor, error, asked)
    return error_response(request, error)


async def _on_unknown_path(request: Request, _error: Exception) -> Response:
    from adapter.errors import NotFound

    return error_response(request, NotFound("there is no such page"))


async def _on_unexpected(request: Request, error: Exception) -> Response:
    log.error("http.failed", route=route_of(request.scope), error=type(error).__name__, exc_info=error)
    return error_response(request, DermBridgeError("something went wrong here; nothing you sent was lost halfway"))
