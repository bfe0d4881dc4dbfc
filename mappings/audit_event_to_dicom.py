"""FHIR AuditEvent -> the audit message of DICOM PS3.15 A.5 and its syslog line, as IHE ITI-20 sends them.

The other direction of the correspondence that FHIR R4 states for each element of AuditEvent ("DICOM Tag Mapping").
"""

from __future__ import annotations

import base64
from typing import Final
from xml.etree import ElementTree

from mappings.terms import DCM, Json

_SYSTEM_NAMES: Final = {DCM: "DCM"}
_PRIORITY: Final = 10 * 8 + 5  # authpriv, notice: what ATNA asks for
_URI, _PATIENT_NUMBER, _SEARCH_CRITERIA = "12", "2", "10"
_ID_TYPES: Final = {_URI: "URI", _PATIENT_NUMBER: "Patient Number", _SEARCH_CRITERIA: "Search Criteria"}


def audit_message(event: Json) -> str:
    """The `<AuditMessage>` of an R4 AuditEvent."""
    root = ElementTree.Element("AuditMessage")
    outcome = {"EventOutcomeIndicator": event.get("outcome", "0"), "EventDateTime": event["recorded"]}
    identification = _add(root, "EventIdentification", {"EventActionCode": event.get("action"), **outcome})
    _add_code(identification, "EventID", event["type"])
    for subtype in event.get("subtype", []):
        _add_code(identification, "EventTypeCode", subtype)
    if "outcomeDesc" in event:
        _add(identification, "EventOutcomeDescription", {}).text = event["outcomeDesc"]
    for purpose in event.get("purposeOfEvent", []):
        _add_code(identification, "PurposeOfUse", purpose["coding"][0])
    for agent in event["agent"]:
        _add_participant(root, agent)
    source = event["source"]
    named = {"AuditEnterpriseSiteID": source.get("site"), "AuditSourceID": _named(source["observer"])}
    _add(root, "AuditSourceIdentification", named)
    for entity in event.get("entity", []):
        _add_object(root, entity, event["id"])
    return ElementTree.tostring(root, encoding="unicode")


def syslog_message(event: Json, *, host: str, seq: int) -> bytes:
    """RFC 5424 with the audit message in UTF-8, without BOM, as ATNA wants it.

    `seq` is the number of the event in the log, from 0: RFC 5424 section 7.3.1 counts sequenceId from 1 to 2^31 - 1.
    """
    about = f'[meta sequenceId="{seq % (2**31 - 1) + 1}"]'
    header = f"<{_PRIORITY}>1 {event['recorded']} {host} DermBridge - IHE+RFC-3881 {about} "
    return (header + audit_message(event)).encode()


def octet_counted(message: bytes) -> bytes:
    """A frame of RFC 5425 section 4.3: `LEN SP MSG`."""
    return b"%d %b" % (len(message), message)


def _add(parent: ElementTree.Element, name: str, attributes: dict[str, str | None]) -> ElementTree.Element:
    return ElementTree.SubElement(parent, name, {key: value for key, value in attributes.items() if value is not None})


def _add_code(parent: ElementTree.Element, name: str, code: Json) -> None:
    system = _SYSTEM_NAMES.get(code["system"], code["system"])
    text = code.get("display") or code["code"]
    _add(parent, name, {"csd-code": code["code"], "codeSystemName": system, "originalText": text})


def _add_participant(root: ElementTree.Element, agent: Json) -> None:
    network, policy = agent.get("network", {}), agent.get("policy", [])
    participant = _add(
        root,
        "ActiveParticipant",
        {
            "UserID": _named(agent["who"]),
            "AlternativeUserID": policy[0] if policy else None,
            "UserName": agent.get("name"),
            "UserIsRequestor": str(agent["requestor"]).lower(),
            "NetworkAccessPointID": network.get("address"),
            "NetworkAccessPointTypeCode": network.get("type"),
        },
    )
    for code in agent.get("type", {}).get("coding", []):
        _add_code(participant, "RoleIDCode", code)


def _add_object(root: ElementTree.Element, entity: Json, event_id: str) -> None:
    named = _named(entity["what"]) if "what" in entity else event_id
    is_patient = entity.get("role", {}).get("code") == "1"
    id_type = _PATIENT_NUMBER if is_patient else _SEARCH_CRITERIA if "query" in entity else _URI
    kind = entity.get("type", {}).get("code", "4")
    found = _add(
        root,
        "ParticipantObjectIdentification",
        {
            "ParticipantObjectID": named.removeprefix("Patient/") if is_patient else named,
            "ParticipantObjectTypeCode": kind if kind in {"1", "2", "3", "4"} else "4",
            "ParticipantObjectTypeCodeRole": entity.get("role", {}).get("code"),
            "ParticipantObjectDataLifeCycle": entity.get("lifecycle", {}).get("code"),
        },
    )
    _add_code(
        found,
        "ParticipantObjectIDTypeCode",
        {"system": "RFC-3881", "code": id_type, "display": _ID_TYPES[id_type]},
    )
    if "query" in entity:
        _add(found, "ParticipantObjectQuery", {}).text = entity["query"]
    for detail in entity.get("detail", []):
        value = base64.b64encode(detail["valueString"].encode()).decode()
        _add(found, "ParticipantObjectDetail", {"type": detail["type"], "value": value})


def _named(reference: Json) -> str:
    """A reference, an identifier's value or a display: whichever says most."""
    return str(reference.get("reference") or reference.get("identifier", {}).get("value") or reference["display"])
