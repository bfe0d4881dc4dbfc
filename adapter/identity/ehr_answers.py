"""What EHRs said when they were asked whose photo it is: kept beside the photo until that is settled.

Never more than a proposal to a person: nothing here links a photo to anybody.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, delete, insert, select

from adapter.db.engine import batches
from adapter.db.tables import patient_answer
from adapter.delivery import Match
from adapter.records import Resource


@dataclass(frozen=True)
class EhrCandidate:
    """A patient of an EHR as it told us; `grade` and `score` are its own words on how well it fits."""

    patient: Resource
    visit: Resource | None
    way: str
    grade: str
    score: float | None


@dataclass(frozen=True)
class EhrAnswer:
    """What one EHR said last; `reason` says to people why the photo was not bound by it."""

    destination: str
    asked_at: datetime
    reason: str
    candidates: tuple[EhrCandidate, ...]


def keep_answer(
    tx: Connection, media_id: str, destination: str, reason: str, matches: Iterable[Match], *, at: datetime
) -> None:
    """In place of what the same EHR said before."""
    told = [
        {"patient": one.patient, "visit": one.visit, "way": one.way, "grade": one.grade, "score": one.score}
        for one in matches
    ]
    c = patient_answer.c
    tx.execute(delete(patient_answer).where(c.media_id == media_id, c.destination == destination))
    row = {"media_id": media_id, "destination": destination, "asked_at": at, "reason": reason}
    tx.execute(insert(patient_answer), row | {"candidates": orjson.dumps(told).decode()})


def answers_of(tx: Connection, media_id: str) -> list[EhrAnswer]:
    """By name of the EHR."""
    c = patient_answer.c
    rows = tx.execute(select(patient_answer).where(c.media_id == media_id).order_by(c.destination))
    return [
        EhrAnswer(row.destination, row.asked_at, row.reason, tuple(_candidate(one) for one in _told(row)))
        for row in rows
    ]


def forget_answers(tx: Connection, media_ids: Iterable[str]) -> None:
    """The photos are bound: what others said of strangers is not ours to keep."""
    for some in batches(media_ids):
        tx.execute(delete(patient_answer).where(patient_answer.c.media_id.in_(some)))


def _told(row: Any) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = orjson.loads(row.candidates)
    return told


def _candidate(told: dict[str, Any]) -> EhrCandidate:
    return EhrCandidate(told["patient"], told["visit"], told["way"], told["grade"], told["score"])
