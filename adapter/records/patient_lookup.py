"""Finding a patient the way people ask: by name, number or birth date; and how many photos each has."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, and_, func, or_, select

from adapter.db.tables import audit_event, media, patient, search_index
from adapter.records.extraction import folded
from adapter.records.rows import Stored, find_where

RECENT_EVENTS = 300


def find_patients(tx: Connection, asked: str, *, limit: int) -> list[Stored]:
    """Patients in use whose identifier is `asked`, who were born on it, or whose name begins with each of its words."""
    text = asked.strip()
    numbered = select(search_index.c.resource_id).where(
        search_index.c.resource_type == "Patient",
        search_index.c.param == "identifier",
        search_index.c.value >= f"{text}|",
        search_index.c.value < f"{text}}}",  # `}` follows `|`
    )
    words = [folded(word) for word in text.replace(",", " ").split()]
    named = [or_(_begins(patient.c.family, word), _begins(patient.c.given, word)) for word in words]
    wanted = [patient.c.id.in_(numbered), and_(*named)]
    if (born := _date(text)) is not None:
        wanted.append(patient.c.birthdate == born.isoformat())
    found = [find_where(tx, "Patient", one, patient.c.replaced_by.is_(None), limit=limit) for one in wanted]
    unique = {one.id: one for group in found for one in group}
    return list(unique.values())[:limit]


def recent_patients(tx: Connection, agent: str, *, limit: int) -> list[str]:
    """Ids of the patients this user opened last, latest first, as the audit log tells."""
    statement = (
        select(audit_event.c.patient)
        .where(audit_event.c.agent == agent)
        .order_by(audit_event.c.date.desc())
        .limit(RECENT_EVENTS)
    )
    return list(dict.fromkeys(one for one in tx.execute(statement).scalars() if one is not None))[:limit]


def photo_counts(tx: Connection, patient_ids: Sequence[str]) -> dict[str, tuple[int, datetime | None]]:
    """Patient -> (photos, when the latest was taken); patients without photos are left out."""
    statement = (
        select(media.c.patient, func.count(), func.max(media.c.created))
        .where(media.c.patient.in_(patient_ids), media.c.deleted.is_(False), media.c.derivation.is_(None))
        .group_by(media.c.patient)
    )
    return {row[0]: (row[1], row[2]) for row in tx.execute(statement)}


def _begins(column: Column[Any], word: str) -> ColumnElement[bool]:
    return and_(column >= word, column < word + "\U0010ffff")


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
