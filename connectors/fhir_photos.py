"""Photos in a patient's record on a FHIR server: Media and DocumentReference searched, their attachments fetched.

http://hl7.org/fhir/R4/search.html. Read only. The patient is found there by identifier, with merges followed; a record
whose subject is anybody else is refused, whatever search brought it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from urllib.parse import parse_qsl

from connectors.contract import DeliveryError, Retry, RouteRefused, Secrets, Tallies, utc_now
from connectors.fhir_identity import PatientMissing, check_same_person, tail, usable_identifiers
from connectors.fhir_server import FhirServer
from connectors.kinds import FhirR4Profile
from connectors.pace import own_tally
from connectors.patient_query import PatientQuery
from connectors.patients_found import Match, Sought
from connectors.photo_answers import Answered, counts, photos_of, read_photos
from connectors.photos_found import (
    Fetched,
    NotThisPatient,
    PhotoFound,
    PhotoGone,
    PhotosFound,
    PhotoStays,
    Resource,
)
from connectors.session import open_session

_ID: Final = re.compile(r"(?P<kind>Media|DocumentReference)/(?P<id>[A-Za-z0-9.\-]{1,64})(?:#(?P<number>[1-9]\d?))?")


@dataclass(frozen=True, slots=True)
class _Whose:
    """The patient there: the id in use first, then those merged into it; and the identifiers asked by."""

    ids: tuple[str, ...]
    identifiers: frozenset[tuple[str, str]]
    asked: tuple[str, ...]


class FhirPhotos:
    """A `connectors.photos_found.PhotoSource`."""

    def __init__(
        self,
        profile: FhirR4Profile,
        secrets: Secrets,
        now: Callable[[], datetime] = utc_now,
        tallies: Tallies = own_tally,
    ) -> None:
        table = profile.photos
        lookup = profile.patient_lookup.model_copy(
            update={"ways": ("identifier",), "visit": False, "seconds": table.seconds}
        )
        timeouts = profile.timeouts.within(table.seconds)
        self._profile = profile.model_copy(update={"timeouts": timeouts, "patient_lookup": lookup})
        self._session = open_session(self._profile, secrets, now, tallies)
        self._patients = PatientQuery(self._profile, secrets, now, self._session)
        self._server = FhirServer(self._profile, self._session.http, self._session.bare)
        self.base_url = profile.base_url

    def owns(self, photo_id: str) -> bool:
        return _ID.fullmatch(photo_id) is not None

    def find_photos(self, patient: Resource) -> PhotosFound:
        whose = self._whose(patient)
        found: dict[str, PhotoFound] = {}
        asked, refused, not_offered, more = [*whose.asked], set[str](), list[str](), False
        for search in self._profile.photos.searches:
            for patient_id in whose.ids:
                named = search.replace("{patient}", patient_id)
                asked.append(named)
                try:
                    records, cut = self._searched(named)
                except RouteRefused:
                    not_offered.append(search)
                    break
                more |= cut
                for record in records:
                    place = f"{record.get('resourceType')}/{record.get('id')}"
                    answered = read_photos(record)
                    if answered is None or not self._is_whose(answered, whose):
                        refused.add(place)
                    elif counts(answered):
                        found |= {one.id: one for one, _ in self._told(answered)}
        return PhotosFound(tuple(found.values()), more, tuple(sorted(refused)), tuple(asked), tuple(not_offered))

    def get_photo(self, patient: Resource, photo_id: str) -> PhotoFound:
        return self._read(patient, photo_id)[0]

    def fetch_photo(self, patient: Resource, photo_id: str) -> Fetched:
        photo, attachment = self._read(patient, photo_id)
        if photo.obstacle:
            raise PhotoStays(photo_id, photo.obstacle)
        return Fetched(photo, self._content(photo, attachment))

    def close(self) -> None:
        self._session.close()

    # --- whose ------------------------------------------------------------------------------------------------------

    def _whose(self, patient: Resource) -> _Whose:
        identifiers = usable_identifiers(patient.get("identifier", []), self._profile.patient.identifier_systems)
        asked: list[str] = []
        for identifier in identifiers:
            found = self._patients.find(Sought(system=identifier["system"], value=identifier["value"]))
            asked += found.asked
            if found.several or len(found.matches) > 1:
                raise DeliveryError(
                    "Several patients of the destination bear the same identifier.",
                    remedy="Have them merged at the destination.",
                    retry=Retry.NEVER,
                )
            if found.matches:
                check_same_person(patient, found.matches[0].patient)
                named = frozenset((str(one["system"]), str(one["value"])) for one in identifiers)
                return _Whose(_ids_of(found.matches[0]), named, tuple(asked))
        raise PatientMissing(
            "No patient of the destination bears this patient's identifiers.",
            remedy="Correct patient.identifier_systems of the profile, or ask for the patient to be registered there.",
            retry=Retry.NEVER,
        )

    def _is_whose(self, answered: Answered, whose: _Whose) -> bool:
        """An absolute reference counts only below base_url: another server's Patient/17 is somebody else."""
        subject = answered.subject
        if not subject.reference:
            return (subject.identifier.system, subject.identifier.value) in whose.identifiers
        if "://" in subject.reference and not self._session.http.is_ours(subject.reference):
            return False
        kind, _, patient_id = tail(subject.reference).partition("/")
        return kind == "Patient" and patient_id in whose.ids

    # --- what -------------------------------------------------------------------------------------------------------

    def _read(self, patient: Resource, photo_id: str) -> tuple[PhotoFound, Resource]:
        named = _ID.fullmatch(photo_id)
        if named is None:
            raise PhotoGone(photo_id)
        whose = self._whose(patient)
        record = self._server.find(named["kind"], named["id"])
        if record is None:
            raise PhotoGone(photo_id)
        if (answered := read_photos(record)) is None:
            raise PhotoStays(photo_id, "its record cannot be read")
        if not counts(answered):
            raise PhotoGone(photo_id)
        if not self._is_whose(answered, whose):
            raise NotThisPatient(photo_id)
        for photo, attachment in self._told(answered):
            if photo.id == photo_id:
                return photo, attachment
        raise PhotoGone(photo_id)

    def _searched(self, search: str) -> tuple[list[Resource], bool]:
        """The records, and whether there are more than `at_most`."""
        kind, _, query = search.partition("?")
        found: list[Resource] = []
        for page in self._server.pages(kind, dict(parse_qsl(query, keep_blank_values=True))):
            found += page
            if len(found) > self._profile.photos.at_most:
                return found[: self._profile.photos.at_most], True
        return found, False

    def _told(self, answered: Answered) -> Iterable[tuple[PhotoFound, Resource]]:
        for photo, attachment in photos_of(answered):
            yield replace(photo, obstacle=self._obstacle(photo, attachment)), attachment

    def _obstacle(self, photo: PhotoFound, attachment: Resource) -> str:
        table = self._profile.photos
        if photo.content_type not in table.accepts:
            return f"it is no photo but {photo.content_type or 'of no type'}"
        if (photo.size or 0) > table.max_bytes:
            return f"it is larger than {table.max_bytes // 1_000_000} MB"
        if "data" not in attachment and not self._server.may_download(attachment):
            return "its address is not below base_url, nor of a host that attachment_hosts of the profile names"
        return ""

    def _content(self, photo: PhotoFound, attachment: Resource) -> bytes:
        limit = self._profile.photos.max_bytes
        content = self._server.download(attachment, limit=limit)
        if not content:
            raise PhotoGone(photo.id)
        if len(content) > limit:
            raise PhotoStays(photo.id, f"it is larger than {limit // 1_000_000} MB")
        if not _fits(content, photo.sha1_b64):
            raise PhotoStays(photo.id, "its bytes are not those that its record describes (hash)")
        return content


def _ids_of(match: Match) -> tuple[str, ...]:
    """The id in use, the one it was found by, and those the server says it replaces."""
    links = [one for one in match.patient.get("link", ()) if one["type"] == "replaces"]
    replaced = [tail(one.get("other", {}).get("reference")) for one in links]
    merged = [match.formerly, *(one.removeprefix("Patient/") for one in replaced if one.startswith("Patient/"))]
    return tuple(dict.fromkeys([str(match.patient["id"]), *filter(None, merged)]))[:10]


def _fits(content: bytes, told: str) -> bool:
    """Attachment.hash is a SHA-1; anything that cannot be one says nothing."""
    try:
        digest = base64.b64decode(told, validate=True)
    except (binascii.Error, ValueError):
        return True
    return len(digest) != 20 or digest == hashlib.sha1(content, usedforsecurity=False).digest()
