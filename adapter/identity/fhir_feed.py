"""Patients announced in FHIR instead of HL7 v2: IHE ITI-104 (PIXm feed) and ITI-93 (PMIR feed).

A Patient is named by an identifier, never by our id. Inactive and `replaced-by` another, it is merged into that one.
https://profiles.ihe.net/ITI/PIXm/ITI-104.html, https://profiles.ihe.net/ITI/PMIR/ITI-93.html
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from adapter.access import Actor, check_scope
from adapter.bridge import Bridge
from adapter.errors import Conflict, Unprocessable
from adapter.governance import audit
from adapter.identity.coming_of_age import label_minors
from adapter.identity.matching import disagreement, find_survivors, owns
from adapter.identity.merges import merge_patients
from adapter.identity.waiting import bind_waiting
from adapter.records import Resource, Stored, change, find_by_identifier, get, new_id, write_all
from mappings.fhir_check import check_resource

PATIENT_FEED = "urn:ihe:iti:pmir:2019:patient-feed"
Identifier = tuple[str, str]
"""(system, value)."""

_FED = ("name", "telecom", "gender", "birthDate", "deceasedBoolean", "deceasedDateTime", "address", "active")


def feed_patient(tx: Connection, bridge: Bridge, actor: Actor, named: Identifier, patient: Resource) -> Stored:
    """Create, update or merge the patient named by one of its identifiers, as the feed says it is now.

    What the feed leaves out of name, address and the like is taken away; identifiers are added. Photos that waited for
    one of them are bound. Raises Forbidden; Unprocessable for an identifier of a system that is not configured or that
    the resource does not hold; Conflict when the identifiers are those of several patients, or of one born otherwise.
    """
    check_scope(actor, "u", "Patient")
    _check_named(bridge, named, patient)
    if target := _replaced_by(patient):
        return _merge(tx, bridge, actor, named, target)
    identifiers = [one for one in patient.get("identifier", ()) if _is_known(bridge, one)]
    tokens = [(one["system"], one["value"]) for one in identifiers]
    bridge.db.lock(tx, *(f"patient-identifier:{system}|{value}" for system, value in tokens))
    found = find_survivors(tx, tokens)
    if len(found) > 1:
        raise Conflict("the identifiers of this Patient belong to several patients here; merge them first")
    before = found[0] if found else None
    if before and before.resource.get("active") is False and disagreement(before.resource, patient):
        raise Conflict("this identifier was that of a deleted person who was born on another day; free it by ADT^A47")
    if before and patient.get("active") is False and not owns(before.resource, named):
        raise Conflict("the patient of this identifier was merged into another, who stays in use")
    fed = _fed(before.resource if before else {}, patient, identifiers)
    is_born_otherwise = before is not None and before.resource.get("birthDate") != fed.get("birthDate")
    if before and is_born_otherwise:
        bridge.db.lock(tx, f"patient:{before.id}")  # before its row is written, as who merges does
    stored = _put(tx, bridge, before, fed)
    event = "update" if before else "create"
    audit(tx, bridge, event, actor, patient_id=stored.id, references=[stored.version_reference])
    if is_born_otherwise:
        label_minors(tx, bridge, stored)
    if stored.resource.get("active", True):
        bind_waiting(tx, bridge, stored)
    return stored


def _check_named(bridge: Bridge, named: Identifier, patient: Resource) -> None:
    if not _is_known(bridge, {"system": named[0], "value": named[1]}):
        raise Unprocessable(f"patients are not known by {named[0]} here; add it to identifier_systems in the settings")
    if named not in [(one.get("system"), one.get("value")) for one in patient.get("identifier", ())]:
        raise Unprocessable("the Patient does not hold the identifier it is named by", expression="Patient.identifier")


def _is_known(bridge: Bridge, identifier: Resource) -> bool:
    return bool(identifier.get("value")) and identifier.get("system") in bridge.settings.identifier_systems.values()


def _replaced_by(patient: Resource) -> Identifier | None:
    """Who it is merged into, when the resource says so."""
    for link in patient.get("link", ()):
        if link.get("type") == "replaced-by":
            other = link.get("other", {}).get("identifier", {})
            if patient.get("active", True) or not other.get("system") or not other.get("value"):
                raise Unprocessable(
                    "a merged Patient is inactive, and names its survivor by link.other.identifier with its system",
                    expression="Patient.link",
                )
            return other["system"], other["value"]
    return None


def _merge(tx: Connection, bridge: Bridge, actor: Actor, source: Identifier, target: Identifier) -> Stored:
    patients = [_the_one(tx, *identifier) for identifier in (source, target)]
    merge_patients(tx, bridge, actor, patients[0].id, patients[1].id)
    return get(tx, "Patient", patients[0].id)


def _the_one(tx: Connection, system: str, value: str) -> Stored:
    """The record that carries it itself, merged or not."""
    carriers = find_by_identifier(tx, "Patient", system, value)
    found = [one for one in carriers if owns(one.resource, (system, value))]
    if len(found) != 1:
        how_many = "no patient carries" if not found else "several patients carry"
        raise Unprocessable(f"{how_many} the identifier {system}|… named in this merge; announce them first")
    return found[0]


def _fed(kept: Resource, patient: Resource, identifiers: list[Resource]) -> Resource:
    told = {name: patient[name] for name in _FED if name in patient}
    ours = {name: value for name, value in kept.items() if name not in _FED}
    held = ours.get("identifier", [])
    known = {(one.get("system"), one.get("value")) for one in held}
    added = [one for one in identifiers if (one["system"], one["value"]) not in known]
    return {**ours, "resourceType": "Patient", "identifier": [*held, *added], "active": True, **told}


def _put(tx: Connection, bridge: Bridge, before: Stored | None, resource: Resource) -> Stored:
    at = bridge.now()
    made = change(before, resource if before else {**resource, "id": new_id(at)}, at=at)
    write_all(tx, [made])
    return made.after


def read_feed(bundle: Resource) -> list[tuple[Identifier, Resource]]:
    """The patients of a PMIR message (ITI-93), in order; a mother's RelatedPerson is nobody's record here.

    Raises Unprocessable for anything but a patient feed, InvalidResource.
    """
    entries = _entries(bundle)
    header = entries[0]["resource"] if entries else {}
    if bundle.get("type") != "message" or header.get("eventUri") != PATIENT_FEED:
        raise Unprocessable(f"send a Bundle of type message whose MessageHeader has the eventUri {PATIENT_FEED}")
    histories = [one["resource"] for one in entries[1:] if one["resource"].get("type") == "history"]
    found: list[tuple[Identifier, Resource]] = []
    for entry in (each for history in histories for each in _entries(history)):
        if entry.get("request", {}).get("method") not in ("POST", "PUT"):
            raise Unprocessable("a patient feed may create, update and merge; delete persons by ADT^A29")
        if entry["resource"].get("resourceType") != "RelatedPerson":
            found.append(_named(entry["resource"]))
    return found


def _entries(bundle: Resource) -> list[Resource]:
    entries = bundle.get("entry", [])
    if not isinstance(entries, list) or not all(map(_is_entry, entries)):
        raise Unprocessable("each entry of a patient feed must hold a resource", expression="Bundle.entry")
    return entries


def _is_entry(entry: Any) -> bool:
    parts = (entry.get("resource"), entry.get("request", {})) if isinstance(entry, dict) else (None,)
    return all(isinstance(part, dict) for part in parts)


def _named(patient: Resource) -> tuple[Identifier, Resource]:
    if patient.get("resourceType") != "Patient":
        raise Unprocessable("a patient feed holds Patients", expression="Bundle.entry.resource")
    check_resource({"id": "new", **patient})
    for one in patient.get("identifier", ()):
        if one.get("system") and one.get("value") and one.get("use") != "old":
            return (one["system"], one["value"]), patient
    raise Unprocessable("each Patient of a feed needs an identifier with its system", expression="Patient.identifier")
