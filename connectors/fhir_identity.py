"""Whose record, and which visit, at a FHIR destination. Nothing is written before both are certain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any, Final, NoReturn

from connectors.contract import DeliveryError, Parcel, Receipt, Retry, RouteRefused
from connectors.fhir_server import FhirServer
from connectors.kinds import FhirR4Profile
from connectors.outward import localised
from connectors.templates import taken_at
from mappings.fhir_time import period_bounds

Resource = dict[str, Any]

CLOSED: Final = frozenset({"finished", "cancelled", "entered-in-error"})


class PatientMissing(DeliveryError):
    """The destination does not know the patient (yet), so it cannot hold the photo either."""


@dataclass(frozen=True, slots=True)
class Place:
    """The patient, and the visit if any, at the destination (their references)."""

    patient: str
    encounter: str | None

    def references(self, parcel: Parcel, base: str = "") -> dict[str, str]:
        """Our reference -> theirs, absolute below `base` when it is given."""
        known = {_own_reference(parcel.patient): base + self.patient}
        if parcel.encounter is not None and self.encounter is not None:
            known[_own_reference(parcel.encounter)] = base + self.encounter
        return known


def place_of(receipt: Receipt) -> Place | None:
    """Where it was filed, by its receipt; None when that does not say."""
    patient, encounter = receipt.ids.get("Patient"), receipt.ids.get("Encounter")
    return Place(f"Patient/{patient}", f"Encounter/{encounter}" if encounter else None) if patient else None


def get_place(server: FhirServer, profile: FhirR4Profile, parcel: Parcel, *, may_create: bool = False) -> Place:
    """Find the patient and visit. `may_create` lets `patient.create_missing` act. Raises DeliveryError."""
    patient = _get_patient(server, profile, parcel.patient, may_create=may_create)
    return Place(patient, _find_encounter(server, profile, parcel, patient))


def _get_patient(server: FhirServer, profile: FhirR4Profile, ours: Mapping[str, Any], *, may_create: bool) -> str:
    identifiers = usable_identifiers(ours.get("identifier", []), profile.patient.identifier_systems)
    if not identifiers:
        _refuse(
            "The patient has no identifier of a system this destination knows.",
            "Add the system to patient.identifier_systems of the profile, then replay.",
        )
    for identifier in identifiers:
        found = server.find_by_identifier("Patient", identifier)
        if len(found) > 1:
            _refuse(
                f"{len(found)} patients of the destination bear the same identifier.",
                "Have them merged at the destination, then replay.",
            )
        if found:
            check_same_person(ours, found[0])
            return f"Patient/{found[0]['id']}"
    if profile.patient.create_missing and may_create:
        stored = server.create(_minimal_patient(ours, identifiers), unless=identifiers[0])
        if stored.id is not None:
            return f"Patient/{stored.id}"
    raise PatientMissing(
        "No patient of the destination bears this patient's identifier.",
        remedy="Register the patient there, or correct patient.identifier_systems; it is tried again.",
        retry=Retry.LATER,
    )


def usable_identifiers(identifiers: Iterable[Mapping[str, Any]], systems: tuple[str, ...]) -> list[Mapping[str, Any]]:
    """Identifiers in force, in the order of `systems` (all of them when it is empty)."""
    valid = [each for each in identifiers if each.get("system") and each.get("value") and each.get("use") != "old"]
    if not systems:
        return valid
    return [each for system in systems for each in valid if each["system"] == system]


def check_same_person(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """A reused or mistyped number must not put a photo into somebody else's record."""
    if any(link.get("type") == "replaced-by" for link in theirs.get("link", [])) or theirs.get("active") is False:
        _refuse(
            "The destination's patient was merged away or is not active.",
            "Apply the merge here as well (ADT A40), then replay.",
        )
    born_here, born_there = ours.get("birthDate"), theirs.get("birthDate")
    if born_here and born_there and not (born_here.startswith(born_there) or born_there.startswith(born_here)):
        _refuse(
            "The destination's patient with this identifier has another birth date.",
            "Find out which of the two records is wrong before replaying.",
        )


def _minimal_patient(ours: Mapping[str, Any], identifiers: list[Mapping[str, Any]]) -> Resource:
    kept = {name: ours[name] for name in ("resourceType", "name", "gender", "birthDate") if name in ours}
    return localised(kept | {"identifier": identifiers}, {})


def _find_encounter(server: FhirServer, profile: FhirR4Profile, parcel: Parcel, patient: str) -> str | None:
    policy = profile.encounter
    if policy.policy == "omit":
        return None
    ours = parcel.encounter or {}
    for identifier in usable_identifiers(ours.get("identifier", []), policy.identifier_systems):
        found = server.find_by_identifier("Encounter", identifier)
        if len(found) == 1:
            subject = tail(found[0].get("subject", {}).get("reference"))
            if subject != patient:
                _refuse(
                    "The destination has this visit number under another patient.",
                    "Find out which of the two records is wrong before replaying.",
                )
            if policy.closed == "refuse" and found[0].get("status") in CLOSED:
                raise RouteRefused(
                    "This destination takes no photos for a closed visit.",
                    remedy="Name an open visit, have this one reopened, or let another route take the photo.",
                    retry=Retry.NEVER,
                )
            if policy.within_hours is not None:
                _check_time(found[0], parcel, policy.within_hours)
            return f"Encounter/{found[0]['id']}"
    if policy.policy == "required":
        raise DeliveryError(
            "This destination files photos under a visit, and the visit is not there (or not unique).",
            remedy='Name the visit of the photo, or set encounter.policy = "optional"; it is tried again.',
            retry=Retry.LATER,
        )
    return None


def _check_time(visit: Resource, parcel: Parcel, hours: float) -> None:
    taken, margin, period = taken_at(parcel.media), timedelta(hours=hours), visit.get("period", {})
    try:
        begins, ends = period_bounds(period, UTC)
    except ValueError:  # theirs to write as they like
        return
    if (begins and taken < begins - margin) or (ends and taken > ends + margin):
        _refuse(
            "The photo was taken outside the visit's time as the destination knows it.",
            "Name the visit it was taken in, or raise encounter.within_hours of the profile, then replay.",
        )


def tail(reference: object) -> str:
    """`Type/id` of a relative, absolute or versioned reference; empty when there is none."""
    parts = str(reference or "").split("/_history/")[0].rstrip("/").split("/")
    return "/".join(parts[-2:])


def _own_reference(resource: Mapping[str, Any]) -> str:
    return f"{resource.get('resourceType')}/{resource.get('id')}"


def _refuse(reason: str, remedy: str) -> NoReturn:
    raise DeliveryError(reason, remedy=remedy, retry=Retry.NEVER)
