"""A parcel as its destination takes it: made smaller, made JPEG, made PDF or text, or untouched.

A rendition is a function of the parcel and the profile, so that a read-back can be compared with what was sent.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePath
from typing import Final
from zoneinfo import ZoneInfo

from connectors.contract import Parcel, Retry, RouteRefused
from connectors.every_kind import Profile
from connectors.outward import link_to
from connectors.parcels import get_content
from connectors.templates import identifier_of, taken_at
from mappings.consent_lines import consent_line
from mappings.hl7v2.photo_message import MessageProfile, PhotoMessage, photo_message
from mappings.photo_caption import caption, patient_line, title
from mappings.photo_fit import JPEG, CannotFit, as_jpeg
from mappings.photo_to_pdf import PDF, Plate, photos_to_pdf
from mappings.photo_to_text import photo_to_note, photo_to_rtf, photo_to_xhtml

Make = Callable[[Parcel, Profile], bytes]

# transform.to -> (MIME type, suffix, how many times larger than the photo)
FORMS: Final[dict[str, tuple[str, str, float]]] = {
    "pdf": (PDF, ".pdf", 1.02),
    "xhtml": ("application/xhtml+xml;charset=utf-8", ".xhtml", 1.34),
    "rtf": ("text/rtf", ".rtf", 2.01),
    "note": ("text/plain;charset=utf-8", ".txt", 0.0),
    "hl7v2": ("text/hl7v2", ".hl7", 0.0),
}
_OVERHEAD: Final = 8192


def rendered(parcel: Parcel, profile: Profile) -> Parcel:
    """The parcel to send. Raises RouteRefused when no rendition this destination takes can be made."""
    to, parcel = profile.transform.to, _noted(parcel, profile)
    if to == "pdf" and parcel.content_type == PDF:  # a visit's sheet is one already
        to = "none"
    try:
        content, content_type = _FORMS[to](parcel, profile) if to != "none" else _as_taken(parcel, profile)
    except CannotFit as error:
        raise _refused(str(error), "Raise max_bytes, or let another route of the profile take this photo") from error
    if content is None:
        made = parcel
    else:
        suffix = FORMS[to][1] if to != "none" else ".jpg"
        made = _with_content(parcel, content, content_type, suffix)
    if made.size > profile.max_bytes:
        is_sheet = parcel.content_type == PDF
        smaller = 'Set visit_sheet = "contact-sheet"' if is_sheet else "Set transform.downscale"
        raise _refused(
            f"The {'PDF' if is_sheet else 'photo'} has {made.size} bytes, this destination takes {profile.max_bytes}.",
            f"{smaller}, or raise max_bytes if the destination allows it, then replay",
        )
    return made


def _noted(parcel: Parcel, profile: Profile) -> Parcel:
    """Where the profile says so, with what was agreed among the photo's notes."""
    if getattr(profile, "consent_strategy", "") != "in-note" or not parcel.consents:
        return parcel
    notes = [
        *parcel.media.get("note", []),
        *({"text": consent_line(each, ZoneInfo(profile.timezone))} for each in parcel.consents),
    ]
    return replace(parcel, media={**parcel.media, "note": notes})


def _caption(parcel: Parcel, profile: Profile) -> list[str]:
    return caption(parcel.media, ZoneInfo(profile.timezone))


def check_photo(parcel: Parcel) -> None:
    """Raise RouteRefused for the sheet of a visit where only photos can go."""
    if parcel.content_type == PDF:
        remedy = "Leave visit_sheet out of the profile, or give it a route that takes application/pdf"
        raise _refused("This way takes photos, and the sheet of a visit is a PDF.", remedy)


def jpeg_of(parcel: Parcel, profile: Profile, *, factor: float = 1.0) -> bytes:
    """The photo as JPEG, small enough that `factor` times its size fits. The very bytes where they do."""
    check_photo(parcel)
    transform = profile.transform
    room = int(profile.max_bytes / factor) - _OVERHEAD if transform.downscale else None
    return as_jpeg(get_content(parcel), parcel.content_type, max_bytes=room, max_edge=transform.max_edge)


