"""/deliveries: what is on its way to which destination, and what a person can say: send again, hold, I looked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from adapter import governance
from adapter.access import Actor, can, check_right, check_scope, check_whose, has_right
from adapter.bridge import Bridge
from adapter.delivery import DeliveryState, hold, needs_a_look, send_again, tell_looked
from adapter.delivery.circuit import circuits
from adapter.delivery.outbox import destination_names, get_delivery
from adapter.errors import BadInput
from adapter.records import Stored, find_all
from adapter.records.confinement import same_patients
from adapter.records.delivery_list import next_tries, page_of_deliveries, sends_of
from adapter.web.bodies import Form
from adapter.web.clock import local, period
from adapter.web.destination_cards import cards, list_href
from adapter.web.gate import actor_of
from adapter.web.pages import Web, see_other
from adapter.web.patient_card import patient_name
from adapter.web.photo_card import photo_label, receipt_wording

REFRESH_SECONDS = 10
CONFIRMED_WITHIN = timedelta(hours=24)  # a total would cost more with every photo ever sent
_AGAIN = frozenset({"failed", "held", "unknown", "withheld", "pending"})


def deliveries(web: Web, request: Request) -> Response:
    """?destination=..&state=..&page=.. ; a session confined to a chart sees its patient's.

    Who operates DermBridge sees all of them, but photos only if the role may read photos.
    """
    bridge, actor, query = web.bridge, actor_of(request), request.query_params
    if actor.patient_id is None:
        check_right(actor, "operate")
    else:
        check_scope(actor, "s", "Media")
    destination, state = query.get("destination") or None, query.get("state") or None
    names = destination_names(bridge)
    if state is not None and state not in list(DeliveryState):
        raise BadInput(f"a delivery is {', '.join(DeliveryState)}")
    if destination is not None and destination not in names:
        raise BadInput("there is no such destination; choose one of the list")
    filtered = destination is not None or state is not None
    with bridge.db.snapshot() as tx:
        within = same_patients(tx, {actor.patient_id}) if actor.patient_id else None
        rows, following = page_of_deliveries(
            tx,
            patient_ids=within,
            destinations=([destination] if destination else names) if filtered else (),
            states=([state] if state else list(DeliveryState)) if filtered else (),
            before=query.get("page"),
        )
        ids = [row.id for row in rows]
        tries, due = sends_of(tx, ids), _next_tries(tx, rows)
        photos = find_all(tx, "Media", [row.media_id for row in rows])
        patients = find_all(tx, "Patient", [row.patient for row in rows if row.patient])
        shown_cards = cards(tx, bridge, bridge.now() - CONFIRMED_WITHIN, destination) if within is None else []
    search = f"delivery?{urlencode({'destination': destination or '', 'state': state or ''})}"
    shown = [one.version_reference for one in photos.values()]
    governance.audit_look(bridge, actor, patient_id=actor.patient_id, references=shown, query=search)
    return web.render(
        request,
        "deliveries.html",
        "Deliveries",
        destinations=shown_cards,
        choices={
            "destinations": [{"code": name, "display": name} for name in names],
            "states": [{"code": str(one), "display": str(one)} for one in DeliveryState],
            "destination": destination or "",
            "state": state or "",
        },
        deliveries=[
            _row(bridge, actor, row, photos.get(row.media_id), patients.get(row.patient))
            | {"attempts": tries.get(row.id, 0), "next_at": local(bridge, due.get(row.id))}
            for row in rows
        ],
        next_href=list_href(destination, state, following) if following else None,
        refresh=0 if query.get("page") else REFRESH_SECONDS,
    )


def _next_tries(tx: Connection, rows: Sequence[Any]) -> dict[str, datetime]:
    """What waits for a destination that is left alone is not tried before that is over; a stopped one has no time."""
    down = {row.destination: row for row in circuits(tx)}
    due = next_tries(tx, [row.id for row in rows])
    for row in rows:
        circuit = down.get(row.destination)
        if row.id in due and circuit and circuit.held is not None:
            del due[row.id]
        elif row.id in due and circuit and circuit.open_until:
            due[row.id] = max(due[row.id], circuit.open_until)
    return due


def post_send_again(web: Web, request: Request, _form: Form) -> Response:
    return _told(web, request, send_again, "queued")


def post_hold(web: Web, request: Request, _form: Form) -> Response:
    return _told(web, request, hold, "held")


def post_looked(web: Web, request: Request, form: Form) -> Response:
    """POST /deliveries/{id}/looked with `there` (yes, no) and `because`: somebody looked where nobody can ask."""
    bridge, actor, there = web.bridge, actor_of(request), form.get("there")
    with bridge.db.transaction() as tx:
        row = _get_own(tx, actor, request.path_params["id"])
        if there not in ("yes", "no"):
            raise BadInput("say whether it is there: yes or no")
        tell_looked(tx, bridge, actor, row.id, there=there == "yes", because=form.get("because"))
    return see_other("/deliveries", "looked" if there == "yes" else "queued")


def _told(web: Web, request: Request, say: Any, said: str) -> Response:
    bridge, actor = web.bridge, actor_of(request)
    with bridge.db.transaction() as tx:
        row = _get_own(tx, actor, request.path_params["id"])
        say(tx, bridge, row.id)
        reference = f"Media/{row.media_id}/_history/{row.media_version}"
        detail = f"delivery to {row.destination}: {said}"
        governance.audit(tx, bridge, "update", actor, patient_id=row.patient, references=[reference], detail=detail)
    return see_other("/deliveries", said)


def _get_own(tx: Connection, actor: Actor, delivery_id: str) -> Any:
    """Who may correct a photo may say what becomes of its delivery; who operates DermBridge may for any."""
    row = get_delivery(tx, delivery_id)
    check_whose(tx, actor, row.patient)
    if not has_right(actor, "operate"):
        check_scope(actor, "u", "Media")
    return row


def _row(bridge: Bridge, actor: Actor, row: Any, photo: Stored | None, patient: Stored | None) -> dict[str, Any]:
    may = has_right(actor, "operate") or actor.patient_id is not None
    blind = needs_a_look(row)
    sees = can(actor, "r", "Media")
    drawn = photo is not None and photo.resource["content"]["contentType"].startswith("image/")
    return {
        "id": row.id,
        "media_href": f"/photos/{row.media_id}" if sees else None,
        "thumbnail": f"/captures/{row.media_id}/thumbnail" if sees and drawn else None,
        "patient_name": patient_name(patient.resource) if patient else "",
        "patient_href": f"/patients/{row.patient}",
        "label": photo_label(photo),
        "destination": row.destination,
        "state": str(row.state),
        "since": local(bridge, row.updated_at),
        "receipt": receipt_wording(row.receipt),
        "took": period((row.confirmed_at - row.created_at).total_seconds()) if row.confirmed_at else None,
        "reason": row.reason,
        "remedy": row.remedy,
        "retry_href": f"/deliveries/{row.id}/send-again" if may and row.state in _AGAIN and not blind else None,
        "looked_href": f"/deliveries/{row.id}/looked" if may and blind else None,
        "hold_href": f"/deliveries/{row.id}/hold" if may and row.state == "pending" else None,
    }
