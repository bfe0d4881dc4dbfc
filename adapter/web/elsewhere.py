"""/patients/{id}/elsewhere: photos of the patient in EHRs and archives, asked for now, copied here by choice."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from adapter.access import Actor, can, check_scope
from adapter.bridge import Bridge
from adapter.capture.external import Pulled, pull_photo
from adapter.capture.external_upkeep import forget_external
from adapter.capture.photos_elsewhere import PhotoThere, RecordThere, photos_elsewhere
from adapter.errors import BadInput, DermBridgeError, NotFound
from adapter.records import Stored
from adapter.web.bodies import Form
from adapter.web.gate import actor_of, get_patient, get_photo
from adapter.web.pages import Web, see_other
from adapter.web.photo_card import day, site_wording, taken_at
from adapter.web.timeline import replaced_by
from mappings.body_sites import BODY_SITES
from mappings.external_photo import is_external

MOST = 8  # copied at once: somebody waits


def elsewhere(web: Web, request: Request) -> Response:
    """?beside=the photo that one of them shall stand beside."""
    bridge, actor = web.bridge, actor_of(request)
    with bridge.db.snapshot() as tx:
        patient = get_patient(tx, actor, request.path_params["id"])
        beside = _beside(tx, actor, patient, request.query_params.get("beside", ""))
    if survivor := replaced_by(patient):
        return RedirectResponse(f"/patients/{survivor}/elsewhere", 303)
    records = photos_elsewhere(bridge, web.destinations, actor, patient.id)
    return web.render(
        request,
        "elsewhere.html",
        "Photos elsewhere",
        patient=patient,
        records=[_record(one, bridge.settings.zone) for one in records],
        beside=beside,
        back_href=f"/photos/{beside}" if beside else f"/patients/{patient.id}",
        may_copy=can(actor, "c", "Media"),
        most=MOST,
        days=bridge.settings.external_photo_days,
    )


def copy_or_forget(web: Web, request: Request, form: Form) -> Response:
    """POST: `photo` once for each, as `destination id-there`; or `forget`, the id of a copy here."""
    bridge, actor = web.bridge, actor_of(request)
    check_scope(actor, "c", "Media")
    with bridge.db.snapshot() as tx:
        patient = get_patient(tx, actor, request.path_params["id"])
        beside = _beside(tx, actor, patient, form.get("beside"))
    here = f"/patients/{patient.id}/elsewhere" + (f"?{urlencode({'beside': beside})}" if beside else "")
    if form.get("forget"):
        _forget(bridge, actor, patient, form.get("forget"))
        return see_other(here, "forgotten")
    pulled, failures = _pull(web, actor, patient.id, form.all("photo"))
    if failures and not pulled:
        raise failures[0]
    if failures:
        return see_other(here, "some-copied")
    ids = list(dict.fromkeys([*(one.media_id for one in pulled), *([beside] if beside else [])]))
    if len(ids) > 1:
        return see_other(f"/compare?{urlencode([('media', one) for one in ids])}&order=taken", "copied")
    return see_other(f"/photos/{ids[0]}", "copied" if pulled[0].how == "copied" else "copied-before")


def _pull(web: Web, actor: Actor, patient_id: str, chosen: Sequence[str]) -> tuple[list[Pulled], list[DermBridgeError]]:
    named = [one.partition(" ")[::2] for one in dict.fromkeys(chosen)]
    if not 1 <= len(named) <= MOST:
        raise BadInput(f"choose between 1 and {MOST} photos to copy")
    pulled, failures = list[Pulled](), list[DermBridgeError]()
    for destination, photo_id in named:
        try:
            pulled.append(pull_photo(web.bridge, web.destinations, actor, patient_id, destination, photo_id))
        except DermBridgeError as error:
            failures.append(error)
    return pulled, failures


def _forget(bridge: Bridge, actor: Actor, patient: Stored, media_id: str) -> None:
    with bridge.db.transaction() as tx:
        media, patient_id = get_photo(tx, actor, "r", media_id)
        if patient_id != patient.id or not is_external(media.resource):
            raise NotFound("there is no such copy in this record")
        forget_external(tx, bridge, actor, media, "removed by hand", torn=False)


def _beside(tx: Connection, actor: Actor, patient: Stored, media_id: str) -> str:
    if not media_id:
        return ""
    media, patient_id = get_photo(tx, actor, "r", media_id)
    if patient_id != patient.id:
        raise BadInput("that photo is another patient's; open the comparison again")
    return media.id


# --- what the page shows --------------------------------------------------------------------------------------------


def _record(record: RecordThere, zone: tzinfo) -> dict[str, Any]:
    photos = [_photo(one, record.destination, zone) for one in record.photos]
    return {
        "name": record.destination,
        "photos": sorted(photos, key=lambda one: (one["created"], one["key"]), reverse=True),
        "more": record.more,
        "hidden": record.hidden,
        "refused": record.refused,
        "problems": record.problems,
    }


def _photo(there: PhotoThere, destination: str, zone: tzinfo) -> dict[str, Any]:
    found = there.found
    at = taken_at({"createdDateTime": found.created}, zone) if len(found.created) >= 10 else None
    title = "" if there.is_ours else found.title  # ours would be our file name
    site = site_wording(found.body_site) if found.body_site in BODY_SITES else found.site_text
    return {
        "key": f"{destination} {found.id}",
        "created": found.created,
        "day": day(at) if at else found.created or "no date",
        "title": title or found.kind or "Photo",
        "kind": found.kind if title else "",
        "type": found.content_type.rpartition("/")[2].upper() or "not told",
        "size": found.size,
        "site": ", ".join(filter(None, [site, found.laterality])),
        "device": "Dermoscope" if found.modality == "DMS" and not found.device else found.device,
        "obstacle": found.obstacle,
        "media_id": there.media_id,
        "is_ours": there.is_ours,
        "thumbnail": f"/captures/{there.media_id}/thumbnail" if there.media_id else None,
        "href": f"/photos/{there.media_id}" if there.media_id else None,
    }
