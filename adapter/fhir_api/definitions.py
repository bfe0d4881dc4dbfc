"""Read and search of what we define ourselves: a few dozen resources in memory, the same for every caller.

A definition is no patient's, so any authenticated caller may read it and nothing is audited. Search is by url, and by
the few parameters a terminology client tries first (http://hl7.org/fhir/R4/codesystem.html#search).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from adapter.errors import BadInput, NotAllowed, NotFound
from adapter.fhir_api.answers import bundle, json_answer
from adapter.fhir_api.exchange import Answer, Request
from adapter.records.extraction import Resource

SEARCHED_BY: Final = {"_id": "id", "url": "url", "version": "version", "name": "name", "status": "status"}
KINDS: Final = {"_id": "token", "url": "uri", "version": "token", "name": "string", "status": "token"}
_KEPT: Final = {"Cache-Control": "private, max-age=3600"}
Definitions = Mapping[str, Sequence[Resource]]


def by_type(resources: Sequence[Resource]) -> Definitions:
    found: dict[str, list[Resource]] = {}
    for one in resources:
        found.setdefault(one["resourceType"], []).append(one)
    return found


def answer_definition(definitions: Definitions, request: Request, base_url: str) -> Answer:
    """GET [type]/[id], GET [type]?url=.. or POST [type]/_search. Raises NotFound, NotAllowed, BadInput."""
    _ = request.caller
    resource_type, *rest = request.segments
    known = definitions[resource_type]
    if request.method not in ("GET", "HEAD"):
        raise NotAllowed(f"{resource_type} is only read here; it is part of the software")
    if len(rest) == 1:
        for one in known:
            if one["id"] == rest[0]:
                return json_answer(200, one, headers=_KEPT)
        raise NotFound(f"there is no such {resource_type}")
    if rest:
        raise NotAllowed(f"{resource_type} has one version here; read it or search it")
    found = [one for one in known if all(_fits(resource_type, one, name, value) for name, value in request.params)]
    entries = [
        {"fullUrl": f"{base_url}/{resource_type}/{one['id']}", "resource": one, "search": {"mode": "match"}}
        for one in found
    ]
    return json_answer(200, bundle("searchset", entries, total=len(found)), headers=_KEPT)


def capability(resource_type: str) -> dict[str, Any]:
    """Its part of the CapabilityStatement."""
    return {
        "type": resource_type,
        "interaction": [{"code": "read"}, {"code": "search-type"}],
        "versioning": "no-version",
        "searchParam": [{"name": name, "type": kind} for name, kind in KINDS.items()],
    }


def _fits(resource_type: str, resource: Resource, name: str, value: str) -> bool:
    if name in ("_format", "_pretty", "_count", "_summary"):
        return True
    if name not in SEARCHED_BY:
        known = ", ".join(SEARCHED_BY)
        raise BadInput(f"{resource_type} is not searchable by this; known: {known}", issue_type="not-supported")
    kept = str(resource.get(SEARCHED_BY[name], ""))
    if KINDS[name] == "string":
        return any(kept.casefold().startswith(one.casefold()) for one in value.split(","))
    return kept in value.split(",")
