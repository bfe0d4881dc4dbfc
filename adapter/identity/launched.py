"""The patient and visit that an EHR tells us of, at a launch or when asked, as records of ours."""

from __future__ import annotations

from typing import Any, Protocol

from sqlalchemy import Connection

from adapter.access import Actor
from adapter.bridge import Bridge
from adapter.errors import Conflict
from adapter.governance import audit
from adapter.identity.matching import disagreement, find_survivors
from adapter.identity.waiting import bind_waiting
from adapter.records import Stored, create, find_by_identifier, new_id
from mappings.terms import CANON, coding

PROVISIONAL = coding(f"{CANON}/CodeSystem/identity-state", "provisional")
_DEMOGRAPHICS = ("name", "birthDate", "gender")
_VISIT = ("status", "class", "period")
_UNKNOWN_CLASS = {"system": "http://terminology.hl7.org/CodeSystem/v3-NullFlavor", "code": "UNK"}


class Ehr(Protocol):
    """Whose word it is (settings.Ehr, delivery.AskedEhr)."""

    @property
    def iss(self) -> str: ...
    @property
    def identifier_systems(self) -> tuple[str, ...]: ...


def register_from_ehr(
    tx: Connection, bridge: Bridge, actor: Actor, patient: dict[str, Any], encounter: dict[str, Any] | None, ehr: Ehr
) -> tuple[str, str | None]:
    """Our ids of the EHR's Patient and Encounter; what no ADT has announced yet is created provisionally.

    Photos that waited for a patient created here are bound, to the visit as well where it covers them. Raises Conflict
    when the identifiers are those of several of our patients, or of one born on another day.
    """
    local, is_new = _patient(tx, bridge, actor, patient, ehr)
    visit = _encounter(tx, bridge, actor, encounter, local, ehr).id if encounter is not None else None
    if is_new:
        bind_waiting(tx, bridge, local)
    return local.id, visit


def _patient(tx: Connection, bridge: Bridge, actor: Actor, patient: dict[str, Any], ehr: Ehr) -> tuple[Stored, bool]:
    identifiers = trusted_identifiers(patient, ehr)
    tokens = [(one["system"], one["value"]) for one in identifiers]
    bridge.db.lock(tx, *(f"patient-identifier:{system}|{value}" for system, value in tokens))
    found = find_survivors(tx, tokens)
    if len(found) > 1:
        raise Conflict("the identifiers of this chart belong to several patients here; they must be merged first")
    if found:
        born = {"birthDate": patient.get("birthDate")}
        if found[0].resource.get("birthDate") and disagreement(found[0].resource, born):
            raise Conflict("the chart and our record under the same identifier differ in the birth date; do not go on")
        return found[0], False
    kept = {name: patient[name] for name in _DEMOGRAPHICS if name in patient}
    made = {"resourceType": "Patient", "active": True, "identifier": identifiers, **kept}
    return _create(tx, bridge, actor, made, None), True


def trusted_identifiers(resource: dict[str, Any], ehr: Ehr) -> list[dict[str, Any]]:
    """Identifiers of the systems this EHR is trusted for, in order (all when none is listed), else the EHR's id."""
    named = [one for one in resource.get("identifier", ()) if one.get("system") and one.get("value")]
    if ehr.identifier_systems:
        named = [one for system in ehr.identifier_systems for one in named if one["system"] == system]
    return named or [_own_id(resource, ehr)]


def _own_id(resource: dict[str, Any], ehr: Ehr) -> dict[str, Any]:
    return {"system": f"{ehr.iss}/{resource['resourceType']}", "value": resource["id"]}


def _encounter(
    tx: Connection, bridge: Bridge, actor: Actor, encounter: dict[str, Any], patient: Stored, ehr: Ehr
) -> Stored:
    named = [one for one in encounter.get("identifier", ()) if one.get("system") and one.get("value")]
    identifiers = named or [_own_id(encounter, ehr)]
    for one in identifiers:
        bridge.db.lock(tx, f"visit-identifier:{one['system']}|{one['value']}")
        for found in find_by_identifier(tx, "Encounter", one["system"], one["value"]):
            if found.resource["subject"].get("reference") != patient.reference:
                raise Conflict("this visit belongs to another patient here; do not go on")
            return found
    kept = {name: encounter[name] for name in _VISIT if name in encounter}
    made = {
        "resourceType": "Encounter",
        "status": "unknown",
        "class": _UNKNOWN_CLASS,
        **kept,
        "identifier": identifiers,
        "subject": {"reference": patient.reference},
    }
    return _create(tx, bridge, actor, made, patient.id)


def _create(tx: Connection, bridge: Bridge, actor: Actor, resource: dict[str, Any], patient_id: str | None) -> Stored:
    at = bridge.now()
    stored = create(tx, {**resource, "id": new_id(at), "meta": {"tag": [PROVISIONAL]}}, at=at)
    about = patient_id or stored.id
    audit(tx, bridge, "create", actor, patient_id=about, references=[stored.version_reference])
    return stored