def _as_taken(parcel: Parcel, profile: Profile) -> tuple[bytes | None, str]:
    """None: as it is."""
    taken = {each.partition(";")[0] for each in profile.accepts}
    too_large = parcel.size > profile.max_bytes and profile.transform.downscale
    made_smaller = parcel.content_type != PDF and (too_large or profile.transform.max_edge)
    if (not taken or parcel.content_type in taken) and not made_smaller:
        return None, parcel.content_type
    if taken and JPEG not in taken:
        raise _refused(
            f"This destination takes {', '.join(sorted(taken))}, the photo is {parcel.content_type}.",
            'Set transform.to, such as "pdf", then replay',
        )
    content = jpeg_of(parcel, profile)
    return content, JPEG


def _pdf(parcel: Parcel, profile: Profile) -> bytes:
    plate = Plate(jpeg_of(parcel, profile, factor=FORMS["pdf"][2]), tuple(_caption(parcel, profile)))
    heading, at = patient_line(parcel.patient), taken_at(parcel.media)
    return photos_to_pdf([plate], heading=heading, title=title(parcel.media), at=at)


def _note(parcel: Parcel, profile: Profile) -> bytes:
    heading = f"{title(parcel.media)} ({patient_line(parcel.patient)})"
    return photo_to_note(heading=heading, lines=_caption(parcel, profile), link=link_to(parcel, profile))


def _xhtml(parcel: Parcel, profile: Profile) -> bytes:
    jpeg = jpeg_of(parcel, profile, factor=FORMS["xhtml"][2])
    return photo_to_xhtml(jpeg, heading=title(parcel.media), lines=_caption(parcel, profile))


def _rtf(parcel: Parcel, profile: Profile) -> bytes:
    jpeg = jpeg_of(parcel, profile, factor=FORMS["rtf"][2])
    return photo_to_rtf(jpeg, heading=title(parcel.media), lines=_caption(parcel, profile))


def _hl7v2(parcel: Parcel, profile: Profile) -> bytes:
    """An ORU^R01 of text with a link, as eClinicalWorks takes it inside an attachment."""
    at = taken_at(parcel.media)
    message = PhotoMessage(
        event="ORU^R01",
        control_id=hashlib.sha256(parcel.idempotency_key.encode()).hexdigest()[:20],
        document_id=identifier_of(parcel.encounter or {}, ()) or parcel.delivery_id,
        at=at,
        taken_at=at,
        patient=parcel.patient,
        encounter=parcel.encounter,
        url=link_to(parcel, profile),
        lines=_caption(parcel, profile),
    )
    systems = [each.get("system") for each in parcel.patient.get("identifier", []) if each.get("system")]
    authorities = {str(system): "" for system in systems}
    return photo_message(message, MessageProfile(obx_2="TX", obx_5=("{url}",), authorities=authorities))


def _form(to: str, make: Make) -> Callable[[Parcel, Profile], tuple[bytes, str]]:
    return lambda parcel, profile: (make(parcel, profile), FORMS[to][0])


_MAKERS: Final[dict[str, Make]] = {"pdf": _pdf, "xhtml": _xhtml, "rtf": _rtf, "note": _note, "hl7v2": _hl7v2}
_FORMS: Final = {to: _form(to, make) for to, make in _MAKERS.items()}


def _with_content(parcel: Parcel, content: bytes, content_type: str, suffix: str) -> Parcel:
    sha1 = base64.b64encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode()
    kept = {name: value for name, value in parcel.media.get("content", {}).items() if name in {"creation"}}
    attachment = kept | {"contentType": content_type, "size": len(content), "hash": sha1}
    return replace(
        parcel,
        media={**parcel.media, "content": attachment},
        content=lambda: content,
        content_type=content_type,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        sha1_b64=sha1,
        filename=PurePath(parcel.filename).stem + suffix,
    )


def _refused(reason: str, remedy: str) -> RouteRefused:
    return RouteRefused(reason, remedy=f"{remedy}.", retry=Retry.NEVER)
