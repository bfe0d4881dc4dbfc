"""Whose photo it is: exact identifiers, followed through merges, held against what else was given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, or_

from adapter.errors import BadInput, Unprocessable
from adapter.records import TABLES, Resource, Stored, find, find_by_identifier, find_selected, selection
from adapter.records.extraction import folded
from mappings.capture_to_media import IdentityState
from mappings.terms import CANON, Json, extension

GIVEN = f"{CANON}/StructureDefinition/subject-as-given"
_GIVEN_AS = {  # what may come with an identifier -> its element within the extension
    "birthDate": "valueDate",
    "family": "valueString",
    "given": "valueString",
    "gender": "valueCode",
    "postalCode": "valueString",
}
_LONGEST_CHAIN = 100
TOOK_PLACE = ("arrived|", "triaged|", "in-progress|", "onleave|", "finished|")


@dataclass(frozen=True)
class Whose:
    """`patient_id` is set when `state` is bound, `identifier` when it awaits its patient; `because` is for people.

    In quarantine `doubt` is the code of identity-doubt, and `patient_id` the patient it would be, where one was found.
    `patient` is the record behind a bound `patient_id`, as it was read for this.
    """

    state: IdentityState
    patient_id: str | None
    identifier: tuple[str, str] | None
    because: str
    doubt: str | None = None
    patient: Stored | None = field(default=None, compare=False, repr=False)


def whose(tx: Connection, given: str | dict[str, Any] | None) -> Whose:
    """`given` is "Patient/id", {"system", "value", "birthDate"?, "family"?}, or None.

    Raises Unprocessable for a reference to nobody, BadInput for an identifier without system or value.
    """
    if given is None:
        return Whose("unidentified", None, None, "no patient was given")
    if isinstance(given, str):
        return _whose_chart(tx, given.removeprefix("Patient/"))
    system, value = given.get("system"), given.get("value")
    if not system or not value:
        raise BadInput("a patient identifier needs both its system and its value")
    found = find_survivors(tx, [(system, value)])
    if len(found) > 1:
        return Whose("quarantined", None, (system, value), "several patients carry this identifier", "several-patients")
    if not found or found[0].resource.get("active") is False:
        return Whose("awaiting-patient", None, (system, value), "no patient with this identifier is known yet")
    if differs := disagreement(found[0].resource, given):
        because = f"the {differs} given is not that of this identifier"
        return Whose("quarantined", None, (system, value), because, "demographics-differ")
    return Whose("bound", found[0].id, None, "the identifier is this patient's", patient=found[0])


def _whose_chart(tx: Connection, patient_id: str) -> Whose:
    """A chart may still be open when its patient is deleted (ADT A29): then it only says whose the photo would be."""
    survivor = find_survivor(tx, patient_id)
    if survivor is None:
        raise Unprocessable("there is no such patient; send an identifier, or leave the patient out")
    if survivor.resource.get("active") is False:
        return Whose("quarantined", survivor.id, None, "the patient's record is not in use any more", "person-deleted")
    return Whose("bound", survivor.id, None, "the patient was given by reference", patient=survivor)


def find_survivor(tx: Connection, patient_id: str) -> Stored | None:
    """The patient, or whoever it was merged into."""
    patient = find(tx, "Patient", patient_id)
    for _ in range(_LONGEST_CHAIN):
        following = replaced_by(patient.resource) if patient else None
        if following is None:
            return patient
        patient = find(tx, "Patient", following)
    return None


def replaced_by(patient: Resource) -> str | None:
    """The id of the patient this one was merged into."""
    for link in patient.get("link", ()):
        if link.get("type") == "replaced-by":
            return str(link["other"].get("reference", "")).removeprefix("Patient/") or None
    return None


def owns(resource: Resource, token: tuple[str, str]) -> bool:
    """Whether the record carries the identifier in its own right, not as a former one."""
    return any(
        (one.get("system"), one.get("value")) == token and one.get("use") != "old"
        for one in resource.get("identifier", ())
    )


def find_survivors(tx: Connection, tokens: Iterable[tuple[str, str]]) -> list[Stored]:
    """Every distinct patient, after merges, that carries one of the (system, value)."""
    holders = [patient for token in tokens for patient in find_by_identifier(tx, "Patient", *token)]
    found = (find_survivor(tx, patient.id) for patient in holders)
    return list({patient.id: patient for patient in found if patient is not None}.values())


def find_patient(tx: Connection, system: str, value: str) -> Stored | None:
    """The one active patient with this identifier; None when there is none, or more than one."""
    found = find_survivors(tx, [(system, value)])
    return found[0] if len(found) == 1 and found[0].resource.get("active", True) else None


def disagreement(patient: Resource, given: Json) -> str | None:
    """Which demographic contradicts, in words; None when all that was given agrees or nothing was."""
    if given.get("birthDate") and given["birthDate"] != patient.get("birthDate"):
        return "birth date"
    families = {folded(name["family"]) for name in patient.get("name", ()) if "family" in name}
    if given.get("family") and folded(given["family"]) not in families:
        return "family name"
    return None


def given_extension(given: Json) -> Json | None:
    """What else was given with an identifier, for Media.subject.extension, until the photo is bound."""
    kept = [extension(name, **{element: given[name]}) for name, element in _GIVEN_AS.items() if given.get(name)]
    return extension(GIVEN, extension=kept) if kept else None


def given_with(media: Resource) -> Json:
    """The reverse of `given_extension`."""
    for kept in media.get("subject", {}).get("extension", ()):
        if kept["url"] == GIVEN:
            return {one["url"]: one[_GIVEN_AS[one["url"]]] for one in kept["extension"]}
    return {}


_VISIT = TABLES["Encounter"].c
_VISITS_AT = selection(
    "Encounter",
    _VISIT.patient == bindparam("of"),
    _VISIT.date <= bindparam("at"),
    or_(_VISIT.date_end.is_(None), _VISIT.date_end > bindparam("at")),
    _VISIT.status.in_(TOOK_PLACE),
    limit=2,
)


def find_encounter_at(tx: Connection, patient_id: str, at: datetime) -> str | None:
    """The id of the one visit that covers the time; None when there is none, or more than one."""
    visits = find_selected(tx, "Encounter", _VISITS_AT, of=patient_id, at=at)
    return visits[0].id if len(visits) == 1 else None
