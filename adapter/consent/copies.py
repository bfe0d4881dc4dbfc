"""Who has photographs of a patient already: what a withdrawal cannot call back by itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from adapter.db.tables import delivery
from adapter.records.confinement import same_patients


@dataclass(frozen=True)
class Copy:
    """One photograph at one destination; `state` as in adapter.delivery.DeliveryState."""

    media_id: str
    destination: str
    state: str
    since: datetime


def copies(tx: Connection, patient_id: str) -> list[Copy]:
    """Every photo of the patient, under any merged id, that a destination took and did not give back; oldest first."""
    columns = delivery.c
    rows = tx.execute(
        select(columns.media_id, columns.destination, columns.state, columns.accepted_at)
        .where(
            columns.patient.in_(same_patients(tx, [patient_id])),
            columns.accepted_at.is_not(None),
            columns.state != "retracted",
        )
        .order_by(columns.accepted_at, columns.id)
    )
    return [Copy(row.media_id, row.destination, row.state, row.accepted_at) for row in rows]
