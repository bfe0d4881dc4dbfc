"""Making our stored resources fit for another server: its references, no ids of ours, nothing it rejects.

Pure: value in, value out.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final

from connectors.contract import Parcel
from connectors.kinds import FhirR4Profile
from mappings.media_to_document_reference import media_to_document_reference
from mappings.terms import CANON, URI

Resource = dict[str, Any]

_LOCAL: Final = re.compile(r"^(?P<type>[A-Z][A-Za-z]+)/[A-Za-z0-9.\-]{1,64}(?:/_history/[^/]+)?$")
# The rest is server-owned or about our server only: our profiles, tags and source mean nothing at the destination.
_META_KEPT: Final = frozenset({"security"})


def localised(resource: Mapping[str, Any], references: Mapping[str, str]) -> Resource:
    """Return `resource` as another server may store it.

    `references` maps our `Type/id` to theirs. A reference that is not in it would dangle there, so it keeps only its
    identifier and display; an Attachment keeps no address on our server. Elements left empty disappear.
    """
    outward = {name: _walked(value, references) for name, value in resource.items() if name not in {"id", "meta"}}
    meta = {name: value for name, value in resource.get("meta", {}).items() if name in _META_KEPT}
    return {name: value for name, value in (outward | {"meta": meta}).items() if value not in ({}, [])}


def _walked(value: Any, references: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [kept for kept in (_walked(each, references) for each in value) if kept not in ({}, [])]
    if not isinstance(value, Mapping):
        return value
    result: Resource = {}
    for name, item in value.items():
        local = _LOCAL.match(item) if isinstance(item, str) and name in {"reference", "url"} else None
        if local is None:
            result[name] = _walked(item, references)
        elif item in references:
            result[name] = references[item]
        elif name == "reference" and ("identifier" in value or "display" in value):
            result.setdefault("type", local["type"])
    result = {name: item for name, item in result.items() if item not in ({}, [])}
    return {} if set(result) == {"url"} and "url" in value and set(value) != {"url"} else result


def without(resource: Resource, paths: Iterable[str]) -> Resource:
    """Remove the elements named by dotted paths (`meta.security`); a path through a list applies to every entry."""
    for path in paths:
        _remove(resource, path.split("."))
    return resource


def _remove(node: Any, names: list[str]) -> None:
    if isinstance(node, list):
        for each in node:
            _remove(each, names)
    elif isinstance(node, dict) and names[0] in node:
        if len(names) == 1:
            del node[names[0]]
            return
        _remove(node[names[0]], names[1:])
        if node[names[0]] in ({}, []):
            del node[names[0]]


def find_capture_identifier(media: Mapping[str, Any]) -> Resource | None:
    """The identifier that all versions of one photo share."""
    for identifier in media.get("identifier", []):
        if identifier.get("system") == URI and identifier.get("value"):
            return {"system": URI, "value": identifier["value"]}
    return None


def delivery_identifier(parcel: Parcel) -> Resource:
    """The identifier of exactly this version at exactly this destination, from the idempotency key (RFC 9562, v5)."""
    name = uuid.uuid5(uuid.NAMESPACE_URL, f"{CANON}/delivery/{parcel.idempotency_key}")
    return {"system": URI, "value": f"urn:uuid:{name}"}


def has_identifier(resource: Mapping[str, Any], identifier: Mapping[str, Any]) -> bool:
    """Whether `resource` really bears it: some servers ignore search parameters they do not know."""
    wanted = (identifier.get("system"), identifier.get("value"))
    return wanted in [(each.get("system"), each.get("value")) for each in resource.get("identifier", [])]


def photo_body(
    route: str, parcel: Parcel, profile: FhirR4Profile, references: Mapping[str, str], content: Mapping[str, str]
) -> Resource:
    """The resource to write. `content` is the Attachment's `url` or `data` at the destination."""
    media = localised(parcel.media, references)
    identifiers = [each for each in media.get("identifier", []) if each != delivery_identifier(parcel)]
    media["identifier"] = [*identifiers, delivery_identifier(parcel)]
    attachment = {name: value for name, value in media.get("content", {}).items() if name not in {"url", "data"}}
    described = {
        "contentType": parcel.content_type,
        "size": parcel.size,
        "hash": parcel.sha1_b64,
        "title": parcel.filename,
    }
    media["content"] = attachment | described | dict(content)
    if route == "fhir-media":
        return without(media, profile.omit)
    coding = {name: value for name, value in profile.type_coding.model_dump().items() if value}
    return without(media_to_document_reference(media, type_coding=coding), profile.omit)
