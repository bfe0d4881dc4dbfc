"""/charts: the patients whom somebody treats who signed in outside an EHR; one chart is open at a time."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from adapter import governance
from adapter.access.relationship import RELATIONSHIPS, can_open_charts, open_chart, patients_treated
from adapter.errors import Forbidden
from adapter.records import find_all
from adapter.records.patient_lookup import photo_counts
from adapter.web.bodies import Form
from adapter.web.gate import actor_of, session_of
from adapter.web.pages import Web, see_other
from adapter.web.patient_card import patient_card

LISTED = 100


def charts(web: Web, request: Request) -> Response:
    """GET /charts"""
    bridge, actor = web.bridge, actor_of(request)
    if session_of(request) is None or not can_open_charts(actor):
        raise Forbidden("this is for staff who signed in outside the EHR; open patients in the EHR, or search for them")
    with bridge.db.snapshot() as tx:
        treated = patients_treated(tx, bridge, actor, limit=LISTED)
        known = find_all(tx, "Patient", treated)
        counts = photo_counts(tx, list(known))
    references = [one.version_reference for one in known.values()]
    with bridge.db.transaction() as tx:
        governance.audit(tx, bridge, "query", actor, references=references, query="Patient, those one treats")
    today = bridge.now().astimezone(bridge.settings.zone).date()
    cards = [
        patient_card(one, today)
        | {"because": RELATIONSHIPS[treated[one.id]].display, "photos": counts.get(one.id, (0, None))[0]}
        | {"open_href": f"/charts/{one.id}/open", "current": one.id == actor.patient_id}
        for one in known.values()
    ]
    days = bridge.settings.treating_days
    return web.render(request, "charts.html", "Your patients", patients=cards, days=days)


def post_open(web: Web, request: Request, _form: Form) -> Response:
    """POST /charts/{id}/open: the session is confined to this chart from now on."""
    bridge, actor, session = web.bridge, actor_of(request), session_of(request)
    if session is None:
        raise Forbidden("only a person opens a chart; a machine is given its scopes with its token")
    patient_id = request.path_params["id"]
    with bridge.db.transaction() as tx:
        opened, name = open_chart(tx, bridge, session.id, actor, patient_id)
        told = f"chart opened by relationship: {name}"
        references = [f"Patient/{patient_id}"]
        governance.audit(tx, bridge, "read", opened, patient_id=patient_id, references=references, detail=told)
    return see_other(f"/patients/{patient_id}")
