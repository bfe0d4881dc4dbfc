"""What an AuditEvent is found by, told from its sealed text instead of the columns and the index derived from it.

Without this, somebody could hide who saw a photo and leave every sealed byte as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from functools import lru_cache
from typing import Any

import orjson

from adapter.governance.log import Question
from adapter.records import Resource
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
    columns, told = _derived(event)
    meta = event["meta"]
    columns |= {"id": event["id"], "deleted": False}
    altered = [name for name, value in columns.items() if row[name] != value]
    if meta["versionId"] != str(row["version_id"]):
        altered.append("version_id")
    if meta["lastUpdated"] != fhir_instant(row["last_updated"]):
        altered.append("last_updated")
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


# --- derived once for what many events share, which is most of them --------------------------------------------------

_ENTITY = frozenset({"entity"})
_REPEATED = ("type", "subtype", "action", "outcome", "agent")
"""Elements that many events share to the letter."""
_OWN = frozenset(one.element for one in search_parameters("AuditEvent")) - _ENTITY - frozenset(_REPEATED)
_REFERENCE = re.compile(r"([A-Z][A-Za-z]{1,63}/)([A-Za-z0-9.-]{1,64})(?:/_history/[A-Za-z0-9.-]{1,64})?")
_ANY_ID = "0"

Derived = tuple[dict[str, Any], Index]
"""(column -> value, index rows)"""


def _derived(event: Resource) -> Derived:
    """What `columns_of` and `index_rows` give for it, sooner."""
    columns, told = _of_repeated(orjson.dumps([event.get(name) for name in _REPEATED]))
    columns, told = columns | _NO_ENTITY | columns_of(event, _OWN), told | _rows(event, _OWN)
    for one in event.get("entity", ()):
        named, found = _of_entity(one)
        columns |= {name: value for name, value in named.items() if columns[name] is None}  # the first that names one
        told |= found
    return columns, told


def _of_entity(entity: Resource) -> Derived:
    what = entity.get("what")
    if what is None:
        return {}, set()
    match = _REFERENCE.fullmatch(what["reference"]) if what.keys() == {"reference"} else None
    if match is None:
        return _of({"entity": [entity]}, _ENTITY)
    kind, named = match.groups()
    columns, params = _of_kind(kind)
    return dict.fromkeys(columns, named), {(param, kind + named) for param in params}


@lru_cache(200)
def _of_kind(kind: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(columns that hold the id, search parameters that hold the reference) of a record of this kind, `Type/`."""
    columns, told = _of({"entity": [{"what": {"reference": kind + _ANY_ID}}]}, _ENTITY)
    return tuple(name for name, value in columns.items() if value), tuple(param for param, _ in told)


@lru_cache(10_000)
def _of_repeated(elements: bytes) -> Derived:
    given = {name: value for name, value in zip(_REPEATED, orjson.loads(elements), strict=True) if value is not None}
    return _of(given, frozenset(_REPEATED))


def _of(elements: Resource, names: Set[str]) -> Derived:
    event = {"resourceType": "AuditEvent", "id": "", **elements}
    return columns_of(event, names), _rows(event, names)


def _rows(event: Resource, names: Set[str]) -> Index:
    return {(row["param"], row["value"]) for row in index_rows(event, names)}


_NO_ENTITY, _ = _of({}, _ENTITY)
