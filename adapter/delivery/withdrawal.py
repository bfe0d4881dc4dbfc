"""Consent ended: what is at destinations that take photos back then is decided again, photo by photo."""

from __future__ import annotations

from sqlalchemy import Connection, select

from adapter.bridge import Bridge
from adapter.db.tables import delivery
from adapter.delivery.orders import decide_for
from adapter.delivery.outbox import HOLDING, start_retraction, taking_back
from adapter.records import find_all


def take_back_withdrawn(tx: Connection, bridge: Bridge, patient_id: str) -> None:
    """Retract what may not be at a destination with `on_withdrawal = "retract"` any more, by the rule that lets photos
    go there. What is being sent sees to it on arrival."""
    bridge.db.lock(tx, f"consent:{patient_id}")
    c = delivery.c
    for name in taking_back(bridge):
        here = (c.patient == patient_id, c.destination == name, c.receipt.is_not(None), c.state.in_(HOLDING))
        rows = tx.execute(select(delivery).where(*here)).all()
        photos = find_all(tx, "Media", {row.media_id for row in rows})
        decisions = decide_for(tx, bridge, name, [(row.patient, photos.get(row.media_id)) for row in rows])
        for row, decision in zip(rows, decisions, strict=True):
            if not decision.permit:
                start_retraction(tx, bridge, row, reason="the patient withdrew consent")
