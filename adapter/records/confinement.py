"""Whose record is it: a patient's merged ids as one, and the condition that keeps a search within some patients.

A session launched from a chart sees one patient. Merges re-point clinical records to the surviving Patient, but never
Provenance or AuditEvent (a signed or chained record must not change), so a patient is always meant with all the ids
that were merged into it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Connection,
    bindparam,
    literal,
    or_,
    select,
    union_all,
)

from adapter.db.tables import patient, search_index
from adapter.records.extraction import Resource
from adapter.records.search_parameters import TABLES, columns_of

SHARED_WITHOUT_PATIENT = frozenset({"Device"})  # a camera belongs to nobody, an implant to its patient


def same_patients(tx: Connection, patient_ids: Iterable[str]) -> frozenset[str]:
    """The ids with every id they were merged into and every id merged into those."""
    known: set[str] = set()
    following = set(patient_ids)
    while following:
        known |= following
        rows = tx.execute(_MERGED, {"of": list(following)}).all()
        following = {found for row in rows for found in row if found is not None} - known
    return frozenset(known)


def same_patients_each(tx: Connection, patient_ids: Iterable[str]) -> dict[str, frozenset[str]]:
    """`same_patients` of each by itself: one statement where none of them was ever merged."""
    asked = set(patient_ids)
    links = tx.execute(_MERGED, {"of": list(asked)}).all() if asked else []
    merged = {one for row in links if row.replaced_by is not None for one in row}
    alone = asked - merged
    return {one: frozenset({one}) if one in alone else same_patients(tx, [one]) for one in asked}


_OF: BindParameter[str] = bindparam("of", expanding=True)
_MERGED = select(patient.c.id, patient.c.replaced_by).where(or_(patient.c.replaced_by.in_(_OF), patient.c.id.in_(_OF)))


def confinement(resource_type: str, patient_ids: frozenset[str] | None) -> list[ColumnElement[bool]]:
    """Conditions on the type's table that leave only records of these patients; none for None."""
    table = TABLES[resource_type]
    if patient_ids is None:
        return []
    if resource_type == "Patient":
        return [table.c.id.in_(patient_ids)]
    if "patient" in table.c:
        of_them = table.c.patient.in_(patient_ids)
        return [or_(table.c.patient.is_(None), of_them) if resource_type in SHARED_WITHOUT_PATIENT else of_them]
    if resource_type == "Provenance":
        rows = select(search_index.c.resource_id).where(
            search_index.c.resource_type == "Provenance",
            search_index.c.param == "target",
            search_index.c.value.in_(_references_of(patient_ids)),
        )
        return [table.c.id.in_(rows)]
    return []


def is_within(tx: Connection, resource_type: str, resource_id: str, patient_ids: frozenset[str] | None) -> bool:
    """Whether the record, deleted or not, is one of these patients; True for None."""
    if patient_ids is None:
        return True
    table = TABLES.get(resource_type)
    if table is None:
        return False
    conditions = confinement(resource_type, patient_ids)
    return tx.execute(select(literal(1)).where(table.c.id == resource_id, *conditions)).first() is not None


def patient_of(resource: Resource) -> str | None:
    """The id of the patient a resource (or an older version of it) is about."""
    if resource["resourceType"] == "Patient":
        return str(resource["id"])
    found: str | None = columns_of(resource).get("patient")
    return found


def is_shared(resource_type: str) -> bool:
    """Whether records of this type may be about no patient at all and are then open to every session."""
    table = TABLES[resource_type]
    return resource_type in SHARED_WITHOUT_PATIENT or ("patient" not in table.c and resource_type != "Provenance")


def _references_of(patient_ids: frozenset[str]) -> CompoundSelect[Any]:
    """Subquery: references to the patients and to everything about them."""
    about = [
        select(literal(f"{resource_type}/") + table.c.id).where(table.c.patient.in_(patient_ids))
        for resource_type, table in TABLES.items()
        if "patient" in table.c and resource_type != "AuditEvent"
    ]
    themselves = select(literal("Patient/") + patient.c.id).where(patient.c.id.in_(patient_ids))
    return union_all(themselves, *about)
