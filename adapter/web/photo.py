"""/photos/{id}: one photo, where it went, what happened to it, and the form that corrects its details."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from adapter import consent, governance
from adapter.access import Actor, can
from adapter.access.reach import sensitivity
from adapter.batch.operations import replace_media
from adapter.bridge import Bridge
from adapter.compare.priors import find_prior
from adapter.compare.reopening import comparisons_of
from adapter.db.tables import body_structure
from adapter.errors import BadInput, Unprocessable
from adapter.records import Stored, find, find_where
from adapter.records.binaries import get_binary
from adapter.records.confinement import patient_of
from adapter.records.timeline import deliveries_by_media, neighbours, records_about
from adapter.web.bodies import Form
from adapter.web.gate import actor_of, get_photo
from adapter.web.measuring import measuring_context
from adapter.web.pages import Web, see_other
from adapter.web.photo_card import (
    day,
    encounter_of,
    lateralities,
    laterality_of,
    lesion_label,
    lesion_of,
    lesions,
    photo_card,
    receipt_wording,
    site_groups,
    site_of,
    taken_at,
    views,
    visit_label,
    visits,
)
from adapter.web.saved_card import saved_card
from adapter.web.timeline import visits_of
from mappings.body_sites import UnknownBodySite, get_body_site
from mappings.canonical_resources import codes_of
from mappings.capture_to_media import assign
from mappings.external_photo import is_external
from mappings.photos_to_picture import VISIT_SHEETS, comparison_of, derivation_of
from mappings.terms import CONTENT_SHA256, REMOVED, REMOVED_METADATA

HISTORY_SHOWN = 30
USES_SHOWN = ("treatment-documentation", "teaching", "research", "publication-deidentified")
SENT_AGAIN_FROM = frozenset({"failed", "held", "unknown", "withheld"})


def photo_page(web: Web, request: Request) -> Response:
    bridge, actor = web.bridge, actor_of(request)
    governance.settle(bridge)
    with bridge.db.snapshot() as tx:
        media, patient_id = get_photo(tx, actor, "r", request.path_params["id"])
        if comparison := comparison_of(media.resource):  # a picture made of photos is shown where it was made
            return see_other(f"/saved-comparisons/{comparison}")
        if derivation_of(media.resource) in VISIT_SHEETS:  # a PDF
            return see_other(f"/captures/{media.id}/clean")
        patient = find(tx, "Patient", patient_id) if patient_id else None
        sent = deliveries_by_media(tx, [media.id])[media.id]
        earlier_id, later_id = neighbours(tx, media, only=sensitivity(actor, "Media"))
        context = {
            "photo": _photo(tx, bridge, media, sent),
            "earlier": _earlier(tx, bridge, actor, media),
            "previous_href": f"/photos/{earlier_id}" if earlier_id else None,
            "next_href": f"/photos/{later_id}" if later_id else None,
            "consent": _consent(tx, bridge, patient_id),
            "deliveries": [_delivery(bridge, one) for one in sent],
            "history": _history(tx, bridge, media),
            "comparisons": _comparisons(tx, bridge, actor, media, patient_id),
            "edit": _edit(tx, bridge, actor, media, patient_id),
            "measuring": measuring_context(tx, bridge, actor, media),
            "refile_href": _refile_href(actor, media, patient_id),
        }
    governance.audit_look(bridge, actor, patient_id=patient_id, references=[media.version_reference])
    return web.render(request, "photo.html", "Photo", patient=patient, **context)


def _refile_href(actor: Actor, media: Stored, patient_id: str | None) -> str | None:
    may = patient_id and can(actor, "u", "Media") and not is_external(media.resource)
    return f"/refile?media={media.id}" if may else None


def edit_photo(web: Web, request: Request, form: Form) -> Response:
    """POST /photos/{id}: site, side, view, lesion, visit and note; `version` must be the one that was shown."""
    bridge, actor = web.bridge, actor_of(request)
    with bridge.db.transaction() as tx:
        media, patient_id = get_photo(tx, actor, "u", request.path_params["id"])
        _check_choices(tx, bridge, patient_id, form)
        if form.get("version") != str(media.version_id):
            raise BadInput("this photo was changed meanwhile; open it again and repeat the correction")
        changed = _corrected(media, form)
        said = "unchanged"
        if changed != media.resource:
            replace_media(tx, bridge, actor, media, changed, "corrected")
            said = "saved"
    return see_other(f"/photos/{media.id}", said)


def _corrected(media: Stored, form: Form) -> dict[str, Any]:
    resource = media.resource
    lesion, visit = form.get("lesion"), form.get("encounter")
    changed = assign(
        resource,
        body_site=form.get("site") or None,
        laterality=form.get("laterality") or None,
        view=form.get("view") or None,
        lesion=f"BodyStructure/{lesion}" if lesion else None,
        encounter=f"Encounter/{visit}" if visit else None,
    )
    if form.get("note") != (resource.get("note") or [{"text": ""}])[0]["text"]:
        changed = {name: value for name, value in changed.items() if name != "note"}
        changed |= {"note": [{"text": form.get("note")}]} if form.get("note") else {}
    return changed


def _check_choices(tx: Connection, bridge: Bridge, patient_id: str | None, form: Form) -> None:
    """Visit and lesion must be this patient's own. Raises Unprocessable."""
    for field, resource_type in (("encounter", "Encounter"), ("lesion", "BodyStructure")):
        if chosen := form.get(field):
            found = find(tx, resource_type, chosen)
            if found is None or patient_id is None or patient_of(found.resource) != patient_id:
                raise Unprocessable(f"this {field} does not belong to the photo's patient; choose another")
    if site := form.get("site"):
        try:
            get_body_site(site, unlisted="accept" if bridge.settings.accept_unlisted_body_sites else "refuse")
        except UnknownBodySite as error:
            raise Unprocessable(str(error), issue_type="code-invalid") from None
    for field, known in (("laterality", {one["code"] for one in lateralities()}), ("view", codes_of("photo-view"))):
        if form.get(field) and form.get(field) not in known:
            raise BadInput(f"this {field} is not one that can be chosen")


