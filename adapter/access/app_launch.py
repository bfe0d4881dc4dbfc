"""What a person may grant to an app at this moment: from which of their sessions, and for which patient.

An app is launched for one patient at most, whose chart must be open in a session of this browser, or open to the person
by a relationship or by role. It never gets what breaking the glass opened beyond the glass's own time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection

from adapter.access.actor import Actor
from adapter.access.app_grants import AppGrant
from adapter.access.handoff import is_phone
from adapter.access.policy import grants_of, has_right
from adapter.access.relationship import can_open_charts, find_relationship
from adapter.access.sessions import Session
from adapter.access.smart import role_of
from adapter.bridge import Bridge
from adapter.errors import OutOfReach
from adapter.records import Stored, find
from adapter.records.confinement import patient_of, same_patients
from adapter.records.search_parameters import columns_of

_OVER = ("finished", "cancelled", "entered-in-error")


class Launched(NamedTuple):
    """The person as the app acts for them, and how long it may at most."""

    session: Session
    actor: Actor
    is_offline: bool
    expires_at: datetime


def granting_sessions(sessions: Sequence[Session]) -> list[Session]:
    """The sessions of who signed in last, the newest first; a phone that was handed a chart grants nothing."""
    own = [one for one in sessions if not is_phone(one.actor)]
    return [one for one in own if one.actor.id == own[0].actor.id]


def needs_patient(scope: str) -> bool:
    """Whether the person must name the patient of the launch."""
    return any(one in ("launch", "launch/patient") or one.startswith("patient/") for one in scope.split())


def launched(
    tx: Connection,
    bridge: Bridge,
    sessions: Sequence[Session],
    *,
    patient_id: str | None,
    client_id: str,
    offline: bool,
    in_visit: bool = False,
) -> Launched:
    """What is granted, but for the scopes; `in_visit`: with the visit of the chart that is open.

    Raises OutOfReach for a chart that is not this person's to open.
    """
    session, confined_to = (sessions[0], sessions[0].actor.patient_id)
    if patient_id is not None:
        session, confined_to = _session_for(tx, bridge, sessions, patient_id), patient_id
    visit = _find_visit(tx, session.actor, patient_id) if in_visit else None
    actor = replace(
        session.actor,
        scopes=frozenset(),
        rights=frozenset(),
        patient_id=confined_to,
        encounter_id=visit.id if visit else None,
        address=None,
        show_banner=True,
        emergency=None,
        emergency_until=None,
        app=client_id,
    )
    settings, ends_at = bridge.settings, session.actor.emergency_until
    is_offline = offline and ends_at is None
    lifetime = timedelta(days=settings.app_offline_days) if is_offline else timedelta(hours=settings.session_hours)
    expires_at = bridge.now() + lifetime
    return Launched(session, actor, is_offline, min(ends_at, expires_at) if ends_at else expires_at)


def may_go_on(tx: Connection, bridge: Bridge, actor: Actor) -> bool:
    """Whether a person who is not there could still grant what an offline app has: its EHR is registered and gives the
    same role, or the relationship with the patient holds."""
    if actor.ehr is not None:
        ehrs = [one for one in bridge.settings.ehrs if one.iss == actor.ehr]
        return any(role_of(one, actor.id) == actor.role for one in ehrs)
    if actor.patient_id is None or "launch-any-patient" in grants_of(actor.role)[1]:
        return True
    return find_relationship(tx, bridge, actor, actor.patient_id) is not None


def visit_goes_on(tx: Connection, bridge: Bridge, grant: AppGrant) -> bool:
    """Whether the visit that the app was launched in is still that of its work: the Encounter has not ended, nor, for
    an end is not always told, has the time passed that a session lasts. The patient remains the launch's.

    SMART leaves it to the server which context comes with a refreshed token.
    """
    visit = _find_visit(tx, grant.actor, grant.actor.patient_id)
    if visit is None or bridge.now() >= grant.created_at + timedelta(hours=bridge.settings.session_hours):
        return False
    end = columns_of(visit.resource)["date_end"]
    return visit.resource["status"] not in _OVER and (end is None or end > bridge.now())


def _find_visit(tx: Connection, actor: Actor, patient_id: str | None) -> Stored | None:
    """The visit that is open, unless it is another patient's: who sees every chart came from one and opens any."""
    visit = find(tx, "Encounter", actor.encounter_id) if actor.encounter_id and patient_id else None
    return visit if visit and patient_of(visit.resource) in same_patients(tx, {patient_id or ""}) else None


def _session_for(tx: Connection, bridge: Bridge, sessions: Sequence[Session], patient_id: str) -> Session:
    same = same_patients(tx, {patient_id})
    for one in sessions:
        if one.actor.patient_id in same:
            return one
    newest = sessions[0]
    everybody = newest.actor.patient_id is None and has_right(newest.actor, "launch-any-patient")
    if find(tx, "Patient", patient_id) is not None:
        treats = can_open_charts(newest.actor) and find_relationship(tx, bridge, newest.actor, patient_id)
        if everybody or treats:
            return newest
    raise OutOfReach("you have no such chart open; open the patient first", reference=f"Patient/{patient_id}")
