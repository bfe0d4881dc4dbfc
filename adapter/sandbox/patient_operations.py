"""`Patient/$match` (PDQm ITI-119) and `Patient/$ihe-pix` (PIXm ITI-83) of the sandbox EHR, over its own patients."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, or_

from adapter.access import check_scope
from adapter.bridge import Bridge
from adapter.errors import BadInput, NotFound
from adapter.fhir_api.answers import json_answer
from adapter.fhir_api.exchange import Answer, Request
from adapter.fhir_api.server import Operation
from adapter.records import TABLES, Resource, Stored, find_by_identifier, find_where
from adapter.records.extraction import folded
from mappings.record_linkage import Score, score

MATCH_GRADE = "http://hl7.org/fhir/StructureDefinition/match-grade"
CERTAIN_BITS = 30.0
"""An identifier and a birth date that agree, or name, birth date and sex that all do."""


def patient_operations(bridge: Bridge) -> dict[tuple[str | None, str], Operation]:
    """For `FhirServer.operations`."""

    def match(request: Request) -> Answer:
        check_scope(request.caller, "s", "Patient")
        asked = {one.get("name"): one for one in request.json().get("parameter", ())}
        given = _given(asked.get("resource", {}).get("resource") or {})
        with bridge.db.snapshot() as tx:
            scored = [(one, score(given, one.resource)) for one in _candidates(tx, given)]
        scored.sort(key=lambda one: -one[1].total)
        certain = [one for one in scored if _grade(one[1]) == "certain"]
        only_certain = asked.get("onlyCertainMatches", {}).get("valueBoolean", False)
        shown = (certain if len(certain) == 1 else []) if only_certain else scored
        count = int(asked.get("count", {}).get("valueInteger", 10))
        entries = [_entry(*one) for one in shown[:count]]
        return json_answer(200, {"resourceType": "Bundle", "type": "searchset", "total": len(shown), "entry": entries})

    def cross_reference(request: Request) -> Answer:
        check_scope(request.caller, "s", "Patient")
        system, _, value = (request.param("sourceIdentifier") or "").partition("|")
        if not system or not value:
            raise BadInput("sourceIdentifier is system|value")
        with bridge.db.snapshot() as tx:
            found = find_by_identifier(tx, "Patient", system, value)
        if not found:
            raise NotFound("sourceIdentifier Patient Identifier not found")
        wanted = [asked for name, asked in request.params if name == "targetSystem"]
        return json_answer(200, {"resourceType": "Parameters", "parameter": _targets(found, (system, value), wanted)})

    definition = "http://hl7.org/fhir/OperationDefinition/Patient-match"
    pix = "https://profiles.ihe.net/ITI/PIXm/OperationDefinition/IHE.PIXm.pix"
    return {
        ("Patient", "$match"): Operation(match, definition),
        ("Patient", "$ihe-pix"): Operation(cross_reference, pix),
    }


def _given(patient: Resource) -> dict[str, Any]:
    identifier: Resource = next(iter(patient.get("identifier", ())), {})
    name: Resource = next(iter(patient.get("name", ())), {})
    given = {"family": name.get("family"), "given": " ".join(name.get("given", ()))}
    return {**given, **{key: patient.get(key) for key in ("birthDate", "gender")}, **identifier}


def _candidates(tx: Connection, given: dict[str, Any]) -> list[Stored]:
    column = TABLES["Patient"].c
    alike = or_(column.family == folded(given["family"] or ""), column.birthdate == (given["birthDate"] or ""))
    found = find_where(tx, "Patient", alike, limit=50)
    if given.get("system") and given.get("value"):
        found = [*find_by_identifier(tx, "Patient", given["system"], given["value"]), *found]
    return [one for one in {one.id: one for one in found}.values() if one.resource.get("active", True)]


def _grade(found: Score) -> str:
    return "certain" if found.total >= CERTAIN_BITS else found.grade


def _entry(patient: Stored, found: Score) -> Resource:
    grade = {"url": MATCH_GRADE, "valueCode": _grade(found)}
    closeness = round(min(max(found.total / CERTAIN_BITS, 0.0), 1.0), 2)
    return {"resource": patient.resource, "search": {"mode": "match", "score": closeness, "extension": [grade]}}


def _targets(found: list[Stored], source: tuple[str, str], wanted: list[str]) -> list[Resource]:
    ids: list[Resource] = [{"name": "targetId", "valueReference": {"reference": one.reference}} for one in found]
    identifiers = [
        {"name": "targetIdentifier", "valueIdentifier": one}
        for patient in found
        for one in patient.resource.get("identifier", ())
        if (one.get("system"), one.get("value")) != source and (not wanted or one.get("system") in wanted)
    ]
    return ids + identifiers