# --- what the page shows --------------------------------------------------------------------------------------------


def _photo(tx: Connection, bridge: Bridge, media: Stored, sent: list[Any]) -> dict[str, Any]:
    resource, zone = media.resource, bridge.settings.zone
    content = resource.get("content", {})
    lesion = find(tx, "BodyStructure", lesion_of(resource) or "-")
    visit = find(tx, "Encounter", encounter_of(resource) or "-")
    extensions = {one["url"]: one for one in content.get("extension", [])}
    return photo_card(media, sent, zone) | {
        "width": resource.get("width"),
        "height": resource.get("height"),
        "byte_size": content.get("size", 0),
        "format": content.get("contentType", "").removeprefix("image/").upper(),
        "sha256": extensions.get(CONTENT_SHA256, {}).get("valueString", "") or _clean_sha256(tx, content),
        "version": str(media.version_id),
        "operator": resource.get("operator", {}).get("display") or resource.get("operator", {}).get("reference"),
        "visit": {"label": visit_label(visit, zone), "href": None} if visit else None,
        "lesion": {"label": lesion_label(lesion), "href": f"/lesions/{lesion.id}"} if lesion else None,
        "note": (resource.get("note") or [{}])[0].get("text"),
        "removed": _removed(tx, media),
        "site_code": site_of(resource),
        "laterality_code": laterality_of(resource),
        "encounter_id": encounter_of(resource),
        "lesion_id": lesion_of(resource),
    }


def _clean_sha256(tx: Connection, content: dict[str, Any]) -> str:
    return get_binary(tx, content["url"].removeprefix("Binary/")).sha256 if content.get("url") else ""


def _removed(tx: Connection, media: Stored) -> list[str]:
    """What the clean copy leaves out, as the capture's Provenance says."""
    wordings = codes_of("removed-metadata")
    found = []
    for one in records_about(tx, "Provenance", "target", media.reference, limit=HISTORY_SHOWN):
        for entity in one.resource.get("entity", []):
            for extension in entity.get("extension", []):
                if extension["url"] == REMOVED:
                    concept = extension["valueCodeableConcept"]
                    code = next((c["code"] for c in concept["coding"] if c["system"] == REMOVED_METADATA), "other")
                    found.append(concept.get("text") if code == "other" else wordings[code])
    return [text for text in dict.fromkeys(found) if text]


