"""read, vread, history and search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import orjson
from sqlalchemy import Connection

from adapter.access.policy import Letter, can, can_see, can_some
from adapter.access.reach import Reach
from adapter.errors import BadInput, NotFound, OutOfReach, UnsupportedMedia
from adapter.fhir_api.answers import bundle, elements_wanted, json_answer, read_answer, subset
from adapter.fhir_api.exchange import Access, Answer, Request, parse_params
from adapter.records import get, history
from adapter.records.confinement import patient_of, same_patients
from adapter.records.date_intervals import date_interval
from adapter.records.rows import Stored
from adapter.records.search import PAGE, Page, search
from mappings.error_to_outcome import Issue, error_to_outcome

if TYPE_CHECKING:
    from adapter.fhir_api.server import FhirServer

Within = frozenset[str] | None


def patients_within(tx: Connection, request: Request) -> Within:
    """The patients this caller is confined to, merged ids included; None for no confinement."""
    patient_id = request.caller.patient_id
    return None if patient_id is None else same_patients(tx, [patient_id])


def reach_of(server: FhirServer, tx: Connection, request: Request) -> Reach:
    """The records this caller reaches."""
    return Reach(tx, request.caller, server.bridge.now(), server.base_url)


def get_visible(
    server: FhirServer, tx: Connection, request: Request, version_id: int | None = None, *, letter: Letter = "r"
) -> Stored:
    """What the request's path names. Raises NotFound, also when it is out of the caller's reach; Gone when deleted."""
    resource_type, resource_id = request.segments[:2]
    reach = reach_of(server, tx, request)
    reach.check(letter, resource_type, resource_id)
    stored = get(tx, resource_type, resource_id, version_id)
    may_be_old = version_id is not None and not can(reach.actor, letter, resource_type)
    if (may_be_old and stored != get(tx, resource_type, resource_id)) or not _is_visible(stored, reach):
        raise OutOfReach(f"there is no {resource_type}/{resource_id}", reference=f"{resource_type}/{resource_id}")
    return stored


def _is_visible(stored: Stored, reach: Reach) -> bool:
    """An older version may have been filed under another patient, or been more sensitive.

    Whether one lay within a restricted scope cannot be searched any more; who has no other sees the newest alone.
    """
    about = None if reach.patient_ids is None else patient_of(stored.resource)
    return (about is None or about in (reach.patient_ids or ())) and can_see(reach.actor, stored.resource)


def read(server: FhirServer, tx: Connection, request: Request, _prepared: Any) -> Answer:
    stored = get_visible(server, tx, request)
    return read_answer(request, stored, _access("read", stored, stored.reference))


def vread(server: FhirServer, tx: Connection, request: Request, _prepared: Any) -> Answer:
    version = request.segments[3]
    if not (version.isascii() and version.isdecimal() and len(version) < 10):
        raise NotFound(f"there is no version {version[:64]} of it; versions are numbers")
    stored = get_visible(server, tx, request, int(version))
    return read_answer(request, stored, _access("read", stored, stored.version_reference))


def read_history(server: FhirServer, tx: Connection, request: Request, _prepared: Any) -> Answer:
    """All versions the caller may see, newest first; `_since` and `_count` shorten it."""
    resource_type, resource_id = request.segments[:2]
    reach = reach_of(server, tx, request)
    reach.check("r", resource_type, resource_id)
    versions = history(tx, resource_type, resource_id)[: None if can(request.caller, "r", resource_type) else 1]
    versions = [one for one in versions if _is_visible(one[0], reach)]
    total = len(versions)
    if since := request.param("_since"):
        earliest = _instant(since)
        versions = [one for one in versions if one[0].last_updated >= earliest]
    if (count := request.param("_count")) and count.isdecimal():
        versions = versions[: int(count[:9])]
    entries = [_history_entry(server, stored, is_deletion) for stored, is_deletion in versions]
    access = _access("read", versions[0][0], f"{resource_type}/{resource_id}/_history") if versions else Access("read")
    return json_answer(200, bundle("history", entries, total=total), accesses=(access,))


def search_type(server: FhirServer, tx: Connection, request: Request, _prepared: Any) -> Answer:
    """GET with a query string, or POST _search with a form, whose links never repeat what was posted."""
    resource_type, reach = request.segments[0], reach_of(server, tx, request)
    page = search(
        tx,
        resource_type,
        _search_params(request),
        patient_ids=reach.patient_ids,
        reached=reach.alternatives,
        codec=server.codec,
        base_url=server.base_url,
        lenient="handling=lenient" in request.preferences,
        may_include=lambda name: "read" in server.interactions.get(name, ()) and can_some(request.caller, "r", name),
    )
    wanted = elements_wanted(resource_type, page.summary, ",".join(page.elements))
    entries = [_match(server, one, wanted, "match") for one in page.entries]
    entries += [_match(server, one, None, "include") for one in page.includes]
    if page.ignored:
        text = f"left out, since {resource_type} is not searchable by it: {', '.join(page.ignored)}"
        outcome = error_to_outcome([Issue("warning", "not-supported", "", text)])
        entries.append({"resource": outcome, "search": {"mode": "outcome"}})
    content = bundle("searchset", entries, _links(server, request, page), total=page.total)
    return json_answer(200, content, headers={"Cache-Control": "private, no-store"}, accesses=_queries(request, page))


def _search_params(request: Request) -> list[tuple[str, str]]:
    params = list(request.params)
    if request.method == "POST":
        if request.body and request.content_type != "application/x-www-form-urlencoded":
            raise UnsupportedMedia("send the search as application/x-www-form-urlencoded")
        params += parse_params(request.body.decode("utf-8", "replace"))
    if any("\x00" in text for param in params for text in param):
        raise BadInput("a search value may not hold the character U+0000")
    return params


def _links(server: FhirServer, request: Request, page: Page) -> list[tuple[str, str]]:
    """self repeats what the caller put into the URL; after a POST or on a page it is a token, as next and previous."""
    url = f"{server.base_url}/{request.segments[0]}"
    in_clear = request.method in ("GET", "HEAD") and request.param(PAGE) is None
    here = urlencode(page.self_params) if in_clear else f"{PAGE}={page.here}"
    tokens = (("next", page.next), ("previous", page.previous))
    return [
        ("self", f"{url}?{here}" if here else url),
        *((relation, f"{url}?{PAGE}={token}") for relation, token in tokens if token),
    ]


def _queries(request: Request, page: Page) -> tuple[Access, ...]:
    query = f"{request.segments[0]}?{urlencode(page.self_params)}"
    patients: list[str | None] = [*sorted(page.patient_ids)] or [None]
    return tuple(Access("query", (), one, query) for one in patients)


def _match(server: FhirServer, stored: Stored, wanted: frozenset[str] | None, mode: str) -> dict[str, Any]:
    return {
        "fullUrl": f"{server.base_url}/{stored.reference}",
        "resource": subset(stored, wanted),
        "search": {"mode": mode},
    }


def _history_entry(server: FhirServer, stored: Stored, is_deletion: bool) -> dict[str, Any]:
    method = "DELETE" if is_deletion else "POST" if stored.version_id == 1 else "PUT"
    status = {"DELETE": "204", "POST": "201", "PUT": "200"}[method]
    entry: dict[str, Any] = {
        "fullUrl": f"{server.base_url}/{stored.reference}",
        "request": {"method": method, "url": stored.resource_type if method == "POST" else stored.reference},
        "response": {"status": status, "etag": stored.etag, "lastModified": _fhir_time(stored)},
    }
    return entry if is_deletion else entry | {"resource": orjson.Fragment(stored.body)}


def _fhir_time(stored: Stored) -> str:
    return stored.last_updated.isoformat(timespec="milliseconds")


def _instant(text: str) -> Any:
    try:
        return date_interval(text.replace(" ", "+"))[0]
    except ValueError:
        raise BadInput("_since takes an instant such as 2026-11-23T09:30:00Z") from None


def _access(event: str, stored: Stored, reference: str) -> Access:
    return Access(event, (reference,), patient_of(stored.resource))
