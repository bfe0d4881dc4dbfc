"""What an AuditEvent is found by, told from its sealed text instead of the columns and the index derived from it.

Without this, somebody could hide who saw a photo and leave every sealed byte as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import orjson

from adapter.governance.log import Question
from adapter.records.search_parameters import columns_of, index_rows, search_parameters
from mappings.fhir_time import fhir_instant

Index = set[tuple[str, str]]
"""(search parameter, value)"""


def index_of(rows: Iterable[tuple[str, str, str]] | Iterable[Any]) -> dict[str, Index]:
    """By event, from rows of (event id, search parameter, value)."""
    found: dict[str, Index] = {}
    for event_id, param, value in rows:
        found.setdefault(event_id, set()).add((param, value))
    return found


def find_altered(text: bytes, row: Mapping[Any, Any], index: Index) -> list[str]:
    """Names of the columns and search parameters of this event that are not what its text says."""
    event = orjson.loads(text)
    columns, told = _derived(orjson.dumps([event.get(name) for name in _REPEATED]))
    columns = columns | columns_of(event, _OWN) | {"id": event["id"], "deleted": False}
    altered = [name for name, value in columns.items() if row[name] != value]
    version, updated = str(row["version_id"]), fhir_instant(row["last_updated"])
    for name, kept, said in (("version_id", version, "versionId"), ("last_updated", updated, "lastUpdated")):
        if event["meta"][said] != kept:
            altered.append(name)
    told = told | {(one["param"], one["value"]) for one in index_rows(event, _OWN)}
    return altered if told == index else altered + sorted({param for param, _ in told ^ index})


def is_asked_for(text: str, asked: Question) -> bool:
    """Whether this event answers the question, by its text alone."""
    named = [{asked.photo} if asked.photo else None, {asked.user} if asked.user else None, asked.patient_ids]
    if not all(any(one in text for one in some) for some in named if some is not None):
        return False  # most are not: nothing needs to be read of them
    event = orjson.loads(text)
    columns = columns_of(event)
    return (
        (asked.patient_ids is None or columns["patient"] in asked.patient_ids)
        and (asked.user is None or columns["agent"] == asked.user)
        and (asked.since is None or columns["date"] >= asked.since)
        and (asked.until is None or columns["date"] < asked.until)
        and (asked.photo is None or f"Media/{asked.photo}" in [one["value"] for one in index_rows(event, _ENTITY)])
    )


_ENTITY = frozenset({"entity"})
_REPEATED = ("type", "subtype", "action", "outcome", "agent")
"""Elements that many events share to the letter: what they derive is derived once."""
_OWN = frozenset(one.element for one in search_parameters("AuditEvent")) - frozenset(_REPEATED)


@lru_cache(10_000)
def _derived(repeated: bytes) -> tuple[dict[str, Any], Index]:
    given = {name: value for name, value in zip(_REPEATED, orjson.loads(repeated), strict=True) if value is not None}
    event = {"resourceType": "AuditEvent", "id": "", **given}
    index = {(one["param"], one["value"]) for one in index_rows(event, frozenset(_REPEATED))}
    return columns_of(event, frozenset(_REPEATED)), index
