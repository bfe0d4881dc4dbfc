"""Media and DocumentReference as another server tells them: held to the shape of FHIR R4, cut to what a photo is.

http://hl7.org/fhir/R4/media.html, http://hl7.org/fhir/R4/documentreference.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from connectors.photos_found import PhotoFound
from mappings.body_sites import SNOMED_LATERALITY
from mappings.fhir_time import is_date_time
from mappings.terms import DCM, LATERALITY, PHOTO_VIEW, SNOMED

Resource = dict[str, Any]
Text = Annotated[str, Field(max_length=4000)]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9\-.]{1,64}$")]
_DATE_TIME: Final = re.compile(
    r"[12]\d{3}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01])"
    r"(T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?(Z|[+-](0\d|1[0-4]):[0-5]\d))?)?)?"
)
_SIDES: Final = {code: side for side, code in SNOMED_LATERALITY.items()}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")
NO_MORE: Final = frozenset({"entered-in-error", "not-done", "preparation", "superseded"})


class _Element(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)


class _Coding(_Element):
    system: Text = ""
    code: Text = ""
    display: Text = ""


class _Concept(_Element):
    coding: tuple[_Coding, ...] = ()
    text: Text = ""


class _Identifier(_Element):
    system: Text = ""
    value: Text = ""


class _Reference(_Element):
    reference: Text = ""
    identifier: _Identifier = _Identifier()
    display: Text = ""


class _Extension(_Element):
    url: Text = ""
    valueCodeableConcept: _Concept = _Concept()


class _BodySite(_Concept):
    extension: tuple[_Extension, ...] = ()


class _Meta(_Element):
    versionId: Text = ""
    lastUpdated: Text = ""
    security: tuple[_Coding, ...] = ()


class _Period(_Element):
    start: Text = ""


class _Attachment(_Element):
    contentType: Text = ""
    url: Text = ""
    data: str = Field("", repr=False)
    size: int | None = Field(None, ge=0)
    hash: Text = ""
    title: Text = ""
    creation: Text = ""


class _Photo(_Element):
    id: Id
    meta: _Meta = _Meta()
    identifier: tuple[_Identifier, ...] = ()
    status: Text = ""
    subject: _Reference = _Reference()


class _Media(_Photo):
    resourceType: Literal["Media"]
    type: _Concept = _Concept()
    modality: _Concept = _Concept()
    view: _Concept = _Concept()
    createdDateTime: Text = ""
    createdPeriod: _Period = _Period()
    bodySite: _BodySite = _BodySite()
    deviceName: Text = ""
    device: _Reference = _Reference()
    content: _Attachment


class _Context(_Element):
    period: _Period = _Period()


class _Content(_Element):
    attachment: _Attachment


class _DocumentReference(_Photo):
    resourceType: Literal["DocumentReference"]
    docStatus: Text = ""
    type: _Concept = _Concept()
    category: tuple[_Concept, ...] = ()
    description: Text = ""
    securityLabel: tuple[_Concept, ...] = ()
    content: tuple[_Content, ...]
    context: _Context = _Context()


Answered = _Media | _DocumentReference
_MODELS: Final[dict[str, type[_Media] | type[_DocumentReference]]] = {
    "Media": _Media,
    "DocumentReference": _DocumentReference,
}


def read_photos(resource: Resource) -> Answered | None:
    """The record, or None when it is none of FHIR R4: one of many that cannot be read hides no others."""
    try:
        return _MODELS[str(resource.get("resourceType"))].model_validate(resource)
    except (KeyError, ValidationError):
        return None


def counts(answered: Answered) -> bool:
    """Whether its status says that it is part of the record now."""
    return not NO_MORE & {answered.status, getattr(answered, "docStatus", "")}


def photos_of(answered: Answered) -> Iterator[tuple[PhotoFound, Resource]]:
    """Each attachment as a photo, and the Attachment as it came."""
    if isinstance(answered, _Media):
        yield _of_media(answered), answered.content.model_dump(exclude_defaults=True)
        return
    for number, content in enumerate(answered.content, 1):
        yield _of_document(answered, content.attachment, number), content.attachment.model_dump(exclude_defaults=True)


def _of_media(media: _Media) -> PhotoFound:
    side = next((e.valueCodeableConcept for e in media.bodySite.extension if e.url == LATERALITY), _Concept())
    return PhotoFound(
        id=f"Media/{media.id}",
        kind=_wording(media.view) or _wording(media.type),
        created=_first_date(media.createdDateTime, media.createdPeriod.start, media.content.creation),
        device=_line(media.deviceName or media.device.display)[:200],
        modality="DMS" if _code(media.view, PHOTO_VIEW) == "dermoscopic" else _code(media.modality, DCM),
        body_site=_code(media.bodySite, SNOMED),
        site_text=_wording(media.bodySite),
        laterality=_SIDES.get(_code(side, SNOMED), ""),
        security=_labels(media.meta.security),
        **_of_any(media, media.content),
    )


def _of_document(document: _DocumentReference, attachment: _Attachment, number: int) -> PhotoFound:
    labels = [one for concept in document.securityLabel for one in concept.coding]
    return PhotoFound(
        id=f"DocumentReference/{document.id}" + (f"#{number}" if number > 1 else ""),
        kind=_wording(document.type) or next(map(_wording, document.category), ""),
        created=_first_date(attachment.creation, document.context.period.start),
        security=_labels([*document.meta.security, *labels]),
        **_of_any(document, attachment, document.description),
    )


def _of_any(answered: Answered, attachment: _Attachment, description: str = "") -> dict[str, Any]:
    return {
        "version": answered.meta.versionId or answered.meta.lastUpdated,
        "content_type": attachment.contentType.partition(";")[0].strip().lower(),
        "title": _line(attachment.title or description)[:200],
        "size": attachment.size,
        "identifiers": tuple((one.system, one.value) for one in answered.identifier if one.value),
        "sha1_b64": attachment.hash,
        "marks": f"{description}\n{attachment.title}",
    }


def _labels(codings: Any) -> tuple[dict[str, str], ...]:
    return tuple({"system": one.system, "code": one.code} for one in codings if one.system and one.code)


def _code(concept: _Concept, system: str) -> str:
    return next((one.code for one in concept.coding if one.system == system), "")


def _wording(concept: _Concept) -> str:
    return _line(concept.text or next((one.display for one in concept.coding if one.display), ""))[:100]


def _line(text: str) -> str:
    return _CONTROL.sub(" ", text).strip()


def _first_date(*told: str) -> str:
    return next((one for one in told if _DATE_TIME.fullmatch(one) and is_date_time(one)), "")
