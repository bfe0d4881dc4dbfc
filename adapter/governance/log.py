"""Reading the audit log for people: who saw a photo, who a patient's, what a user did; a page or all of it as rows."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, select

from adapter.db.engine import Database
from adapter.db.tables import audit_event, search_index
from adapter.errors import BadInput
from adapter.records import Resource, Stored, find, find_where
from adapter.records.confinement import same_patients
from adapter.records.ids import first_id
from adapter.records.paging import Cursor, SortKey, fetch
from adapter.records.patient_lookup import find_patients

_NEWEST_FIRST = (SortKey(audit_event.c.date, True), SortKey(audit_event.c.id, True))
_CHUNK = 500
_WORDS = {  # subtype, or type where an event has none -> what was done
    "create": "Stored",
    "read": "Viewed",
    "update": "Changed",
    "delete": "Deleted",
    "search-type": "Listed",
    "disclose": "Exported",
    "AuthZ-Consent": "Decided by consent",
    "110120": "Started",
    "110121": "Stopped",
    "110122": "Signed in",
    "110123": "Signed out",
    "110129": "Changed the configuration",
    "110132": "Was refused",
    "110137": "Changed who may sign in",
    "app-authorized": "Decided on an app",
    "app-ended": "Ended an app's access",
    "110127": "Broke the glass",
    "110138": "Ended breaking the glass",
    "merge": "Merged patients",
    "unmerge": "Undid a merge",
    "110110": "Applied a registration message",
    "photo-compared": "Compared photos",
    "photo-aligned": "Aligned photos by hand",
    "110101": "Read the audit log",
    "transform": "Derived a picture",
    "deidentify": "De-identified a photo",
    "archive": "Archived",
    "hold": "Put on legal hold",
    "unhold": "Ended a legal hold",
    "destroy": "Destroyed",
}


@dataclass(frozen=True)
class Question:
    """Whom it is about; everything given must hold. `photo` is a Media id, `user` a reference (Practitioner/x)."""

    patient_ids: frozenset[str] | None = None
    photo: str | None = None
    user: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class Entry:
    """One AuditEvent as people read it. `user` is the reference to search by, None for a machine without one."""

    id: str
    at: datetime
    who: str
    role: str | None
    user: str | None
    did: str
    failed: bool
    patient_id: str | None
    records: tuple[str, ...]
    query: str | None
    detail: str | None


def find_events(
    tx: Connection, asked: Question, *, before: str | None = None, count: int = 50
) -> tuple[list[Entry], str | None]:
    """(entries newest first, the id to continue before). Raises BadInput for an id that is none of the log's."""
    found, following = find_stored(tx, asked, before=before, count=count)
    return [read_entry(one.resource) for one in found], following


def find_stored(
    tx: Connection, asked: Question, *, before: str | None = None, count: int = 50
) -> tuple[list[Stored], str | None]:
    """`find_events` as they are kept."""
    read = _ids_of_photo if asked.photo is not None else _ids
    ids, more = read(tx, asked, before, count)
    found = {one.id: one for one in find_where(tx, "AuditEvent", audit_event.c.id.in_(ids))}
    return [found[one] for one in ids if one in found], ids[-1] if more else None


def _ids(tx: Connection, asked: Question, before: str | None, count: int) -> tuple[list[str], bool]:
    cursor = None
    if before is not None:
        at = tx.execute(select(audit_event.c.date).where(audit_event.c.id == before)).scalar_one_or_none()
        if at is None:
            raise BadInput("this page link is not one of ours; start the search again")
        cursor = Cursor((at, before))
    rows, more = fetch(tx, select(audit_event.c.id).where(*_conditions(asked)), _NEWEST_FIRST, cursor, count=count)
    return [row.id for row in rows], more


def _ids_of_photo(tx: Connection, asked: Question, before: str | None, count: int) -> tuple[list[str], bool]:
    """In the order of ids, which is that of time: so the index gives a page without sorting all who ever looked."""
    index = search_index.c
    wanted = select(index.resource_id).where(
        index.resource_type == "AuditEvent", index.param == "entity", index.value == f"Media/{asked.photo}"
    )
    if before is not None:
        wanted = wanted.where(index.resource_id < before)
    if asked.since is not None:
        wanted = wanted.where(index.resource_id >= first_id(asked.since))
    if asked.until is not None:
        wanted = wanted.where(index.resource_id < first_id(asked.until))
    if asked.patient_ids is not None or asked.user is not None:
        wanted = wanted.join(audit_event, audit_event.c.id == index.resource_id).where(*_conditions(asked))
    ids = list(tx.execute(wanted.order_by(index.resource_id.desc()).limit(count + 1)).scalars())
    return ids[:count], len(ids) > count


def all_events(db: Database, asked: Question) -> Iterator[Entry]:
    """Every entry, newest first, read in short snapshots so that a long list holds nothing up."""
    return (read_entry(one.resource) for page in all_stored(db, asked) for one in page)


def all_stored(db: Database, asked: Question) -> Iterator[list[Stored]]:
    """Every AuditEvent in pages, newest first."""
    before: str | None = None
    while True:
        with db.snapshot() as tx:
            found, before = find_stored(tx, asked, before=before, count=_CHUNK)
        yield found
        if before is None:
            return


def find_patient_ids(tx: Connection, text: str) -> frozenset[str]:
    """Ids of the patient with this id or record number, merged ones included; empty when there is none."""
    known = [find(tx, "Patient", text), *find_patients(tx, text, limit=1)]
    return same_patients(tx, [one.id for one in known if one is not None])


def read_entry(event: Resource) -> Entry:
    agents = event["agent"]
    who = next((agent for agent in agents if agent.get("requestor")), agents[0])
    entities = event.get("entity", [])
    references = [str(one.get("what", {}).get("reference", "")) for one in entities]
    patients = [one.removeprefix("Patient/") for one in references if one.startswith("Patient/")]
    kinds = [event["type"]["code"], *(one["code"] for one in event.get("subtype", []))]
    queries = [base64.b64decode(one["query"]).decode("utf-8", "replace") for one in entities if "query" in one]
    details = [row["valueString"] for one in entities for row in one.get("detail", []) if "valueString" in row]
    return Entry(
        id=event["id"],
        at=datetime.fromisoformat(event["recorded"]),
        who=who.get("name") or who["who"].get("display") or who["who"].get("reference") or "not known",
        role=next((one["text"] for one in who.get("role", []) if "text" in one), None),
        user=who["who"].get("reference"),
        did=next((_WORDS[kind] for kind in reversed(kinds) if kind in _WORDS), kinds[-1]),
        failed=event.get("outcome", "0") != "0",
        patient_id=patients[0].partition("/")[0] if patients else None,
        records=tuple(one for one in references if one and not one.startswith("Patient/")),
        query=queries[0] if queries else None,
        detail=event.get("outcomeDesc") or next(iter(details), None),
    )


def _conditions(asked: Question) -> list[ColumnElement[bool]]:
    """All but which photo."""
    columns = audit_event.c
    conditions: list[ColumnElement[bool]] = []
    if asked.patient_ids is not None:
        conditions.append(columns.patient.in_(asked.patient_ids))
    if asked.user is not None:
        conditions.append(columns.agent == asked.user)
    if asked.since is not None:
        conditions.append(columns.date >= asked.since)
    if asked.until is not None:
        conditions.append(columns.date < asked.until)
    return conditions
