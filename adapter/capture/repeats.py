"""Whether a photo came before: under the same key, or the same content and time of the same patient."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, or_, select

from adapter.db.tables import capture, media
from adapter.errors import BadInput

_OWN_KEY = "content:"


@dataclass(frozen=True)
class Fingerprint:
    """`content`: digest of content and time. `request`: the same with the patient as the sender named them."""

    content: str
    request: str
    key: str

    def with_key(self, sender: str, given: str | None) -> Fingerprint:
        """With the sender's Idempotency-Key, apart from other senders'. Raises BadInput."""
        if given is None:
            return self
        if len(given) > 100:
            raise BadInput("an Idempotency-Key may have at most 100 characters; a UUID is best")
        return replace(self, key=f"{sender}:{given}")


def fingerprint(
    sha256: str, taken_at: datetime | None, given: str | dict[str, Any] | None, patient_id: str | None
) -> Fingerprint:
    """`given`: the patient as named ("Patient/id", an identifier or nobody); `patient_id`: who that is, if known.

    Without a key of the sender, content and patient are the key.
    """
    named = f"{given['system']}|{given['value']}" if isinstance(given, dict) else given or "unidentified"
    content = _digest(sha256, taken_at.isoformat(timespec="seconds") if taken_at else "")
    return Fingerprint(content, _digest(content, named), _OWN_KEY + _digest(content, patient_id or named))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Before:
    """A capture with the key of this one, or the same photo of the same patient."""

    id: str
    is_same: bool


_ALIKE = (
    select(capture.c.id, capture.c.idempotency_key, capture.c.fingerprint, capture.c.request, media.c.patient)
    .join_from(capture, media, media.c.id == capture.c.id)
    .where(or_(capture.c.idempotency_key == bindparam("key"), capture.c.fingerprint == bindparam("content")))
    .order_by(capture.c.id)
)


def find_before(tx: Connection, seen_as: Fingerprint, patient_id: str | None) -> Before | None:
    """One with this key, else the same content and time of the same patient.

    The same patient is one named alike, or whose the photo is by now: between two attempts the patient may have been
    announced, or merged into another.
    """
    rows = tx.execute(_ALIKE, {"key": seen_as.key, "content": seen_as.content}).all()
    before = None
    for row in rows:
        is_his = patient_id is not None and row.patient == patient_id
        is_same = row.fingerprint == seen_as.content and (is_his or row.request == seen_as.request)
        if row.idempotency_key == seen_as.key:
            return Before(row.id, is_same or seen_as.key.startswith(_OWN_KEY))
        before = before or (Before(row.id, True) if is_same else None)
    return before
