"""Whose photo it is: patients by identifier, across merges; visits by time; photos that waited for their patient."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, or_, select

from adapter import delivery, governance
from adapter.access import SYSTEM, Actor
from adapter.bridge import Bridge
from adapter.db.tables import binary, capture
from adapter.errors import Unprocessable
from adapter.records import (
    TABLES,
    Resource,
    Stored,
    create,
    find,
    find_by_identifier,
    find_by_index,
    find_where,
    new_id,
    update_resource,
)
from adapter.records.search_parameters import token_value
from adapter.settings import Ehr
from mappings.capture_to_media import IdentityState, bind_media, with_identity_state
from mappings.provenance import Agent, Entity, provenance


@dataclass(frozen=True)
class Whose:
    """The answer to whose photo this is, and why in a sentence."""

    state: IdentityState
    patient_id: str | None
    identifier: tuple[str, str] | None
    because: str


def whose(tx: Connection, given: str | dict[str, Any] | None) -> Whose:
    """`given` is `Patient/id`, an identifier with or without demographics, or None. Raises Unprocessable."""
    if given is None:
        return Whose("unidentified", None, None, "no patient was named; settle it on the worklist")
    if isinstance(given, str):
        found = find(tx, "Patient", given.removeprefix("Patient/"))
        patient = survivor(tx, found) if found else None
        if patient is None:
            raise Unprocessable("there is no such patient here; register the patient first or send an identifier")
        return Whose("bound", patient.id, None, "the patient was named by the sender")
    identifier = (given["system"], given["value"])
    patient = find_patient(tx, *identifier)
    if patient is None:
        return Whose("awaiting-patient", None, identifier, "no patient with this identifier is announced yet")
    if contradicts(patient.resource, given):
        because = "the identifier belongs to a patient with another birth date or name; settle it on the worklist"
        return Whose("quarantined", None, identifier, because)
    return Whose("bound", patient.id, None, "the identifier belongs to this patient")


def contradicts(patient: Resource, given: dict[str, Any]) -> bool:
    """Whether demographics the sender gave speak against this patient; silence never does."""
    birth_date, family = given.get("birthDate"), given.get("family")
    if birth_date and patient.get("birthDate") and patient["birthDate"] != birth_date:
        return True
    families = {name.get("family", "").casefold() for name in patient.get("name", [])} - {""}
    return bool(family and families and family.casefold() not in families)


def survivor(tx: Connection, patient: Stored) -> Stored | None:
    """The record a patient was merged into, at the end of the chain; None when the chain is broken."""
    seen = {patient.id}
    while (following := _replaced_by(patient.resource)) is not None:
        found = find(tx, "Patient", following)
        if found is None or found.id in seen:
            return None
        seen.add(found.id)
        patient = found
    return patient


def _replaced_by(patient: Resource) -> str | None:
    for link in patient.get("link", []):
        if link.get("type") == "replaced-by":
            return str(link["other"]["reference"]).removeprefix("Patient/")
    return None


def find_patient(tx: Connection, system: str, value: str) -> Stored | None:
    """The surviving patient with this identifier; None when nobody or more than one has it."""
    return find_patient_of(tx, [(system, value)])


def find_patient_of(tx: Connection, identifiers: Iterable[tuple[str, str]]) -> Stored | None:
    """The one surviving patient with any of these identifiers. Raises Unprocessable when they name several."""
    found: dict[str, Stored] = {}
    for system, value in identifiers:
        for stored in find_by_identifier(tx, "Patient", system, value):
            if (last := survivor(tx, stored)) is not None:
                found[last.id] = last
    if len(found) > 1:
        raise Unprocessable("these identifiers belong to different patients; merge them at the source (A40) first")
    return next(iter(found.values()), None)


def find_encounter_at(tx: Connection, patient_id: str, at: datetime) -> str | None:
    """The only visit of the patient that covers the time; None when there is none or more than one."""
    column = TABLES["Encounter"].c
    visits = find_where(
        tx,
        "Encounter",
        column.patient == patient_id,
        column.date <= at,
        or_(column.date_end.is_(None), column.date_end >= at),
        column.status.not_in(["cancelled|", "entered-in-error|"]),
        limit=2,
    )
    return visits[0].id if len(visits) == 1 else None


def register_from_ehr(
    tx: Connection, bridge: Bridge, actor: Actor, patient: Resource, encounter: Resource | None, ehr: Ehr
) -> tuple[str, str | None]:
    """Local ids of the patient and visit an EHR launched us with; records it vouches for are made when unknown.

    Raises Unprocessable when the EHR's patient has no identifier of a trusted system.
    """
    trusted = [
        identifier
        for identifier in patient.get("identifier", [])
        if identifier.get("value")
        and (identifier.get("system") in ehr.identifier_systems or not ehr.identifier_systems)
    ]
    if not trusted:
        raise Unprocessable(f"{ehr.name} shows no identifier we trust for this patient; set identifier_systems")
    pairs = [(one["system"], one["value"]) for one in trusted if one.get("system")]
    bridge.db.lock(tx, *(f"patient:{system}|{value}" for system, value in pairs))
    known = find_patient_of(tx, pairs)
    if known is None:
        kept: Resource = {k: patient[k] for k in ("name", "gender", "birthDate", "telecom", "address") if k in patient}
        resource: Resource = {"resourceType": "Patient", "id": new_id(), "active": True, "identifier": trusted}
        resource.update(kept)
        known = create(tx, resource, at=bridge.now())
        governance.audit(tx, bridge, "create", actor, patient_id=known.id, references=[known.version_reference])
        bind_waiting(tx, bridge, known)
    return known.id, _visit_from_ehr(tx, bridge, known, encounter)


def _visit_from_ehr(tx: Connection, bridge: Bridge, patient: Stored, encounter: Resource | None) -> str | None:
    identifiers = [one for one in (encounter or {}).get("identifier", []) if one.get("value")]
    if encounter is None or not identifiers:
        return None
    for identifier in identifiers:
        for stored in find_by_identifier(tx, "Encounter", identifier.get("system"), identifier["value"]):
            if stored.resource.get("subject", {}).get("reference") == patient.reference:
                return stored.id
    kept: Resource = {k: encounter[k] for k in ("status", "class", "period") if k in encounter}
    visit: Resource = {"resourceType": "Encounter", "id": new_id(), "identifier": identifiers}
    visit.update(kept)
    return create(tx, visit | {"subject": {"reference": patient.reference}}, at=bridge.now()).id


def bind_waiting(tx: Connection, bridge: Bridge, patient: Stored) -> list[str]:
    """Photos that waited for one of the patient's identifiers become hers, or quarantined when they contradict."""
    bound = []
    for identifier in patient.resource.get("identifier", []):
        value = token_value(identifier.get("value", ""), identifier.get("system"))
        for media in find_by_index(tx, "Media", "subject:identifier", value):
            if _claim_contradicts(tx, media.id, patient.resource):
                _next_version(tx, bridge, media, with_identity_state(media.resource, "quarantined"), None)
            else:
                bound.append(_bind(tx, bridge, media, patient))
    return bound


