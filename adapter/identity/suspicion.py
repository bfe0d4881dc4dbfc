"""What makes a photo doubtful although its patient seems known. A doubtful photo waits in quarantine for a person.

Each rule is a row: the code of identity-doubt, its switch in `[suspicion]` of the settings, and the question it asks.
None of them costs more than a look at one index, however many photos there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, or_, select

from adapter.bridge import Bridge
from adapter.db.tables import audit_event, blob, capture, encounter, media
from adapter.identity.matching import TOOK_PLACE, Whose
from adapter.records import Stored, get
from adapter.records.confinement import same_patients
from adapter.records.extraction import token_value
from mappings.body_sites import BODY_SITES
from mappings.canonical_resources import codes_of
from mappings.terms import DCM

LOGIN = token_value("110122", DCM)
ARCHIVES = frozenset({"drive"})  # photos of years ago, from before any visit was announced here
_SEXES = frozenset({"male", "female"})


@dataclass(frozen=True)
class Circumstances:
    """How a photo came: `received_at` here, `sha256` (hex) of the bytes as received, `source` of the upload."""

    operator: str
    taken_at: datetime | None
    received_at: datetime
    sha256: str
    source: str
    body_site: str | None = None
    has_visit: bool = False


Question = Callable[[Connection, Bridge, Stored, Circumstances], bool]


@dataclass(frozen=True)
class Rule:
    """`switch` is the key in `[suspicion]`; `is_doubtful` asks whether this photo can be that patient's."""

    doubt: str
    switch: str
    is_doubtful: Question


REMEDIES = {  # doubt -> how it is settled
    "demographics-differ": "Compare name and birth date with the wristband, then choose the patient.",
    "several-patients": "Choose the right one; if they are one person, have them merged.",
    "unconfirmed": "Confirm the patient by a second fact, such as the birth date.",
    "other-chart": "Look whether the photo shows the patient it is filed under; if so, release it to that patient.",
    "outside-visit": "Check the camera's clock and the patient; if both are right, release it to that patient.",
    "contradicts-record": "Check patient and body site; if both are right, release it to that patient.",
    "same-content": "Look at both patients' photos; release it to the one it shows.",
    "visit-deleted": "Find out at which visit, and of whom, it was taken.",
    "person-deleted": "Find out whose photo it is; its patient's record is not in use any more.",
    "reported": "Find out whose photo it is; until then it is in nobody's chart.",
}


def suspect(tx: Connection, bridge: Bridge, whose: Whose, circumstances: Circumstances) -> Whose:
    """`whose`, or the same patient in doubt; what is not bound stays as it is."""
    if whose.state != "bound" or whose.patient_id is None:
        return whose
    doubt = find_doubt(tx, bridge, whose.patient or get(tx, "Patient", whose.patient_id), circumstances)
    if doubt is None:
        return whose
    return replace(whose, state="quarantined", doubt=doubt, because=codes_of("identity-doubt")[doubt])


def find_doubt(tx: Connection, bridge: Bridge, patient: Stored, circumstances: Circumstances) -> str | None:
    """The first rule that doubts this photo is this patient's, as its code."""
    for rule in RULES:
        if getattr(bridge.settings.suspicion, rule.switch) and rule.is_doubtful(tx, bridge, patient, circumstances):
            return rule.doubt
    return None


def _other_chart(tx: Connection, bridge: Bridge, patient: Stored, photo: Circumstances) -> bool:
    """The chart the photographer opened last is another patient's: who lies before the camera may have changed."""
    since = photo.received_at - timedelta(minutes=bridge.settings.suspicion.other_chart_minutes)
    asked = {"operator": photo.operator, "since": since, "until": photo.received_at}
    opened = tx.execute(_CHART_OPENED_LAST, asked).scalar_one_or_none()
    return opened is not None and opened not in same_patients(tx, {patient.id})


def _outside_visit(tx: Connection, bridge: Bridge, patient: Stored, photo: Circumstances) -> bool:
    if photo.taken_at is None or photo.has_visit or photo.source in ARCHIVES:
        return False
    tolerance = timedelta(hours=bridge.settings.suspicion.visit_tolerance_hours)
    asked = {"of": patient.id, "latest": photo.taken_at + tolerance, "earliest": photo.taken_at - tolerance}
    return tx.execute(_VISITS, asked).first() is not None and tx.execute(_VISITS_COVERING, asked).first() is None


def _contradicts_record(_tx: Connection, bridge: Bridge, patient: Stored, photo: Circumstances) -> bool:
    record = patient.resource
    site = BODY_SITES.get(photo.body_site or "")
    if site and site.sex and record.get("gender") in _SEXES - {site.sex}:
        return True
    if photo.taken_at is None:
        return False
    day = photo.taken_at.astimezone(bridge.settings.zone).date().isoformat()
    born, died = record.get("birthDate", ""), record.get("deceasedDateTime", "")[:10]
    return bool(born and day[: len(born)] < born) or bool(died and day[: len(died)] > died)


def _same_content(tx: Connection, _bridge: Bridge, patient: Stored, photo: Circumstances) -> bool:
    others = set(tx.execute(_PATIENTS_WITH_CONTENT, {"sha256": photo.sha256, "of": patient.id}).scalars())
    return bool(others and others - same_patients(tx, {patient.id}))


def _chart_opened_last() -> Select[Any]:
    event = audit_event.c
    return (
        select(event.patient)
        .where(event.agent == bindparam("operator"))
        .where(event.date > bindparam("since"), event.date <= bindparam("until"))
        .where(event.subtype == LOGIN, event.patient.is_not(None))
        .order_by(event.date.desc(), event.id.desc())
        .limit(1)
    )


def _visits(*conditions: ColumnElement[bool]) -> Select[Any]:
    visit = encounter.c
    known = (visit.patient == bindparam("of"), visit.date.is_not(None), visit.status.in_(TOOK_PLACE))
    return select(visit.id).where(*known, visit.deleted.is_(False), *conditions).limit(1)


# Built once: every photo asks them, and building a statement costs more than SQLite needs to answer it.
_CHART_OPENED_LAST = _chart_opened_last()
_VISITS = _visits()
_VISITS_COVERING = _visits(
    encounter.c.date <= bindparam("latest"),
    or_(encounter.c.date_end.is_(None), encounter.c.date_end > bindparam("earliest")),
)
_PATIENTS_WITH_CONTENT = (
    select(media.c.patient)
    .distinct()
    .join(capture, capture.c.id == media.c.id)
    .join(blob, blob.c.id == capture.c.blob_id)
    .where(blob.c.sha256 == bindparam("sha256"), media.c.patient != bindparam("of"))
    .where(media.c.deleted.is_(False), media.c.status != "entered-in-error|")
)

RULES = (
    Rule("same-content", "same_content", _same_content),
    Rule("contradicts-record", "contradicts_record", _contradicts_record),
    Rule("other-chart", "other_chart", _other_chart),
    Rule("outside-visit", "outside_visit", _outside_visit),
)
