"""batch and transaction (http://hl7.org/fhir/R4/http.html#transaction): entries as requests of their own.

A batch answers each entry by itself. A transaction is one database transaction: DELETE, POST, PUT, then GET; references
between entries (`urn:uuid:…`) and conditional references (`Patient?identifier=…`) become real ones before writing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import Connection

from adapter.errors import BadInput, DermBridgeError, PreconditionFailed, TooLarge
from adapter.fhir_api import writes
from adapter.fhir_api.answers import bundle, json_answer
from adapter.fhir_api.exchange import FHIR_JSON, Answer, Request, parse_params
from adapter.records.ids import new_id
from mappings.fhir_check import InvalidResource

if TYPE_CHECKING:
    from adapter.fhir_api.server import FhirServer

MOST_ENTRIES = 500
_ORDER = ("DELETE", "POST", "PUT", "GET", "HEAD")
_CONDITIONS = {"ifMatch": "if-match", "ifNoneExist": "if-none-exist", "ifNoneMatch": "if-none-match"}


@dataclass(frozen=True)
class Entry:
    position: int
    full_url: str
    request: Request
    resource: dict[str, Any] | None

    def with_resource(self, resource: dict[str, Any] | None) -> Request:
        return replace(self.request, body=orjson.dumps(resource) if resource else b"")


def process_bundle(server: FhirServer, request: Request) -> Answer:
    """Raises BadInput, TooLarge, and for a transaction whatever one of its entries raised."""
    content = request.json()
    kind, raw = content.get("type"), content.get("entry", [])
    if content.get("resourceType") != "Bundle" or kind not in ("batch", "transaction") or not isinstance(raw, list):
        raise BadInput("POST a Bundle of type batch or transaction here", issue_type="structure")
    if len(raw) > MOST_ENTRIES:
        raise TooLarge(f"a Bundle may have {MOST_ENTRIES} entries; send several")
    entries = [_read_entry(server, request, position, one) for position, one in enumerate(raw)]
    if kind == "batch":
        answers = [server.answer(one.with_resource(one.resource)) for one in entries]
    else:
        answers = _transaction(server, entries)
    return json_answer(200, bundle(f"{kind}-response", [_response(one) for one in answers]))


def _read_entry(server: FhirServer, request: Request, position: int, raw: Any) -> Entry:
    asked = raw.get("request") if isinstance(raw, dict) else None
    if not isinstance(asked, dict) or not isinstance(asked.get("url"), str) or asked.get("method") not in _ORDER:
        raise BadInput(
            "every entry needs request.method and request.url",
            issue_type="required",
            expression=f"Bundle.entry[{position}]",
        )
    path, _, query = asked["url"].removeprefix(f"{server.base_url}/").partition("?")
    headers = {header: str(asked[name]) for name, header in _CONDITIONS.items() if name in asked}
    prefers = request.headers.get("prefer", "")
    headers["prefer"] = prefers if "return=" in prefers else f"return=minimal, {prefers}"
    headers["content-type"] = headers["accept"] = FHIR_JSON
    segments = tuple(path.strip("/").split("/"))
    resource = raw.get("resource")
    inner = replace(
        request,
        method=asked["method"],
        segments=segments if segments != ("",) else ("Bundle",),  # no Bundle within a Bundle
        params=tuple(parse_params(query)),
        headers=headers,
        body=b"",
    )
    return Entry(position, str(raw.get("fullUrl", "")), inner, resource if isinstance(resource, dict) else None)


def _response(answer: Answer) -> dict[str, Any]:
    headers = answer.headers
    response = {
        "status": f"{answer.status} {HTTPStatus(answer.status).phrase}",
        "location": headers.get("Location"),
        "etag": headers.get("ETag"),
        "lastModified": _instant(headers.get("Last-Modified")),
    }
    entry: dict[str, Any] = {"response": {name: value for name, value in response.items() if value}}
    if answer.body and answer.status >= 400:
        entry["response"]["outcome"] = orjson.Fragment(answer.body)
    elif answer.body:
        entry["resource"] = orjson.Fragment(answer.body)
    return entry


def _instant(http_date: str | None) -> str | None:
    return parsedate_to_datetime(http_date).isoformat() if http_date else None


# --- transaction ----------------------------------------------------------------------------------------------------


def _transaction(server: FhirServer, entries: list[Entry]) -> list[Answer]:
    _check_distinct(entries)
    uploads = {
        one.position: server.prepare(one.with_resource(one.resource))
        for one in entries
        if one.request.segments == ("Binary",) and one.request.method == "POST"
    }
    answers: dict[int, Answer] = {}
    ordered = sorted(entries, key=lambda one: _ORDER.index(one.request.method))
    for one in entries:
        server.settle_for(one.request)
    with server.bridge.db.transaction() as tx:
        names: Mapping[str, str] | None = None
        for one in ordered:
            if names is None and one.request.method != "DELETE":
                names = _assign_ids(server, tx, entries)
            try:
                answers[one.position] = _perform(server, tx, one, names or {}, uploads.get(one.position))
            except (DermBridgeError, InvalidResource) as error:
                raise _located(error, one.position) from None
    return [answers[one.position] for one in entries]


def _perform(server: FhirServer, tx: Connection, entry: Entry, names: Mapping[str, str], upload: Any) -> Answer:
    resource = _resolved(server, tx, entry, entry.resource, names)
    request = entry.with_resource(resource)
    if request.method == "POST" and entry.full_url in names:
        request = replace(request, assigned_id=names[entry.full_url].rpartition("/")[2])
    return server.perform(request, tx, upload)


def _check_distinct(entries: list[Entry]) -> None:
    """The outcome may not depend on the order of entries."""
    changed = ["/".join(one.request.segments) for one in entries if one.request.method in ("PUT", "DELETE")]
    conditions = [
        (one.request.segments, one.request.headers["if-none-exist"])
        for one in entries
        if "if-none-exist" in one.request.headers
    ]
    if len(set(changed)) < len(changed) or len(set(conditions)) < len(conditions):
        raise BadInput("a transaction may name each resource once only", issue_type="duplicate")


def _assign_ids(server: FhirServer, tx: Connection, entries: list[Entry]) -> dict[str, str]:
    """fullUrl -> Type/id for every entry that creates or updates."""
    names: dict[str, str] = {}
    for one in entries:
        if one.request.method == "PUT" and one.full_url:
            names[one.full_url] = "/".join(one.request.segments)
        elif one.request.method == "POST" and one.full_url:
            existing = writes.find_existing(server, tx, one.request)
            names[one.full_url] = existing.reference if existing else f"{one.request.segments[0]}/{new_id()}"
    return names


def _resolved(server: FhirServer, tx: Connection, entry: Entry, value: Any, names: Mapping[str, str]) -> Any:
    """A copy with the names of other entries and conditional references replaced."""
    if isinstance(value, list):
        return [_resolved(server, tx, entry, one, names) for one in value]
    if isinstance(value, str):
        return names.get(value, value)
    if not isinstance(value, dict):
        return value
    copy = {name: _resolved(server, tx, entry, one, names) for name, one in value.items()}
    reference = copy.get("reference")
    if isinstance(reference, str) and "?" in reference and reference.partition("?")[0].isalpha():
        copy["reference"] = _found(server, tx, entry, reference)
    return copy


def _found(server: FhirServer, tx: Connection, entry: Entry, reference: str) -> str:
    resource_type, _, query = reference.partition("?")
    server.check_interaction(entry.request, "search-type", resource_type)
    found = writes.find_two(server, tx, entry.request, resource_type, query).entries
    if len(found) != 1:
        count = "nothing" if not found else "several records"
        raise PreconditionFailed(f"a conditional reference to {resource_type} finds {count}; it must find one")
    return found[0].reference


def _located(error: DermBridgeError | InvalidResource, position: int) -> DermBridgeError | InvalidResource:
    place = f"Bundle.entry[{position}]"
    if isinstance(error, InvalidResource):
        return InvalidResource([issue._replace(expression=f"{place}.resource") for issue in error.issues])
    error.expression = place
    return error
