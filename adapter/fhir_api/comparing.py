"""`Media/$compare`: two photos of one patient, aligned and their changes found (docs/compare.md)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from adapter.bridge import Bridge
from adapter.compare.comparing import PICTURES, compare
from adapter.errors import BadInput
from adapter.fhir_api.answers import json_answer
from adapter.fhir_api.exchange import Answer, Request
from adapter.fhir_api.server import Operation
from mappings.comparison_to_parameters import comparison_to_parameters
from mappings.terms import CANON

_ASK = "name two photos: ?left=Media/a&right=Media/b, or Parameters with the references left and right"


def compare_operation(bridge: Bridge) -> Operation:
    """GET or POST; repeatable, since what is found of two photos never changes."""

    def handle(request: Request) -> Answer:
        left, right = _photo(request, "left"), _photo(request, "right")
        found = compare(bridge, request.caller, left, right)
        is_aligned = found.result["verdict"] != "not-aligned"
        base = f"{bridge.settings.base_url}/comparisons/{found.id}"
        pictures = {name: (kind, f"{base}/{name}") for name, kind in PICTURES.items()} if is_aligned else {}
        answer = comparison_to_parameters(found.result, left=f"Media/{left}", right=f"Media/{right}", pictures=pictures)
        return json_answer(200, answer)

    return Operation(handle, f"{CANON}/OperationDefinition/media-compare")


def _photo(request: Request, name: str) -> str:
    """The id of one photo. Raises BadInput."""
    given = request.param(name) if request.method == "GET" else next(_references(request.body, name), None)
    resource_type, _, media_id = (given or "").partition("/_history")[0].rpartition("/")
    if resource_type.rpartition("/")[2] != "Media" or not media_id:
        raise BadInput(_ASK, expression=f"Parameters.parameter.where(name='{name}')")
    return media_id


def _references(body: bytes, name: str) -> Iterator[str]:
    try:
        parameters: Any = orjson.loads(body)
        rows = parameters["parameter"] if parameters["resourceType"] == "Parameters" else []
        for row in rows:
            if row["name"] == name:
                yield str(row["valueReference"]["reference"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise BadInput(_ASK) from None
