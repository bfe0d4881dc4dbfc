"""Making our stored resources fit for another server: its references, no ids of ours, nothing it rejects.

Pure: value in, value out.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Final

from connectors.contract import Parcel
from connectors.every_kind import Profile
from connectors.kinds import FhirR4Profile
from connectors.knobs import Coding
from mappings.media_to_document_reference import media_to_document_reference
from mappings.terms import CANON, URI

Resource = dict[str, Any]

_RESOURCE: Final = r"(?P<type>[A-Z][A-Za-z]+)/[A-Za-z0-9.\-]{1,64}(?:/_history/[^/]+)?$"
_LOCAL: Final = re.compile(_RESOURCE)
_FOREIGN: Final = re.compile(rf"https?://[^?#]+/{_RESOURCE}")
# The rest is server-owned or about our server only: our profiles, tags and source mean nothing at the destination.
_META_KEPT: Final = frozenset({"security"})


def localised(resource: Mapping[str, Any], references: Mapping[str, str]) -> Resource:
    """Return `resource` as another server may store it.

    `references` maps our `Type/id` to theirs. A reference that is not in it would dangle there, so it keeps only its
    type, identifier and display; one to a third server, which many refuse, becomes an identifier; an Attachment keeps
    no address on our server. Elements left empty disappear.
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
        if name == "reference" and isinstance(item, str) and (foreign := _FOREIGN.match(item)):
            logical = {"type": foreign["type"], "identifier": {"system": URI, "value": item}}
            result |= {key: found for key, found in logical.items() if key not in value}
        elif local is None:
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


def of_type(paths: Iterable[str], kind: str) -> dict[str, str]:
    """Those of a profile's dotted paths that hold for a resource of this type, without its name -> as they are written:
    `Media.extension` holds for a Media alone, `extension` for any."""
    named = {path: path.partition(".") for path in paths}
    return {
        rest if head[:1].isupper() else path: path
        for path, (head, _, rest) in named.items()
        if head == kind or not head[:1].isupper()
    }


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


def mark(parcel: Parcel) -> str:
    """Our identifiers as a short text, for destinations that keep none: `[DermBridge 0d6c4f4e7f0e.3f1f2a3b4c5d]`.

    The first part is the photo's, shared by its versions; the second this version's at this destination.
    """
    return f"[DermBridge {_short(find_capture_identifier(parcel.media) or {})}.{_short(delivery_identifier(parcel))}]"


def _short(identifier: Mapping[str, Any]) -> str:
    return str(identifier.get("value", "")).removeprefix("urn:uuid:").replace("-", "")[:12]


def is_of_capture(resource: Mapping[str, Any], parcel: Parcel) -> bool:
    """Whether `resource` is some version of this photo, by identifier or by mark."""
    ours = find_capture_identifier(parcel.media) or {}
    return has_identifier(resource, ours) or mark(parcel).partition(".")[0] + "." in _texts(resource)


def is_of_delivery(resource: Mapping[str, Any], parcel: Parcel) -> bool:
    """Whether `resource` is exactly this version at this destination, by identifier or by mark."""
    return has_identifier(resource, delivery_identifier(parcel)) or mark(parcel) in _texts(resource)


def _texts(resource: Mapping[str, Any]) -> str:
    contents = resource.get("content", [])
    attachments = [each.get("attachment", {}) for each in contents] if isinstance(contents, list) else [contents]
    said = [resource.get("description"), *(each.get("title") for each in attachments)]
    said += [each.get("valueString") for each in resource.get("extension", [])]
    return "\n".join(str(each) for each in said if each)


def link_to(parcel: Parcel, profile: Profile) -> str:
    """Where people see the photo in DermBridge; empty when the profile does not say where that is."""
    base = profile.transform.link_base.rstrip("/")
    return f"{base}/photos/{parcel.media.get('id')}" if base else ""


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
    body = media if route == "fhir-media" else _document(media, profile)
    if profile.look_by == "patient":
        _add_mark(body, mark(parcel))
    if profile.references in {"contained", "identifier"}:
        _name_by_number(body, parcel, profile.references)
    return without(body, of_type(profile.omit, body["resourceType"]))


def _name_by_number(body: Resource, parcel: Parcel, form: str) -> None:
    """Patient and visit by their identifiers: the patient contained, or both as logical references."""
    patient, visit = (_numbers(each) for each in (parcel.patient, parcel.encounter or {}))
    if form == "contained" and patient:
        known = {name: parcel.patient[name] for name in ("name", "gender", "birthDate") if name in parcel.patient}
        body["contained"] = [{"resourceType": "Patient", "id": "patient", "identifier": patient} | known]
        body["subject"] = {"reference": "#patient"}
    elif patient:
        body["subject"] = {"type": "Patient", "identifier": patient[0]}
    by_number = {"type": "Encounter", "identifier": visit[0]} if visit else None
    if by_number and "encounter" in body:
        body["encounter"] = by_number
    if by_number and "encounter" in body.get("context", {}):
        body["context"]["encounter"] = [by_number]


def _numbers(resource: Mapping[str, Any]) -> list[Resource]:
    return [
        {"system": each["system"], "value": each["value"]}
        for each in resource.get("identifier", [])
        if each.get("system") and each.get("value") and each.get("use") != "old"
    ]


def _document(media: Resource, profile: FhirR4Profile) -> Resource:
    coding, category = _coding(profile.type_coding), profile.category
    document = media_to_document_reference(media, type_coding=coding)
    return document | ({"category": [{"coding": [_coding(category)]}]} if category else {})


def _coding(coding: Coding) -> dict[str, str]:
    return {name: value for name, value in coding.model_dump().items() if value}


def _add_mark(body: Resource, text: str) -> None:
    contents = body["content"]
    attachment = contents[0]["attachment"] if isinstance(contents, list) else contents
    attachment["title"] = f"{attachment.get('title', '')} {text}".strip()
    if body["resourceType"] == "DocumentReference":
        body["description"] = f"{body.get('description', '')} {text}".strip()


def put(resource: Resource, path: str, value: Any) -> None:
    """Set the element at a dotted path, making what is missing on the way; a number is a place in a list."""
    node: Any = resource
    names = path.split(".")
    last = names[-1]
    for name, following in pairwise(names):
        fresh: Any = [] if following.isdigit() else {}
        node = _step(node, name, fresh)
    if isinstance(node, list):
        _step(node, last, value)
        node[int(last)] = value
    else:
        node[last] = value


def _step(node: Any, name: str, fresh: Any) -> Any:
    if isinstance(node, dict):
        return node.setdefault(name, fresh)
    while len(node) <= int(name):
        node.append(fresh)
    return node[int(name)]
