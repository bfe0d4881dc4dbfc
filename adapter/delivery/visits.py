"""Visits that are filed as one PDF: where, which photos then need not go alone, and when a sheet is made again.

A photo that joins a visit, changes or leaves it puts the visit in line; `visit_sheets` does the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection, select

from adapter.bridge import Bridge
from adapter.db.tables import media
from adapter.delivery.destinations import known_profiles
from adapter.records import Stored
from adapter.records.pictures import pictures_of
from adapter.work import Work, cancel, enqueue
from connectors.every_kind import Profile
from mappings.capture_to_media import is_bound
from mappings.photos_to_picture import VISIT_SHEETS, derivation_of

KIND: Final = "visit-sheet"
SETTLES: Final = timedelta(seconds=60)  # after the last photo: they come one after the other


def sheets_wanted(bridge: Bridge) -> Mapping[str, list[str]]:
    """Destinations by the sheet (a code of picture-derivation) that they take."""
    found: dict[str, list[str]] = {}
    for name, profile in known_profiles(bridge.settings).items():
        if profile.visit_sheet:
            found.setdefault(profile.visit_sheet, []).append(name)
    return found


def goes_alone(profile: Profile | None, photo: Mapping[str, Any]) -> bool:
    """Whether a photo is filed by itself; where only sheets are, one of no visit still is."""
    return profile is None or not profile.visit_sheet or profile.single_photos or "encounter" not in photo


def renew_sheets(tx: Connection, bridge: Bridge, photos: Sequence[Stored]) -> None:
    """Have the sheets of all visits made again that any of these photos belongs to, or is shown on."""
    if not sheets_wanted(bridge):
        return
    joined = {_visit_of(one) for one in photos if _counts(one.resource)} - {None}
    sheets = [sheet for one in photos for sheet in pictures_of(tx, one.reference)]
    shown = {_visit_of(one) for one in sheets if derivation_of(one.resource) in VISIT_SHEETS} - {None}
    _in_line(tx, bridge, joined, wait=SETTLES)
    _in_line(tx, bridge, shown - joined, wait=timedelta())  # it shows a photo that is not of this visit any more


def renew_sheets_of(tx: Connection, bridge: Bridge, patient_id: str) -> None:
    """What the patient permits has changed, and with it perhaps which photos are on the sheets."""
    if sheets_wanted(bridge):
        visits = select(media.c.encounter).where(media.c.patient == patient_id, media.c.encounter.is_not(None))
        _in_line(tx, bridge, set(tx.execute(visits.distinct()).scalars()), wait=timedelta())


def _in_line(tx: Connection, bridge: Bridge, visits: Iterable[str | None], *, wait: timedelta) -> None:
    at, ids = bridge.now(), sorted(filter(None, visits))
    bridge.db.lock(tx, *(f"visit:{one}" for one in ids))
    for encounter_id in ids:
        key = f"{KIND}:{encounter_id}"
        cancel(tx, key)  # in hand already, it notices by itself that the visit is another
        enqueue(tx, Work(kind=KIND, idempotency_key=key, payload={"encounter": encounter_id}), at=at, due_at=at + wait)


def _counts(photo: dict[str, Any]) -> bool:
    return derivation_of(photo) is None and photo.get("status") == "completed" and is_bound(photo)


def _visit_of(one: Stored) -> str | None:
    reference = one.resource.get("encounter", {}).get("reference", "")
    return str(reference).removeprefix("Encounter/") or None
