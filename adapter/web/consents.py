"""What a patient agreed to, one Consent per use: the list, one in detail with its evidence, and its withdrawal."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from adapter import consent, governance
from adapter.access import Actor, can, check_scope
from adapter.bridge import Bridge
from adapter.consent import seal_evidence
from adapter.db.tables import consent as consent_table
from adapter.errors import BadInput, NotFound
from adapter.records import Resource, Stored, find_all, find_by_identifier, find_where, get
from adapter.records.binaries import get_binary, open_binary
from adapter.records.confinement import same_patients
from adapter.records.delivery_list import page_of_deliveries
from adapter.records.timeline import records_about
from adapter.web.bodies import Form
from adapter.web.gate import actor_of, get_patient
from adapter.web.pages import Web, see_other
from adapter.web.photo_card import code_of, photo_label
from mappings.canonical_resources import codes_of
from mappings.fhir_time import span
from mappings.form_to_consent import FORM_IDENTIFIER, Method
from mappings.terms import CONSENT_WITNESS, PHOTO_USE, SIGNED_BY, SIGNING_METHOD, WITHDRAWAL

LISTED: Final = 200
HOW_WITHDRAWN: Final = {  # field `how` -> (code of signing-method, how it reads)
    "said": ("verbal", "Said to a member of staff"),
    "written": ("form-fields", "In writing, filed elsewhere"),
    "paper": ("paper-photo", "In writing, photographed here"),
}
_STOPPED: Final = ("withheld", "held")
_UNDER_WAY: Final = ("pending", "sending", "unknown")


def consents_page(web: Web, request: Request) -> Response:
    """GET /patients/{id}/consents: what counts now for each use, and every Consent behind it."""
    bridge, actor = web.bridge, actor_of(request)
    with bridge.db.snapshot() as tx:
        patient = _patient_of_consents(tx, actor, request.path_params["id"])
        found = _consents_of(tx, patient.id)
        uses = [_use(tx, bridge, patient.id, use, wording) for use, wording in codes_of("photo-use").items()]
    shown, search = [one.version_reference for one in found], f"Consent?patient={patient.id}"
    governance.audit_look(bridge, actor, patient_id=patient.id, references=shown, query=search)
    may_record = can(actor, "c", "Consent") and can(actor, "c", "Media")
    return web.render(
        request,
        "consents.html",
        "Consent",
        patient=patient,
        mode=bridge.settings.consent_mode,
        uses=uses,
        consents=[_listed(bridge, one) for one in found],
        record_href=f"/capture?patient={patient.id}#consent" if may_record else None,
    )


def consent_detail(web: Web, request: Request) -> Response:
    """GET /consents/{id}: who agreed to what, how, by what evidence; after a withdrawal also what came of it."""
    bridge, actor = web.bridge, actor_of(request)
    governance.settle(bridge)
    with bridge.db.snapshot() as tx:
        stored, patient = _get_consent(tx, actor, request.path_params["id"])
        resource = stored.resource
        counts = _is_permit(resource) and resource["status"] == "active"
        context = {
            "consent": _detail(tx, bridge, stored),
            "withdrawn": _withdrawn(tx, bridge, stored, patient.id) if _extension(resource, WITHDRAWAL) else None,
            "withdraw": {
                "action": f"/consents/{stored.id}/withdraw",
                "ways": [{"code": code, "display": wording} for code, (_, wording) in HOW_WITHDRAWN.items()],
            }
            if counts and can(actor, "u", "Consent")
            else None,
        }
    governance.audit_look(bridge, actor, patient_id=patient.id, references=[stored.version_reference])
    return web.render(request, "consent.html", "Consent", patient=patient, **context)


def evidence(web: Web, request: Request) -> Response:
    """GET /consents/{id}/evidence: the signed paper or signature, as it was sealed."""
    bridge, actor = web.bridge, actor_of(request)
    with bridge.db.snapshot() as tx:
        stored, patient = _get_consent(tx, actor, request.path_params["id"])
        row = get_binary(tx, _evidence_of(stored.resource))
        content = open_binary(tx, bridge.vault, row).read()
    references = [stored.version_reference, f"Binary/{row.id}"]
    governance.audit_look(bridge, actor, patient_id=patient.id, references=references, detail="evidence")
    kept = "inline" if row.content_type.startswith("image/") else f"attachment; filename=consent-{stored.id}.pdf"
    return Response(content, media_type=row.content_type, headers={"Content-Disposition": kept})


def withdraw(web: Web, request: Request, form: Form) -> Response:
    """POST /consents/{id}/withdraw: how = said | written | paper, reason, by and by_name, the file `evidence`."""
    bridge, actor = web.bridge, actor_of(request)
    with bridge.db.snapshot() as tx:
        stored, _ = _get_consent(tx, actor, request.path_params["id"])
    how, _ = HOW_WITHDRAWN.get(form.get("how"), ("", ""))
    if not how:
        raise BadInput("say how the withdrawal was told: said, in writing, or on a paper photographed here")
    performer: Any = None
    if form.get("by") == "representative":
        if not form.get("by_name"):
            raise BadInput("write the name of the parent or representative who withdrew the consent")
        performer = {"type": "RelatedPerson", "display": form.get("by_name")[:200]}
    picture = form.file("evidence") if how == "paper-photo" else None
    sealed = seal_evidence(bridge, picture.content, picture.content_type) if picture else None
    with bridge.db.transaction() as tx:
        because = form.get("reason")[:500] or None
        how_told = cast(Method, how)
        consent.withdraw(
            tx, bridge, actor, stored.id, how=how_told, performer=performer, because=because, source=sealed
        )
    return see_other(f"/consents/{stored.id}", "withdrawn")


# --- what the pages show --------------------------------------------------------------------------------------------


def _patient_of_consents(tx: Connection, actor: Actor, patient_id: str) -> Stored:
    check_scope(actor, "r", "Consent")
    return get_patient(tx, actor, patient_id)


def _get_consent(tx: Connection, actor: Actor, consent_id: str) -> tuple[Stored, Stored]:
    """(Consent, its patient). Raises Forbidden, or NotFound also for somebody else's."""
    check_scope(actor, "r", "Consent")
    try:
        stored = get(tx, "Consent", consent_id)
        patient = get_patient(tx, actor, str(stored.resource["patient"]["reference"]).removeprefix("Patient/"))
    except NotFound:
        raise NotFound("there is no such consent") from None
    return stored, patient


