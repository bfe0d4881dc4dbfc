"""The sandbox EHR as an ASGI application: FHIR with bearer tokens, SMART endpoints, and pages behind a session."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jinja2
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapter.access import Actor
from adapter.access.authorization import answer_to, check_request, get_app
from adapter.access.clients import Asking, OAuthError
from adapter.access.sessions import Session, end_session, find_session, start_session
from adapter.errors import DermBridgeError, Forbidden, Unavailable
from adapter.fhir_api import fhir_routes
from adapter.sandbox import adt, smart
from adapter.sandbox.adt import Feed
from adapter.sandbox.chart import chart, patient_row, patients, photo_bytes
from adapter.sandbox.ehr import PEOPLE, SandboxEhr, SandboxSettings, open_ehr
from adapter.sandbox.grants import Grants, Launch

COOKIE = "larkfield-session"
SESSION = timedelta(hours=12)
_STATIC = Path(__file__).parents[1] / "web" / "static"
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


@dataclass(frozen=True)
class Call:
    """A request for a page: who, and the fields of query and form."""

    request: Request
    session: Session | None
    query: dict[str, str]
    form: dict[str, str]

    @property
    def signed_on(self) -> Session:
        if self.session is None:
            raise Forbidden("sign on first: open the start page")
        return self.session

    @property
    def user_id(self) -> str:
        return self.signed_on.actor.id.removeprefix("Practitioner/")

    @property
    def patient_id(self) -> str:
        return str(self.request.path_params["id"])

    def fields(self, *names: str) -> dict[str, str]:
        return {name: self.form.get(name, "") for name in names}


def build_sandbox(settings: SandboxSettings, ehr: SandboxEhr | None = None) -> Starlette:
    """The application; opens the EHR under `settings.data_dir` unless it is given."""
    ehr = ehr or open_ehr(settings)
    grants = Grants(settings, ehr.bridge.now)
    site = _Site(ehr, grants, Feed(settings.mllp_host, settings.mllp_port))
    app = Starlette(
        routes=[*_smart_routes(site), *fhir_routes(ehr.fhir), *_page_routes(site)],
        exception_handlers={DermBridgeError: _refused},
    )
    app.add_middleware(_Gate, site=site)
    app.state.ehr, app.state.grants, app.state.feed = ehr, grants, site.feed
    return app


class _Gate:
    """Bearer tokens on /fhir; the page policy everywhere else."""

    def __init__(self, app: ASGIApp, *, site: _Site) -> None:
        self._app, self._grants = app, site.grants
        origin = site.ehr.settings.dermbridge_origin
        self._policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'; "
            f"form-action 'self' {origin}; frame-src 'self' {origin}; frame-ancestors 'self'"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        kind, _, word = Request(scope).headers.get("authorization", "").partition(" ")
        actor: Actor | None = self._grants.tokens.find(word.strip()) if kind.lower() == "bearer" else None
        scope.setdefault("state", {})["actor"] = actor
        added = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
        if not scope["path"].startswith("/fhir"):
            added.append((b"content-security-policy", self._policy.encode()))

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await self._app(scope, receive, protected)


async def _refused(_request: Request, error: Exception) -> Response:
    status = error.http_status if isinstance(error, DermBridgeError) else 500
    return Response(f"{error}\n", status, media_type="text/plain")


# --- SMART ----------------------------------------------------------------------------------------------------------


class _Site:
    """The endpoints' shared state, and the page mechanism."""

    def __init__(self, ehr: SandboxEhr, grants: Grants, feed: Feed) -> None:
        self.ehr, self.grants, self.feed = ehr, grants, feed
        self.templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
        )
        self.templates.globals["asset"] = _asset

    def page(self, call: Call, template: str, title: str, **context: object) -> Response:
        user = PEOPLE[call.user_id] if call.session else None
        told = call.query.get("told")
        html = self.templates.get_template(template).render(
            title=title,
            csrf_token=call.session.csrf if call.session else "",
            user=user,
            messages=[{"level": "error", "text": UNTOLD}] if told == "no" else [],
            **context,
        )
        return HTMLResponse(html, headers=_NO_STORE)

    def route(self, path: str, handler: Callable[[_Site, Call], Response], method: str = "GET") -> Route:
        """A page: session and form read here, a changing request checked for the session's CSRF token."""

        async def endpoint(request: Request) -> Response:
            async with request.form() as sent:
                form = {name: value for name, value in sent.items() if isinstance(value, str)}
            return await run_in_threadpool(answer, request, form)

        def answer(request: Request, form: dict[str, str]) -> Response:
            cookie = request.cookies.get(COOKIE, "")
            session = find_session(self.ehr.bridge.db, cookie, now=self.ehr.bridge.now(), idle=SESSION)
            call = Call(request, session, dict(request.query_params), form)
            if session is None and path.startswith(("/patients", "/photos", "/logout")):
                return _to_login(str(request.url.path))
            if session is not None and method == "POST" and path not in ("/login", "/authorize"):
                given = form.get("csrf_token", "")
                if not secrets.compare_digest(given.encode(), session.csrf.encode()):
                    raise Forbidden("this form is not of this session; reload the page and repeat the change")
            return handler(self, call)

        return Route(path, endpoint, methods=[method])


