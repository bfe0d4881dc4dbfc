"""FHIR R4 DocumentReference -> FHIR R4 Media: the way back of `mappings.media_to_document_reference`.

Reads documents that DermBridge wrote (the `ROLE` extension tells the elements apart). A photo document of another
author keeps what can be told without it: subject, encounter, times, attachment, security labels.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Final

from mappings.media_to_document_reference import (
    DEVICE_NAME,
    NOTE,
    OPERATOR,
    PIXELS,
    R5_ATTACHMENT,
    REPEATING,
    ROLE,
    SAME_NAME,
    STATUS,
)
from mappings.terms import Json

_STATUS: Final = {status: media_status for media_status, (status, _) in STATUS.items()}


def document_reference_to_media(document: Mapping[str, Any]) -> Json:
    """Return the Media that `document` describes.

    Raises ValueError when its status is neither current nor entered-in-error, or when it does not hold exactly one
    attachment: a Media is one photo.
    """
    source = copy.deepcopy(dict(document))
    status = source.get("status")
    if status not in _STATUS:
        raise ValueError(f"DocumentReference.status {status!r} has no Media status: read the current version.")
    contents = source.get("content", [])
    if len(contents) != 1:
        raise ValueError(f"A Media is one photo, this DocumentReference has {len(contents)} attachments.")
    media: Json = {"resourceType": "Media", "status": _STATUS[status]}
    media |= {name: source[name] for name in ("id", "meta", *SAME_NAME) if name in source}
    if "date" in source:
        media["issued"] = source["date"]
    _read_extensions(media, source.get("extension", []))
    _read_labels(media, source.get("securityLabel", []))
    context = source.get("context", {})
    if encounters := context.get("encounter"):
        media["encounter"] = encounters[0]
    media |= _created(context.get("period", {}))
    for entries in (
        source.get("category", []),
        context.get("event", []),
        context.get("related", []),
        source.get("author", []),
    ):
        _read_marked(media, entries)
    media["content"] = attachment = contents[0]["attachment"]
    _read_pixels(media, attachment)
    return media


def _split_role(value: Json) -> tuple[str | None, Json]:
    """Return the Media element an entry came from, and the entry without the mark."""
    extensions = value.get("extension", [])
    role = next((each["valueCode"] for each in extensions if each.get("url") == ROLE), None)
    kept = [each for each in extensions if each.get("url") != ROLE]
    bare = {name: item for name, item in value.items() if name != "extension"}
    return role, bare | ({"extension": kept} if kept else {})


def _read_marked(media: Json, entries: Iterable[Json]) -> None:
    for role, value in map(_split_role, entries):
        if role in REPEATING:
            media.setdefault(role, []).append(value)
        elif role is not None:
            media[role] = value


def _read_extensions(media: Json, extensions: list[Json]) -> None:
    kept = []
    for extension in extensions:
        match extension.get("url"):
            case url if url == DEVICE_NAME:
                media["deviceName"] = extension["valueString"]
            case url if url == NOTE:
                media.setdefault("note", []).append(extension["valueAnnotation"])
            case url if url == OPERATOR:
                _read_marked(media, [extension["valueReference"]])
            case _:
                kept.append(extension)
    if kept:
        media["extension"] = kept


def _read_labels(media: Json, labels: list[Json]) -> None:
    known = media.get("meta", {}).get("security", [])
    missing = [coding for label in labels for coding in label.get("coding", []) if coding not in known]
    if missing:
        media["meta"] = media.get("meta", {}) | {"security": [*known, *missing]}


def _created(period: Json) -> Json:
    if not period:
        return {}
    if set(period) == {"start", "end"} and period["start"] == period["end"]:
        return {"createdDateTime": period["start"]}
    return {"createdPeriod": period}


def _read_pixels(media: Json, attachment: Json) -> None:
    kept = []
    for extension in attachment.pop("extension", []):
        name = str(extension.get("url", "")).removeprefix(R5_ATTACHMENT)
        if name in PIXELS:
            media[name] = extension[PIXELS[name]]
        else:
            kept.append(extension)
    if kept:
        attachment["extension"] = kept