def _comparisons(
    tx: Connection, bridge: Bridge, actor: Actor, media: Stored, patient_id: str | None
) -> list[dict[str, Any]]:
    if patient_id is None or not can(actor, "s", "Observation"):
        return []
    saved = comparisons_of(tx, actor, patient_id=patient_id, media_ids=[media.id])
    return [saved_card(one, bridge.settings.zone) for one in saved]


def _earlier(tx: Connection, bridge: Bridge, actor: Actor, media: Stored) -> dict[str, str] | None:
    best = find_prior(tx, media, only=sensitivity(actor, "Media"))
    at = taken_at(best.photo.resource, bridge.settings.zone) if best else None
    if best is None or at is None:
        return None
    return {
        "compare_href": f"/compare?media={best.photo.id}&media={media.id}",
        "label": f"Compare with {day(at)}",
        "because": ", ".join(best.reasons),
    }


def _consent(tx: Connection, bridge: Bridge, patient_id: str | None) -> dict[str, Any]:
    """The decision that counts now, and what was said about the uses people ask for most."""
    decision = consent.decide(tx, bridge, patient_id)
    uses = []
    for use in USES_SHOWN:
        one = consent.decide(tx, bridge, patient_id, use=use)
        said = ("permit" if one.permit else "deny") if one.consent_ids else "not-asked"
        uses.append({"label": codes_of("photo-use")[use], "decision": said})
    latest = find(tx, "Consent", decision.consent_ids[-1].removeprefix("Consent/")) if decision.consent_ids else None
    return {
        "decision": "permit" if decision.permit else "deny",
        "because": decision.because,
        "uses": uses,
        "recorded_at": latest.last_updated.astimezone(bridge.settings.zone) if latest else None,
        "href": f"/patients/{patient_id}/consents" if patient_id else None,
    }


def _delivery(bridge: Bridge, row: Any) -> dict[str, Any]:
    zone = bridge.settings.zone
    return {
        "destination": row.destination,
        "state": str(row.state),
        "reason": row.reason,
        "remedy": row.remedy,
        "receipt": receipt_wording(row.receipt),
        "accepted_at": row.accepted_at and row.accepted_at.astimezone(zone),
        "confirmed_at": row.confirmed_at and row.confirmed_at.astimezone(zone),
        "retry_href": f"/deliveries/{row.id}/send-again" if row.state in SENT_AGAIN_FROM else None,
    }


def _history(tx: Connection, bridge: Bridge, media: Stored) -> list[dict[str, Any]]:
    """AuditEvents about the photo, newest first: who did what and when."""
    events = records_about(tx, "AuditEvent", "entity", media.reference, limit=HISTORY_SHOWN)
    zone = bridge.settings.zone
    return [
        {
            "at": datetime.fromisoformat(one.resource["recorded"]).astimezone(zone),
            "who": next((a["name"] for a in one.resource.get("agent", []) if a.get("name")), "DermBridge"),
            "what": _done(one.resource),
            "detail": one.resource.get("outcomeDesc"),
        }
        for one in events
    ]


_DONE = {"C": "Stored", "R": "Viewed", "U": "Changed", "D": "Deleted", "E": "Listed"}


def _done(event: dict[str, Any]) -> str:
    return _DONE.get(event.get("action", ""), "Touched")


def _edit(tx: Connection, bridge: Bridge, actor: Actor, media: Stored, patient_id: str | None) -> dict[str, Any] | None:
    if not can(actor, "u", "Media") or is_external(media.resource):
        return None
    of_patient = find_where(tx, "BodyStructure", body_structure.c.patient == patient_id) if patient_id else []
    offered = visits_of(tx, patient_id) if patient_id else []
    return {
        "action": f"/photos/{media.id}",
        "site_groups": site_groups(),
        "lateralities": lateralities(),
        "views": views(),
        "visits": visits(offered, bridge.settings.zone),
        "lesions": lesions(of_patient),
    }
