"""What makes somebody a patient's clinician, outside a chart that an EHR opened: a table of relationships.

Staff who signed in by themselves open the charts of patients whom they treat without breaking the glass; the session is
then confined to that one chart, as after a launch (`access.reach`). Which relationships count is this table and nothing
else. Every condition is held by an index: a question costs what the person's own patients cost, not the archive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, Select, or_, select

from adapter.access.actor import Actor
from adapter.access.emergency import mend_glass
from adapter.access.policy import can, check_scope, has_right
from adapter.access.sessions import change_actor
from adapter.bridge import Bridge
from adapter.db.tables import encounter, media, search_index
from adapter.errors import Forbidden, OutOfReach
from adapter.records.confinement import same_patients
from adapter.records.extraction import token_value

NEVER_TOOK_PLACE = [token_value(status, None) for status in ("cancelled", "entered-in-error")]


@dataclass(frozen=True)
class Relationship:
    """`patients` selects the ids of those whom a person (by actor) has this relationship with, since a time."""

    display: str
    patients: Callable[[Actor, datetime], Select[tuple[str]]]


def _of_visits(actor: Actor, since: datetime) -> Select[tuple[str]]:
    """Attending, consulting, referring or admitting (PV1-7, 8, 9, 17) in a visit that goes on or ended lately."""
    named = [actor.id, *([actor.practitioner] if actor.practitioner else [])]
    taking_part = select(search_index.c.resource_id).where(
        search_index.c.resource_type == "Encounter",
        search_index.c.param == "participant",
        search_index.c.value.in_(named),
    )
    lately = or_(encounter.c.date_end.is_(None), encounter.c.date_end >= since)
    took_place = encounter.c.status.not_in(NEVER_TOOK_PLACE)
    return select(encounter.c.patient).where(encounter.c.id.in_(taking_part), lately, took_place)


def _photographed(actor: Actor, since: datetime) -> Select[tuple[str]]:
    return select(media.c.patient).where(media.c.operator == actor.id, media.c.created >= since)


RELATIONSHIPS: dict[str, Relationship] = {
    "visit": Relationship("take part in a visit", _of_visits),
    "photographer": Relationship("took photos", _photographed),
}


def can_open_charts(actor: Actor) -> bool:
    """Whether a person opens one chart after another by their relationships: staff whom no EHR launched, at a desk."""
    at_desk = can(actor, "s", "Media")  # a phone was handed one chart: access.handoff
    return actor.kind == "person" and actor.ehr is None and at_desk and not has_right(actor, "launch-any-patient")


def patients_treated(tx: Connection, bridge: Bridge, actor: Actor, *, limit: int) -> dict[str, str]:
    """Patient id -> name of the relationship, of at most `limit` patients by each."""
    since = bridge.now() - timedelta(days=bridge.settings.treating_days)
    found: dict[str, str] = {}
    for name, relationship in RELATIONSHIPS.items():
        ids = tx.execute(relationship.patients(actor, since).distinct().limit(limit)).scalars()
        found = dict.fromkeys((str(one) for one in ids if one is not None), name) | found
    return found


def find_relationship(tx: Connection, bridge: Bridge, actor: Actor, patient_id: str) -> str | None:
    """The name of the first relationship that holds now; of a merged patient that with any of their numbers counts."""
    since = bridge.now() - timedelta(days=bridge.settings.treating_days)
    whole = same_patients(tx, {patient_id})
    for name, relationship in RELATIONSHIPS.items():
        of_this = relationship.patients(actor, since)
        if any(tx.execute(of_this.where(of_this.selected_columns[0].in_(whole)).limit(1)).scalars()):
            return name
    return None


def open_chart(tx: Connection, bridge: Bridge, session_id: str, actor: Actor, patient_id: str) -> tuple[Actor, str]:
    """(the person confined to this chart from now on, by which relationship). Raises Forbidden or OutOfReach."""
    check_scope(actor, "r", "Patient")
    if not can_open_charts(actor):
        raise Forbidden("this session has the chart that the EHR opened, or every chart; it opens no other")
    name = find_relationship(tx, bridge, actor, patient_id)
    if name is None:
        raise OutOfReach(
            "you take part in no visit of this patient; break the glass if you must see the chart nevertheless",
            reference=f"Patient/{patient_id}",
        )
    opened = replace(mend_glass(tx, bridge, session_id, actor), patient_id=patient_id, encounter_id=None)
    change_actor(tx, session_id, opened)
    return opened, name