def _consents_of(tx: Connection, patient_id: str) -> list[Stored]:
    columns = consent_table.c
    of_patient = columns.patient.in_(same_patients(tx, [patient_id]))
    return find_where(tx, "Consent", of_patient, order_by=columns.date.desc(), limit=LISTED)


def _use(tx: Connection, bridge: Bridge, patient_id: str, use: str, wording: str) -> dict[str, Any]:
    decided = consent.decide(tx, bridge, patient_id, use=use)
    said = ("permit" if decided.permit else "deny") if decided.consent_ids else "not-asked"
    return {"label": wording, "decision": said, "permit": decided.permit, "because": decided.because}


def _listed(bridge: Bridge, stored: Stored) -> dict[str, Any]:
    resource = stored.resource
    return {
        "href": f"/consents/{stored.id}",
        "use": use_wording(resource),
        "rule": resource.get("provision", {}).get("type", "permit"),
        "state": _state(resource),
        "signed_at": _time(bridge, resource.get("provision", {}).get("period", {}).get("start")),
        "by": _performer(resource),
    }


def _detail(tx: Connection, bridge: Bridge, stored: Stored) -> dict[str, Any]:
    resource = stored.resource
    how = code_of({"coding": [_extension(resource, SIGNED_BY).get("valueCoding", {})]}, SIGNING_METHOD)
    source = resource.get("sourceAttachment", {})
    events = records_about(tx, "AuditEvent", "entity", stored.reference, limit=50)
    created = next((one.resource for one in reversed(events) if one.resource.get("action") == "C"), {})
    return _listed(bridge, stored) | {
        "recorded_at": _time(bridge, resource.get("dateTime")),
        "recorded_by": next((a["name"] for a in created.get("agent", []) if a.get("name")), None),
        "ends_on": resource.get("provision", {}).get("period", {}).get("end"),
        "how": codes_of("signing-method").get(how or "", "Not known"),
        "witness": _extension(resource, CONSENT_WITNESS).get("valueReference", {}).get("display"),
        "policy": next((one.get("uri") for one in resource.get("policy", [])), None),
        "evidence_href": f"/consents/{stored.id}/evidence" if source.get("url") else None,
        "evidence_is_image": source.get("contentType", "").startswith("image/"),
    }


