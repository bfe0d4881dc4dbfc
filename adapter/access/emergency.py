"""Breaking the glass: more than one's role allows, for a stated reason, for a limited time, with everybody told.

It opens restricted photographs of the chart that is open; and, to staff who signed in outside the EHR, the one
chart they name. It never opens another chart to a session that an EHR launched: that is for the EHR to decide.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from sqlalchemy import Connection

from adapter.access.actor import Actor
from adapter.access.app_grants import end_grants_under_glass
from adapter.access.policy import check_scope, check_whose
from adapter.access.sessions import NOBODY, after_emergency, change_actor, end_phones_under_glass
from adapter.bridge import Bridge
from adapter.errors import BadInput, Forbidden

REASONS = {  # http://terminology.hl7.org/CodeSystem/v3-ActReason
    "ETREAT": "Emergency treatment",
    "TREAT": "Treatment that needs this photo",
    "PATSFTY": "Patient safety or safeguarding",
}
LEAST_WORDS = 3


def break_glass(
    tx: Connection, bridge: Bridge, session_id: str, actor: Actor, *, patient_id: str, reason: str, why: str
) -> Actor:
    """What the person may do from now until `emergency_minutes` have passed. Raises BadInput, Forbidden, NotFound."""
    check_scope(actor, "r", "Media")
    if actor.patient_id is None:
        raise Forbidden("your role sees every chart already; restricted photos need the chart opened in the EHR")
    if actor.patient_id != NOBODY:
        check_whose(tx, actor, patient_id)
    if reason not in REASONS or len(why.split()) < LEAST_WORDS:
        raise BadInput("choose a reason and explain it in a few words; without names, since it is kept and reviewed")
    until = bridge.now() + timedelta(minutes=bridge.settings.emergency_minutes)
    raised = replace(actor, patient_id=patient_id, emergency=reason, emergency_until=until)
    change_actor(tx, session_id, raised)
    return raised


def mend_glass(tx: Connection, bridge: Bridge, session_id: str, actor: Actor) -> Actor:
    """The end of it, before its time."""
    if actor.emergency_until is not None:
        end_grants_under_glass(tx, session_id, actor.emergency_until, at=bridge.now())
        end_phones_under_glass(tx, session_id)
    mended = after_emergency(actor)
    change_actor(tx, session_id, mended)
    return mended
