"""Saved comparisons as they may be shown now: to whom, with which of their photos, and what happened since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from adapter import access
from adapter.access import Actor
from adapter.access.policy import Letter, check_visible
from adapter.access.reach import sensitivity
from adapter.db.tables import observation, search_index
from adapter.errors import DermBridgeError, Gone, NotFound, Unprocessable
from adapter.records import Resource, Stored, find_where, get
from adapter.records.confinement import patient_of
from mappings.comparison_to_observation import COMPARISON, photos_of
from mappings.photos_to_picture import derivation_of
from mappings.terms import PHOTO_FINDING

LISTED = 50
ENTERED_IN_ERROR = "entered-in-error"
_FINAL = observation.c.status == "final|"
_COMPARISON = f"{COMPARISON}|{PHOTO_FINDING}"


@dataclass(frozen=True)
class Seen:
    """A photo of a saved comparison, which was of `version`. `media` is what it is now, None when it may not be shown;
    `said` tells why, or what happened to it since."""

    id: str
    version: int
    media: Stored | None
    said: str | None


def get_saved(tx: Connection, actor: Actor, observation_id: str, *, letter: Letter = "r") -> Stored:
    """A saved comparison in reach. Raises Forbidden, NotFound, Gone when it was withdrawn."""
    access.check_scope(actor, letter, "Observation")
    try:
        saved = get(tx, "Observation", observation_id)
    except NotFound:
        access.check_patient(actor, None)  # within a chart, what does not exist and what is another's are told alike
        raise NotFound("there is no such comparison") from None
    access.check_whose(tx, actor, patient_of(saved.resource))
    check_visible(actor, saved.resource)
    if not is_comparison(saved.resource):
        raise NotFound("there is no such comparison")
    if saved.resource["status"] == ENTERED_IN_ERROR:
        raise Gone(f"this comparison is not valid any more. {saved.resource['note'][-1]['text']}")
    return saved


def photos_seen(tx: Connection, actor: Actor, saved: Stored) -> list[Seen]:
    """Its photos as they may be shown now: never one that is somebody else's."""
    return [_seen(tx, actor, patient_of(saved.resource), *one) for one in photos_of(saved.resource)]


def _seen(tx: Connection, actor: Actor, patient_id: str | None, media_id: str, version: int) -> Seen:
    try:
        media = get_photo(tx, actor, media_id)
    except NotFound:
        return Seen(media_id, version, None, "It is not in this record any more.")
    except DermBridgeError as refusal:
        return Seen(media_id, version, None, f"{str(refusal)[:1].upper()}{str(refusal)[1:]}.")
    if patient_of(media.resource) != patient_id:
        return Seen(media_id, version, None, "It is not in this record any more.")
    since = f"Its details were corrected since: version {version} then, {media.version_id} now."
    return Seen(media_id, version, media, since if media.version_id != version else None)


def comparisons_of(
    tx: Connection, actor: Actor, *, patient_id: str, media_ids: Sequence[str] = (), limit: int | None = LISTED
) -> list[Stored]:
    """What was saved of a patient, and shows all of these photos, newest first; what may not be seen is left out."""
    conditions: list[Any] = [observation.c.patient == patient_id, observation.c.code == _COMPARISON, _FINAL]
    conditions += sensitivity(actor, "Observation")
    conditions += [observation.c.id.in_(made_from([one])) for one in media_ids]
    return find_where(tx, "Observation", *conditions, order_by=observation.c.id.desc(), limit=limit)


def measures_on(tx: Connection, actor: Actor, *, patient_id: str, media_ids: Sequence[str]) -> list[Stored]:
    """What else was found on any of the photos."""
    others = (observation.c.patient == patient_id, observation.c.code != _COMPARISON, _FINAL)
    on_them = observation.c.id.in_(made_from(media_ids))
    return find_where(tx, "Observation", on_them, *others, *sensitivity(actor, "Observation"))


def get_photo(tx: Connection, actor: Actor, media_id: str, letter: Letter = "r") -> Stored:
    """A photo that stands, to be compared or measured. Raises Forbidden, NotFound, Gone for one entered in error (its
    pixels may be of somebody else, as those of a picture whose comparison was withdrawn), Unprocessable for a picture
    made of photos: warped or drawn, it lies on what it was made of and has no true scale."""
    access.check_scope(actor, letter, "Media")
    try:
        media = get(tx, "Media", media_id)
    except NotFound:
        access.check_patient(actor, None)  # within a chart, what does not exist and what is another's are told alike
        raise
    access.check_whose(tx, actor, patient_of(media.resource))
    check_visible(actor, media.resource)
    if media.resource.get("status") == ENTERED_IN_ERROR:
        raise Gone("this photo was entered here in error and is not used any more")
    if derivation_of(media.resource):
        raise Unprocessable("this is a picture made of photos, neither compared nor measured; choose the photos")
    return media


def is_comparison(resource: Resource) -> bool:
    return bool(resource["code"]["coding"][0] == {"system": PHOTO_FINDING, "code": COMPARISON})


def made_from(media_ids: Sequence[str]) -> Any:
    """Ids of the Observations derived from any of the photos."""
    index = search_index.c
    return select(index.resource_id).where(
        index.resource_type == "Observation",
        index.param == "derived-from",
        index.value.in_([f"Media/{one}" for one in media_ids]),
    )
