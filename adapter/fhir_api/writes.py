"""create, update and delete: checked outside the transaction, written with their audit in one."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from adapter.access import Actor, check_scope
from adapter.errors import BadInput, Forbidden, Gone, NotAllowed, NotFound, PreconditionFailed
from adapter.fhir_api.answers import written_answer
from adapter.fhir_api.exchange import Access, Answer, Request, parse_params
from adapter.fhir_api.reads import get_visible, patients_within, reach_of
from adapter.records import create as create_row
from adapter.records import delete as delete_row
from adapter.records.confinement import is_shared, patient_of
from adapter.records.extraction import Resource
from adapter.records.ids import new_id
from adapter.records.rows import Stored, update_resource
from adapter.records.search import Page, search
from adapter.records.search_query import RESULT_PARAMETERS

if TYPE_CHECKING:
    from adapter.fhir_api.server import FhirServer

Writer = Callable[[Connection, Actor, Resource, Stored | None], Stored]
"""Stores a checked resource as its use case wants it: (transaction, who, new content, current version or None)."""

_ETAG = re.compile(r'(?:W/)?"(\d{1,9})"')
_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")


def read_body(server: FhirServer, request: Request) -> Resource:
    """The resource in the body, fit to be stored. Raises BadInput, UnsupportedMedia, InvalidResource."""
    resource = request.json()
    if resource.get("resourceType") != request.segments[0]:
        raise BadInput(f"the body must be a {request.segments[0]}", issue_type="structure", expression="resourceType")
    if request.method == "PUT" and resource.get("id") != request.segments[1]:
        raise BadInput("the id in the body must be the id in the URL", expression=f"{request.segments[0]}.id")
    server.check_resource(resource)
    return resource


def create(server: FhirServer, tx: Connection, request: Request, prepared: Any) -> Answer:
    """201, or 200 with the one that `If-None-Exist` finds."""
    if existing := find_existing(server, tx, request):
        access = Access("read", (existing.reference,), patient_of(existing.resource))
        return written_answer(request, 200, existing, server.base_url, access)
    return _store(server, tx, request, {**prepared, "id": request.assigned_id or new_id()}, None)


def update(server: FhirServer, tx: Connection, request: Request, prepared: Any) -> Answer:
    resource_type, resource_id = request.segments
    expected = request.headers.get("if-match")
    if expected is None and resource_type in server.if_match_required:
        raise BadInput(f"an update of {resource_type} needs If-Match with the version it is based on")
    try:
        current = get_visible(server, tx, request, letter="u")
    except Gone:
        raise
    except NotFound:
        if "update-create" not in server.interactions[resource_type] or not _ID.fullmatch(resource_id):
            raise NotAllowed(f"the server chooses the id of a new {resource_type}; create it with POST") from None
        return _store(server, tx, request, prepared, None)
    check_version(expected, current)
    return _store(server, tx, request, prepared, current)


def delete(server: FhirServer, tx: Connection, request: Request, _prepared: Any) -> Answer:
    """204, again 204 when it is deleted already."""
    with suppress(Gone):
        current = get_visible(server, tx, request, letter="d")
        check_version(request.headers.get("if-match"), current)
        writer = server.writers.get((current.resource_type, "delete"))
        if writer is None:
            deleted = delete_row(tx, current.resource_type, current.id, at=server.bridge.now())
        else:
            deleted = writer(tx, request.caller, current.resource, current)
        access = Access("delete", (current.reference,), patient_of(current.resource))
        return Answer(204, headers={"ETag": deleted.etag}, accesses=(access,))
    return Answer(204)


def check_version(expected: str | None, current: Stored) -> None:
    """Raises PreconditionFailed unless If-Match (or its absence) allows to change this version."""
    if expected is None or expected.strip() == "*":
        return
    match = _ETAG.fullmatch(expected.strip())
    if match is None:
        raise BadInput('If-Match must be an ETag such as W/"1"')
    if int(match[1]) != current.version_id:
        raise PreconditionFailed(
            f"{current.reference} is now at version {current.version_id}; read it again and repeat the change"
        )


def find_existing(server: FhirServer, tx: Connection, request: Request) -> Stored | None:
    """What `If-None-Exist` finds. Raises PreconditionFailed when it finds several."""
    query = request.headers.get("if-none-exist")
    if query is None:
        return None
    resource_type = request.segments[0]
    check_scope(request.caller, "s", resource_type, some=True)
    # Two requests with the same condition must not both find nothing.
    server.bridge.db.lock(tx, f"If-None-Exist {resource_type}?{query}")
    found = find_two(server, tx, request, resource_type, query.lstrip("?")).entries
    if len(found) > 1:
        raise PreconditionFailed(
            f"If-None-Exist matches several {resource_type} records; use a narrower identifier",
            issue_type="multiple-matches",
        )
    return found[0] if found else None


def find_two(server: FhirServer, tx: Connection, request: Request, resource_type: str, query: str) -> Page:
    """Up to two matches of a conditional reference or create: enough to know none, one or several."""
    params = [(name, value) for name, value in parse_params(query) if value and name not in RESULT_PARAMETERS]
    if not params:
        raise BadInput("a condition needs search parameters, such as identifier=system|value")
    reach = reach_of(server, tx, request)
    return search(
        tx,
        resource_type,
        [*params, ("_count", "2")],
        patient_ids=reach.patient_ids,
        reached=reach.alternatives,
        codec=server.codec,
        base_url=server.base_url,
    )


def _store(server: FhirServer, tx: Connection, request: Request, resource: Resource, current: Stored | None) -> Answer:
    resource_type = request.segments[0]
    _check_own_patient(tx, request, resource)
    event = "create" if current is None else "update"
    at = server.bridge.now()
    if writer := server.writers.get((resource_type, event)):
        stored = writer(tx, request.caller, resource, current)
    elif current is None:
        stored = create_row(tx, resource, at=at)
    else:
        stored = update_resource(tx, resource, at=at, expected_version=current.version_id)
    reach_of(server, tx, request).check_written("c" if current is None else "u", resource_type, stored.id)
    access = Access(event, (stored.version_reference,), patient_of(stored.resource))
    return written_answer(request, 201 if current is None else 200, stored, server.base_url, access)


def _check_own_patient(tx: Connection, request: Request, resource: Resource) -> None:
    within = patients_within(tx, request)
    if within is not None and patient_of(resource) not in within and not is_shared(resource["resourceType"]):
        raise Forbidden("this session may write only about the patient it was launched for")
