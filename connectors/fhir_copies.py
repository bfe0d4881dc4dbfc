"""What a FHIR destination already holds of a photo, and the receipt for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from connectors.contract import Parcel, Receipt, RouteRefused
from connectors.fhir_batch import Look
from connectors.fhir_identity import Place, tail, usable_identifiers
from connectors.fhir_server import FhirServer, Stored
from connectors.kinds import FhirR4Profile
from connectors.outward import find_capture_identifier, has_identifier, is_of_capture, is_of_delivery
from connectors.templates import filled, values

Resource = dict[str, Any]

RESOURCE_TYPE: Final[Mapping[str, str]] = {"fhir-media": "Media", "fhir-documentreference": "DocumentReference"}
# DocumentReference.status by the Media.status we deliver; a Media keeps its own.
_DOCUMENT_STATUS: Final = {"completed": "current"}


@dataclass(frozen=True, slots=True)
class Copy:
    """A resource at the destination that stands for this photo, in some version, in somebody's record."""

    route: str
    resource: Resource
    place: Place | None = None  # where it is, when it names patient and visit by number

    @property
    def patient(self) -> str:
        if self.place is not None:
            return self.place.patient
        return tail(self.resource.get("subject", {}).get("reference"))

    @property
    def encounter(self) -> str | None:
        if self.place is not None:
            return self.place.encounter
        visits: list[Resource] = self.resource.get("context", {}).get("encounter", [])
        visit = self.resource.get("encounter") or next(iter(visits), {})
        return tail(visit.get("reference")) or None

    @property
    def attachment(self) -> Resource:
        if self.route == "fhir-media":
            return dict(self.resource.get("content", {}))
        contents: list[Resource] = self.resource.get("content", [])
        return dict(next(iter(contents), {}).get("attachment", {}))


def find_copies(server: FhirServer, profile: FhirR4Profile, parcel: Parcel, place: Place) -> list[Copy]:
    """Every resource of this capture at the destination, the previous receipt's included."""
    copies: list[Copy] = []
    refused: list[RouteRefused] = []
    for route in profile.routes:
        try:
            found = _search(server, profile, parcel, place, RESOURCE_TYPE[route])
        except RouteRefused as error:
            refused.append(error)
            continue
        copies += [copy_of(route, resource, parcel, place) for resource in found]
    if len(refused) == len(profile.routes):  # nobody was asked, so nobody said that it is not there
        raise refused[0]
    previous = parcel.previous
    kind = RESOURCE_TYPE.get(previous.route, "") if previous else ""
    if previous and kind in previous.ids and previous.ids[kind] not in {copy.resource.get("id") for copy in copies}:
        resource = server.find(kind, previous.ids[kind])
        copies += [copy_of(previous.route, resource, parcel, place)] if resource else []
    return copies


def looks_for(profile: FhirR4Profile, parcel: Parcel, receipt: Receipt | None) -> Iterator[Look]:
    """What will be asked for a parcel, as far as it is known: before it is sent, or with a receipt to read it back.

    A patient whom an earlier parcel may register is left out, and so is whatever depends on the answer to another look.
    """
    if receipt is not None:
        kind = RESOURCE_TYPE[receipt.route]
        if kind in receipt.ids and profile.binary_upload != "inline":  # else one answer would hold all photos
            yield Look(kind, id=receipt.ids[kind])
        return
    if not profile.patient.create_missing:
        yield from _by_first("Patient", parcel.patient, profile.patient.identifier_systems)
    if profile.encounter.policy != "omit":
        yield from _by_first("Encounter", parcel.encounter or {}, profile.encounter.identifier_systems)
    if profile.look_by == "identifier" and (capture := find_capture_identifier(parcel.media)):
        yield from (Look(RESOURCE_TYPE[route], "", capture["system"], capture["value"]) for route in profile.routes)


def _by_first(kind: str, ours: Mapping[str, Any], systems: tuple[str, ...]) -> Iterator[Look]:
    """The others are asked for only where nobody bears the first."""
    for identifier in usable_identifiers(ours.get("identifier", []), systems)[:1]:
        yield Look(kind, "", identifier["system"], identifier["value"])


