"""Destinations asked for the photos they hold of a patient, read only; what connectors raise becomes errors of ours.

A destination that is down is left alone here as by deliveries, and what is asked here counts in its allowance.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from adapter.bridge import Bridge
from adapter.delivery.circuit import find_circuit, note_answer, note_outage
from adapter.delivery.destinations import Destinations, known_profiles
from adapter.errors import Gone, NotFound, Unavailable, Unprocessable
from adapter.settings import Settings
from connectors.contract import DeliveryError, Retry
from connectors.photos_found import (
    Fetched,
    NotThisPatient,
    PhotoFound,
    PhotoGone,
    PhotosFound,
    PhotoSource,
    photo_profiles,
)

Patient = dict[str, Any]


class WrongPatient(Unprocessable):
    """What was asked for is in somebody else's record there."""


@dataclass(frozen=True)
class Listed:
    """What a destination told; `problems` are sentences on what it did not. See `PhotosFound`."""

    photos: tuple[PhotoFound, ...] = ()
    more: bool = False
    refused: tuple[str, ...] = ()
    asked: tuple[str, ...] = field(default=(), repr=False)
    problems: tuple[str, ...] = ()


def photo_destinations(settings: Settings) -> list[str]:
    """The destinations whose profile says how to ask for photos."""
    return [name for name, profile in known_profiles(settings).items() if photo_profiles(profile)]


def list_photos(bridge: Bridge, destinations: Destinations, name: str, patient: Patient) -> Listed:
    """Asked in every way the destination has; `patient` is the Patient as we store it.

    Raises Unavailable, Unprocessable when no way answered, NotFound, Misconfigured.
    """
    told: list[PhotosFound] = []
    failures: list[Unavailable | Unprocessable] = []
    for source in _sources(destinations, name):
        try:
            with _answering(bridge, name):
                told.append(source.find_photos(patient))
        except (Unavailable, Unprocessable) as error:
            failures.append(error)
    if failures and not told:
        raise failures[0]
    return Listed(
        photos=tuple(photo for one in told for photo in one.photos),
        more=any(one.more for one in told),
        refused=tuple(each for one in told for each in one.refused),
        asked=tuple(each for one in told for each in one.asked),
        problems=(*map(str, failures), *(f"{each} is not offered there" for one in told for each in one.not_offered)),
    )


def fetch_photo(bridge: Bridge, destinations: Destinations, name: str, patient: Patient, photo_id: str) -> Fetched:
    """The photo with its bytes.

    Raises WrongPatient, Gone, Unprocessable when it stays there, Unavailable, NotFound, Misconfigured.
    """
    with _answering(bridge, name):
        return _owner(destinations, name, photo_id).fetch_photo(patient, photo_id)


def get_photo(bridge: Bridge, destinations: Destinations, name: str, patient: Patient, photo_id: str) -> PhotoFound:
    """What its record there says now. Raises as `fetch_photo`."""
    with _answering(bridge, name):
        return _owner(destinations, name, photo_id).get_photo(patient, photo_id)


def address_of(destinations: Destinations, name: str, photo_id: str) -> str:
    """Where the record of a photo stands, absolute and without version. Raises NotFound, Misconfigured."""
    return f"{_owner(destinations, name, photo_id).base_url}/{photo_id}"


def photo_at(destinations: Destinations, name: str, address: str) -> str:
    """The id of the photo at an address of `address_of`. Raises NotFound, also when the destination moved since."""
    for source in _sources(destinations, name):
        photo_id = address.removeprefix(f"{source.base_url}/")
        if photo_id != address and source.owns(photo_id):
            return photo_id
    raise NotFound(f"{name} holds no photos at that address any more")


def _sources(destinations: Destinations, name: str) -> tuple[PhotoSource, ...]:
    if found := destinations.photos(name):
        return found
    raise NotFound(f"destination {name!r} is not asked for photos; see [photos] of its profile")


def _owner(destinations: Destinations, name: str, photo_id: str) -> PhotoSource:
    if found := next((one for one in _sources(destinations, name) if one.owns(photo_id)), None):
        return found
    raise NotFound(f"{name} has no photos with such an id; look at the list again")


@contextmanager
def _answering(bridge: Bridge, name: str) -> Iterator[None]:
    with bridge.db.snapshot() as tx:
        down = find_circuit(tx, name)
    if down is not None and down.open_until is not None and down.open_until > bridge.now():
        raise Unavailable(f"{name} does not answer; it is left alone until {down.open_until:%H:%M:%S} UTC")
    try:
        yield
    except NotThisPatient as error:
        raise WrongPatient(f"{error} {error.remedy}") from error
    except PhotoGone as error:
        raise Gone(f"{error} {error.remedy}") from error
    except DeliveryError as error:
        if error.outage:
            with bridge.db.transaction() as tx:
                note_outage(tx, name, str(error), at=bridge.now())
        kind = Unprocessable if error.retry is Retry.NEVER else Unavailable
        raise kind(f"{error} {error.remedy}") from error
    if down is not None:
        with bridge.db.transaction() as tx:
            note_answer(tx, name)
