"""Photos that are in a patient's record elsewhere: what is told of them, and who can be asked. Nothing here writes.

A photo's id is its path below the destination's base_url, so the same id says where it is: `Media/17`,
`DocumentReference/5`, `DocumentReference/5#2` (its second attachment), `studies/…/series/…/instances/…`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from typing import Any, Final, Protocol, cast

from connectors.contract import DeliveryError, Retry, Secrets, Tallies, utc_now
from connectors.every_kind import Profile
from connectors.kinds import DicomWebProfile, EhrProfile, FhirR4Profile
from connectors.pace import own_tally

Resource = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PhotoFound:
    """One photo there, as its record tells it; what it does not tell is empty.

    `created` is a FHIR dateTime. `body_site` is a SNOMED code, `laterality` left, right or bilateral, `modality` one of
    DICOM (XC, DMS). `identifiers` are (system, value), `security` codings as written there. `sha1_b64` is
    Attachment.hash. `marks` are texts in which our own mark may stand. `obstacle` says why it stays there; empty: it
    can be fetched.
    """

    id: str
    version: str = ""
    content_type: str = ""
    created: str = ""
    title: str = field(default="", repr=False)
    kind: str = field(default="", repr=False)
    size: int | None = None
    device: str = ""
    modality: str = ""
    body_site: str = ""
    site_text: str = field(default="", repr=False)
    laterality: str = ""
    identifiers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    security: tuple[Mapping[str, str], ...] = ()
    sha1_b64: str = ""
    marks: str = field(default="", repr=False)
    obstacle: str = ""


@dataclass(frozen=True, slots=True)
class PhotosFound:
    """`more`: there are more than were looked at. `refused` are ids of records that the search brought although they
    are not this patient's. `asked` are the requests, for the audit log: they hold identifiers."""

    photos: tuple[PhotoFound, ...] = ()
    more: bool = False
    refused: tuple[str, ...] = ()
    asked: tuple[str, ...] = field(default=(), repr=False)
    not_offered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fetched:
    """The bytes of one photo, unchanged, unless `made` says what the destination made of them for us."""

    photo: PhotoFound
    content: bytes = field(repr=False)
    made: str = ""


class NotThisPatient(DeliveryError):
    """The record asked for is somebody else's, whatever led to it."""

    def __init__(self, photo_id: str) -> None:
        super().__init__(
            f"{photo_id} there is not in this patient's record.",
            remedy="Nothing was fetched. Find out there whose photo it is.",
            retry=Retry.NEVER,
        )


class PhotoGone(DeliveryError):
    """It is not there any more, or counts no more."""

    def __init__(self, photo_id: str) -> None:
        super().__init__(
            f"{photo_id} is not there any more, or was entered in error there.",
            remedy="Look at the list again.",
            retry=Retry.NEVER,
        )


class PhotoStays(DeliveryError):
    """It cannot be fetched; the reason is one of `PhotoFound.obstacle`, or what the bytes turned out to be."""

    def __init__(self, photo_id: str, why: str) -> None:
        super().__init__(f"{photo_id} stays where it is: {why}.", remedy="Open it there.", retry=Retry.NEVER)


class PhotoSource(Protocol):
    """One way to the photos of a destination. Several threads may use it at once; every failure is a DeliveryError.

    `patient` is a FHIR R4 Patient as we store it: it is found there by the identifiers the profile names, merges
    followed, and every record is held against it again before anything of it is told.
    """

    base_url: str

    def owns(self, photo_id: str) -> bool:
        """Whether an id is one of this source's."""
        ...

    def find_photos(self, patient: Resource) -> PhotosFound:
        """What is there. Raises PatientMissing when nobody there bears the patient's identifiers."""
        ...

    def get_photo(self, patient: Resource, photo_id: str) -> PhotoFound:
        """Read its record again, without the bytes. Raises NotThisPatient, PhotoGone."""
        ...

    def fetch_photo(self, patient: Resource, photo_id: str) -> Fetched:
        """Read its record again, then the bytes. Raises NotThisPatient, PhotoGone, PhotoStays."""
        ...

    def close(self) -> None: ...


_SOURCES: Final[Mapping[str, str]] = {
    "fhir-r4": "connectors.fhir_photos:FhirPhotos",
    "dicomweb": "connectors.dicom_photos:DicomPhotos",
}


def photo_profiles(profile: Profile) -> list[FhirR4Profile | DicomWebProfile]:
    """The profile, or those of its routes, that say how to ask for photos."""
    routes = profile.routes if isinstance(profile, EhrProfile) else (profile,)
    return [
        one
        for one in routes
        if (isinstance(one, FhirR4Profile) and one.photos.searches)
        or (isinstance(one, DicomWebProfile) and one.photos.modalities)
    ]


def open_photo_sources(
    profile: Profile, secrets: Secrets, now: Callable[[], datetime] = utc_now, tallies: Tallies = own_tally
) -> tuple[PhotoSource, ...]:
    """Nothing is sent yet. Raises OSError when a certificate file cannot be read."""

    def opened(one: FhirR4Profile | DicomWebProfile) -> PhotoSource:
        module, _, name = _SOURCES[one.kind].partition(":")
        return cast(PhotoSource, getattr(import_module(module), name)(one, secrets, now, tallies))

    return tuple(map(opened, photo_profiles(profile)))
