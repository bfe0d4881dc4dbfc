"""A patient's answer becomes Consents, and a withdrawal ends one: with evidence, Provenance and audit, all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from sqlalchemy import Connection

from adapter import delivery, governance
from adapter.access import Actor, check_patient, check_scope
from adapter.access.reach import check_written
from adapter.bridge import Bridge
from adapter.consent.evidence import MUST_BE_SHOWN, Evidence, keep_evidence, seal_evidence
from adapter.errors import Conflict, Unprocessable
from adapter.records import Stored, create, create_all, find_by_identifier, get, new_id, update_resource
from adapter.records.confinement import same_patients
from mappings import form_to_consent as forms
from mappings.fhir_check import check_resource
from mappings.form_to_consent import FORM_IDENTIFIER, ConsentForm, Method, Source
from mappings.photo_use import Rule
from mappings.provenance import Agent, Entity, provenance
from mappings.terms import CANON, Json

POLICY_URI: Final = f"{CANON}/policy/clinical-photography"
CLOCK_SKEW: Final = timedelta(minutes=5)


def record(
    tx: Connection,
    bridge: Bridge,
    actor: Actor,
    form: ConsentForm,
    *,
    source: bytes | Evidence | None = None,
    source_content_type: str | None = None,
) -> list[Stored]:
    """Store one Consent per use of the form, then let go what was withheld for want of it, and take back what it
    refuses where destinations want that.

    The same form (`form.id`) again is answered with the Consents it made. `source` is the signed paper or signature;
    seal it beforehand with `seal_evidence` to keep the transaction short. For a patient merged away the survivor is
    meant. Raises Forbidden, NotFound, Conflict (same form, other choices), Unprocessable, UnsupportedMedia, TooLarge.
    """
    check_scope(actor, "c", "Consent", some=True)
    form = _for_survivor(tx, form)
    patient_id = form.patient.removeprefix("Patient/")
    _check_reach(tx, actor, patient_id)
    if known := _recorded_before(tx, form):
        return _within_scope(tx, bridge, actor, known)
    at = bridge.now()
    if form.signed_at > at + CLOCK_SKEW:
        raise Unprocessable("the consent is signed in the future; correct the time of signing")
    first = _id_of(f"{form.id}.{next(iter(form.choices), '')}")
    kept = _keep_source(tx, bridge, source, source_content_type, first, patient_id, form.method, at)
    form = replace(form, source=kept or form.source)
    consents = _consents(form, at)
    try:
        stored = create_all(tx, consents, at=at)
    except Conflict:
        raise Conflict("this form is being recorded by somebody else at this moment; send it again") from None
    _within_scope(tx, bridge, actor, stored)
    told = provenance(
        "consent-capture",
        provenance_id=new_id(at),
        targets=[one.version_reference for one in stored],
        agents=_agents(actor, form.performer, form.witness),
        entities=_source_entities(form.source),
        recorded=at,
        occurred=form.signed_at,
    )
    create(tx, told, at=at)
    for one in stored:
        governance.audit(tx, bridge, "create", actor, patient_id=patient_id, references=[one.version_reference])
    for one_id in sorted(same_patients(tx, [patient_id])):
        delivery.outbox.release_withheld(tx, bridge, one_id)
        delivery.take_back_withdrawn(tx, bridge, one_id)
    return stored


def _within_scope(tx: Connection, bridge: Bridge, actor: Actor, stored: list[Stored]) -> list[Stored]:
    for one in stored:
        check_written(tx, bridge, actor, "c", "Consent", one.id)
    return stored


def spoken(
    bridge: Bridge, patient: str, choices: Mapping[str, Rule], *, form_id: str, said_at: datetime
) -> ConsentForm:
    """What the patient (`Patient/id`) said while being photographed, use by use; `form_id` makes it idempotent."""
    site: Any = {"display": bridge.settings.site_name}
    return ConsentForm(
        id=form_id,
        patient=patient,
        performer=patient,
        organization=site,
        policy_uri=POLICY_URI,
        signed_at=said_at,
        method="verbal",
        choices=choices,
    )


def withdraw(
    tx: Connection,
    bridge: Bridge,
    actor: Actor,
    consent_id: str,
    *,
    how: Method,
    performer: str | Json | None = None,
    because: str | None = None,
    source: bytes | Evidence | None = None,
    source_content_type: str | None = None,
) -> Stored:
    """End a Consent and record the refusal that takes its place; returns the ended one.

    `performer` withdrew it (default: the patient), `because` is what was said. Nothing recorded is deleted: what was
    queued is decided again before it leaves, and `consent.copies` lists who has photos already. Withdrawing twice is
    the same as once.
    Raises Forbidden, NotFound, Conflict (it permits nothing now), Unprocessable.
    """
    check_scope(actor, "u", "Consent")
    current = get(tx, "Consent", consent_id)
    patient_ref = str(current.resource["patient"]["reference"])
    patient_id = patient_ref.removeprefix("Patient/")
    _check_reach(tx, actor, patient_id)
    if find_by_identifier(tx, "Consent", FORM_IDENTIFIER, f"withdrawal.{consent_id}"):
        return current
    at = bridge.now()
    by = performer or patient_ref
    denial_id = _id_of(f"withdrawal.{consent_id}")
    kept = _keep_source(tx, bridge, source, source_content_type, denial_id, patient_id, how, at)
    try:
        ended, denial = forms.withdraw(
            current.resource,
            deny_id=denial_id,
            withdrawn_at=at,
            recorded_at=at,
            performer=by,
            method=how,
            source=kept,
        )
    except ValueError as error:
        raise Conflict(str(error)) from None
    check_resource(ended)
    check_resource(denial)
    stored = [update_resource(tx, ended, at=at, expected_version=current.version_id), create(tx, denial, at=at)]
    told = provenance(
        "consent-withdrawal",
        provenance_id=new_id(at),
        targets=[one.version_reference for one in stored],
        agents=_agents(actor, by, None),
        entities=[Entity("revision", current.version_reference), *_source_entities(kept)],
        recorded=at,
        occurred=at,
        because=because,
    )
    create(tx, told, at=at)
    for event, one in zip(("update", "create"), stored, strict=True):
        governance.audit(tx, bridge, event, actor, patient_id=patient_id, references=[one.version_reference])
    for one_id in sorted(same_patients(tx, [patient_id])):
        delivery.take_back_withdrawn(tx, bridge, one_id)
    return stored[0]


def _consents(form: ConsentForm, at: datetime) -> list[Json]:
    try:
        ids = {use: _id_of(f"{form.id}.{use}") for use in form.choices}
        consents = forms.form_to_consent(form, consent_ids=ids, recorded_at=at)
    except ValueError as error:
        raise Unprocessable(str(error)) from None
    for one in consents:
        check_resource(one)
    return consents


def _id_of(identifier: str) -> str:
    """The same form sent twice at once ends in one Consent, the second sender in a Conflict."""
    return str(uuid5(NAMESPACE_URL, f"{FORM_IDENTIFIER}|{identifier}"))


def _recorded_before(tx: Connection, form: ConsentForm) -> list[Stored]:
    """What this form made before, if it is the same form. Raises Conflict when it is not."""
    found = [one for use in form.choices for one in _made_by(tx, form, use)]
    made = [(one.resource["patient"]["reference"], one.resource["provision"]["type"]) for one in found]
    if found and made != [(form.patient, rule) for rule in form.choices.values()]:
        raise Conflict("this form was recorded before with other choices; record the new one under an id of its own")
    return found


def _made_by(tx: Connection, form: ConsentForm, use: str) -> list[Stored]:
    return find_by_identifier(tx, "Consent", FORM_IDENTIFIER, f"{form.id}.{use}")


def _for_survivor(tx: Connection, form: ConsentForm) -> ConsentForm:
    """The form under the patient that a merge left; a patient who signed for himself still does."""
    patient_id = form.patient.removeprefix("Patient/")
    while following := _replaced_by(get(tx, "Patient", patient_id).resource):
        patient_id = following
    patient = f"Patient/{patient_id}"
    return replace(form, patient=patient, performer=patient if form.performer == form.patient else form.performer)


def _replaced_by(patient: Json) -> str | None:
    links = (link["other"]["reference"] for link in patient.get("link", []) if link.get("type") == "replaced-by")
    return next((str(target).removeprefix("Patient/") for target in links), None)


def _check_reach(tx: Connection, actor: Actor, patient_id: str) -> None:
    """A session launched before a merge still reaches its patient under the survivor's id."""
    own = actor.patient_id
    within = own is not None and patient_id in same_patients(tx, [own])
    check_patient(actor, own if within else patient_id)


def _keep_source(
    tx: Connection,
    bridge: Bridge,
    source: bytes | Evidence | None,
    content_type: str | None,
    consent_id: str,
    patient_id: str,
    method: str,
    at: datetime,
) -> Source | None:
    if source is None:
        if method in MUST_BE_SHOWN:
            raise Unprocessable("a signed consent needs its evidence: send the picture of the paper or the signature")
        return None
    evidence = seal_evidence(bridge, source, content_type) if isinstance(source, bytes) else source
    return keep_evidence(tx, bridge, evidence, consent_id, patient_id, at=at)


def _agents(actor: Actor, performer: str | Json, witness: str | Json | None) -> list[Agent]:
    """Who agreed, who was witness, and who wrote it down: a person as enterer, a machine as assembler."""
    wrote: str | Json = {"identifier": {"value": actor.id}} if actor.kind == "machine" else actor.id
    return [
        Agent("attester", performer),
        *([Agent("verifier", witness)] if witness else []),
        Agent("enterer" if actor.kind == "person" else "assembler", wrote),
    ]


def _source_entities(source: Source | None) -> Sequence[Entity]:
    return [Entity("source", source.reference, source.sha256_hex)] if source else []
