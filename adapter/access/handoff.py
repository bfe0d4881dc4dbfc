"""From the desk to a phone: a link that opens the camera for one patient, one visit and one user, once, within minutes.

The database holds the SHA-256 of its secret, as of every secret. What the phone may do is written down when the link is
made, from the rights its maker has then: take photos of that patient, record consent, see what it took itself. Made
under broken glass, link and phone end with it, at its time (`emergency_until` of the phone) or before.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, insert, select, update

from adapter.access.actor import Actor
from adapter.access.policy import check_scope
from adapter.access.sessions import Session
from adapter.access.tokens import digest
from adapter.db.tables import handoff
from adapter.errors import Forbidden

LINK_LIFETIME: Final = timedelta(minutes=10)
SESSION_LIFETIME: Final = timedelta(minutes=30)
PHONE_SCOPES: Final = frozenset({"user/Media.cr", "user/Consent.c", "user/Patient.r", "user/Encounter.r"})
"""Without `s`: a photo is shown to who knows its id, and the phone knows those it took."""


def is_phone(actor: Actor) -> bool:
    """Whether this is what a link gave to a phone."""
    return actor.scopes == PHONE_SCOPES


def make_handoff(
    tx: Connection, desk: Session | None, *, patient_id: str, encounter_id: str | None, at: datetime
) -> str:
    """The secret of a new link. Raises Forbidden for machines, and for a phone that was handed over to itself."""
    if desk is None:
        raise Forbidden("only a person hands over to a phone; a machine sends its photos to /captures")
    actor = desk.actor
    check_scope(actor, "c", "Media")
    check_scope(actor, "s", "Media")
    phone = replace(
        actor,
        scopes=PHONE_SCOPES,
        rights=frozenset(),
        patient_id=patient_id,
        encounter_id=encounter_id,
        address=None,
        show_banner=True,
        emergency=None,
    )
    secret = secrets.token_urlsafe(16)
    row = {
        "id": digest(secret),
        "actor": phone.to_json(),
        "created_at": at,
        "expires_at": at + within_glass(phone, LINK_LIFETIME, at),
        "glass_of": desk.id if phone.emergency_until else None,
    }
    tx.execute(insert(handoff), row)
    return secret


def within_glass(phone: Actor, lifetime: timedelta, at: datetime) -> timedelta:
    """As long as this, but not longer than the glass under which the phone was handed over stays broken."""
    return min(lifetime, phone.emergency_until - at) if phone.emergency_until else lifetime


def redeem_handoff(tx: Connection, secret: str, *, at: datetime) -> tuple[Actor, str | None]:
    """(who the phone acts as, the session under whose broken glass).

    Raises Forbidden when the link is unknown, too old, or was opened before.
    """
    taken = tx.execute(
        update(handoff)
        .where(handoff.c.id == digest(secret), handoff.c.used_at.is_(None), handoff.c.expires_at > at)
        .values(used_at=at)
    )
    if taken.rowcount != 1:
        raise Forbidden("this link was opened before or is too old; scan the code on the desk again")
    row = tx.execute(select(handoff.c.actor, handoff.c.glass_of).where(handoff.c.id == digest(secret))).one()
    return Actor.from_json(row.actor), row.glass_of