UNTOLD = "The change is stored here, but DermBridge could not be told by ADT; it is sent with the next change."


def _smart_routes(site: _Site) -> list[Route]:
    configuration = smart.smart_configuration(site.ehr)
    cors = {"Access-Control-Allow-Origin": "*"}

    async def discovery(_request: Request) -> Response:
        return JSONResponse(configuration, headers=cors)

    async def jwks(_request: Request) -> Response:
        return JSONResponse({"keys": [site.grants.key.as_dict(private=False)]}, headers=cors)

    async def style(_request: Request) -> Response:
        return JSONResponse(smart.STYLE, headers=cors)

    async def token(request: Request) -> Response:
        return await answered(request, smart.token)

    async def revoke(request: Request) -> Response:
        return await answered(request, smart.revoke)

    async def answered(request: Request, handle: Callable[..., dict[str, Any] | None]) -> Response:
        async with request.form() as sent:
            form = {name: value for name, value in sent.items() if isinstance(value, str)}
        try:
            asking = Asking(form, request.headers.get("authorization", ""))
            answer = await run_in_threadpool(handle, site.ehr, site.grants, asking)
        except OAuthError as error:
            headers = _NO_STORE | ({"WWW-Authenticate": "Basic"} if error.code == "invalid_client" else {})
            status = 401 if error.code == "invalid_client" else 400
            return JSONResponse({"error": error.code, "error_description": str(error)}, status, headers)
        return Response(headers=_NO_STORE) if answer is None else JSONResponse(answer, headers=_NO_STORE)

    return [
        Route("/fhir/.well-known/smart-configuration", discovery),
        Route("/fhir/.well-known/openid-configuration", discovery),
        Route("/jwks.json", jwks),
        Route("/smart-style.json", style),
        Route("/token", token, methods=["POST"]),
        Route("/revoke", revoke, methods=["POST"]),
        site.route("/authorize", _authorize),
        site.route("/authorize", _authorize, "POST"),
    ]


def _authorize(site: _Site, call: Call) -> Response:
    params = call.form or call.query
    base = site.ehr.settings.fhir_base
    client = get_app(site.grants.clients, params)
    try:
        check_request(params, fhir_base=base)
        if call.session is None:
            return _to_login(f"/authorize?{urlencode(params)}")
        if smart.needs_patient(params):
            return _picker(site, call, params)
        return RedirectResponse(smart.authorize(site.ehr, site.grants, client, params, call.user_id), 303, _NO_STORE)
    except OAuthError as error:
        return RedirectResponse(answer_to(params, iss=base, error=error.code, error_description=str(error)), 303)


def _picker(site: _Site, call: Call, params: dict[str, str]) -> Response:
    """Choosing a patient is what opening the app from that patient's chart would be: a launch."""
    with site.ehr.bridge.db.snapshot() as tx:
        everybody = [(patient_row(tx, one), adt.find_visit(tx, one["id"])) for one in patients(tx)]
    rows = []
    for row, visit in everybody:
        launch = site.grants.launches.give(Launch(call.user_id, row["id"], visit["id"] if visit else None))
        rows.append(row | {"href": f"/authorize?{urlencode(params | {'launch': launch})}"})
    return site.page(call, "patients.html", "Choose a patient", patients=rows, register_action="/patients")


# --- pages ----------------------------------------------------------------------------------------------------------


def _page_routes(site: _Site) -> list[Route | Mount]:
    return [
        site.route("/", lambda _site, _call: RedirectResponse("/patients", 303)),
        site.route("/login", _login_page),
        site.route("/login", _login, "POST"),
        site.route("/logout", _logout, "POST"),
        site.route("/patients", _patients),
        site.route("/patients", _register, "POST"),
        site.route("/patients/{id}", _chart),
        site.route("/patients/{id}/launch", _launch),
        site.route("/patients/{id}/update", _update, "POST"),
        site.route("/patients/{id}/visit", _visit, "POST"),
        site.route("/patients/{id}/merge", _merge, "POST"),
        site.route("/photos/{type}/{id}", _photo),
        Mount("/static", StaticFiles(directory=_STATIC, check_dir=False)),
    ]


