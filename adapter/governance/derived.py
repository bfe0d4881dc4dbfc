"""Whether an AuditEvent is still found by all it says: columns and index against the text they were derived from.

Without this, somebody could hide who saw a photo and leave every sealed byte as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from adapter.records.search_parameters import columns_of, index_rows
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
    altered = [name for name, value in columns_of(event).items() if row[name] != value]
    kept = {"id": event["id"], "version_id": int(event["meta"]["versionId"]), "deleted": False}
    altered += [name for name, value in kept.items() if row[name] != value]
    if fhir_instant(row["last_updated"]) != event["meta"]["lastUpdated"]:
        altered.append("last_updated")
    told = {(one["param"], one["value"]) for one in index_rows(event)}
    return altered + sorted({param for param, _ in told ^ index})
