"""Which of a browser's open charts a request is about: never guessed for a change, by the record named for a page."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Column, Connection, select
from starlette.datastructures import QueryParams

from adapter.access.sessions import Session
from adapter.db.tables import body_structure, consent, delivery, job, media, observation
from adapter.records.confinement import same_patients

PATIENT_OF: dict[str, tuple[Column[str], Column[str]]] = {  # first part of the path -> (its id, its patient)
    "photos": (media.c.id, media.c.patient),
    "captures": (media.c.id, media.c.patient),
    "saved-comparisons": (observation.c.id, observation.c.patient),
    "lesions": (body_structure.c.id, body_structure.c.patient),
    "consents": (consent.c.id, consent.c.patient),
    "jobs": (job.c.id, job.c.patient),
    "deliveries": (delivery.c.id, delivery.c.patient),
}


def find_patient_named(tx: Connection, path: str, query: QueryParams) -> str | None:
    """The patient whose page or record the address names; None when it names none that we know."""
    first, _, rest = path.strip("/").partition("/")
    named = rest.partition("/")[0].removesuffix(".json")
    if first == "patients" and named:
        return named
    if query.get("patient"):
        return query["patient"].removeprefix("Patient/")
    if first in ("compare", "comparison", "comparisons"):
        first, named = "photos", query.get("media", "")
    if first not in PATIENT_OF or not named:
        return None
    its_id, patient = PATIENT_OF[first]
    return tx.execute(select(patient).where(its_id == named)).scalar()


def session_of_chart(tx: Connection, sessions: Sequence[Session], patient_id: str | None) -> Session | None:
    """The session that is confined to this patient, or else one that is confined to none."""
    same = same_patients(tx, {patient_id}) if patient_id else frozenset()
    own = (one for one in sessions if one.actor.patient_id in same)
    free = (one for one in sessions if one.actor.patient_id is None)
    return next(own, None) or next(free, None)
