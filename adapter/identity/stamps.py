"""When the sender last said what we keep, so that a message that comes late does not undo a newer one."""

from __future__ import annotations

from datetime import datetime

from adapter.records import Resource
from mappings.fhir_time import fhir_instant
from mappings.terms import CANON, Json, extension

RECORDED = f"{CANON}/StructureDefinition/adt-recorded"
UPDATED = f"{CANON}/StructureDefinition/adt-demographics-updated"
STATUS = f"{CANON}/StructureDefinition/adt-status-recorded"
"""EVN-2 (else MSH-7), PID-33, and EVN-2 of the newest message that set the status of the visit."""


def is_stale(resource: Resource, recorded_by: datetime | None, updated_by: datetime | None) -> bool:
    """PID-33 decides where both sides have it, else EVN-2; equal, vague or unknown times are not stale.

    Both are the last instant that may be meant (`DTM.last_instant`), since what is kept is the first.
    """
    for url, sent in ((UPDATED, updated_by), (RECORDED, recorded_by)):
        kept = _read(resource, url)
        if sent and kept:
            return sent < kept
    return False


def is_status_stale(resource: Resource, recorded_by: datetime | None) -> bool:
    """Whether a newer message than that of `recorded_by` set the status; one that only set other values does not count.

    So a discharge that comes after a later update still ends the visit.
    """
    kept = _read(resource, STATUS)
    return bool(recorded_by and kept and recorded_by < kept)


def stamped(
    resource: Resource,
    recorded_at: datetime | None,
    updated_at: datetime | None,
    *,
    status_at: datetime | None = None,
) -> Resource:
    """The resource with the times of the message it now says."""
    times = {RECORDED: recorded_at, UPDATED: updated_at, STATUS: status_at}
    others = [one for one in resource.get("extension", ()) if not times.get(one["url"])]
    stamps: list[Json] = [extension(url, valueInstant=fhir_instant(at)) for url, at in times.items() if at]
    return {**resource, **({"extension": kept} if (kept := [*others, *stamps]) else {})}


def _read(resource: Resource, url: str) -> datetime | None:
    for one in resource.get("extension", ()):
        if one["url"] == url:
            return datetime.fromisoformat(one["valueInstant"])
    return None