def _to_login(then: str) -> Response:
    return RedirectResponse(f"/login?{urlencode({'next': then})}", 303)


def _login_page(site: _Site, call: Call) -> Response:
    return site.page(call, "login.html", "Sign on", users=list(PEOPLE.values()), next=call.query.get("next", "/"))


def _login(site: _Site, call: Call) -> Response:
    user = PEOPLE.get(call.form.get("user", ""))
    if user is None:
        return _to_login("/")
    then = call.form.get("next", "/")
    # Only a path of ours: "//host" and "/\\host" would leave the site.
    safe = then if then.startswith("/") and not then.startswith(("//", "/\\")) else "/"
    actor = Actor("person", user.reference, user.name, user.role)
    bridge = site.ehr.bridge
    with bridge.db.transaction() as tx:
        cookie, _ = start_session(tx, actor, at=bridge.now(), lifetime=SESSION)
    response = RedirectResponse(safe, 303)
    response.set_cookie(COOKIE, cookie, httponly=True, samesite="lax")
    return response


def _logout(site: _Site, call: Call) -> Response:
    user_id = call.user_id
    site.grants.refreshes.drop(lambda code: code.user_id == user_id)  # online_access: only while signed on
    with site.ehr.bridge.db.transaction() as tx:
        end_session(tx, call.signed_on.id)
    return RedirectResponse("/login", 303)


def _patients(site: _Site, call: Call) -> Response:
    with site.ehr.bridge.db.snapshot() as tx:
        rows = [patient_row(tx, one) for one in patients(tx)]
    return site.page(call, "patients.html", "Patients", patients=rows, register_action="/patients")


def _chart(site: _Site, call: Call) -> Response:
    tab = call.query.get("tab", "summary")
    with site.ehr.bridge.db.snapshot() as tx:
        context = chart(site.ehr, tx, call.patient_id, tab if tab in ("photos", "dermbridge") else "summary")
    return site.page(call, "chart.html", context["patient"]["name"], **context)


def _launch(site: _Site, call: Call) -> Response:
    """The EHR launch: the chart's context under a word that only the authorization server can read."""
    with site.ehr.bridge.db.snapshot() as tx:
        visit = adt.find_visit(tx, call.patient_id)
    in_frame = "frame" in call.query  # the chart around the frame shows the banner already
    context = Launch(call.user_id, call.patient_id, visit["id"] if visit else None, not in_frame)
    query = urlencode({"iss": site.ehr.settings.fhir_base, "launch": site.grants.launches.give(context)})
    return RedirectResponse(f"{site.ehr.settings.dermbridge_url.rstrip('/')}/launch?{query}", 303, _NO_STORE)


_DEMOGRAPHICS = ("family", "given", "birth_date", "sex")


def _register(site: _Site, call: Call) -> Response:
    return _after("/patients", lambda: adt.register(site.ehr, site.feed, call.fields(*_DEMOGRAPHICS)))


def _update(site: _Site, call: Call) -> Response:
    fields = call.fields(*_DEMOGRAPHICS)
    return _after(f"/patients/{call.patient_id}", lambda: adt.update(site.ehr, site.feed, call.patient_id, **fields))


def _visit(site: _Site, call: Call) -> Response:
    return _after(f"/patients/{call.patient_id}", lambda: adt.start_visit(site.ehr, site.feed, call.patient_id))


def _merge(site: _Site, call: Call) -> Response:
    mrn = call.form.get("source", "")
    return _after(
        f"/patients/{call.patient_id}", lambda: adt.merge(site.ehr, site.feed, call.patient_id, source_mrn=mrn)
    )


def _after(href: str, change: Callable[[], object]) -> Response:
    """Back to the page; the change holds even when nobody takes its ADT message."""
    with suppress(Unavailable):
        change()
        return RedirectResponse(href, 303)
    return RedirectResponse(f"{href}?told=no", 303)


def _photo(site: _Site, call: Call) -> Response:
    with site.ehr.bridge.db.snapshot() as tx:
        content_type, content = photo_bytes(site.ehr, tx, call.request.path_params["type"], call.patient_id)
    return Response(content, media_type=content_type, headers={"Cache-Control": "private, max-age=300"})


@cache
def _manifest() -> dict[str, str]:
    file = _STATIC / "manifest.json"
    names: dict[str, str] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return names


def _asset(name: str) -> str:
    return f"/static/{_manifest().get(name, name)}"
