"""Every code system, code and profile URL that DermBridge writes, each with the place it was read.

Sources: R4 = FHIR 4.0.1 definitions; D16 = DICOM PS3.16; BALP = IHE Basic Audit Log Patterns 1.1.5;
PCF = IHE Privacy Consent on FHIR. Local codes live under `CANON` and are served from `/fhir`.
SNOMED display texts are licensed: we send system and code, and our own wording in `CodeableConcept.text`.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

Json: TypeAlias = dict[str, Any]

CANON: Final = "https://dermbridge.org/fhir"

# -- code systems ------------------------------------------------------------------------------------------
SNOMED: Final = "http://snomed.info/sct"  # R4 terminologies-systems
LOINC: Final = "http://loinc.org"  # R4 terminologies-systems
DCM: Final = "http://dicom.nema.org/resources/ontology/DCM"  # D16 annex D, R4 terminologies-systems
MEDIA_TYPE: Final = "http://terminology.hl7.org/CodeSystem/media-type"  # R4 Media.type
IDENTIFIER_TYPE: Final = "http://terminology.hl7.org/CodeSystem/v2-0203"  # R4 Identifier.type
CONFIDENTIALITY: Final = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"  # R4 security-labels
ACT_CODE: Final = "http://terminology.hl7.org/CodeSystem/v3-ActCode"  # R4 security-labels, Provenance.activity
ACT_REASON: Final = "http://terminology.hl7.org/CodeSystem/v3-ActReason"  # R4 v3-PurposeOfUse
DATA_OPERATION: Final = "http://terminology.hl7.org/CodeSystem/v3-DataOperation"  # R4 Provenance.activity
PARTICIPATION_TYPE: Final = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"  # PCF actor.role
ROLE_CODE: Final = "http://terminology.hl7.org/CodeSystem/v3-RoleCode"  # R4 RelatedPerson.relationship
LIFECYCLE: Final = "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle"  # R4 Provenance.activity
PROVENANCE_AGENT: Final = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"  # R4
CONSENT_SCOPE: Final = "http://terminology.hl7.org/CodeSystem/consentscope"  # R4 Consent.scope
OBSERVATION_CATEGORY: Final = "http://terminology.hl7.org/CodeSystem/observation-category"  # R4 Observation.category
CONSENT_CATEGORY: Final = "http://terminology.hl7.org/CodeSystem/consentcategorycodes"  # R4 Consent.category
UCUM: Final = "http://unitsofmeasure.org"  # R4 Quantity.system
URI: Final = "urn:ietf:rfc:3986"  # R4 Identifier.system for values that are URIs themselves
DICOM_UID: Final = "urn:dicom:uid"  # R4 ImagingStudy.identifier

PHOTO_VIEW: Final = f"{CANON}/CodeSystem/photo-view"
PHOTO_USE: Final = f"{CANON}/CodeSystem/photo-use"
PHOTO_LABEL: Final = f"{CANON}/CodeSystem/photo-label"
IDENTITY_STATE: Final = f"{CANON}/CodeSystem/identity-state"
PHOTO_ORIGIN: Final = f"{CANON}/CodeSystem/photo-origin"
REMOVED_METADATA: Final = f"{CANON}/CodeSystem/removed-metadata"
SIGNING_METHOD: Final = f"{CANON}/CodeSystem/signing-method"
PHOTO_FINDING: Final = f"{CANON}/CodeSystem/photo-finding"
COMPARISON_VERDICT: Final = f"{CANON}/CodeSystem/comparison-verdict"
PICTURE_DERIVATION: Final = f"{CANON}/CodeSystem/picture-derivation"
PHOTO_MEASURE: Final = f"{CANON}/CodeSystem/photo-measure"
AUDIT_SUBTYPE: Final = f"{CANON}/CodeSystem/audit-subtype"

# -- extensions --------------------------------------------------------------------------------------------
BODY_STRUCTURE: Final = "http://hl7.org/fhir/StructureDefinition/bodySite"  # R4, Reference(BodyStructure)
CONSENT_WITNESS: Final = "http://hl7.org/fhir/StructureDefinition/consent-Witness"  # R4
DATA_ABSENT: Final = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"  # R4
UNCERTAINTY: Final = "http://hl7.org/fhir/StructureDefinition/iso21090-uncertainty"  # R4, on Quantity
UNCERTAINTY_TYPE: Final = "http://hl7.org/fhir/StructureDefinition/iso21090-uncertaintyType"  # R4, on Quantity
CONTENT_SHA256: Final = f"{CANON}/StructureDefinition/content-sha256"
LATERALITY: Final = f"{CANON}/StructureDefinition/laterality"
REMOVED: Final = f"{CANON}/StructureDefinition/removed-metadata"
WITHDRAWAL: Final = f"{CANON}/StructureDefinition/consent-withdrawal"
SIGNER_RELATION: Final = f"{CANON}/StructureDefinition/signer-relation"
DERIVED_FROM: Final = f"{CANON}/StructureDefinition/derived-from"
COMPARISON_VIEW: Final = f"{CANON}/StructureDefinition/comparison-view"
PHOTO_MEASUREMENT: Final = f"{CANON}/StructureDefinition/photo-measurement"
SIGNED_BY: Final = f"{CANON}/StructureDefinition/consent-signed-by"

# -- profiles we claim -------------------------------------------------------------------------------------
PCF: Final = "https://profiles.ihe.net/ITI/PCF/StructureDefinition"  # PCF
BALP: Final = "https://profiles.ihe.net/ITI/BALP/StructureDefinition"  # BALP

# -- single codes ------------------------------------------------------------------------------------------
PHOTO_DOCUMENT: Final = "72170-4"  # LOINC "Photographic image, unspecified body region", R4 c80-doc-typecodes
PATIENT_CONSENT: Final = "59284-0"  # LOINC "Patient Consent", R4 consent-category
EXTERNAL_CAMERA: Final = "XC"  # D16 CID 29, DICOM modality
DERMOSCOPY: Final = "DMS"  # D16 CID 29, DICOM modality


def coding(system: str, code: str, display: str | None = None) -> Json:
    """A FHIR Coding; `display` is left out unless we own the wording or may print it."""
    return {"system": system, "code": code} | ({"display": display} if display else {})


def concept(system: str, code: str, display: str | None = None, *, text: str | None = None) -> Json:
    """A FHIR CodeableConcept of one coding, with our own wording as `text`."""
    return {"coding": [coding(system, code, display)]} | ({"text": text} if text else {})


def reference(target: str | Json) -> Json:
    """A FHIR Reference from `Type/id`; one that is already a Reference (an identifier, a display) is kept."""
    return {"reference": target} if isinstance(target, str) else dict(target)


def extension(url: str, **value: Any) -> Json:
    """A FHIR Extension: `extension(URL, valueString="x")`."""
    return {"url": url, **value}


def has_code(concepts: list[Json] | None, system: str, code: str | None = None) -> bool:
    """Whether any Coding, in codings or CodeableConcepts, is of `system` (and is `code`, when given)."""
    codings = (c for one in concepts or [] for c in (one.get("coding", []) if "coding" in one else [one]))
    return any(c.get("system") == system and code in (None, c.get("code")) for c in codings)
