"""/saved-comparisons: those that somebody kept, opened again as they were looked at, exported, sent, withdrawn."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from adapter import delivery, governance
from adapter.access import Actor, can, has_right
from adapter.bridge import Bridge
from adapter.compare.reopening import Seen, get_saved, photos_seen
from adapter.compare.saved import MOST, save_comparison, withdraw
from adapter.compare.sheets import export_sheet, lacking, send_sheet
from adapter.errors import BadInput
from adapter.records import Stored, find
from adapter.records.confinement import patient_of
from adapter.records.pictures import pictures_of
from adapter.web.bodies import Form
from adapter.web.compare_page import show_photos
from adapter.web.gate import actor_of
from adapter.web.pages import Web, see_other
from adapter.web.saved_card import saved_card
from mappings.comparison_to_observation import View, components_of, view_of
from mappings.photos_to_picture import derivation_of

_WITHIN: dict[str, tuple[type[float], float, float]] = {  # numbers of a view: kind, the least, the greatest
    "zoom": (float, 0.001, 10_000),
    "x": (float, -100_000, 100_000),
    "y": (float, -100_000, 100_000),
    "blend": (float, 0, 1),
    "reference": (int, 1, MOST),
    "other": (int, 1, MOST),
    "speed": (int, 1, 5),
}
_MOVED = (float, -100, 100)  # by hand: widths of a photo, and how much larger


def saved_page(web: Web, request: Request) -> Response:
    """GET /saved-comparisons/{id}: the comparison page, as it was looked at; or why it cannot be shown any more."""
    bridge, actor = web.bridge, actor_of(request)
    with bridge.db.snapshot() as tx:
        saved = get_saved(tx, actor, request.path_params["id"])
        seen = photos_seen(tx, actor, saved)
        about = _about(tx, bridge, actor, saved, seen)
        patient_id = patient_of(saved.resource)
        patient = find(tx, "Patient", patient_id or "-")
    governance.audit_look(bridge, actor, patient_id=patient_id, references=[saved.version_reference])
    left = [one.media.id for one in seen if one.media]
    if len(left) == len(seen):
        return show_photos(web, request, left, saved=about)
    return web.render(
        request,
        "saved_comparison.html",
        "Saved comparison",
        patient=patient,
        saved=about,
        left=[{"href": f"/photos/{one}", "thumbnail": f"/captures/{one}/thumbnail"} for one in left],
        back_href=f"/patients/{patient_id}",
    )


def save(web: Web, request: Request, form: Form) -> Response:
    """POST /saved-comparisons: `media` and `version` once for each photo in their order, the view's parts, `note`,
    and `comparison`, the id of the one whose verdict was shown.
    """
    ids, versions = form.all("media"), form.all("version")
    if len(ids) != len(versions) or not all(one.isdecimal() and len(one) < 10 for one in versions):
        raise BadInput("send a version with each photo; open the comparison again")
    photos = [(one, int(version)) for one, version in zip(ids, versions, strict=True)]
    note, shown = form.get("note").strip() or None, form.get("comparison") or None
    saved = save_comparison(web.bridge, actor_of(request), photos, view=_view(form), note=note, shown=shown)
    return see_other(f"/saved-comparisons/{saved.id}", "comparison-saved")


def export(web: Web, request: Request) -> Response:
    """GET /saved-comparisons/{id}/pdf | png."""
    made = export_sheet(web.bridge, actor_of(request), request.path_params["id"], request.path_params["form"])
    headers = {
        "Content-Disposition": f'attachment; filename="{made.filename}"',
        "Cache-Control": "private, no-store",
    }
    return Response(made.data, media_type=made.content_type, headers=headers)


def send(web: Web, request: Request, _form: Form) -> Response:
    saved_id = request.path_params["id"]
    send_sheet(web.bridge, actor_of(request), saved_id)
    return see_other(f"/saved-comparisons/{saved_id}", "queued")


def take_back(web: Web, request: Request, form: Form) -> Response:
    """POST /saved-comparisons/{id}/withdraw with `why`: back to the patient's photos."""
    bridge, actor, saved_id = web.bridge, actor_of(request), request.path_params["id"]
    with bridge.db.snapshot() as tx:
        patient_id = patient_of(get_saved(tx, actor, saved_id).resource)
    withdraw(bridge, actor, saved_id, why=form.get("why"))
    return see_other(f"/patients/{patient_id}", "comparison-withdrawn")


def _about(tx: Connection, bridge: Bridge, actor: Actor, saved: Stored, seen: list[Seen]) -> dict[str, Any]:
    href, zone = f"/saved-comparisons/{saved.id}", bridge.settings.zone
    sheets = [one for one in pictures_of(tx, saved.reference) if derivation_of(one.resource) == "sheet"]
    sent = [row for one in sheets for row in delivery.deliveries_of(tx, one.id)]
    may_export, may_send = has_right(actor, "export"), can(actor, "u", "Media")
    return saved_card(saved, zone) | {
        "view": {name: value for name, value in asdict(view_of(saved.resource)).items() if value is not None},
        "reasons": components_of(saved.resource, "reason"),
        "method": saved.resource.get("method", {}).get("text"),
        "changes": [f"Photo {number}: {one.said}" for number, one in enumerate(seen, 1) if one.said],
        "exports": {form.upper(): f"{href}/{form}" for form in ("pdf", "png")} if may_export else {},
        "sent": [{"destination": row.destination, "state": str(row.state), "reason": row.reason} for row in sent],
        "send_to": sorted(lacking(tx, bridge, actor, saved, seen)) if may_send else [],
        "send_href": f"{href}/send",
        "withdraw_href": f"{href}/withdraw" if can(actor, "u", "Observation") else None,
        "reference": saved.version_reference,
    }


def _view(form: Form) -> View:
    """What the page's script filled in; without it, what a page shows at first. Raises BadInput."""
    numbers: dict[str, Any] = {name: _number(given, *_WITHIN[name]) for name in _WITHIN if (given := form.get(name))}
    mode = form.get("mode") or "side"
    if not mode.isascii() or not mode.isalpha() or len(mode) > 32:
        raise BadInput("the mode is not one of this page; open the comparison again")
    hands = tuple(_number(one, *_MOVED) for one in form.get("hands").split())
    if len(hands) not in (0, 3 * len(form.all("media"))):
        raise BadInput("three numbers say how a photo was moved by hand; open the comparison again")
    linked, colours = form.get("linked") != "false", form.get("colours") == "true"
    return View(mode=mode, linked=linked, colours=colours, hands=hands, **numbers)


def _number(given: str, kind: type[float], least: float, greatest: float) -> float:
    with suppress(ValueError):
        if least <= (value := kind(given)) <= greatest:  # which no NaN is
            return value
    raise BadInput("the view is not one of this page; open the comparison again")
