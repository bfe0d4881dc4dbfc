"""A QR code on the desk that opens the camera page on a phone, for this patient only; nothing stays on the phone."""

from __future__ import annotations

import io
from typing import Any
from urllib.parse import urlencode, urlsplit

import segno
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from adapter import governance
from adapter.access import Actor, can
from adapter.access.handoff import LINK_LIFETIME, SESSION_LIFETIME, make_handoff, redeem_handoff, within_glass
from adapter.access.sessions import cookie_name, start_session
from adapter.records import find
from adapter.records.confinement import patient_of
from adapter.web.gate import actor_of, get_patient, session_of
from adapter.web.pages import Web


def handoff_of(web: Web, actor: Actor, patient_id: str, encounter_id: str | None) -> dict[str, Any] | None:
    """The `handoff` of a template; None for who cannot hand over."""
    if actor.kind != "person" or not (can(actor, "c", "Media") and can(actor, "s", "Media")):
        return None
    given = {"patient": patient_id} | ({"encounter": encounter_id} if encounter_id else {})
    reached = urlsplit(web.bridge.settings.base_url).hostname not in ("127.0.0.1", "localhost", "::1")
    return {
        "image_href": f"/handoff?{urlencode(given)}",
        "expires": f"Valid for {_minutes(web, actor)}, once."
        if reached
        else "Phones reach this service once public_url is set.",
    }


def _minutes(web: Web, actor: Actor) -> str:
    minutes = int(within_glass(actor, LINK_LIFETIME, web.bridge.now()).total_seconds() // 60)
    return f"{minutes} minute{'s' * (minutes != 1)}"


def handoff_code(web: Web, request: Request) -> Response:
    """GET /handoff?patient=..&encounter=..: a QR code (SVG) with a fresh link; each request makes another."""
    bridge, actor, query = web.bridge, actor_of(request), request.query_params
    with bridge.db.transaction() as tx:
        patient = get_patient(tx, actor, query.get("patient", ""))
        visit = find(tx, "Encounter", query.get("encounter") or actor.encounter_id or "-")
        encounter_id = visit.id if visit and patient_of(visit.resource) == patient.id else None
        secret = make_handoff(
            tx, session_of(request), patient_id=patient.id, encounter_id=encounter_id, at=bridge.now()
        )
        told = f"link for a phone, valid for {_minutes(web, actor)}"
        governance.audit(tx, bridge, "read", actor, patient_id=patient.id, references=[patient.reference], detail=told)
    drawn = io.BytesIO()
    segno.make(f"{bridge.settings.base_url}/h/{secret}", error="m", micro=False).save(
        drawn, kind="svg", scale=4, border=2
    )
    return Response(drawn.getvalue(), media_type="image/svg+xml", headers={"Cache-Control": "no-store"})


def open_on_phone(web: Web, request: Request) -> Response:
    """GET /h/{secret}: the link turns into a session of its own, once."""
    bridge = web.bridge
    with bridge.db.transaction() as tx:
        phone, glass_of = redeem_handoff(tx, request.path_params["secret"], at=bridge.now())
        lifetime = within_glass(phone, SESSION_LIFETIME, bridge.now())
        cookie, _ = start_session(tx, phone, at=bridge.now(), lifetime=lifetime, glass_of=glass_of)
        governance.audit(tx, bridge, "login", phone, patient_id=phone.patient_id, detail="on a phone, by a link")
    given = {"patient": phone.patient_id, "encounter": phone.encounter_id}
    response = RedirectResponse(f"/capture?{urlencode({k: v for k, v in given.items() if v})}", 303)
    https = bridge.settings.base_url.startswith("https:")
    response.set_cookie(  # never inside an EHR's frame, so the strict kind will do
        cookie_name(phone, https=https),
        cookie,
        max_age=int(lifetime.total_seconds()),
        secure=https,
        httponly=True,
        samesite="lax",
    )
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
