"""/sessions: where one is signed in and which apps act for one, to end what is not needed or not one's own;
administrators see everybody's."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from adapter import governance
from adapter.access import Actor, check_right, has_right
from adapter.access.app_grants import AppGrant, end_grant, end_grants_of_session, get_live_grant, live_grants
from adapter.access.ehr_grants import revoke
from adapter.access.handoff import is_phone
from adapter.access.sessions import LiveSession, end_session, get_live, live_sessions
from adapter.errors import Forbidden
from adapter.web.bodies import Form
from adapter.web.gate import actor_of, session_of
from adapter.web.pages import Web, see_other
from adapter.web.scope_words import told_in_words

LISTED = 100


def sessions_page(web: Web, request: Request) -> Response:
    """GET /sessions?user=..: one's own; for administrators also those of others, or of one named by reference."""
    bridge, actor = web.bridge, _person(request)
    everybody, user = has_right(actor, "sessions"), request.query_params.get("user", "").strip()
    whose = (user or None) if everybody else actor.id
    idle = timedelta(minutes=bridge.settings.session_idle_minutes)
    with bridge.db.snapshot() as tx:
        found = live_sessions(tx, now=bridge.now(), idle=idle, actor_id=whose, limit=LISTED + 1)
        apps = live_grants(tx, now=bridge.now(), actor_id=whose, limit=LISTED + 1)
    if not everybody:
        found = [one for one in found if one.actor.id == actor.id]
        apps = [one for one in apps if one.actor.id == actor.id]
    own = session_of(request)
    return web.render(
        request,
        "sessions.html",
        "Sessions",
        everybody=everybody,
        query=user,
        sessions=[_row(web, one, current=own is not None and one.id == own.id) for one in found[:LISTED]],
        apps=[_app(web, one) for one in apps[:LISTED]],
        truncated=len(found) > LISTED or len(apps) > LISTED,
    )


def end(web: Web, request: Request, _form: Form) -> Response:
    """POST /sessions/{id}/end: it is of no use from now on, and its EHR is told."""
    bridge, actor = web.bridge, _person(request)
    with bridge.db.transaction() as tx:
        found = get_live(tx, request.path_params["id"], now=bridge.now())
        if found.actor.id != actor.id:
            check_right(actor, "sessions")
        end_session(tx, found.id)
        end_grants_of_session(tx, found.id, at=bridge.now())
        governance.audit(tx, bridge, "session-ended", actor, detail=f"session {found.id[:12]} of {found.actor.id}")
    revoke(bridge, web.http, found.ehr_grant)
    own = session_of(request)
    return see_other("/" if own is not None and own.id == found.id else "/sessions", "session-ended")


def end_app(web: Web, request: Request, _form: Form) -> Response:
    """POST /sessions/apps/{id}/end: its tokens are of no use from now on."""
    bridge, actor = web.bridge, _person(request)
    with bridge.db.transaction() as tx:
        found = get_live_grant(tx, request.path_params["id"], now=bridge.now())
        if found.actor.id != actor.id:
            check_right(actor, "sessions")
        end_grant(tx, found.id, at=bridge.now())
        governance.audit(tx, bridge, "app-ended", actor, detail=f"app {found.client_id} of {found.actor.id}")
    return see_other("/sessions", "app-ended")


def _person(request: Request) -> Actor:
    actor = actor_of(request)
    if session_of(request) is None:
        raise Forbidden("only people have sessions; tokens are listed by: dermbridge token list")
    return actor


def _row(web: Web, one: LiveSession, *, current: bool) -> dict[str, Any]:
    zone, ehrs = web.bridge.settings.zone, {ehr.iss: ehr.name for ehr in web.bridge.settings.ehrs}
    place = ehrs.get(one.actor.ehr or "", "EHR") if one.actor.ehr else "Staff sign-in"
    return {
        "id": one.id,
        "name": one.actor.display,
        "reference": one.actor.id,
        "role": one.actor.role.replace("-", " "),
        "place": f"Phone, by a link from {place}" if is_phone(one.actor) else place,
        "address": one.actor.address,
        "started": one.created_at.astimezone(zone),
        "seen": one.seen_at.astimezone(zone),
        "current": current,
        "end_href": f"/sessions/{one.id}/end",
    }


def _app(web: Web, one: AppGrant) -> dict[str, Any]:
    zone = web.bridge.settings.zone
    names = {client.client_id: client.name for client in web.bridge.settings.clients}
    return {
        "app": names.get(one.client_id, one.client_id),
        "name": one.actor.display,
        "reference": one.actor.id,
        "says": told_in_words(one.scopes),
        "since": one.created_at.astimezone(zone),
        "until": one.expires_at.astimezone(zone) if one.is_offline else None,
        "end_href": f"/sessions/apps/{one.id}/end",
    }
