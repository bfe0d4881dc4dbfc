"""Signing in: the EHR launches DermBridge from a chart, and a session confined to that chart begins."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from adapter import governance, identity
from adapter.access import Actor, can, has_right
from adapter.access.policy import grants_of
from adapter.access.sessions import COOKIE, end_session, start_session
from adapter.access.smart import BROWSER_COOKIE, LAUNCH_LIFETIME, LaunchContext, begin_launch, complete_launch
from adapter.bridge import Bridge
from adapter.errors import BadInput, Forbidden
from adapter.web.bodies import Form
from adapter.web.gate import actor_of, session_of
from adapter.web.pages import Web


def launch(web: Web, request: Request) -> Response:
    """GET /launch?iss=..&launch=.. (SMART App Launch 2.2, EHR launch; without `launch` a standalone one)."""
    iss = request.query_params.get("iss")
    if not iss:
        raise BadInput("a launch names its EHR: /launch?iss=…; open DermBridge from the patient's chart")
    url, browser = begin_launch(web.bridge, web.http, iss=iss, launch_token=request.query_params.get("launch"))
    response = RedirectResponse(url, 302)
    _set_cookie(response, web.bridge, BROWSER_COOKIE, browser, max_age=int(LAUNCH_LIFETIME.total_seconds()))
    return response


def callback(web: Web, request: Request) -> Response:
    """GET /callback: the EHR sends the browser back with a code, or says why not."""
    query = request.query_params
    if "error" in query:
        raise Forbidden("the EHR did not grant the launch; open DermBridge from the chart again or ask its operator")
    if not query.get("state") or not query.get("code"):
        raise BadInput("this address is only for the EHR's answer to a launch; open DermBridge from the chart")
    browser = request.cookies.get(BROWSER_COOKIE)
    found = complete_launch(web.bridge, web.http, state=query["state"], code=query["code"], browser_cookie=browser)
    with web.bridge.db.transaction() as tx:
        cookie, home = _sign_in(tx, web.bridge, found, request.client.host if request.client else None)
    response = RedirectResponse(home, 303)
    _set_cookie(response, web.bridge, COOKIE, cookie)
    _set_cookie(response, web.bridge, BROWSER_COOKIE, "", max_age=0)
    return response


def logout(web: Web, request: Request, _form: Form) -> Response:
    """POST /logout: the session ends here; signing in again needs the EHR."""
    if (session := session_of(request)) is not None:
        with web.bridge.db.transaction() as tx:
            end_session(tx, session.id)
            governance.audit(tx, web.bridge, "logout", actor_of(request))
    response = RedirectResponse("/", 303)
    _set_cookie(response, web.bridge, COOKIE, "", max_age=0)
    return response


def _sign_in(tx: Connection, bridge: Bridge, found: LaunchContext, address: str | None) -> tuple[str, str]:
    """(cookie, where to go). Raises Forbidden when a role may only work in a chart and none was open."""
    actor = _actor_of_launch(found, address)
    patient_id = None
    if found.patient is not None:
        patient_id, encounter_id = identity.register_from_ehr(
            tx, bridge, actor, found.patient, found.encounter, found.ehr
        )
        actor = replace(actor, encounter_id=encounter_id)
        if not has_right(actor, "launch-any-patient"):
            actor = replace(actor, patient_id=patient_id)
        home = f"/patients/{patient_id}" if can(actor, "s", "Media") else "/"
    elif has_right(actor, "launch-any-patient"):
        home = "/"
    else:
        raise Forbidden("your role works inside one chart; open a patient in the EHR and launch DermBridge from there")
    lifetime = timedelta(hours=bridge.settings.session_hours)
    cookie, _ = start_session(tx, actor, at=bridge.now(), lifetime=lifetime)
    governance.audit(tx, bridge, "login", actor, patient_id=patient_id)
    return cookie, home


def _actor_of_launch(found: LaunchContext, address: str | None) -> Actor:
    """The role is ours to give, by the EHR's registration; its scopes are those of the role here, not the EHR's."""
    role = found.ehr.roles.get(found.user_reference, found.ehr.default_role)
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


def _set_cookie(response: Response, bridge: Bridge, name: str, value: str, *, max_age: int | None = None) -> None:
    """Inside the EHR's iframe only a partitioned third-party cookie arrives (CHIPS), and that needs https."""
    https = bridge.settings.base_url.startswith("https:")
    parts = [f"{name}={value}", "Path=/", "HttpOnly"]
    parts += ["SameSite=None", "Secure", "Partitioned"] if https else ["SameSite=Lax"]
    parts += [f"Max-Age={max_age}"] if max_age is not None else []
    response.headers.append("Set-Cookie", "; ".join(parts))
