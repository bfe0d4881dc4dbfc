"""A client's R4 Media, or Consent, read as what a capture page would have sent: so that one use case decides on both.

Pure: bytes, ids of rows and the clock stay with the caller. What we would not keep is refused, never dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Any, Final

from mappings.body_sites import SNOMED_LATERALITY
from mappings.form_to_consent import FORM_IDENTIFIER
from mappings.photo_use import PHOTO_USES
from mappings.security_labels import flags_named_by
from mappings.terms import (
    ACT_REASON,
    BODY_STRUCTURE,
    CONSENT_WITNESS,
    LATERALITY,
    PHOTO_USE,
    PHOTO_VIEW,
    SIGNED_BY,
    SIGNER_RELATION,
    SNOMED,
    URI,
    Json,
)

_SIDES: Final = {code: side for side, code in SNOMED_LATERALITY.items()}
_KEPT: Final = frozenset(
    {"subject", "encounter", "createdDateTime", "bodySite", "view", "deviceName", "operator", "note", "identifier"}
)
_OURS: Final = frozenset(  # said by us: read over when a client sends back what it got
    {"resourceType", "id", "meta", "status", "type", "modality", "issued", "height", "width", "content", "text"}
)


def media_to_capture(media: Json) -> Json:
    """The metadata of a capture (docs/captures.md) from a Media whose picture comes beside it.

    Raises ValueError naming an element that would not be kept, or a code that is not ours.
    """
    if media.get("status") != "completed":
        raise ValueError("only a photo that exists can be stored: Media.status must be 'completed'")
    if strange := sorted(media.keys() - _KEPT - _OURS):
        raise ValueError(f"these elements of Media are not kept here: {', '.join(strange)}; leave them out")
    site = media.get("bodySite", {})
    extensions = {one["url"]: one for one in site.get("extension", [])}
    notes = media.get("note", [])
    if len(notes) > 1:
        raise ValueError("a photo has one note here; join them")
    side = _code([extensions.get(LATERALITY, {}).get("valueCodeableConcept", {})], SNOMED)
    found = {
        "patient": _patient(media.get("subject")),
        "encounter": media.get("encounter", {}).get("reference"),
        "taken_at": media.get("createdDateTime"),
        "body_site": _code([site], SNOMED),
        "laterality": _SIDES.get(side, side) if side else None,
        "view": _code([media.get("view", {})], PHOTO_VIEW),
        "lesion": extensions.get(BODY_STRUCTURE, {}).get("valueReference", {}).get("reference"),
        "device": media.get("deviceName"),
        "operator": media.get("operator", {}).get("reference"),
        "note": notes[0]["text"] if notes else None,
        "sensitivity": flags_named_by(media.get("meta", {}).get("security", [])),
        "identifiers": [
            {"system": one["system"], "value": one["value"]}
            for one in media.get("identifier", [])
            if one.get("system", URI) != URI and "value" in one  # a UUID is ours to give
        ],
    }
    return {name: value for name, value in found.items() if value}


def consent_to_form(consent: Json) -> Json:
    """What a ConsentForm needs beyond organisation, policy and id: {patient, performer, relation, method, choices,
    signed_at (FHIR dateTime), ends_on, witness}. One Consent says one use. Raises ValueError."""
    provision = consent.get("provision", {})
    if consent.get("status") != "active":
        raise ValueError("only an active consent can be recorded; a given one is withdrawn on its page")
    if "provision" in provision:
        raise ValueError("exceptions within a provision are not kept; send one Consent for each use")
    use = _code(consent.get("category", []), PHOTO_USE) or _use_of(provision.get("purpose", []))
    if use is None:
        known = ", ".join(PHOTO_USES)
        raise ValueError(f"say the use, as a code of {PHOTO_USE} in Consent.category: {known}")
    if provision.get("type") not in ("permit", "deny"):
        raise ValueError("Consent.provision.type must be 'permit' or 'deny'")
    extensions = {one["url"]: one for one in consent.get("extension", [])}
    performer = next(iter(consent.get("performer", [])), consent["patient"])
    relation = {one["url"]: one for one in performer.get("extension", [])}.get(SIGNER_RELATION, {})
    period = provision.get("period", {})
    end = period.get("end")
    return {
        "patient": consent["patient"].get("reference"),
        "performer": performer.get("reference") or {k: v for k, v in performer.items() if k != "extension"},
        "relation": next((one["code"] for one in relation.get("valueCodeableConcept", {}).get("coding", [])), None),
        "method": extensions.get(SIGNED_BY, {}).get("valueCoding", {}).get("code")
        or ("paper-photo" if "sourceAttachment" in consent else "form-fields"),
        "choices": {use: provision["type"]},
        "signed_at": period.get("start") or consent.get("dateTime"),
        "ends_on": date.fromisoformat(end[:10]) if end else None,
        "witness": extensions.get(CONSENT_WITNESS, {}).get("valueReference"),
        "id": next((one["value"] for one in consent.get("identifier", []) if _is_own(one)), None),
    }


def _is_own(identifier: Json) -> bool:
    """Any identifier names the form, but not one that we gave to what we made of it."""
    return "value" in identifier and identifier.get("system") != FORM_IDENTIFIER


def _use_of(purposes: list[Json]) -> str | None:
    given = {(one.get("system"), one.get("code")) for one in purposes}
    return "treatment-documentation" if given == {(ACT_REASON, "TREAT")} else None


def _patient(subject: Json | None) -> Any:
    if not subject:
        return None
    if "reference" in subject:
        return subject["reference"]
    identifier = subject.get("identifier", {})
    return {"system": identifier.get("system", ""), "value": identifier.get("value", "")}


def _code(concepts: Iterable[Json], system: str) -> str | None:
    codings = (one for concept in concepts for one in concept.get("coding", []))
    return next((str(one["code"]) for one in codings if one.get("system") == system and "code" in one), None)
