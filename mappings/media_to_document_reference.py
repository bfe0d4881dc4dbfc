"""FHIR R4 Media -> FHIR R4 DocumentReference, for destinations that take no Media.

R4 has no official mapping. The placement of elements follows what R5 did when it folded Media into DocumentReference
(http://hl7.org/fhir/R5/documentreference.html). Several Media elements share one list of the DocumentReference
(`context.event`, `context.related`, `author`, `category`); each entry carries the extension `ROLE` with the name of
the Media element it came from, so that `mappings.document_reference_to_media` restores it.

Lossy: `createdPeriod` whose start equals its end comes back as `createdDateTime`; an Attachment without `creation`
comes back with it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

from mappings.terms import BODY_STRUCTURE, CANON, LOINC, PHOTO_DOCUMENT, URI, Json

ROLE: Final = f"{CANON}/StructureDefinition/media-element"
DEVICE_NAME: Final = f"{CANON}/StructureDefinition/media-device-name"
NOTE: Final = f"{CANON}/StructureDefinition/media-note"
OPERATOR: Final = f"{CANON}/StructureDefinition/media-operator"
# R4 Attachment has no pixel size; R5 has, and this is how an R5 element is written in R4
# (http://hl7.org/fhir/R5/versions.html#extensions).
R5_ATTACHMENT: Final = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Attachment."

# Media.status -> DocumentReference (status, docStatus). Other statuses describe photos that do not exist (yet).
STATUS: Final = {"completed": ("current", "final"), "entered-in-error": ("entered-in-error", "entered-in-error")}

PHOTOGRAPHIC_IMAGE: Final = {"system": LOINC, "code": PHOTO_DOCUMENT}
PHOTO_CATEGORY: Final = {"system": f"{CANON}/CodeSystem/document-category", "code": "photo"}
# "The MIME type says all": R4 value set http://hl7.org/fhir/ValueSet/formatcodes.
FORMAT: Final = {
    "system": "http://ihe.net/fhir/ValueSet/IHE.FormatCode.codesystem",
    "code": "urn:ihe:iti:xds:2017:mimeTypeSufficient",
}

# Elements of the same name and meaning in both resources.
SAME_NAME: Final = ("language", "implicitRules", "text", "contained", "modifierExtension", "identifier", "subject")
EVENTS: Final = ("modality", "view", "bodySite", "reasonCode")
RELATED: Final = ("basedOn", "partOf")
REPEATING: Final = frozenset({"reasonCode", "basedOn", "partOf"})
# Reference types R4 DocumentReference.author allows; a CareTeam operator travels as an extension instead.
AUTHOR_TYPES: Final = frozenset(
    {"Practitioner", "PractitionerRole", "Organization", "Device", "Patient", "RelatedPerson"}
)
# Media element -> value type of its R5 Attachment extension.
PIXELS: Final = {
    "height": "valuePositiveInt",
    "width": "valuePositiveInt",
    "frames": "valuePositiveInt",
    "duration": "valueDecimal",
}


def media_to_document_reference(
    media: Mapping[str, Any], *, type_coding: Mapping[str, str] = PHOTOGRAPHIC_IMAGE
) -> Json:
    """Return the DocumentReference that says what `media` says.

    `type_coding` becomes `DocumentReference.type`; sites disagree about LOINC 72170-4, so it is an argument.
    References keep their targets: the caller rewrites them for the destination. Raises ValueError for a status
    other than completed and entered-in-error, and for a Media without subject or content.
    """
    source = copy.deepcopy(dict(media))
    status = source.get("status")
    if status not in STATUS:
        raise ValueError(f"Media.status {status!r} cannot be a DocumentReference: deliver completed photos only.")
    for required in ("subject", "content"):
        if required not in source:
            raise ValueError(f"Media.{required} is missing: a photo without it cannot be filed.")
    document: Json = {"resourceType": "DocumentReference"}
    document |= {name: source[name] for name in ("id", "meta", *SAME_NAME) if name in source}
    document["status"], document["docStatus"] = STATUS[status]
    if master := _find_capture_identifier(source.get("identifier", [])):
        document["masterIdentifier"] = master
    document["type"] = {"coding": [dict(type_coding)]}
    document["category"] = [{"coding": [dict(PHOTO_CATEGORY)]}, *_marked(source, ("type",))]
    if "issued" in source:
        document["date"] = source["issued"]
    labels = source.get("meta", {}).get("security", [])
    optional = {
        "extension": _extensions(source),
        "author": _authors(source),
        "description": "\n".join(note["text"] for note in source.get("note", []) if "text" in note),
        "securityLabel": [{"coding": [label]} for label in labels],
        "context": _context(source),
    }
    document |= {name: value for name, value in optional.items() if value}
    document["content"] = [{"attachment": _attachment(source), "format": dict(FORMAT)}]
    return document


def _find_capture_identifier(identifiers: list[Json]) -> Json | None:
    return next((dict(each) for each in identifiers if each.get("system") == URI), None)


def _marked(source: Json, names: tuple[str, ...]) -> list[Json]:
    """The values of the named Media elements, each saying which element it was."""
    values = [(name, value) for name in names for value in _as_list(source.get(name))]
    return [
        value | {"extension": [*value.get("extension", []), {"url": ROLE, "valueCode": name}]} for name, value in values
    ]


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _can_be_author(reference: Json) -> bool:
    target = str(reference.get("type") or reference.get("reference", "").rpartition("/")[0].rpartition("/")[2])
    return target in AUTHOR_TYPES


def _authors(source: Json) -> list[Json]:
    return [author for author in _marked(source, ("operator", "device")) if _can_be_author(author)]


def _extensions(source: Json) -> list[Json]:
    extensions = list(source.get("extension", []))
    if "deviceName" in source:
        extensions.append({"url": DEVICE_NAME, "valueString": source["deviceName"]})
    for name in ("operator", "device"):
        if name in source and not _can_be_author(source[name]):
            marked = _marked(source, (name,))[0]
            extensions.append({"url": OPERATOR, "valueReference": marked})
    extensions += [{"url": NOTE, "valueAnnotation": note} for note in source.get("note", [])]
    return extensions


def _context(source: Json) -> Json:
    context: Json = {}
    if "encounter" in source:
        context["encounter"] = [source["encounter"]]
    if events := _marked(source, EVENTS):
        context["event"] = events
    if "createdDateTime" in source:
        context["period"] = {"start": source["createdDateTime"], "end": source["createdDateTime"]}
    elif "createdPeriod" in source:
        context["period"] = source["createdPeriod"]
    lesions = [
        extension["valueReference"]
        for extension in source.get("bodySite", {}).get("extension", [])
        if extension.get("url") == BODY_STRUCTURE and "valueReference" in extension
    ]
    if related := [*_marked(source, RELATED), *lesions]:
        context["related"] = related
    return context


def _attachment(source: Json) -> Json:
    attachment: Json = source["content"]
    if "createdDateTime" in source:
        attachment.setdefault("creation", source["createdDateTime"])
    pixels = [
        {"url": R5_ATTACHMENT + name, value_type: source[name]} for name, value_type in PIXELS.items() if name in source
    ]
    if pixels:
        attachment["extension"] = [*attachment.get("extension", []), *pixels]
    return attachment
