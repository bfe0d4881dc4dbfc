"""What `connectors check` says of a FHIR destination: its CapabilityStatement and the scopes we were granted.

http://hl7.org/fhir/R4/capabilitystatement.html. A statement is a claim: servers leave out what they do and promise what
they do not, so a missing interaction is an error only where nothing would work without it.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

from connectors.auth import Credentials, find_missing_scopes
from connectors.contract import DeliveryError, Finding
from connectors.fhir_batch import Look
from connectors.fhir_server import FhirServer
from connectors.kinds import FhirR4Profile
from connectors.photo_check import declared_photos
from connectors.smart_check import check_searches, check_smart
from mappings.terms import URI

KINDS: Final = {"fhir-media": "Media", "fhir-documentreference": "DocumentReference"}
OPERATION: Final = {"match": "match", "cross-reference": "ihe-pix"}
PARAMETERS: Final = {"identifier": ["identifier"], "demographics": ["family", "birthdate"]}
LETTER: Final = {"create": "c", "read": "r", "search-type": "s", "update": "u"}


def check(profile: FhirR4Profile, server: FhirServer, credentials: Credentials) -> list[Finding]:
    """Reads only. What cannot be reached is a finding, not an exception."""
    try:
        statement = server.capabilities()
        authorised = credentials.authorization()
    except DeliveryError as error:
        return [Finding("connection", "error", str(error), error.remedy)]
    findings = [Finding("connection", "ok", f"{profile.base_url} answers"), _version(statement)]
    findings += _software(profile, statement) + check_smart(profile, server)
    findings += [_interactions(statement, kind, wanted) for kind, wanted in _needed(profile)]
    if all(_missing(statement, kind, ["create"]) for kind in map(KINDS.__getitem__, profile.routes)):
        remedy = "Choose routes the destination offers, or ask it to allow them."
        findings.append(Finding("routes", "error", "no route of the profile is declared", remedy))
    findings += [_lookup(statement, way) for way in profile.patient_lookup.ways]
    findings += declared_photos(profile, statement, credentials.granted if authorised else None)
    if profile.conditional_create:
        findings.append(_conditional(statement, KINDS[profile.routes[0]]))
    if profile.batch_reads:
        findings.append(_batch(statement, server, KINDS[profile.routes[0]]))
    if authorised and credentials.granted is not None:
        findings.append(_scopes(profile, credentials.granted))
    return findings + check_searches(profile, server)


def _needed(profile: FhirR4Profile) -> list[tuple[str, list[str]]]:
    needed = [("Patient", ["search-type"])]
    if profile.encounter.policy != "omit":
        needed.append(("Encounter", ["search-type"]))
    if profile.binary_upload != "inline":
        needed.append(("Binary", ["create", "read"]))
    needed += [(KINDS[route], ["create", "read", "search-type", "update"]) for route in profile.routes]
    if profile.consent_strategy == "resource":
        needed.append(("Consent", ["create", "search-type"]))
    if profile.observations:
        needed.append(("Observation", ["create", "search-type", "update"]))
    return needed


def _declared(statement: dict[str, Any], kind: str) -> dict[str, Any]:
    types = [each for rest in statement.get("rest", []) for each in rest.get("resource", [])]
    return next((each for each in types if each.get("type") == kind), {})


def _missing(statement: dict[str, Any], kind: str, wanted: list[str]) -> list[str]:
    offered = {each.get("code") for each in _declared(statement, kind).get("interaction", [])}
    return [each for each in wanted if each not in offered]


def _interactions(statement: dict[str, Any], kind: str, wanted: list[str]) -> Finding:
    missing = _missing(statement, kind, wanted)
    if not missing:
        return Finding(kind, "ok", ", ".join(wanted))
    remedy = "Try one photo with `connectors dry-run`; ask the destination if it is refused."
    return Finding(kind, "warning", f"not declared: {', '.join(missing)}", remedy)


def _lookup(statement: dict[str, Any], way: str) -> Finding:
    subject = f"asking for patients by {way}"
    declared = _declared(statement, "Patient")
    if way in OPERATION:
        offered = [str(each.get("name", "")).lstrip("$") for each in declared.get("operation", [])]
        if OPERATION[way] in offered:
            return Finding(subject, "ok", f"${OPERATION[way]} is declared")
        remedy = f"Try `connectors look-up`; if it does not answer, take {way!r} out of patient_lookup.ways."
        return Finding(subject, "warning", f"Patient/${OPERATION[way]} is not declared", remedy)
    offered = [each.get("name") for each in declared.get("searchParam", [])]
    missing = [name for name in PARAMETERS[way] if offered and name not in offered]
    if missing or _missing(statement, "Patient", ["search-type"]):
        what = ", ".join(missing) or "search"
        return Finding(subject, "warning", f"not declared: {what}", f"Take {way!r} out of patient_lookup.ways if so.")
    return Finding(subject, "ok", "declared")


def _version(statement: dict[str, Any]) -> Finding:
    version = str(statement.get("fhirVersion", "none"))
    if version.startswith("4.0"):
        return Finding("FHIR version", "ok", version)
    return Finding("FHIR version", "error", f"{version} instead of 4.0", "Use the R4 address of the destination.")


def _software(profile: FhirR4Profile, statement: dict[str, Any]) -> list[Finding]:
    """What runs there, held against what the profile was last seen to work with."""
    software = statement.get("software", {})
    told = " ".join(str(software[name]) for name in ("name", "version") if software.get(name))
    if not told:
        return []
    if profile.tested.against and profile.tested.against not in told:
        remedy = "Send a photo on a test system, then write this version and the day into [tested]."
        return [Finding("software", "warning", f"{told}; tested against {profile.tested.against}", remedy)]
    return [Finding("software", "ok", told)]


def _conditional(statement: dict[str, Any], kind: str) -> Finding:
    if _declared(statement, kind).get("conditionalCreate") is True:
        return Finding("conditional create", "ok", "declared")
    remedy = "Leave it on if the destination honours If-None-Exist anyway; a search before each write guards as well."
    return Finding("conditional create", "warning", f"not declared for {kind}", remedy)


def _batch(statement: dict[str, Any], server: FhirServer, kind: str) -> Finding:
    """Asked for what nobody has: an empty search and a read of nothing must come back as two answers."""
    nobody = str(uuid.uuid4())
    looks = [Look("Patient", "", URI, f"urn:uuid:{nobody}"), Look(kind, nobody)]
    remedy = "Set batch_reads = false in the profile."
    try:
        with server.asked_together(looks):
            found = server.find_by_identifier("Patient", looks[0]._asdict()), server.find(kind, nobody)
    except DeliveryError as error:
        return Finding("batch", "error", str(error), remedy)
    if found != ([], None):
        return Finding("batch", "error", "what nobody has was found in a batch", remedy)
    declared = {each.get("code") for rest in statement.get("rest", []) for each in rest.get("interaction", [])}
    return Finding("batch", "ok", "declared, and answers" if "batch" in declared else "answers, though not declared")


def _scopes(profile: FhirR4Profile, granted: str) -> Finding:
    needed = [(kind, LETTER[each]) for kind, wanted in _needed(profile) for each in wanted]
    missing = find_missing_scopes(granted, needed)
    if not missing:
        return Finding("scopes", "ok", "all that is needed was granted")
    return Finding("scopes", "error", f"not granted: {', '.join(missing)}", "Have these scopes granted to our client.")
