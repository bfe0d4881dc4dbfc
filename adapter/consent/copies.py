"""Who has photographs of a patient already: what a withdrawal cannot call back by itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, select

from adapter.db.tables import audit_event, delivery
from adapter.records import find_where
from adapter.records.confinement import same_patients
from mappings.terms import DCM


@dataclass(frozen=True)
class Copy:
    """One photograph at one destination; `state` as in adapter.delivery.DeliveryState."""

    media_id: str
    destination: str
    state: str
    since: datetime


@dataclass(frozen=True)
class Export:
    """Photographs that a person took out as files at one moment, by the audit log."""

    who: str
    at: datetime
    photos: int


_NOT_THERE: Final = ("retracted", "superseded")
_EXPORT: Final = f"110106|{DCM}"  # DICOM audit event: Export
_DEVICE: Final = "Device/dermbridge"


def exports(tx: Connection, patient_id: str, *, limit: int = 500) -> list[Export]:
    """Who took photographs of the patient out by hand, latest first; DermBridge's own deliveries are `copies`."""
    columns = audit_event.c
    conditions = (columns.patient.in_(same_patients(tx, [patient_id])), columns.type == _EXPORT)
    found: dict[tuple[str, datetime], int] = {}
    for one in find_where(tx, "AuditEvent", *conditions, order_by=columns.date.desc(), limit=limit):
        agents = one.resource["agent"]
        who = next((agent for agent in agents if agent.get("requestor")), agents[0])
        if who["who"].get("reference") != _DEVICE:
            name = who.get("name") or who["who"].get("display") or who["who"].get("reference", "")
            key = (name, datetime.fromisoformat(one.resource["recorded"]))
            found[key] = found.get(key, 0) + 1
    return [Export(who, at, photos) for (who, at), photos in found.items()]


def copies(tx: Connection, patient_id: str) -> list[Copy]:
    """Every photo of the patient, under any merged id, that a destination took and did not give back; oldest first.

    A version that a newer one replaced is no further copy; `since` is when the first of them was taken.
    """
    columns = delivery.c
    rows = tx.execute(
        select(columns.media_id, columns.destination, columns.state, columns.accepted_at)
        .where(
            columns.patient.in_(same_patients(tx, [patient_id])),
            columns.accepted_at.is_not(None),
        )
        .order_by(columns.accepted_at, columns.id)
    )
    first: dict[tuple[str, str], datetime] = {}
    held: dict[tuple[str, str], str] = {}
    for row in rows:
        key = (row.media_id, row.destination)
        first.setdefault(key, row.accepted_at)
        if row.state not in _NOT_THERE:
            held[key] = row.state
    return [Copy(*key, held[key], since) for key, since in first.items() if key in held]
