"""PID -> FHIR R4 Patient, by the HL7/v2-to-fhir segment map `PID[Patient]` and the null rules of `snapshot`.

Only what filing a photo needs: race, religion, citizenship, nationality and ethnic group are not read, and social
security numbers only on request (data minimisation, GDPR article 5(1)(c)).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import tzinfo
from typing import Any, NamedTuple

from mappings.hl7v2.datatypes import (
    CODES,
    Fragment,
    Systems,
    address,
    codeable_concept,
    contact_point,
    human_name,
    identifier_type,
)
from mappings.hl7v2.dtm import DTM
from mappings.hl7v2.er7 import Repetition, Segment
from mappings.hl7v2.snapshot import apply_list, apply_single, identifiers, replace_identifiers, set_element

MOTHERS_MAIDEN_NAME = "http://hl7.org/fhir/StructureDefinition/patient-mothersMaidenName"
BIRTH_TIME = "http://hl7.org/fhir/StructureDefinition/patient-birthTime"
US_SSN = "http://hl7.org/fhir/sid/us-ssn"
_MARITAL_STATUS = "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus"
_NULL_FLAVOR = "http://terminology.hl7.org/CodeSystem/v3-NullFlavor"
_BCP_47 = "urn:ietf:bcp:47"
_SSN_TYPES = (identifier_type("SS"), identifier_type("SSN"))
_YES_NO = {"Y": True, "N": False}


def update_patient(
    patient: dict[str, Any] | None,
    pid: Segment,
    *,
    systems: Systems,
    default_system: str | None = None,
    default_offset: tzinfo | None = None,
    keep_ssn: bool = False,
    ignoring: Collection[tuple[str, str]] = (),
) -> dict[str, Any]:
    """The Patient after this PID; `patient` is what we keep now (never changed), None for a new one.

    `ignoring`: (system, value) that PID holds but are not to become identifiers of this patient.

    `systems` names identifier systems by assigning authority; `default_system` is for PID-3 without authority.
    `default_offset` completes times that carry no zone (offset of MSH-7, or the site's zone).
    Raises MessageError (condition 102) when PID-7 or PID-29 is not a date.
    """
    updated = {"resourceType": "Patient", "active": True} if patient is None else dict(patient)
    sent = _identifiers(pid, systems, default_system, keep_ssn)
    replace_identifiers(updated, [one for one in sent if (one.get("system"), one["value"]) not in ignoring])
    apply_list(updated, "name", pid, [(5, human_name), (9, human_name)])
    apply_list(
        updated,
        "telecom",
        pid,
        [
            (13, lambda telecom: contact_point(telecom, "home")),
            (14, lambda telecom: contact_point(telecom, "work")),
            (40, contact_point),
        ],
    )
    apply_list(updated, "address", pid, [(11, address)])
    _apply_county(updated, pid)
    apply_single(updated, "gender", pid, 8, lambda sex: CODES["administrative_gender"].get(sex.text(), "unknown"))
    apply_single(updated, "maritalStatus", pid, 16, _marital_status)
    apply_single(updated, "communication", pid, 15, _communication)
    _apply_birth(updated, pid, default_offset)
    _apply_choice(updated, pid, _MULTIPLE_BIRTH, _birth_order(pid.text(25)))
    died_at = DTM.parse(pid.text(29), "PID^1^29").fhir_datetime(default_offset) if pid.text(29) else None
    _apply_choice(updated, pid, _DECEASED, died_at)
    _apply_maiden_name(updated, pid)
    return updated


def _identifiers(pid: Segment, systems: Systems, default_system: str | None, keep_ssn: bool) -> list[Fragment]:
    """PID-3 first, then the older places PID-2 and PID-4, which never get the default system."""
    sent = [*identifiers(pid, 3, systems, default_system), *identifiers(pid, 2, systems), *identifiers(pid, 4, systems)]
    if number := pid.text(20):
        sent.append({"type": identifier_type("DL"), "value": number, **_issuer(pid.text(20, 2))})
    if number := pid.text(19):
        sent.append({"type": identifier_type("SS"), "system": US_SSN, "value": number})
    known = {identifier["value"] for identifier in sent if identifier.get("system")}
    return [
        identifier
        for identifier in sent
        if (keep_ssn or identifier.get("type") not in _SSN_TYPES)
        and (identifier.get("system") or identifier.get("assigner") or identifier["value"] not in known)
    ]


def _issuer(state: str) -> Fragment:
    return {"assigner": {"display": state}} if state else {}


def _apply_county(patient: dict[str, Any], pid: Segment) -> None:
    """PID-12 completes the only address of PID-11 (map: IF PID-11 COUNT EQUALS 1 AND PID-11.9 IS NOT VALUED)."""
    if (county := pid.text(12)) and len(pid.valued(11)) == 1 and patient.get("address"):
        place = patient["address"][0]
        patient["address"] = [{**place, "district": place.get("district", county)}]


def _marital_status(sent: Repetition) -> Fragment:
    for system, table in ((_MARITAL_STATUS, "marital_status"), (_NULL_FLAVOR, "null_flavor")):
        if code := CODES[table].get(sent.text()):
            return {"coding": [{"system": system, "code": code}]}
    return codeable_concept(sent)


def _communication(sent: Repetition) -> list[Fragment]:
    code = sent.text()
    if re.fullmatch(r"[A-Za-z]{2}([-_][A-Za-z]{2})?", code):
        language, _, region = code.replace("_", "-").partition("-")
        tag = language.lower() + (f"-{region.upper()}" if region else "")
        return [{"language": {"coding": [{"system": _BCP_47, "code": tag}]}}]
    language_concept = codeable_concept(sent)
    return [{"language": language_concept}] if language_concept else []


def _apply_birth(patient: dict[str, Any], pid: Segment, default_offset: tzinfo | None) -> None:
    if pid.is_null(7) or pid.text(7):
        patient.pop("_birthDate", None)
    apply_single(patient, "birthDate", pid, 7, lambda sent: DTM.parse(sent.text(), "PID^1^7").fhir_date())
    moment = DTM.find(pid.text(7))
    if moment and moment.hour is not None and "T" in (born_at := moment.fhir_datetime(default_offset)):
        patient["_birthDate"] = {"extension": [{"url": BIRTH_TIME, "valueDateTime": born_at}]}


def _birth_order(sent: str) -> int | None:
    """1 for the first born; some senders write 0 for a single birth."""
    return (int(sent) or None) if sent.isdecimal() and sent.isascii() else None


class _Choice(NamedTuple):
    """A choice element: its exact field (an order, a date) and its Y/N indicator."""

    exact: int
    indicator: int
    exact_element: str
    flag_element: str


_MULTIPLE_BIRTH = _Choice(25, 24, "multipleBirthInteger", "multipleBirthBoolean")
_DECEASED = _Choice(29, 30, "deceasedDateTime", "deceasedBoolean")


def _apply_choice(patient: dict[str, Any], pid: Segment, choice: _Choice, value: int | str | None) -> None:
    """The exact value wins over the indicator, and Y does not take away a date we already have."""
    flag = _YES_NO.get(pid.text(choice.indicator).upper())
    for n, element in ((choice.exact, choice.exact_element), (choice.indicator, choice.flag_element)):
        if pid.is_null(n):
            patient.pop(element, None)
    if value is None and (flag is None or (flag and choice.exact_element in patient)):
        return
    patient.pop(choice.exact_element, None)
    patient.pop(choice.flag_element, None)
    patient[choice.flag_element if value is None else choice.exact_element] = flag if value is None else value


def _apply_maiden_name(patient: dict[str, Any], pid: Segment) -> None:
    others = [extension for extension in patient.get("extension", ()) if extension.get("url") != MOTHERS_MAIDEN_NAME]
    maiden = pid.text(6) or pid.text(6, 2)
    if maiden:
        others.append({"url": MOTHERS_MAIDEN_NAME, "valueString": maiden})
    if maiden or pid.is_null(6):
        set_element(patient, "extension", others)
