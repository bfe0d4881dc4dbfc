"""/break-glass: asking for more than one's role allows. The reason is recorded before anything is shown."""

from __future__ import annotations

import structlog
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from adapter import governance
from adapter.access import Actor
from adapter.access.attempts import attempt
from adapter.access.emergency import REASONS, break_glass, mend_glass
from adapter.access.sessions import NOBODY, Session
from adapter.errors import Forbidden, NotFound
from adapter.records.patient_lookup import find_patients
from adapter.web.bodies import Form
from adapter.web.gate import actor_of, get_patient, session_of
from adapter.web.pages import Web, see_other

log = structlog.get_logger()


def break_glass_page(web: Web, request: Request) -> Response:
    """GET /break-glass: the form, or how long it still lasts."""
    actor = _person(request).actor
    with web.bridge.db.snapshot() as tx:
        patient = get_patient(tx, actor, actor.patient_id) if actor.patient_id else None
    return web.render(
        request,
        "break_glass.html",
        "Break the glass",
        patient=patient,
        names_patient=actor.patient_id == NOBODY,
        reasons=[{"code": code, "display": text} for code, text in REASONS.items()],
        minutes=web.bridge.settings.emergency_minutes,
        until=actor.emergency_until.astimezone(web.bridge.settings.zone) if actor.emergency_until else None,
    )


def post_break_glass(web: Web, request: Request, form: Form) -> Response:
    """POST /break-glass: reason, why, and without a chart also number and birth_date."""
    bridge, session = web.bridge, _person(request)
    reason, why = form.get("reason"), form.get("why")
    with attempt(bridge, "break-glass", session.actor.id), bridge.db.transaction() as tx:
        patient_id = session.actor.patient_id or _named(tx, session.actor, form)
        raised = break_glass(tx, bridge, session.id, session.actor, patient_id=patient_id, reason=reason, why=why)
        until = f"{raised.emergency_until:%Y-%m-%dT%H:%MZ}"
        governance.audit(
            tx, bridge, "break-glass", raised, patient_id=patient_id, detail=f"{reason} until {until}: {why[:500]}"
        )
    log.warning("access.glass_broken", reason=reason, until=until, session=session.id[:12], role=raised.role)
    return see_other(f"/patients/{patient_id}")


def end(web: Web, request: Request, _form: Form) -> Response:
    """POST /break-glass/end: before its time."""
    session = _person(request)
    with web.bridge.db.transaction() as tx:
        governance.audit(tx, web.bridge, "break-glass-stop", session.actor, patient_id=session.actor.patient_id)
        mended = mend_glass(tx, web.bridge, session.id, session.actor)
    return see_other(f"/patients/{mended.patient_id}" if mended.patient_id else "/break-glass")


def _person(request: Request) -> Session:
    actor_of(request)
    if (session := session_of(request)) is None:
        raise Forbidden("only a person can break the glass; a machine is given its rights with its token")
    return session


def _named(tx: Connection, actor: Actor, form: Form) -> str:
    """The one patient with this number and birth date: two facts, so that a slip of the hand opens no chart."""
    number, born = form.get("number"), form.get("birth_date")
    found = find_patients(tx, number, limit=10) if actor.patient_id == NOBODY and number and born else []
    exact = [
        one
        for one in found
        if one.resource.get("birthDate") == born
        and number in (identifier.get("value") for identifier in one.resource.get("identifier", []))
    ]
    if len(exact) != 1:
        raise NotFound("no single patient has this number and birth date; check both")
    return exact[0].id
