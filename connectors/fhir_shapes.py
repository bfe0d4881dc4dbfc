"""Whether an answer is the FHIR it was asked for, before anybody looks into it.

A login page, a proxy's own words or a broken server must not read as "nothing is there": a photo would be sent twice,
or a wrong copy count as taken back. Only the elements that connectors look at are held to their shape.
"""

from __future__ import annotations

import re
from typing import Any, Final

from connectors.answers import Answer
from connectors.contract import DeliveryError, Retry

Resource = dict[str, Any]

_ID: Final = re.compile(r"[A-Za-z0-9\-.]{1,64}")
# element -> its shape: a type, a list of what its entries are, or a dict of elements within
_ANY_RESOURCE: Final[dict[str, Any]] = {
    "id": str,
    "meta": {"lastUpdated": str},
    "identifier": [{}],
    "status": str,
    "extension": [{}],
    "subject": {"reference": str},
    "encounter": {"reference": str},
}
_SHAPES: Final[dict[str, dict[str, Any]]] = {
    "Bundle": {"entry": [{"resource": {}, "response": {}}], "link": [{}]},
    "Binary": {"data": str},
    "Patient": {"link": [{}], "birthDate": str},
    "Media": {"content": {}},
    "DocumentReference": {"content": [{"attachment": {}}], "context": {"encounter": [{"reference": str}]}},
}


def get_resource(answer: Answer, kind: str, *, doing: str) -> Resource:
    """The resource of that type that an answer holds. Raises DeliveryError for anything else."""
    resource = answer.resource()
    if resource.get("resourceType") != kind or not is_shaped(resource):
        raise no_fhir(kind, doing, answer)
    return resource


def get_entries(answer: Answer, kind: str, *, doing: str) -> list[Resource]:
    """The resources of a type in the Bundle that an answer holds. Raises DeliveryError for anything else."""
    entries = get_resource(answer, "Bundle", doing=doing).get("entry", [])
    found = [each["resource"] for each in entries if each.get("resource", {}).get("resourceType") == kind]
    if not all(map(is_shaped, found)):
        raise no_fhir(kind, doing, answer)
    return found


def is_shaped(resource: Resource) -> bool:
    """Whether the elements we look at are of their type; those that are missing are."""
    shape = _ANY_RESOURCE | _SHAPES.get(str(resource.get("resourceType")), {})
    return _fits(resource, shape) and ("id" not in resource or _ID.fullmatch(resource["id"]) is not None)


def _fits(value: object, shape: Any) -> bool:
    if isinstance(shape, list):
        return isinstance(value, list) and all(_fits(each, shape[0]) for each in value)
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(_fits(value[name], shape[name]) for name in shape.keys() & value.keys())
    return isinstance(value, shape)


def no_fhir(kind: str, doing: str, answer: Answer, retry: Retry = Retry.LATER) -> DeliveryError:
    """What to raise; after a write `retry` is UNKNOWN, since it may have been done."""
    return DeliveryError(
        f"{doing}: HTTP {answer.status} brought no {kind} of FHIR R4, request {answer.request_id}.",
        remedy="Check base_url, and that no login page or proxy answers for the destination; it is tried again.",
        retry=retry,
    )
