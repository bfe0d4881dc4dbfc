"""A photo of another system as Media here: what was told of it there, marked as external, its labels only ever raised.

http://hl7.org/fhir/R4/resource.html#Meta (source, tag, security). Pure: ids and times are arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from mappings.body_sites import BODY_SITES
from mappings.capture_to_media import Capture, Content, capture_to_media
from mappings.security_labels import raise_labels
from mappings.terms import CONFIDENTIALITY, PHOTO_ORIGIN, URI, Json, has_code

EXTERNAL: Final = "external"
_LEVELS: Final = "ULMNRV"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalPhoto:
    """`source` is the absolute address of its record there, without version, `holder` what we call that system.

    `created` is a FHIR dateTime or empty, `security` the codings as they stand there.
    """

    source: str
    holder: str
    version: str = ""
    created: str = ""
    title: str = ""
    note: str = ""
    device: str = ""
    is_dermoscopic: bool = False
    body_site: str = ""
    site_text: str = ""
    laterality: str = ""
    identifiers: tuple[tuple[str, str], ...] = ()
    security: tuple[Mapping[str, str], ...] = ()


def external_to_media(
    photo: ExternalPhoto, content: Content, *, media_id: str, patient: str, issued_at: datetime
) -> Json:
    """Media bound to `patient` (`Patient/id`), without operator and visit: who took it there is not ours to say.

    A body site that is not in our list keeps its words only, and the photo is labelled as of an unknown site.
    """
    capture = Capture(
        id=media_id,
        operator="",
        subject=patient,
        body_site=photo.body_site or None,
        laterality=photo.laterality or None,
        view="dermoscopic" if photo.is_dermoscopic else None,
        device=photo.device or None,
        note=photo.note or None,
        identifiers=((URI, photo.source), *(one for one in photo.identifiers if one[1] != photo.source)),
    )
    media = capture_to_media(capture, content, media_id=media_id, issued_at=issued_at)
    del media["operator"], media["content"]["creation"]
    if photo.body_site not in BODY_SITES:
        media["bodySite"] = {name: value for name, value in media.get("bodySite", {}).items() if name == "extension"}
        media["bodySite"] |= {"text": photo.site_text} if photo.site_text else {}
        if not media["bodySite"]:
            del media["bodySite"]
    if photo.created:
        del media["_createdDateTime"]
        media["createdDateTime"] = media["content"]["creation"] = photo.created
    if photo.title:
        media["content"]["title"] = photo.title
    meta = media["meta"]
    meta["source"] = f"{photo.source}/_history/{photo.version}" if photo.version else photo.source
    meta["tag"].append({"system": PHOTO_ORIGIN, "code": EXTERNAL, "display": photo.holder})
    meta["security"] = raise_labels([*meta["security"], *map(_known_level, photo.security)])
    return media


def is_external(media: Mapping[str, Any]) -> bool:
    """Whether a Media is a copy of another system's photo: read only, never delivered."""
    return has_code(media.get("meta", {}).get("tag"), PHOTO_ORIGIN, EXTERNAL)


def holder_of(media: Mapping[str, Any]) -> str | None:
    """What we call the system an external photo was copied from; None for a photo of ours."""
    tags = media.get("meta", {}).get("tag", [])
    return next((str(one.get("display", "another system")) for one in tags if one.get("system") == PHOTO_ORIGIN), None)


def source_of(media: Mapping[str, Any]) -> tuple[str, str]:
    """(address there, version there) of an external photo."""
    source, _, version = str(media.get("meta", {}).get("source", "")).partition("/_history/")
    return source, version


def _known_level(label: Mapping[str, str]) -> Json:
    """A confidentiality that nobody here has heard of is the highest."""
    if label["system"] == CONFIDENTIALITY and label["code"] not in _LEVELS:
        return {**label, "code": "V"}
    return dict(label)
