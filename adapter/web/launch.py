"""Signing in and out: from a chart of the EHR, which confines the session to that chart, or as staff outside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from adapter import governance, identity
from adapter.access import Actor, can, has_right
from adapter.access.attempts import attempt
from adapter.access.ehr_grants import revoke, seal
from adapter.access.ehr_style import Style, fetch_style, style_sheet
from adapter.access.oauth import LAUNCH_LIFETIME, Begun, launch_cookie, take
from adapter.access.policy import grants_of
from adapter.access.sessions import (
    MOST_CHARTS,
    Session,
    cookie_name,
    end_session,
    find_sessions,
    is_session_cookie,
    on_host,
    start_session,
)
from adapter.access.smart import LaunchContext, begin_launch, finish_launch, redirect_uri, role_of
from adapter.access.staff import begin_login, finish_login, get_login
from adapter.access.tokens import digest
from adapter.bridge import Bridge
from adapter.errors import BadInput, Forbidden, NotFound
from adapter.web.bodies import Form
from adapter.web.gate import actor_of, session_of
from adapter.web.pages import Web

AUTHORIZE = "/auth/authorize"
INTENTS = {"capture": "/capture?patient={}", "consent": "/patients/{}/consents"}
"""SMART `intent` -> the page it means; any other opens the photos."""


def launch(web: Web, request: Request) -> Response:
    """GET /launch?iss=..&launch=.. (SMART App Launch 2.2, EHR launch; without `launch` a standalone one)."""
    iss = request.query_params.get("iss")
    if not iss:
        raise BadInput("a launch names its EHR: /launch?iss=…; open DermBridge from the patient's chart")
    with attempt(web.bridge, "launch", _address(request)):
        launch_token = request.query_params.get("launch")
        begun = begin_launch(web.bridge, web.http, iss=iss, launch_token=launch_token, then=_then(request))
    return _send_off(web, begun)


def login(web: Web, request: Request) -> Response:
    """GET /login?at=<name of a staff sign-in>&then=<an app's request>; `at` may be left out where there is one."""
    with attempt(web.bridge, "launch", _address(request)):
        login = get_login(web.bridge, request.query_params.get("at"))
        begun = begin_login(web.bridge, web.http, login, then=_then(request) or "/")
    return _send_off(web, begun)


def callback(web: Web, request: Request) -> Response:
    """GET /callback: the browser comes back with a code, or with the reason why there is none."""
    bridge, address = web.bridge, _address(request)
    with attempt(bridge, "callback", address):
        try:
            came = _came_back(web, request)
        except Forbidden as error:
            _tell_failure(bridge, address, str(error))
            raise
    lifetime = timedelta(hours=bridge.settings.session_hours)
    with bridge.db.transaction() as tx:
        cookie, _ = start_session(
            tx, came.actor, at=bridge.now(), lifetime=lifetime, ehr_grant=came.sealed, style=came.style
        )
        governance.audit(tx, bridge, "login", came.actor, patient_id=came.actor.patient_id or None)
    response = RedirectResponse(came.home, 303)
    name = cookie_name(came.actor, https=_is_https(bridge))
    _end_others(bridge, request, response, name, came.actor)
    _set_cookie(response, bridge, name, cookie)
    _set_cookie(
        response, bridge, on_host(launch_cookie(request.query_params["state"]), https=_is_https(bridge)), "", max_age=0
    )
    return response


def logout(web: Web, request: Request, _form: Form) -> Response:
    """POST /logout: this browser's sessions end here, and the EHR is told; signing in again needs the EHR."""
    if session_of(request) is None:
        raise Forbidden("a token is not signed in and cannot sign out; revoke it with: dermbridge token revoke")
    actor, sessions = actor_of(request), open_sessions(web.bridge, request)
    with web.bridge.db.transaction() as tx:
        for one in sessions.values():
            end_session(tx, one.id)
        governance.audit(tx, web.bridge, "logout", actor)
    for one in sessions.values():
        revoke(web.bridge, web.http, one.ehr_grant)
    response = RedirectResponse("/", 303)
    for name in sessions:
        _set_cookie(response, web.bridge, name, "", max_age=0)
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    return response


def style(_web: Web, request: Request) -> Response:
    """GET /style.css?patient=..: how the EHR looks that this chart was opened in."""
    actor_of(request)
    if (session := session_of(request)) is None:
        raise NotFound("only a chart that an EHR opened has its style")
    return Response(style_sheet(session.style or {}), media_type="text/css")


def _then(request: Request) -> str | None:
    """Where somebody was who must sign in first: at an app's request to act for them, and nowhere else."""
    then = request.query_params.get("then", "")
    return then if then.startswith(f"{AUTHORIZE}?") else None


# --- who came back --------------------------------------------------------------------------------------------------


class _Came(NamedTuple):
    """Who came back, where to go, what the EHR granted (sealed) and how it looks."""

    actor: Actor
    home: str
    sealed: bytes | None = None
    style: Style | None = None