def copy_of(route: str, resource: Resource, parcel: Parcel, place: Place) -> Copy:
    """`resource` as a copy; one that names a patient by number is where our patient of that number is."""
    subject = resource.get("subject", {})
    if str(subject.get("reference", "")).startswith("#"):
        inside = [each for each in resource.get("contained", []) if f"#{each.get('id')}" == subject["reference"]]
        numbers = [number for each in inside for number in each.get("identifier", [])]
    else:
        numbers = [subject["identifier"]] if "identifier" in subject and "reference" not in subject else []
    return Copy(route, resource, place if any(has_identifier(parcel.patient, each) for each in numbers) else None)


def _search(server: FhirServer, profile: FhirR4Profile, parcel: Parcel, place: Place, kind: str) -> list[Resource]:
    if profile.look_by == "identifier":
        return server.find_by_identifier(kind, find_capture_identifier(parcel.media) or {})
    asked = {"patient": place.patient.partition("/")[2]}
    asked |= filled(profile.look_parameters, values(parcel, profile))
    return [each for each in server.search_all(kind, asked) if is_of_capture(each, parcel)]


def find_in_record(copies: list[Copy], place: Place) -> Copy | None:
    """The copy in this patient's record, if any; one that was not entered in error rather than one that was."""
    here = [copy for copy in copies if copy.patient == place.patient]
    return min(here, key=lambda copy: copy.resource.get("status") == "entered-in-error", default=None)


def find_delivered(parcel: Parcel, place: Place, copies: list[Copy]) -> Copy | None:
    """The copy that is exactly this parcel: this version, this patient, this status."""
    for copy in copies:
        is_current = copy.resource.get("status") == expected_status(copy.route, parcel)
        if is_current and copy.patient == place.patient and is_of_delivery(copy.resource, parcel):
            return copy
    return None


def find_former(parcel: Parcel, place: Place, copies: list[Copy]) -> Copy | None:
    """The version that the parcel replaces, where it still counts in this patient's record."""
    known = parcel.previous.ids if parcel.previous else {}
    for copy in copies:
        is_former = known.get(RESOURCE_TYPE[copy.route]) == copy.resource.get("id")
        counts = copy.resource.get("status") not in {"entered-in-error", "superseded"}
        if is_former and counts and copy.patient == place.patient and not is_of_delivery(copy.resource, parcel):
            return copy
    return None


def expected_status(route: str, parcel: Parcel) -> str:
    """The status the resource must have at the destination."""
    status = str(parcel.media.get("status"))
    return status if route == "fhir-media" else _DOCUMENT_STATUS.get(status, status)


def receipt_for_copy(profile: FhirR4Profile, copy: Copy, place: Place, placed: Mapping[str, str | None]) -> Receipt:
    """The receipt of something that was already there."""
    stored = Stored(copy.resource.get("id"), None, created=False, resource=copy.resource)
    return receipt_for(profile, copy.route, stored, place, placed, duplicate=True)


def receipt_for(
    profile: FhirR4Profile,
    route: str,
    stored: Stored,
    place: Place,
    placed: Mapping[str, str | None],
    *,
    duplicate: bool = False,
) -> Receipt:
    """The receipt of a write. Its location is built from our own base_url, so it never carries a signature."""
    kind = RESOURCE_TYPE[route]
    encounter = place.encounter.partition("/")[2] if place.encounter else None
    ids = {kind: stored.id, **placed, "Patient": place.patient.partition("/")[2], "Encounter": encounter}
    return Receipt(
        route=route,
        ids={name: value for name, value in ids.items() if value},
        location=f"{profile.base_url}/{kind}/{stored.id}" if stored.id else None,
        version=stored.version or stored.resource.get("meta", {}).get("versionId"),
        received_at=find_updated_at(stored.resource),
        duplicate=duplicate,
    )


def find_updated_at(resource: Resource) -> datetime | None:
    """`meta.lastUpdated`; None when the destination did not answer with the resource."""
    try:
        moment = datetime.fromisoformat(resource.get("meta", {}).get("lastUpdated", ""))
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def find_binary_id(url: object) -> str | None:
    """The id in `Binary/id`; None for anything else, such as a signed address."""
    if not isinstance(url, str) or "?" in url:
        return None
    kind, _, resource_id = tail(url).partition("/")
    return resource_id if kind == "Binary" and resource_id else None
