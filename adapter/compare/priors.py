"""Which earlier photo to lay beside this one: a table of what a good prior has in common with it, and in words why.

The candidates are the photos of the same lesion and of the same body site nearest in time, each read through an index,
so that suggesting costs the same in an archive of any size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, select

from adapter.db.tables import media
from adapter.records import Resource, Stored, find_where
from adapter.records.confinement import patient_of
from mappings.fhir_time import span
from mappings.terms import BODY_STRUCTURE, LATERALITY

BEFORE, AFTER = 40, 20
"""How many photos of a lesion and of a site are looked at, before and after the photo itself."""

UNDATED = datetime.min.replace(tzinfo=UTC)
Element = Callable[[Resource], Any]
Conditions = Sequence[ColumnElement[bool]]


@dataclass(frozen=True)
class Criterion:
    """What two photos share or not, and how it is said; nothing is said where one of them does not say it. `must`:
    photos that differ in it are never suggested for each other."""

    read: Element
    shared: str
    differs: str
    must: bool = False


@dataclass(frozen=True)
class Prior:
    """`reasons` say what it shares with the photo, `but` what it does not; both are words for people."""

    photo: Stored
    reasons: tuple[str, ...]
    but: tuple[str, ...]


def _extension(url: str, value: str) -> Element:
    def read(resource: Resource) -> Any:
        extensions = resource.get("bodySite", {}).get("extension", [])
        said: Resource = next((one.get(value, {}) for one in extensions if one.get("url") == url), {})
        return said.get("reference") or [one.get("code") for one in said.get("coding", [])]

    return read


def _codes(element: str) -> Element:
    return lambda resource: [one.get("code") for one in resource.get(element, {}).get("coding", [])]


CRITERIA = (  # the weightiest first
    Criterion(_extension(BODY_STRUCTURE, "valueReference"), "the same lesion", "another lesion", must=True),
    Criterion(_codes("bodySite"), "the same site", "another site"),
    Criterion(_extension(LATERALITY, "valueCodeableConcept"), "the same side", "the other side", must=True),
    Criterion(_codes("modality"), "the same kind of camera", "another kind of camera", must=True),
    Criterion(_codes("view"), "the same view", "another view"),
)


def explain(photo: Stored, prior: Stored) -> Prior:
    """Why two photos fit, or do not, whoever chose them."""
    said = [(one, one.read(photo.resource), one.read(prior.resource)) for one in CRITERIA]
    told = [(one, ours == theirs) for one, ours, theirs in said if ours and theirs]
    reasons = tuple(one.shared for one, equal in told if equal)
    return Prior(prior, reasons, tuple(one.differs for one, equal in told if not equal))


def find_prior(tx: Connection, photo: Stored, *, only: Conditions = ()) -> Prior | None:
    """The photo of another visit to compare this one with: what weighs most in common, then the most recent.

    One taken before is preferred to one taken after. None for a photo of nobody or without a date, and where nothing
    shows the same lesion or site. `only` is what the reader may see.
    """
    at = _taken(photo)
    ranked = [
        ((_taken(one) < at, *_shared(photo, one), -abs(_taken(one) - at), one.id), one)
        for one in candidates(tx, photo, only=only)
        if _taken(one) > UNDATED and not _is_same_visit(photo, one) and not _is_ruled_out(photo, one)
    ]
    return explain(photo, max(ranked)[1]) if ranked and at > UNDATED else None


def candidates(tx: Connection, photo: Stored, *, only: Conditions = ()) -> list[Stored]:
    """The patient's other photos of the same lesion or site, those nearest in time, oldest first."""
    row = tx.execute(select(media).where(media.c.id == photo.id)).one()
    photographs = (media.c.derivation.is_(None), media.c.status != "entered-in-error|", media.c.id != photo.id)
    alike = {  # each is the beginning of one index; the patient besides the lesion would leave two to choose from
        row.lesion: (media.c.lesion == row.lesion,),
        row.site: (media.c.patient == row.patient, media.c.site == row.site),
    }
    found: dict[str, Stored] = {}
    for value, of_it in alike.items():
        for when, order, limit in _slices(row.created):
            if row.patient is not None and value is not None:
                near = find_where(tx, "Media", *of_it, when, *photographs, *only, order_by=order, limit=limit)
                found |= {one.id: one for one in near if patient_of(one.resource) == row.patient}
    return sorted(found.values(), key=lambda one: (_taken(one), one.id))


def _slices(at: datetime | None) -> list[tuple[ColumnElement[bool], Any, int]]:
    """Ranges of the indexes that end in `created`: (condition, order, limit)."""
    created, latest_first = media.c.created, media.c.created.desc()
    undated = (created.is_(None), media.c.id.desc(), AFTER)
    if at is None:
        return [(created.is_not(None), latest_first, BEFORE), undated]
    return [(created <= at, latest_first, BEFORE), (created > at, created, AFTER), undated]


def _shared(photo: Stored, prior: Stored) -> tuple[bool, ...]:
    pairs = [(one.read(photo.resource), one.read(prior.resource)) for one in CRITERIA]
    return tuple(bool(ours) and ours == theirs for ours, theirs in pairs)


def _is_ruled_out(photo: Stored, prior: Stored) -> bool:
    pairs = [(one.read(photo.resource), one.read(prior.resource)) for one in CRITERIA if one.must]
    return any(ours and theirs and ours != theirs for ours, theirs in pairs)


def _is_same_visit(photo: Stored, prior: Stored) -> bool:
    """By their visits where both are known, else by the day."""
    ours, theirs = (one.resource.get("encounter", {}).get("reference") for one in (photo, prior))
    return bool(ours == theirs) if ours and theirs else _taken(photo).date() == _taken(prior).date()


def _taken(photo: Stored) -> datetime:
    text = photo.resource.get("createdDateTime")
    return span(text, UTC)[0] if text else UNDATED
