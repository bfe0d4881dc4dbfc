"""Whose photo it could be: the patients worth showing to a person, scored, and each with why.

Candidates come from blocks, each a short range of an index: the identifier and all its one-keystroke neighbours, the
birth date and its swapped twin, the family name with the year of birth, and whom the same person photographed just
before or after. So a look costs the same in an archive of any size; what shares no block with the photo is not found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, select

from adapter.db.tables import media as media_table
from adapter.db.tables import patient as patient_table
from adapter.db.tables import search_index
from adapter.identity.matching import find_encounter_at, find_survivor, given_with, replaced_by
from adapter.identity.waiting import has_exact_time
from adapter.records import Resource, Stored, find_where
from adapter.records.date_intervals import date_interval
from adapter.records.extraction import folded, token_value
from mappings.record_linkage import Score, one_edit_variants, score, swapped_day_and_month
from mappings.terms import IDENTITY_STATE

SHOWN = 9  # one key each
BLOCK = 200
"""At most this many patients of one block: a birth date in an archive of ten million is shared by some 340."""
BESIDE = timedelta(minutes=15)


@dataclass(frozen=True)
class Candidate:
    """A patient, and how well the photo fits; `is_claim`: it was taken as this patient's, and then doubted."""

    patient: Stored
    score: Score
    is_claim: bool = False


def find_candidates(tx: Connection, media: Stored, *, limit: int = SHOWN) -> list[Candidate]:
    """The likeliest patients of a photo, the claimed one first, then by score; only those for whom something speaks."""
    given, beside = given_of(media.resource), _photographed_beside(tx, media)
    claim = media.resource.get("subject", {}).get("reference", "").removeprefix("Patient/")
    ids = {one for block in _blocks(tx, given) for one in block} | beside | ({claim} if claim else set())
    scored = [
        Candidate(one, score(given, one.resource, _context(one.id, beside)), one.id == claim)
        for one in _survivors(tx, ids)
    ]
    likely = sorted((one for one in scored if one.score.total > 0 or one.is_claim), key=_best_first)[: 2 * limit]
    return sorted((_with_visit(tx, one, media, given, beside) for one in likely), key=_best_first)[:limit]


def _survivors(tx: Connection, ids: set[str]) -> list[Stored]:
    """The patients in use, after merges."""
    found = find_where(tx, "Patient", patient_table.c.id.in_(ids)) if ids else []
    followed = (find_survivor(tx, one.id) if replaced_by(one.resource) else one for one in found)
    unique = {one.id: one for one in followed if one is not None and one.resource.get("active", True)}
    return list(unique.values())


def given_of(media: Resource) -> dict[str, Any]:
    """What is known of the patient from the photo alone: identifier and what came with it."""
    identifier = media.get("subject", {}).get("identifier", {})
    return {name: identifier[name] for name in ("system", "value") if name in identifier} | given_with(media)


def _best_first(candidate: Candidate) -> tuple[bool, float, str]:
    return not candidate.is_claim, -candidate.score.total, candidate.patient.id


def _context(patient_id: str, beside: set[str]) -> dict[str, bool]:
    return {"beside": patient_id in beside} if beside else {}


def _with_visit(
    tx: Connection, candidate: Candidate, media: Stored, given: dict[str, Any], beside: set[str]
) -> Candidate:
    """A visit at the time is evidence; that none is known is none, since many places announce no visits."""
    resource, patient = media.resource, candidate.patient
    if not has_exact_time(resource) or not find_encounter_at(
        tx, patient.id, date_interval(resource["createdDateTime"])[0]
    ):
        return candidate
    context = _context(patient.id, beside) | {"visit": True}
    return replace(candidate, score=score(given, patient.resource, context))


def _blocks(tx: Connection, given: dict[str, Any]) -> Iterator[list[str]]:
    if given.get("system") and given.get("value"):
        values = [given["value"], *one_edit_variants(given["value"])]
        yield _of_identifiers(tx, [token_value(value, given["system"])[:400] for value in values])
    column, born, family = patient_table.c, str(given.get("birthDate") or ""), folded(given.get("family") or "")
    if len(born) == 10:
        days = [day for day in (born, swapped_day_and_month(born)) if day]
        if family:
            yield _ids(tx, column.birthdate.in_(days), column.family == family)
        yield _ids(tx, column.birthdate.in_(days))
    if family and born:
        yield _ids(tx, column.family == family, column.birthdate >= born[:4], column.birthdate < f"{born[:4]}~")
    elif family:
        yield _ids(tx, column.family == family)


def _of_identifiers(tx: Connection, tokens: list[str]) -> list[str]:
    index = search_index.c
    statement = select(index.resource_id).where(
        index.resource_type == "Patient", index.param == "identifier", index.value.in_(tokens)
    )
    return list(tx.execute(statement.limit(BLOCK)).scalars())


def _ids(tx: Connection, *conditions: Any) -> list[str]:
    statement = select(patient_table.c.id).where(*conditions, patient_table.c.deleted.is_(False))
    return list(tx.execute(statement.limit(BLOCK)).scalars())


def _photographed_beside(tx: Connection, media: Stored) -> set[str]:
    """Patients of the photos that the same person took just before or after."""
    resource = media.resource
    operator = resource.get("operator", {}).get("reference")
    if not operator or not has_exact_time(resource):
        return set()
    at, column = date_interval(resource["createdDateTime"])[0], media_table.c
    near = select(column.patient).where(
        column.operator == operator,
        column.created >= at - BESIDE,
        column.created <= at + BESIDE,
        column.patient.is_not(None),
        column.identity_state == token_value("bound", IDENTITY_STATE),
        column.deleted.is_(False),
        column.id != media.id,
    )
    return set(tx.execute(near.limit(BLOCK)).scalars())
