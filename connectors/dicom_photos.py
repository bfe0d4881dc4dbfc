"""A patient's photos in an archive: asked for by QIDO-RS, fetched by WADO-RS (DICOM PS3.18 10.6, 10.4). Read only.

The archive is asked by the PatientID the profile names, and every object must name exactly that one: a wildcard in a
number, or an archive that ignores what it does not know, brings nobody else's photos. The JPEG in an object is taken
out bit for bit; what is no JPEG is fetched as the archive renders it, and says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice
from typing import Final
from urllib.parse import urlencode

from connectors.answers import Answer
from connectors.contract import DeliveryError, Retry, Secrets, Tallies, utc_now
from connectors.dicomweb import DICOM_JSON, first_part
from connectors.fhir_identity import PatientMissing
from connectors.kinds import DicomWebProfile
from connectors.pace import own_tally
from connectors.photos_found import Fetched, NotThisPatient, PhotoFound, PhotoGone, PhotosFound, PhotoStays, Resource
from connectors.session import open_session
from connectors.templates import identifier_of
from mappings.dicom_to_photo import (
    PHOTO_TAGS,
    UID,
    Item,
    NotAnImage,
    created_of,
    find_photo,
    is_same_person,
    read_object,
    site_of,
    value_of,
)
from mappings.terms import DICOM_UID

_PLACE: Final = re.compile(rf"studies/{UID}/series/{UID}/instances/{UID}")
_UIDS: Final = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
GONE: Final = frozenset({204, 404, 410})
INCLUDED: Final = [("includefield", tag) for tag in PHOTO_TAGS.values()]
RENDERED: Final = ("image/png", "image/jpeg")  # one after the other: Orthanc refuses an Accept that names both
Parameters = list[tuple[str, str]]


class DicomPhotos:
    """A `connectors.photos_found.PhotoSource`."""

    def __init__(
        self,
        profile: DicomWebProfile,
        secrets: Secrets,
        now: Callable[[], datetime] = utc_now,
        tallies: Tallies = own_tally,
    ) -> None:
        timeouts = profile.timeouts.within(profile.photos.seconds)
        self._profile, self._table = profile, profile.photos
        self._session = open_session(profile.model_copy(update={"timeouts": timeouts}), secrets, now, tallies)
        self.base_url = profile.base_url

    def owns(self, photo_id: str) -> bool:
        return _PLACE.fullmatch(photo_id) is not None

    def find_photos(self, patient: Resource) -> PhotosFound:
        asked: list[str] = []
        listed = self._listed(self._patient_id(patient), asked)
        items = list(islice(listed, self._table.at_most + 1))
        found: dict[str, PhotoFound] = {}
        refused = set[str]()
        for item in items[: self._table.at_most]:
            if value_of(item, "SOPClassUID") in self._table.sop_classes and (place := _place_of(item)):
                if self._is_whose(item, patient):
                    found[place] = self._told(item)
                else:
                    refused.add(place)
        return PhotosFound(
            tuple(found.values()), len(items) > self._table.at_most, tuple(sorted(refused)), tuple(asked)
        )

    def get_photo(self, patient: Resource, photo_id: str) -> PhotoFound:
        if not self.owns(photo_id):
            raise PhotoGone(photo_id)
        answer = self._get_there(photo_id, f"{photo_id}/metadata", DICOM_JSON)
        told = answer.parsed()
        if not isinstance(told, list) or not told or not isinstance(told[0], dict):
            raise PhotoStays(photo_id, "the archive does not tell its metadata")
        return self._checked(told[0], patient, photo_id)

    def fetch_photo(self, patient: Resource, photo_id: str) -> Fetched:
        if not self.owns(photo_id):
            raise PhotoGone(photo_id)
        answer = self._get_there(photo_id, photo_id, 'multipart/related; type="application/dicom"; transfer-syntax=*')
        try:
            item, dataset = read_object(first_part(answer) or b"")
        except NotAnImage as error:
            raise PhotoStays(photo_id, str(error)) from error
        photo = self._checked(item, patient, photo_id)
        if photo.obstacle:
            raise PhotoStays(photo_id, photo.obstacle)
        if (stream := find_photo(dataset)) is not None:
            return Fetched(photo, stream)
        return self._rendered(photo)

    def close(self) -> None:
        self._session.close()

    # --- whose ------------------------------------------------------------------------------------------------------

    def _patient_id(self, patient: Resource) -> str:
        system = self._profile.dicom.patient_id_system
        if found := identifier_of(patient, (system,) if system else ()):
            return found
        raise PatientMissing(
            "The patient has no identifier that this archive uses as PatientID.",
            remedy="Correct dicom.patient_id_system of the profile.",
            retry=Retry.NEVER,
        )

    def _is_whose(self, item: Item, patient: Resource) -> bool:
        born = str(patient.get("birthDate", ""))
        issuer = self._profile.dicom.issuer
        return is_same_person(item, patient_id=self._patient_id(patient), issuer=issuer, birth_date=born)

    def _checked(self, item: Item, patient: Resource, photo_id: str) -> PhotoFound:
        if _place_of(item) != photo_id or not self._is_whose(item, patient):
            raise NotThisPatient(photo_id)
        return self._told(item)

    # --- what -------------------------------------------------------------------------------------------------------

    def _listed(self, patient_id: str, asked: list[str]) -> Iterator[Item]:
        whose = ("PatientID", patient_id)
        for modality in self._table.modalities:
            if self._table.level == "instance":
                yield from self._query("instances", [whose, ("Modality", modality)], asked)
                continue
            for study in self._query("studies", [whose, ("ModalitiesInStudy", modality)], asked):
                place = f"studies/{value_of(study, 'StudyInstanceUID')}"
                for series in self._query(f"{place}/series", [("Modality", modality)], asked):
                    uid = value_of(series, "SeriesInstanceUID")
                    for instance in self._query(f"{place}/series/{uid}/instances", [], asked):
                        # Only what the standard makes an archive tell at each level need come back.
                        yield {**study, **series, **instance}

    def _query(self, path: str, parameters: Parameters, asked: list[str]) -> list[Item]:
        limit = ("limit", str(self._table.at_most + 1))
        if not re.fullmatch(rf"(studies(/{UID}/series(/{UID}/instances)?)?|instances)", path):
            return []
        asked.append(f"{path}?{urlencode(parameters)}" if parameters else path)
        answer = self._session.http.request(
            "GET",
            f"{path}?{urlencode([*parameters, limit, *INCLUDED])}",
            doing="Asking the archive for photos",
            write=False,
            accepted=frozenset({204}),
            headers={"Accept": DICOM_JSON},
        )
        found = answer.parsed() if answer.status == 200 else []
        if not isinstance(found, list):
            raise DeliveryError(
                "Asking the archive for photos brought no DICOM JSON.",
                remedy="Check base_url, and that no login page or proxy answers for the archive.",
                retry=Retry.LATER,
            )
        return [each for each in found if isinstance(each, dict)]

    def _told(self, item: Item) -> PhotoFound:
        code, meaning, side = site_of(item)
        frames = value_of(item, "NumberOfFrames") or "1"
        return PhotoFound(
            id=_place_of(item),
            content_type="image/jpeg",
            created=created_of(item),
            title=_line(value_of(item, "ImageComments") or value_of(item, "SeriesDescription")),
            kind=_line(value_of(item, "StudyDescription")),
            device=_line(value_of(item, "ManufacturerModelName")),
            modality=value_of(item, "Modality")[:16],
            body_site=code,
            site_text=_line(meaning),
            laterality=side,
            identifiers=((DICOM_UID, f"urn:oid:{value_of(item, 'SOPInstanceUID')}"),),
            obstacle="" if frames == "1" else f"it is no single photo but has {frames[:10]} frames",
        )

    def _rendered(self, photo: PhotoFound) -> Fetched:
        for accept in RENDERED:
            answer = self._get(f"{photo.id}/rendered", accept)
            content_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            if answer.status == 200 and content_type in RENDERED:
                made = "as the archive renders it: the object holds no JPEG"
                return Fetched(photo, self._bounded(photo.id, answer), made)
        raise PhotoStays(photo.id, "it is no JPEG, and the archive does not render it")

    def _get_there(self, photo_id: str, path: str, accept: str) -> Answer:
        """`_get` of an instance. That it is gone is believed of an archive that answers searches as well: copies are
        destroyed upon it."""
        answer = self._get(path, accept)
        if answer.status in GONE:
            self._query("studies", [("StudyInstanceUID", photo_id.split("/")[1])], [])
            raise PhotoGone(photo_id)
        if answer.status != 200:
            raise PhotoStays(photo_id, f"the archive does not give it (HTTP {answer.status})")
        return answer

    def _get(self, path: str, accept: str) -> Answer:
        answer = self._session.http.request(
            "GET",
            path,
            doing="Fetching a photo",
            write=False,
            accepted=GONE | {400, 406},
            limit=self._table.max_bytes,
            headers={"Accept": accept},
        )
        self._bounded(path, answer)
        return answer

    def _bounded(self, place: str, answer: Answer) -> bytes:
        if len(answer.content) > self._table.max_bytes:
            raise PhotoStays(place, f"it is larger than {self._table.max_bytes // 1_000_000} MB")
        return answer.content


def _place_of(item: Item) -> str:
    """The path of an instance; empty when an archive does not tell all its UIDs."""
    study, series, instance = (value_of(item, name) for name in _UIDS)
    place = f"studies/{study}/series/{series}/instances/{instance}"
    return place if _PLACE.fullmatch(place) else ""


def _line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f]+", " ", text).strip()[:200]
