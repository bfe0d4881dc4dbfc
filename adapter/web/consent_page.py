"""POST /patients/{id}/consents: the consent form beside the camera."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapter import consent
from adapter.access import check_scope
from adapter.bridge import Bridge
from adapter.consent import POLICY_URI, ConsentForm, seal_evidence
from adapter.errors import BadInput
from adapter.records import Stored, new_id
from adapter.web.bodies import Form
from adapter.web.gate import actor_of, get_patient
from adapter.web.pages import Web, see_other, wants_json
from adapter.web.photo_card import day
from mappings.photo_use import Rule

METHODS: Final = {  # field `method` -> (code of signing-method, how it reads)
    "verbal": ("verbal", "Spoken consent"),
    "form": ("form-fields", "Consent signed elsewhere"),
    "signature": ("signature-image", "Signed consent"),
    "paper": ("paper-photo", "Consent on paper"),
}
RELATIONS: Final = {  # what people write -> v3-RoleCode; anyone else is a responsible party
    "mother": "MTH",
    "father": "FTH",
    "parent": "PRN",
    "guardian": "GUARD",
    "spouse": "SPS",
    "husband": "HUSB",
    "wife": "WIFE",
    "daughter": "DAUC",
    "son": "SONC",
}


def record_consent(web: Web, request: Request, form: Form) -> Response:
    """201 {"id", "summary"} for the page's script, else back to the camera."""
    bridge, actor = web.bridge, actor_of(request)
    check_scope(actor, "c", "Consent")
    with bridge.db.snapshot() as tx:
        patient = get_patient(tx, actor, request.path_params["id"])
    method, wording = METHODS.get(form.get("method"), ("", ""))
    if not method:
        raise BadInput("say how consent was given: spoken, signed here, on paper, or signed elsewhere")
    if method == "verbal" and not form.get("statement_read"):
        raise BadInput("tick that the photo was explained and the patient agreed")
    signed = _form(bridge, patient, form, method)
    picture = form.file("evidence")
    evidence = seal_evidence(bridge, picture.content, picture.content_type) if picture else None
    with bridge.db.transaction() as tx:
        stored = consent.record(tx, bridge, actor, signed, source=evidence)
    by = "a representative" if signed.relation else "the patient"
    summary = f"{wording} by {by}, {day(signed.signed_at.astimezone(bridge.settings.zone))}, taken by {actor.display}."
    if wants_json(request):
        return JSONResponse({"id": stored[0].id, "summary": summary}, 201)
    return see_other(f"/capture?patient={patient.id}", "consent")


def _form(bridge: Bridge, patient: Stored, form: Form, method: Any) -> ConsentForm:
    """Raises BadInput when nothing was chosen or a representative has no name."""
    choices = {
        name.removeprefix("use."): _rule(value)
        for name, value in form.fields
        if name.startswith("use.") and value in ("permit", "deny")
    }
    if not choices:
        raise BadInput("choose yes or no for at least one use")
    performer: Any = patient.reference
    relation = None
    if form.get("given_by") == "representative":
        if not form.get("given_by_name"):
            raise BadInput("write the name of the parent or representative who consented")
        performer = {"type": "RelatedPerson", "display": form.get("given_by_name")[:200]}
        relation = RELATIONS.get(form.get("relationship").casefold(), "RESPRSN")
    witness: Any = {"display": form.get("witness")[:200]} if form.get("witness") else None
    organization: Any = {"display": bridge.settings.site_name}
    at = bridge.now()
    return ConsentForm(
        id=new_id(at),
        patient=patient.reference,
        performer=performer,
        organization=organization,
        policy_uri=POLICY_URI,
        signed_at=at,
        method=method,
        choices=choices,
        relation=relation,
        witness=witness,
    )


def _rule(value: str) -> Rule:
    return "permit" if value == "permit" else "deny"