def _claim_contradicts(tx: Connection, media_id: str, patient: Resource) -> bool:
    claim = tx.execute(select(capture.c.claim).where(capture.c.id == media_id)).scalar_one_or_none()
    return claim is not None and contradicts(patient, orjson.loads(claim))


def _bind(tx: Connection, bridge: Bridge, media: Stored, patient: Stored) -> str:
    taken = media.resource.get("createdDateTime")
    visit = find_encounter_at(tx, patient.id, datetime.fromisoformat(taken)) if taken and len(taken) > 10 else None
    changed = bind_media(media.resource, patient.reference, **({"encounter": f"Encounter/{visit}"} if visit else {}))
    stored = _next_version(tx, bridge, media, changed, patient.id)
    owned = select(binary.c.blob_id).where(binary.c.security_context == media.reference).distinct()
    for (blob_id,) in tx.execute(owned).all():
        bridge.vault.rekey(tx, blob_id, patient_id=patient.id, at=bridge.now())
    delivery.deliver_media(tx, bridge, stored)
    return media.id


def _next_version(tx: Connection, bridge: Bridge, media: Stored, changed: Resource, patient_id: str | None) -> Stored:
    at = bridge.now()
    stored = update_resource(tx, changed, at=at)
    statement = provenance(
        "update",
        provenance_id=new_id(at),
        targets=[stored.version_reference],
        agents=[Agent("enterer", SYSTEM.id)],
        entities=[Entity("revision", media.version_reference)],
        recorded=at,
    )
    create(tx, statement, at=at)
    governance.audit(tx, bridge, "update", SYSTEM, patient_id=patient_id, references=[stored.version_reference])
    return stored