def _withdrawn(tx: Connection, bridge: Bridge, stored: Stored, patient_id: str) -> dict[str, Any]:
    """When and how it was withdrawn, what is stopped because of it, and who has photos that left before."""
    zone = bridge.settings.zone
    told = next(
        (
            one.resource
            for one in records_about(tx, "Provenance", "target", stored.reference, limit=10)
            if any(target["reference"] == stored.version_reference for target in one.resource["target"])
        ),
        {},
    )
    denials = find_by_identifier(tx, "Consent", FORM_IDENTIFIER, f"withdrawal.{stored.id}")
    copies = consent.copies(tx, patient_id)
    photos = find_all(tx, "Media", dict.fromkeys(one.media_id for one in copies))
    return {
        "at": _time(bridge, _extension(stored.resource, WITHDRAWAL)["valueDateTime"]),
        "reason": next((one["text"] for one in told.get("reason", []) if "coding" not in one), None),
        "denial_href": f"/consents/{denials[0].id}" if denials else None,
        "stopped": _count(tx, patient_id, _STOPPED),
        "under_way": _count(tx, patient_id, _UNDER_WAY),
        "copies": [
            {
                "href": f"/photos/{one.media_id}",
                "label": photo_label(photos.get(one.media_id)),
                "destination": one.destination,
                "since": one.since.astimezone(zone),
            }
            for one in copies
        ],
        "exports": [
            {"who": one.who, "at": one.at.astimezone(zone), "photos": one.photos}
            for one in consent.exports(tx, patient_id)
        ],
    }


def _count(tx: Connection, patient_id: str, states: tuple[str, ...]) -> int:
    within = same_patients(tx, [patient_id])
    return len(page_of_deliveries(tx, patient_ids=within, states=states, count=1000)[0])


def use_wording(resource: Resource) -> str:
    use = next((code for concept in resource.get("category", []) if (code := code_of(concept, PHOTO_USE))), None)
    return codes_of("photo-use").get(use or "", "Another use")


def _state(resource: Resource) -> str:
    if _extension(resource, WITHDRAWAL):
        return "withdrawn"
    return "active" if resource.get("status") == "active" else "ended"


def _is_permit(resource: Resource) -> bool:
    return bool(resource.get("provision", {}).get("type") == "permit")


def _performer(resource: Resource) -> str:
    performer: dict[str, Any] = next(iter(resource.get("performer", [])), {})
    if str(performer.get("reference", "")).startswith("Patient/"):
        return "The patient"
    return performer.get("display") or "Not known"


def _extension(resource: Resource, url: str) -> dict[str, Any]:
    return next((one for one in resource.get("extension", []) if one.get("url") == url), {})


def _evidence_of(resource: Resource) -> str:
    url: str = resource.get("sourceAttachment", {}).get("url", "")
    if not url.startswith("Binary/"):
        raise NotFound("no paper and no signature was kept for this consent")
    return url.removeprefix("Binary/")


def _time(bridge: Bridge, text: str | None) -> datetime | None:
    return span(text, bridge.settings.zone)[0].astimezone(bridge.settings.zone) if text else None
