"""Answers made of stored text: resources, Bundles and OperationOutcomes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import orjson

from adapter.errors import DermBridgeError
from adapter.fhir_api.exchange import FHIR_JSON, Access, Answer, Request, http_date, is_unchanged
from adapter.records.rows import Stored
from mappings.error_to_outcome import Issue, error_to_outcome
from mappings.fhir_check import InvalidResource

_ALWAYS = frozenset({"resourceType", "id", "meta"})
_SUBSETTED = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}
_MALFORMED = frozenset({"structure", "required", "value", "not-supported"})


def json_answer(status: int, content: Any, **more: Any) -> Answer:
    headers = {"Content-Type": f"{FHIR_JSON}; fhirVersion=4.0", **more.pop("headers", {})}
    return Answer(status, orjson.dumps(content), headers, **more)


def read_answer(request: Request, stored: Stored, access: Access) -> Answer:
    """200 with the resource, or 304 when the caller has this version."""
    headers = version_headers(stored)
    if is_unchanged(request, stored.etag, stored.last_updated):
        return Answer(304, headers=headers, accesses=(access,))
    wanted = elements_wanted(stored.resource_type, request.param("_summary"), request.param("_elements"))
    return json_answer(200, subset(stored, wanted), headers=headers, accesses=(access,))


def written_answer(request: Request, status: int, stored: Stored, base_url: str, *accesses: Access) -> Answer:
    """The answer to a create or update, as long as `Prefer: return=` asks for."""
    headers = version_headers(stored) | {"Location": f"{base_url}/{stored.version_reference}"}
    if "return=minimal" in request.preferences:
        return Answer(status, headers=headers, accesses=accesses)
    if "return=OperationOutcome" in request.preferences:
        outcome = error_to_outcome([Issue("information", "informational", "", f"{stored.version_reference} is stored")])
        return json_answer(status, outcome, headers=headers, accesses=accesses)
    return json_answer(status, orjson.Fragment(stored.body), headers=headers, accesses=accesses)


def version_headers(stored: Stored) -> dict[str, str]:
    return {"ETag": stored.etag, "Last-Modified": http_date(stored.last_updated), "Cache-Control": "private, no-store"}


def error_answer(error: DermBridgeError | InvalidResource) -> Answer:
    """OperationOutcome of an expected error."""
    if isinstance(error, InvalidResource):
        status = 400 if any(issue.code in _MALFORMED for issue in error.issues) else 422
        return json_answer(status, error_to_outcome(error.issues))
    headers = {"WWW-Authenticate": "Bearer"} if error.http_status == 401 else {}
    headers |= {"Retry-After": str(error.retry_after)} if error.retry_after else {}
    issue = Issue("error", error.issue_type, error.expression or "", str(error))
    return json_answer(error.http_status, error_to_outcome([issue]), headers=headers)


def bundle(kind: str, entries: Sequence[dict[str, Any]], links: Iterable[tuple[str, str]] = (), **more: Any) -> Any:
    """A Bundle without the empty arrays that FHIR JSON forbids."""
    content: dict[str, Any] = {"resourceType": "Bundle", "type": kind, **more}
    content["link"] = [{"relation": relation, "url": url} for relation, url in links]
    content["entry"] = list(entries)
    return {name: value for name, value in content.items() if value not in ([], None)}


# --- parts of resources ---------------------------------------------------------------------------------------------


def elements_wanted(resource_type: str, summary: str | None, elements: str | None) -> frozenset[str] | None:
    """Top-level elements to keep under `_summary` or `_elements`, mandatory ones always; None for all."""
    if elements:
        return frozenset(elements.split(",")) | _mandatory(resource_type) | _ALWAYS
    if summary == "true":
        return _summary(resource_type) | _mandatory(resource_type) | _ALWAYS
    return None


def subset(stored: Stored, wanted: frozenset[str] | None) -> Any:
    """The stored text as it is, or the wanted elements tagged SUBSETTED."""
    if wanted is None:
        return orjson.Fragment(stored.body)
    kept = {name: value for name, value in stored.resource.items() if name.lstrip("_") in wanted}
    meta = kept.get("meta", {})
    return kept | {"meta": {**meta, "tag": [*meta.get("tag", []), _SUBSETTED]}}


def _model(resource_type: str) -> Any:
    """Imported when first asked for, since it takes longer than all of the service needs to start."""
    from fhir.resources.R4B import get_fhir_model_class

    return get_fhir_model_class(resource_type)


@cache
def _summary(resource_type: str) -> frozenset[str]:
    return frozenset(_model(resource_type).summary_elements_sequence())


@cache
def _mandatory(resource_type: str) -> frozenset[str]:
    fields = _model(resource_type).model_fields.values()
    return frozenset(
        str(one.alias) for one in fields if one.is_required() or _is_marked_required(one.json_schema_extra)
    )


def _is_marked_required(extra: Any) -> bool:
    """Primitives are mandatory by a mark, since an extension may stand in for their value."""
    return isinstance(extra, dict) and bool(extra.get("element_required"))
