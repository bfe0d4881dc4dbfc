"""GET /capture?patient=..: the camera page, with consent beside it and earlier photos to line up with."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from adapter import consent, governance
from adapter.access import Actor, can, check_right, check_scope
from adapter.access.reach import sensitivity
from adapter.bridge import Bridge
from adapter.records import Stored, find
from adapter.records.confinement import patient_of
from adapter.records.timeline import photos_of
from adapter.web.gate import actor_of, get_patient
from adapter.web.handoff import handoff_of
from adapter.web.pages import Web
from adapter.web.photo_card import (
    code_of,
    day,
    lateralities,
    laterality_of,
    lesion_of,
    site_of,
    site_wording,
    taken_at,
    views,
    visit_label,
)
from mappings.body_sites import groups
from mappings.canonical_resources import codes_of
from mappings.security_labels import NAMED_FLAGS, level_of
from mappings.terms import PHOTO_VIEW

TYPES = ["image/jpeg", "image/png", "image/heic", "image/webp", "image/tiff"]
OFFERED_VIEWS = ("overview", "regional", "close-up", "dermoscopic")
OFFERED_USES = ("treatment-documentation", "teaching", "research", "publication-deidentified")
PRIORS = 60


def _priors(tx: Connection, actor: Actor, patient_id: str) -> list[Stored]:
    return photos_of(tx, patient_id, group="visit", count=PRIORS, only=sensitivity(actor, "Media")).photos


def capture_page(web: Web, request: Request) -> Response:
    """?patient=.., and to begin with: encounter, site, laterality, view, or prior (a photo to repeat).

    Without a patient photos are kept apart as unidentified; that needs the right to the worklist.
    """
    bridge, actor, query = web.bridge, actor_of(request), request.query_params
    check_scope(actor, "c", "Media")
    patient_id = query.get("patient") or actor.patient_id
    lists = can(actor, "s", "Media")  # not on a phone that was handed over to
    with bridge.db.snapshot() as tx:
        patient = get_patient(tx, actor, patient_id) if patient_id else None
        if patient is None:
            check_right(actor, "worklist")
        priors = _priors(tx, actor, patient.id) if patient and lists else []
        visit = _visit(tx, query.get("encounter") or actor.encounter_id, patient)
        prior = next((one for one in priors if one.id == query.get("prior")), None)
        decided = consent.decide(tx, bridge, patient.id) if patient else None
        recorded = decided is not None and bool(decided.consent_ids)
    if patient is not None:
        references = [one.version_reference for one in priors]
        search = f"Media?patient={patient.id}"
        governance.audit_look(bridge, actor, patient_id=patient.id, references=references, query=search)
    chosen = {name: query.get(name) or None for name in ("site", "laterality", "view")}
    return web.render(
        request,
        "capture.html",
        "Take photos",
        patient=patient,
        visit={"label": visit_label(visit, bridge.settings.zone)} if visit else None,
        back_href=(f"/patients/{patient.id}" if lists else f"/capture?patient={patient.id}") if patient else "/",
        handoff=handoff_of(web, actor, patient.id, visit.id if visit else None) if patient else None,
        views=[one for one in views() if one["code"] in OFFERED_VIEWS],
        lateralities=lateralities(),
        chosen=_framing(prior) if prior else chosen,
        sensitivities=[{"code": flag, "display": said, "level": level_of(flag)} for flag, said in NAMED_FLAGS.items()],
        capture=_options(bridge, patient, visit, priors, prior),
        consent={
            "mode": bridge.settings.consent_mode if patient else "disabled",
            "action": f"/patients/{patient.id}/consents" if patient else "",
            "recorded": {"summary": decided.because, "href": f"/patients/{patient.id}/consents", "uses": []}
            if recorded and decided and patient
            else None,
            "uses": _uses(),
        },
    )


def _visit(tx: Connection, encounter_id: str | None, patient: Stored | None) -> Stored | None:
    """Only this patient's own visit; another's is as good as none."""
    found = find(tx, "Encounter", encounter_id) if encounter_id and patient else None
    return found if found and patient and patient_of(found.resource) == patient.id else None


def _framing(photo: Stored) -> dict[str, str | None]:
    resource = photo.resource
    view = code_of(resource.get("view"), PHOTO_VIEW)
    return {"site": site_of(resource), "laterality": laterality_of(resource), "view": view}


def _options(
    bridge: Bridge, patient: Stored | None, visit: Stored | None, priors: list[Stored], prior: Stored | None
) -> dict[str, Any]:
    lesion_id = lesion_of(prior.resource) if prior else None
    framings = [(one, _framing(one)) for one in priors]
    return {
        "upload": "/captures",
        "status": "/captures/{id}",
        "patient": patient.reference if patient else None,
        "encounter": visit.reference if visit else None,
        "lesion": f"BodyStructure/{lesion_id}" if lesion_id else None,
        "max_bytes": bridge.settings.max_capture_bytes,
        "types": TYPES,
        "site_required": True,
        "sites": [
            {"code": site.code, "display": site_wording(site.code), "group": group, "lateral": True}
            for group, sites in groups()
            for site in sites
        ],
        "recent": list(dict.fromkeys(framing["site"] for _, framing in framings if framing["site"])),
        "priors": [
            framing | {"display": f"/captures/{one.id}/display", "label": _label(bridge, one)}
            for one, framing in framings
        ],
    }


def _label(bridge: Bridge, photo: Stored) -> str:
    at = taken_at(photo.resource, bridge.settings.zone)
    return day(at) if at else "no date"


def _uses() -> list[dict[str, Any]]:
    hint = {"treatment-documentation": "Needed for the photo to reach the chart."}
    asked = {"treatment-documentation": "permit"}
    return [
        {
            "code": use,
            "display": codes_of("photo-use")[use],
            "hint": hint.get(use),
            "decision": asked.get(use, "not-asked"),
        }
        for use in OFFERED_USES
    ]