def _came_back(web: Web, request: Request) -> _Came:
    query, bridge = request.query_params, web.bridge
    if not query.get("state"):
        raise BadInput("this address is only for the EHR's answer to a launch; open DermBridge from the chart")
    begun = take(
        bridge,
        state=query["state"],
        browser_cookie=request.cookies.get(on_host(launch_cookie(query["state"]), https=_is_https(bridge))),
        iss=query.get("iss"),
        arrived_at=redirect_uri(bridge, request.path_params.get("callback")),
    )
    if "error" in query or not query.get("code"):
        why = f" ({query['error']})" if re.fullmatch("[a-z_]{1,40}", query.get("error", "")) else ""
        raise Forbidden(
            f"the EHR did not grant the launch{why}; open DermBridge from the chart again or ask its operator"
        )
    if "staff_login" in begun:
        return _Came(
            replace(finish_login(bridge, web.http, begun, query["code"]), address=_address(request)), begun["then"]
        )
    return _from_chart(web, begun, query["code"], _address(request))


def _from_chart(web: Web, begun: Mapping[str, Any], code: str, address: str) -> _Came:
    found = finish_launch(web.bridge, web.http, begun, code)
    with web.bridge.db.transaction() as tx:
        actor, home = _in_chart(tx, web.bridge, found, _actor_of_launch(found, address))
    home = begun["then"] or home
    style = fetch_style(web.http, found.style_url, found.ehr.name) if found.style_url else None
    return _Came(actor, home, seal(web.bridge, found.grant) if found.grant else None, style)


def _in_chart(tx: Connection, bridge: Bridge, found: LaunchContext, actor: Actor) -> tuple[Actor, str]:
    """Raises Forbidden when a role may only work in a chart and none was open."""
    if found.patient is None:
        if not has_right(actor, "launch-any-patient"):
            raise Forbidden("your role works inside one chart; open a patient in the EHR and launch DermBridge there")
        return actor, "/"
    patient_id, encounter_id = identity.register_from_ehr(tx, bridge, actor, found.patient, found.encounter, found.ehr)
    actor = replace(actor, encounter_id=encounter_id)
    if not has_right(actor, "launch-any-patient"):
        actor = replace(actor, patient_id=patient_id)
    home = INTENTS.get(found.intent or "", "/patients/{}").format(patient_id)
    return actor, home if can(actor, "s", "Media") else "/"


def _actor_of_launch(found: LaunchContext, address: str) -> Actor:
    """The role is ours to give, by the EHR's registration; its scopes are those of the role here, not the EHR's."""
    role = role_of(found.ehr, found.user_reference)
    scopes, rights = grants_of(role)
    return Actor(
        kind="person",
        id=found.user_reference,
        display=found.user_display,
        role=role,
        scopes=scopes,
        rights=rights,
        ehr=found.ehr.iss,
        address=address,
        show_banner=found.show_banner,
    )


def _tell_failure(bridge: Bridge, address: str, problem: str) -> None:
    nobody = Actor("person", "Person/unknown", "not signed in", "none", address=address)
    with bridge.db.transaction() as tx:
        governance.audit(tx, bridge, "login-failed", nobody, outcome="4", detail=problem)


# --- cookies --------------------------------------------------------------------------------------------------------


def _send_off(web: Web, begun: Begun) -> Response:
    response = RedirectResponse(begun.url, 302)
    name = on_host(begun.cookie_name, https=_is_https(web.bridge))
    _set_cookie(response, web.bridge, name, begun.browser, max_age=int(LAUNCH_LIFETIME.total_seconds()))
    return response


def open_sessions(bridge: Bridge, request: Request) -> dict[str, Session]:
    """The browser's live sessions by the name of their cookie, the newest first."""
    https = _is_https(bridge)
    cookies = {value: name for name, value in request.cookies.items() if is_session_cookie(name, https=https)}
    idle = timedelta(minutes=bridge.settings.session_idle_minutes)
    live = find_sessions(bridge.db, list(cookies), now=bridge.now(), idle=idle, touch=False)
    names = {digest(value): name for value, name in cookies.items()}
    return {names[one.id]: one for one in live}


def _end_others(bridge: Bridge, request: Request, response: Response, name: str, actor: Actor) -> None:
    """The former session of this chart, those of another user, those opened too long ago, and dead cookies."""
    live = open_sessions(bridge, request)
    own = [cookie for cookie, one in live.items() if cookie != name and one.actor.id == actor.id]
    kept = own[: MOST_CHARTS - 1]
    with bridge.db.transaction() as tx:
        for cookie, one in live.items():
            if cookie not in kept:
                end_session(tx, one.id)
    for cookie in request.cookies:
        if is_session_cookie(cookie, https=_is_https(bridge)) and cookie not in kept and cookie != name:
            _set_cookie(response, bridge, cookie, "", max_age=0)


def _set_cookie(response: Response, bridge: Bridge, name: str, value: str, *, max_age: int | None = None) -> None:
    """Inside the EHR's iframe only a partitioned third-party cookie arrives (CHIPS), and that needs https."""
    parts = [f"{name}={value}", "Path=/", "HttpOnly"]
    parts += ["SameSite=None", "Secure", "Partitioned"] if _is_https(bridge) else ["SameSite=Lax"]
    parts += [f"Max-Age={max_age}"] if max_age is not None else []
    response.headers.append("Set-Cookie", "; ".join(parts))


def _is_https(bridge: Bridge) -> bool:
    return bridge.settings.base_url.startswith("https:")


def _address(request: Request) -> str:
    return request.client.host if request.client else ""
