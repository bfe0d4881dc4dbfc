"""Every page and its handler as data. Handlers run in worker threads; only bodies and streams are served async."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import httpx
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from adapter.access import id_tokens
from adapter.access.signing import public_keys
from adapter.bridge import Bridge
from adapter.delivery import published_keys
from adapter.web import (
    admin,
    audit_page,
    authorize,
    break_glass,
    capture_page,
    captures,
    charts_page,
    compare_page,
    comparisons,
    consent_page,
    consents,
    deep_zoom,
    deliveries,
    destination_cards,
    elsewhere,
    events,
    handoff,
    home,
    imports,
    jobs,
    launch,
    lesion,
    measuring,
    photo,
    refile_page,
    saved_comparisons,
    sessions_page,
    timeline,
    worklist,
)
from adapter.web.bodies import FORM_OVERHEAD, Form, parse_form, read_body
from adapter.web.metrics import metrics_page
from adapter.web.openapi import openapi
from adapter.web.pages import STATIC, Web

Page = Callable[[Web, Request], Response]
Change = Callable[[Web, Request, Form], Response]

PUBLIC = frozenset(
    {"/launch", "/callback", "/login", "/healthz", "/readyz", "/metrics", "/openapi.json", "/.well-known/jwks.json"}
    | {"/auth/token", "/auth/revoke", "/auth/introspect"}  # who asks proves itself with every request
    | {"/auth/authorize"}  # shows who is not signed in where to do so
)
PUBLIC_PREFIXES = ("/static/", "/h/", "/callback/", "/fhir/.well-known/", "/.well-known/")
PUBLIC_FHIR = frozenset({"/fhir/metadata"})

GET: dict[str, Page] = {
    "/": home.home,
    "/launch": launch.launch,
    "/callback": launch.callback,
    "/callback/{callback}": launch.callback,
    "/login": launch.login,
    "/auth/authorize": authorize.authorize,
    "/style.css": launch.style,
    "/break-glass": break_glass.break_glass_page,
    "/charts": charts_page.charts,
    "/patients/{id}": timeline.timeline,
    "/patients/{id}/elsewhere": elsewhere.elsewhere,
    "/patients/{id}/apps/{client_id}": authorize.open_app,
    "/patients/{id}/consents": consents.consents_page,
    "/consents/{id}": consents.consent_detail,
    "/consents/{id}/evidence": consents.evidence,
    "/photos/{id}": photo.photo_page,
    "/photos/{id}/scale": measuring.photo_scale,
    "/photos/{id}/outline": measuring.photo_outline,
    "/photos/{id}/normalised": measuring.photo_normalised,
    "/photos/{id}/measurements": measuring.photo_measurements,
    "/lesions/{id}": lesion.lesion_page,
    "/card.pdf": measuring.calibration_card,
    "/handoff": handoff.handoff_code,
    "/h/{secret}": handoff.open_on_phone,
    "/capture": capture_page.capture_page,
    "/compare": compare_page.compare_page,
    "/comparison": comparisons.comparison,
    "/saved-comparisons/{id}": saved_comparisons.saved_page,
    "/saved-comparisons/{id}/{form}": saved_comparisons.export,
    "/comparisons/{id}/tiles": deep_zoom.aligned_tiles,
    "/comparisons/{id}/tiles/{ticket}/{level}/{column}/{row}": deep_zoom.aligned_tile,
    "/comparisons/{id}/normalised": comparisons.comparison_normalised,
    "/comparisons/{id}/{picture}": comparisons.comparison_picture,
    "/deliveries": deliveries.deliveries,
    "/worklist": worklist.worklist,
    "/refile": refile_page.refile_page,
    "/admin": admin.admin,
    "/sessions": sessions_page.sessions_page,
    "/audit": audit_page.audit_page,
    "/audit.csv": audit_page.audit_csv,
    "/imports": imports.imports,
    "/imports/{id}": imports.import_run,
    "/jobs": jobs.jobs_page,
    "/jobs/{id}.json": jobs.job_json,
    "/jobs/{id}": jobs.job_page,
    "/captures/{id}": captures.get_capture,
    "/captures/{id}/tiles": deep_zoom.tiles,
    "/captures/{id}/tiles/{ticket}/{level}/{column}/{row}": deep_zoom.tile,
    "/captures/{id}/{content}": captures.get_bytes,
}
POST: dict[str, Change] = {
    "/logout": launch.logout,
    "/break-glass": break_glass.post_break_glass,
    "/charts/{id}/open": charts_page.post_open,
    "/break-glass/end": break_glass.end,
    "/compare": compare_page.chosen,
    "/comparison": comparisons.align_by_hand,
    "/comparison/take-back": comparisons.take_back_alignment,
    "/saved-comparisons": saved_comparisons.save,
    "/saved-comparisons/{id}/send": saved_comparisons.send,
    "/saved-comparisons/{id}/withdraw": saved_comparisons.take_back,
    "/photos/{id}": photo.edit_photo,
    "/photos/{id}/measurements": measuring.post_measurement,
    "/photos/{id}/measurements/{measurement}/withdraw": measuring.withdraw_measurement,
    "/patients/{id}/elsewhere": elsewhere.copy_or_forget,
    "/patients/{id}/consents": consent_page.record_consent,
    "/consents/{id}/withdraw": consents.withdraw,
    "/deliveries/{id}/send-again": deliveries.post_send_again,
    "/deliveries/{id}/hold": deliveries.post_hold,
    "/deliveries/{id}/looked": deliveries.post_looked,
    "/deliveries/destinations/{name}": destination_cards.post_destination,
    "/worklist/photos/{id}": worklist.settle,
    "/worklist/photos/{id}/ask": worklist.ask,
    "/worklist/adt/{id}/replay": worklist.replay,
    "/worklist/adt/{id}/dismiss": worklist.dismiss,
    "/auth/authorize/decision": authorize.decide,
    "/sessions/{id}/end": sessions_page.end,
    "/sessions/apps/{id}/end": sessions_page.end_app,
    "/admin/destinations/{name}/check": admin.check_destination,
    "/admin/work/{id}/replay": admin.replay,
    "/jobs": jobs.post_job,
    "/jobs/{id}/start": jobs.start,
    "/jobs/{id}/confirm": jobs.confirm,
    "/refile": refile_page.refile,
    "/jobs/{id}/cancel": jobs.cancel,
    "/jobs/{id}/undo": jobs.undo,
}
STREAMED: dict[tuple[str, str], Callable[[Web, Request], Awaitable[Response]]] = {
    ("POST", "/captures"): captures.post_capture,
    ("GET", "/patients/{id}/events"): events.patient_events,
}


def is_public(path: str) -> bool:
    """Whether a path is served without a session or token."""
    return path in PUBLIC or path in PUBLIC_FHIR or path.startswith(PUBLIC_PREFIXES)


def web_routes(bridge: Bridge, http: httpx.Client) -> list[BaseRoute]:
    """`http` asks EHRs during a launch. A middleware must set request.state.actor and .session, and check CSRF."""
    web = Web(bridge, http)
    streamed = [Route(path, _serve(web, handler), methods=[method]) for (method, path), handler in STREAMED.items()]
    pages = [Route(path, partial(handler, web), methods=["GET"]) for path, handler in GET.items()]
    changes = [Route(path, _change(web, handler), methods=["POST"]) for path, handler in POST.items()]
    health: list[BaseRoute] = [
        Route("/healthz", _alive),
        Route("/readyz", partial(_ready, web)),
        Route("/metrics", metrics_page),
        Route("/openapi.json", partial(_openapi, web)),
        Route("/.well-known/jwks.json", partial(_published_keys, web)),
        Mount("/static", BuiltFiles(directory=STATIC, check_dir=False)),
    ]
    return [*health, *streamed, *pages, *changes]


def _serve(web: Web, handler: Callable[[Web, Request], Awaitable[Response]]) -> Any:
    async def serve(request: Request) -> Response:
        return await handler(web, request)

    return serve


def _change(web: Web, handler: Change) -> Any:
    most = web.bridge.settings.max_capture_bytes + FORM_OVERHEAD  # a photographed consent form may be as large

    async def change(request: Request) -> Response:
        body = await read_body(request, most)
        form = parse_form(request.headers.get("content-type", ""), body)
        return await run_in_threadpool(handler, web, request, form)

    return change


def _alive(_request: Request) -> Response:
    return PlainTextResponse("alive")


def _ready(web: Web, _request: Request) -> Response:
    """Not while the next photo would not fit on the disk: it could not be stored, nor what is seen be audited."""
    settings = web.bridge.settings
    if shutil.disk_usage(settings.data_dir).free < settings.max_capture_bytes:
        return PlainTextResponse("the disk is full", 503, {"Retry-After": "60"})
    with web.bridge.db.snapshot() as tx:
        tx.exec_driver_sql("SELECT 1")
    return PlainTextResponse("ready")


def _published_keys(web: Web, _request: Request) -> Response:
    """The public keys by which EHRs and authorization servers verify that it is we who ask, and apps our id_tokens (RFC
    7517)."""
    keys = public_keys(web.bridge.settings) + id_tokens.published_keys(web.bridge)
    known = {key["kid"] for key in keys}
    keys += [key for key in published_keys(web.bridge) if key["kid"] not in known]
    return JSONResponse({"keys": keys}, headers={"Cache-Control": "public, max-age=300"})


def _openapi(web: Web, _request: Request) -> Response:
    streamed = [(method, path, handler) for (method, path), handler in STREAMED.items()]
    pages = [("GET", path, handler) for path, handler in GET.items()]
    changes = [("POST", path, handler) for path, handler in POST.items()]
    return JSONResponse(openapi(web.bridge, [*streamed, *pages, *changes]))


class BuiltFiles(StaticFiles):
    """Built files carry their content's hash in their name, so they never change."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response
