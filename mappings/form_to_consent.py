"""A signed consent form becomes R4 Consents, one per use, so that each can be withdrawn on its own.

Shape: IHE PCF (https://profiles.ihe.net/ITI/PCF). A ticked box permits, an unticked one denies (a refusal is
evidence), a box that was not on the form gives no Consent at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, Literal

from mappings.canonical_resources import codes_of
from mappings.fhir_time import fhir_date_time
from mappings.photo_use import PhotoUse, Rule, get_photo_use
from mappings.terms import (
    ACT_REASON,
    CANON,
    CONSENT_SCOPE,
    CONSENT_WITNESS,
    CONTENT_SHA256,
    LOINC,
    PARTICIPATION_TYPE,
    PATIENT_CONSENT,
    PCF,
    PHOTO_USE,
    ROLE_CODE,
    SIGNED_BY,
    SIGNER_RELATION,
    SIGNING_METHOD,
    WITHDRAWAL,
    Json,
    coding,
    concept,
    extension,
    reference,
)

FORM_IDENTIFIER: Final = f"{CANON}/consent-form"
Method = Literal["verbal", "form-fields", "signature-image", "paper-photo"]


@dataclass(frozen=True, slots=True)
class Source:
    """The signed paper or picture: `Binary/id` with its MIME type, or `DocumentReference/id`; SHA-256 of its bytes."""

    reference: str
    content_type: str | None = None
    sha256_hex: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentForm:
    """One signing. `id` makes it idempotent; `performer` is the patient or who signed for the patient, then with
    `relation`, a v3-RoleCode such as MTH. `choices` is use -> permit or deny; `ends_on` the last day it counts."""

    id: str
    patient: str
    performer: str
    organization: str
    policy_uri: str
    signed_at: datetime
    method: Method
    choices: Mapping[str, Rule]
    relation: str | None = None
    source: Source | None = None
    witness: str | None = None
    ends_on: date | None = None
    grantee: str | None = None


def form_to_consent(form: ConsentForm, *, consent_ids: Mapping[str, str], recorded_at: datetime) -> list[Json]:
    """R4 Consents in the order of `form.choices`, each under `consent_ids[use]`.

    ValueError: a use, method or choice outside its list, nothing chosen, or a signer who is not the patient and has
    no relation. KeyError when a use has no id.
    """
    _check_form(form)
    return [
        _consent(form, get_photo_use(use), rule, consent_id=consent_ids[use], recorded_at=recorded_at)
        for use, rule in form.choices.items()
    ]


def withdraw(
    consent: Json,
    *,
    deny_id: str,
    withdrawn_at: datetime,
    recorded_at: datetime,
    performer: str | Json,
    method: Method,
    source: Source | None = None,
) -> tuple[Json, Json]:
    """(the old Consent, inactive and marked with the time; a new Consent that denies the same).

    The denial says what the default would say anyway, so that "the newest wins" holds even when an old copy of the
    permit comes back from elsewhere. ValueError when the Consent is not an active permit.
    """
    provision = consent.get("provision", {})
    if consent.get("status") != "active" or provision.get("type") != "permit":
        raise ValueError("Only an active consent that permits something can be withdrawn.")
    _check_method(method)
    at = fhir_date_time(withdrawn_at)
    old = consent | {
        "extension": [*consent.get("extension", []), extension(WITHDRAWAL, valueDateTime=at)],
        "status": "inactive",
    }
    limits = {key: provision[key] for key in _LIMITS if key in provision}
    kept = {key: consent[key] for key in _SHARED if key in consent}
    denial = _without_none(
        resourceType="Consent",
        id=deny_id,
        meta={"profile": [_profile(purpose=provision.get("purpose", []))]} if source else None,
        extension=[_signed_by(method)],
        identifier=[{"system": FORM_IDENTIFIER, "value": f"withdrawal.{consent['id']}"}],
        status="active",
        dateTime=fhir_date_time(recorded_at),
        performer=[reference(performer)],
        **_source(source),
        **kept,
        provision={"type": "deny", "period": {"start": at}, **limits},
    )
    return old, denial


_LIMITS: Final = ("actor", "securityLabel", "purpose", "dataPeriod", "data")
_SHARED: Final = ("scope", "category", "patient", "organization", "policy")


def _check_form(form: ConsentForm) -> None:
    _check_method(form.method)
    if not form.choices:
        raise ValueError("The form holds no choice: give at least one use with permit or deny.")
    if wrong := [use for use, rule in form.choices.items() if rule not in ("permit", "deny")]:
        raise ValueError(f"The choice for {', '.join(wrong)} must be permit or deny.")
    if form.performer != form.patient and form.relation is None:
        raise ValueError("Somebody else signed for the patient: say how they are related (a v3-RoleCode).")


def _check_method(method: str) -> None:
    if method not in codes_of("signing-method"):
        raise ValueError(f"No such signing method: {method[:20]!r}. Known: {', '.join(codes_of('signing-method'))}.")


def _consent(form: ConsentForm, use: PhotoUse, rule: Rule, *, consent_id: str, recorded_at: datetime) -> Json:
    purpose = [coding(*use.purpose)]
    return _without_none(
        resourceType="Consent",
        id=consent_id,
        meta={"profile": [_profile(purpose)]} if form.source else None,
        extension=[
            _signed_by(form.method),
            *([extension(CONSENT_WITNESS, valueReference=reference(form.witness))] if form.witness else []),
        ],
        identifier=[{"system": FORM_IDENTIFIER, "value": f"{form.id}.{use.code}"}],
        status="active",
        scope=concept(CONSENT_SCOPE, "patient-privacy"),
        category=[concept(LOINC, PATIENT_CONSENT), concept(*use.category), concept(PHOTO_USE, use.code)],
        patient=reference(form.patient),
        dateTime=fhir_date_time(recorded_at),
        performer=[_performer(form)],
        organization=[reference(form.organization)],
        **_source(form.source),
        policy=[{"uri": form.policy_uri}],
        provision=_without_none(
            type=rule,
            period=_without_none(
                start=fhir_date_time(form.signed_at),
                end=form.ends_on.isoformat() if form.ends_on and rule == "permit" else None,  # a refusal never lapses
            ),
            actor=[{"role": concept(PARTICIPATION_TYPE, "IRCP"), "reference": reference(form.grantee)}]
            if form.grantee
            else None,
            purpose=purpose,
        ),
    )


def _profile(purpose: list[Json]) -> str:
    """PCF Basic for treatment; else Intermediate, because Basic binds purpose to treatment, payment and operations."""
    basic = all(one == coding(ACT_REASON, "TREAT") for one in purpose)
    return f"{PCF}/IHE.PCF.{'consentBasic' if basic else 'consentIntermediate'}"


def _performer(form: ConsentForm) -> Json:
    signer = reference(form.performer)
    if form.relation is None:
        return signer
    return {"extension": [extension(SIGNER_RELATION, valueCodeableConcept=concept(ROLE_CODE, form.relation))], **signer}


def _signed_by(method: str) -> Json:
    return extension(SIGNED_BY, valueCoding=coding(SIGNING_METHOD, method))


def _source(source: Source | None) -> Json:
    if source is None:
        return {}
    digest = [extension(CONTENT_SHA256, valueString=source.sha256_hex)] if source.sha256_hex else None
    if not source.reference.startswith("Binary/"):
        return {"sourceReference": _without_none(extension=digest, reference=source.reference)}
    return {"sourceAttachment": _without_none(extension=digest, contentType=source.content_type, url=source.reference)}


def _without_none(**elements: Any) -> Json:
    return {name: value for name, value in elements.items() if value is not None}
