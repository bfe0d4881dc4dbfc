"""R4 AuditEvent in the shape of the IHE Basic Audit Log Patterns, one builder for every event of `audit_events.toml`.

Nothing here takes a patient's name: patients and records are references, people are the users of the system.
"""

from __future__ import annotations

import base64
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Final, Literal

from mappings.fhir_time import fhir_instant
from mappings.terms import (
    ACT_REASON,
    AUDIT_SUBTYPE,
    BALP,
    DCM,
    LIFECYCLE,
    PARTICIPATION_TYPE,
    PROVENANCE_AGENT,
    Json,
    coding,
    concept,
    reference,
)

_EVENTS: Final[dict[str, dict[str, Any]]] = tomllib.loads(
    (files("mappings") / "tables" / "audit_events.toml").read_text("utf-8")
)
EVENTS: Final = frozenset(_EVENTS)
_HL7: Final = "http://terminology.hl7.org/CodeSystem"
_SYSTEMS: Final = {
    "DCM": DCM,
    "agent": PROVENANCE_AGENT,
    "authz": "https://profiles.ihe.net/ITI/BALP/CodeSystem/AuthZsubType",
    "authz-role": f"{_HL7}/extra-security-role-type",
    "class": f"{_HL7}/v3-RoleClass",
    "dicom-life": f"{_HL7}/dicom-audit-lifecycle",
    "entity": f"{_HL7}/audit-entity-type",
    "interaction": "http://hl7.org/fhir/restful-interaction",
    "life": LIFECYCLE,
    "local": AUDIT_SUBTYPE,
    "object": f"{_HL7}/object-role",
    "part": PARTICIPATION_TYPE,
    "resource": "http://hl7.org/fhir/resource-types",
    "type": f"{_HL7}/audit-event-type",
}
_TRANSACTION: Final = coding("https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType", "XrequestId")
_PATIENT: Final = re.compile(r"(https?://\S+/)?Patient/[A-Za-z0-9.-]{1,64}(/_history/[A-Za-z0-9.-]{1,64})?")
Outcome = Literal["0", "4", "8", "12"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """A machine: `who` is `Device/id`, a Reference with an identifier (client_id, base URL) or a display.

    `address` is its name, IP address or URL; its kind (R4 network-type) is told from its shape.
    """

    who: str | Json
    address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """The person who asked: `who` is `Practitioner/id` or a Reference with identifier (iss, sub).

    `policy` holds token ids as URIs (`urn:ietf:params:oauth:jti:...`); `purpose` a v3-ActReason code.
    """

    who: str | Json
    name: str | None = None
    roles: tuple[str, ...] = ()
    policy: tuple[str, ...] = ()
    purpose: str | None = None


def audit_event(
    event: str,
    *,
    recorded: datetime,
    server: Party,
    outcome: Outcome = "0",
    outcome_desc: str | None = None,
    actor: User | None = None,
    client: Party | None = None,
    organization: str | None = None,
    patient_ref: str | None = None,
    entity_refs: Sequence[str] = (),
    query: str | None = None,
    purpose: str | None = None,
    subtypes: Sequence[Json] = (),
    detail: Mapping[str, str] | None = None,
    request_id: str | None = None,
    site: str | None = None,
    event_id: str | None = None,
) -> Json:
    """R4 AuditEvent of one event (`EVENTS`), written by `server`, which is its observer.

    `entity_refs` are version-specific references (for consent-decision: the Consents looked at), `query` the raw
    request, `purpose` a v3-ActReason code, `subtypes` further codings (an interaction, an HL7 trigger event) that
    come before the event's own. The BALP profile is claimed only when the event holds all it asks for.
    ValueError: unknown event, a patient that is no Patient reference, or an argument the event must have is missing.
    """
    if event not in _EVENTS:
        raise ValueError(f"No such audit event: {event!r}. Known: {', '.join(sorted(EVENTS))}.")
    if patient_ref is not None and not _PATIENT.fullmatch(patient_ref):
        raise ValueError("The patient of an audit event is given as Patient/id, never by name.")
    row = _EVENTS[event]
    given = {
        "success": outcome == "0",
        "client": client is not None and client.address is not None,
        "server": server.address is not None,
        "user": actor is not None,
        "organization": organization is not None,
        "patient": patient_ref is not None,
        "one-entity": len(entity_refs) == 1,
        "entities": len(entity_refs) > 0,
        "query": bool(query),
        "purpose": purpose is not None,
        "detail": bool(detail),
        "no-detail": not detail and request_id is None,
    }
    if missing := [name for name in row.get("must", ()) if not given[name]]:
        raise ValueError(f"An audit event of {event} must give its {', '.join(missing)}.")
    found: Json = {"resourceType": "AuditEvent"} | ({"id": event_id} if event_id else {})
    if "profile" in row and all(given[name] for name in row["needs"]):
        variant = "Patient" if row.get("patient_variant") and patient_ref else ""
        found["meta"] = {"profile": [f"{BALP}/IHE.BasicAudit.{variant}{row['profile']}"]}
    found["type"] = _code(row["type"])
    if kinds := [*subtypes, *(_code(code) for code in row.get("subtype", ()))]:
        found["subtype"] = kinds
    found |= {"action": row["action"], "recorded": fhir_instant(recorded), "outcome": outcome}
    if outcome_desc:
        found["outcomeDesc"] = outcome_desc
    if purpose:
        found["purposeOfEvent"] = [concept(ACT_REASON, purpose)]
    found["agent"] = _agents(row, actor, client, server, organization)
    found["source"] = ({"site": site} if site else {}) | {"observer": reference(server.who)}
    if entities := _entities(row, patient_ref, entity_refs, query, request_id, detail or {}):
        found["entity"] = entities
    return found


@cache
def _code(text: str) -> Json:
    """Shared between events; what is told is only ever written out."""
    prefix, _, code = text.partition(":")
    return coding(_SYSTEMS[prefix], code)


def _agents(
    row: Mapping[str, Any], actor: User | None, client: Party | None, server: Party, organization: str | None
) -> list[Json]:
    first = None if actor else row.get("initiator", "client") if client else "server"
    machine = server if row.get("server_network", True) else Party(who=server.who)
    agents = [_user(row, actor)] if actor else []
    if client:
        agents.append(_machine(row.get("client", "DCM:110150"), client, requestor=first == "client"))
    agents.append(_machine(row.get("server", "DCM:110150"), machine, requestor=first == "server"))
    if organization and "organization" in row:
        kind = {"coding": [_code(row["organization"])]}
        agents.append({"type": kind, "who": reference(organization), "requestor": False})
    return agents


def _user(row: Mapping[str, Any], actor: User) -> Json:
    found: Json = {"type": {"coding": [_code(row.get("user", "part:IRCP"))]}}
    if actor.roles:
        found["role"] = [{"text": role} for role in actor.roles]
    found["who"] = reference(actor.who)
    if actor.name:
        found["name"] = actor.name
    found["requestor"] = True
    if actor.policy:
        found["policy"] = list(actor.policy)
    if actor.purpose:
        found["purposeOfUse"] = [concept(ACT_REASON, actor.purpose)]
    return found


def _machine(role: str, party: Party, *, requestor: bool) -> Json:
    found: Json = {"type": {"coding": [_code(role)]}, "who": reference(party.who), "requestor": requestor}
    if party.address:
        found["network"] = {"address": party.address, "type": _network_type(party.address)}
    return found


@lru_cache(1024)
def _network_type(address: str) -> str:
    """R4 network-type: 5 a URI, 2 an IP address, 1 a machine name."""
    if "://" in address:
        return "5"
    return "2" if re.fullmatch(r"\d{1,3}(\.\d{1,3}){3}|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*(%\w+)?", address) else "1"


def _entities(
    row: Mapping[str, Any],
    patient_ref: str | None,
    entity_refs: Sequence[str],
    query: str | None,
    request_id: str | None,
    detail: Mapping[str, str],
) -> list[Json]:
    entities: list[Json] = []
    if request_id:
        entities.append({"what": {"identifier": {"value": request_id}}, "type": _TRANSACTION})
    if patient_ref:
        person = {"type": _code("entity:1"), "role": _code("object:1")}
        entities.append({"what": reference(patient_ref), **person})
    entities += [_record(row, target) for target in entity_refs]
    if query:
        asked = {"type": _code("entity:2"), "role": _code("object:24")}
        entities.append({**asked, "query": base64.b64encode(query.encode()).decode()})
    if detail:
        rows = [{"type": key, "valueString": value} for key, value in detail.items()]
        entities.append({"type": _code("entity:4"), "detail": rows})
    return entities


def _record(row: Mapping[str, Any], target: str) -> Json:
    if "entity_type" in row:
        return {"what": reference(target), "type": _code(row["entity_type"])}
    found: Json = {"what": reference(target), "type": _code("entity:2"), "role": _code("object:4")}
    if "lifecycle" in row:
        found["lifecycle"] = _code(f"dicom-life:{row['lifecycle']}")
    return found
