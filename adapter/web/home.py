"""GET /: find a patient, or go on with one that was open before."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from adapter import governance
from adapter.access import can, check_right, check_scope, has_right
from adapter.access.sessions import NOBODY
from adapter.records import find_all
from adapter.records.patient_lookup import find_patients, photo_counts, recent_patients
from adapter.web.gate import actor_of
from adapter.web.pages import Web
from adapter.web.patient_card import patient_card

LISTED = 25


def home(web: Web, request: Request) -> Response:
    """A session launched from a chart has one patient and goes there; who may not see photos has the deliveries."""
    bridge, actor = web.bridge, actor_of(request)
    if actor.patient_id == NOBODY:
        return RedirectResponse("/charts", 303)
    if actor.patient_id is not None:
        return RedirectResponse(f"/patients/{actor.patient_id}", 303)
    if has_right(actor, "operate") and not can(actor, "s", "Media"):
        return RedirectResponse("/deliveries", 303)
    check_scope(actor, "s", "Patient")
    check_right(actor, "launch-any-patient")
    query, zone = request.query_params.get("q", "").strip()[:200], bridge.settings.zone
    governance.settle(bridge)
    with bridge.db.snapshot() as tx:
        if query:
            found = find_patients(tx, query, limit=LISTED + 1)
        else:
            recent = recent_patients(tx, actor.id, limit=LISTED)
            known = find_all(tx, "Patient", recent)
            found = [known[one] for one in recent if one in known]
        counts = photo_counts(tx, [one.id for one in found])
    references = [one.version_reference for one in found[:LISTED]]
    search = "Patient?_content=…" if query else "Patient, those seen lately"
    governance.audit_look(bridge, actor, patient_id=None, references=references, query=search)
    today = bridge.now().astimezone(zone).date()
    cards = []
    for one in found[:LISTED]:
        photos, latest = counts.get(one.id, (0, None))
        cards.append(
            patient_card(one, today) | {"photos": photos, "latest_at": latest.astimezone(zone) if latest else None}
        )
    return web.render(
        request,
        "home.html",
        "Patients",
        query=query,
        patients=cards,
        truncated=len(found) > LISTED,
        waiting=[],
    )
