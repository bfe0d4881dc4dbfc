"""A capture becomes R4 Media (http://hl7.org/fhir/R4/media.html), and the few edits a Media sees afterwards.

All functions are pure: they return a new Media, ids and times are arguments.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

from mappings.body_sites import BODY_SITES, SNOMED_LATERALITY, sensitivity
from mappings.canonical_resources import codes_of
from mappings.fhir_time import Precision, fhir_date_time, fhir_instant
from mappings.security_labels import labels_for, raise_labels
from mappings.terms import (
    BODY_STRUCTURE,
    CONTENT_SHA256,
    DATA_ABSENT,
    DCM,
    DERMOSCOPY,
    EXTERNAL_CAMERA,
    IDENTIFIER_TYPE,
    IDENTITY_STATE,
    LATERALITY,
    MEDIA_TYPE,
    PHOTO_LABEL,
    PHOTO_VIEW,
    SNOMED,
    URI,
    Json,
    coding,
    concept,
    extension,
    has_code,
    reference,
)

IdentityState: TypeAlias = Literal["bound", "awaiting-patient", "unidentified", "quarantined"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """One photograph as the sender described it.

    `id` is the capture's UUID and the idempotency identifier of the Media. `subject` is `Patient/id`, or an
    identifier as (system, value) that no patient is known for yet, or None. `taken_at` keeps the offset of the
    camera's clock. `identifiers` are the sender's own, as (system, value), `flags` those of `security_labels.FLAGS`.
    """

    id: str
    operator: str
    operator_display: str | None = None
    identity_state: IdentityState = "bound"
    subject: str | tuple[str, str] | None = None
    encounter: str | None = None
    taken_at: datetime | None = None
    taken_precision: Precision = "second"
    body_site: str | None = None
    laterality: str | None = None
    view: str | None = None
    lesion: str | None = None
    device: str | None = None
    note: str | None = None
    reason: str | None = None
    flags: tuple[str, ...] = ()
    identifiers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The clean copy behind the Media: size in bytes, width and height in pixels as shown (upright)."""

    binary_id: str
    content_type: str
    size: int
    sha1_b64: str
    sha256_hex: str
    width: int
    height: int
    created: datetime


class Keep(Enum):
    """`KEEP` leaves an element as it is; None takes it away."""

    KEEP = 0


KEEP: Final = Keep.KEEP


def capture_to_media(capture: Capture, content: Content, *, media_id: str, issued_at: datetime) -> Json:
    """R4 Media of a stored capture: status completed, labelled by site and flags, tagged with its identity state.

    Raises ValueError for a view, laterality or flag outside its list, or a state that contradicts the subject.
    """
    _check_identity(capture)
    media: Json = {
        "resourceType": "Media",
        "id": media_id,
        "meta": {
            "security": labels_for(sensitivity(capture.body_site), capture.flags),
            "tag": [coding(IDENTITY_STATE, capture.identity_state)],
        },
        "identifier": [
            {"system": URI, "value": f"urn:uuid:{capture.id}"},
            *({"system": system, "value": value} for system, value in capture.identifiers),
        ],
        "status": "completed",
        "type": concept(MEDIA_TYPE, "image"),
        "modality": _modality(capture.view),
        "view": _view(capture.view),
        "subject": _subject(capture.subject),
        "encounter": reference(capture.encounter) if capture.encounter else None,
        **_created(capture),
        "issued": fhir_instant(issued_at),
        "operator": reference(capture.operator) | _only(display=capture.operator_display),
        "reasonCode": [{"text": capture.reason}] if capture.reason else None,
        "bodySite": _body_site(capture.body_site, capture.laterality, capture.lesion),
        "deviceName": capture.device,
        "height": content.height,
        "width": content.width,
        "content": attachment(content),
        "note": [{"text": capture.note}] if capture.note else None,
    }
    return _only(**media)


def bind_media(media: Json, patient: str, *, encounter: str | Keep | None = KEEP) -> Json:
    """The Media under a known patient (`Patient/id`), whatever its state was before."""
    changed = with_identity_state(media, "bound") | {"subject": reference(patient)}
    return assign(changed, encounter=encounter)


def with_identity_state(media: Json, state: IdentityState) -> Json:
    """The Media with its identity tag replaced; subject and everything else stay."""
    changed = copy.deepcopy(media)
    meta = changed.setdefault("meta", {})
    others = [tag for tag in meta.get("tag", []) if tag.get("system") != IDENTITY_STATE]
    meta["tag"] = [*others, coding(IDENTITY_STATE, state)]
    return changed


def assign(
    media: Json,
    *,
    encounter: str | Keep | None = KEEP,
    body_site: str | Keep | None = KEEP,
    laterality: str | Keep | None = KEEP,
    view: str | Keep | None = KEEP,
    lesion: str | Keep | None = KEEP,
) -> Json:
    """The Media with some elements set, taken away (None) or kept. Security labels rise with the site, never fall."""
    changed = copy.deepcopy(media)
    given = {"code": body_site, "side": laterality, "lesion": lesion}
    if site := {name: value for name, value in given.items() if not isinstance(value, Keep)}:
        changed["bodySite"] = _body_site(**{**_site_of(media), **site})
    if not isinstance(encounter, Keep):
        changed["encounter"] = reference(encounter) if encounter else None
    if not isinstance(view, Keep):
        changed |= {"view": _view(view), "modality": _modality(view)}
    if not isinstance(body_site, Keep):
        now = changed.setdefault("meta", {}).get("security", [])
        flags = ["minor"] if has_code(now, PHOTO_LABEL, "minor") else []
        changed["meta"]["security"] = raise_labels([*now, *labels_for(sensitivity(body_site), flags)])
    return _only(**changed)


def _only(**elements: Any) -> Json:
    return {name: value for name, value in elements.items() if value is not None}


def _check_identity(capture: Capture) -> None:
    known = isinstance(capture.subject, str)
    if capture.identity_state == "bound" and not known:
        raise ValueError("A bound capture needs its subject as Patient/id.")
    if capture.identity_state == "awaiting-patient" and not isinstance(capture.subject, tuple):
        raise ValueError("A capture that awaits its patient needs the identifier it waits for, as (system, value).")
    if capture.identity_state == "unidentified" and capture.subject is not None:
        raise ValueError("An unidentified capture has no subject.")


def _subject(subject: str | tuple[str, str] | None) -> Json | None:
    if subject is None or isinstance(subject, str):
        return reference(subject) if subject else None
    system, value = subject
    return {
        "type": "Patient",
        "identifier": {"type": concept(IDENTIFIER_TYPE, "MR"), "system": system, "value": value},
    }


def _created(capture: Capture) -> Json:
    if capture.taken_at is None:
        unknown = {"extension": [extension(DATA_ABSENT, valueCode="unknown")]}
        return {"_createdDateTime": unknown}
    return {"createdDateTime": fhir_date_time(capture.taken_at, capture.taken_precision)}


def _view(view: str | None) -> Json | None:
    if view is None:
        return None
    if view not in codes_of("photo-view"):
        raise ValueError(f"View {view[:20]!r} is unknown: use one of {', '.join(codes_of('photo-view'))}.")
    return concept(PHOTO_VIEW, view)


def _modality(view: str | None) -> Json:
    return concept(DCM, DERMOSCOPY if view == "dermoscopic" else EXTERNAL_CAMERA)


def _body_site(code: str | None, side: str | None, lesion: str | None) -> Json | None:
    """A CodeableConcept with the side and the lesion as extensions; the text is our wording, `Skin of cheek, left`."""
    if side is not None and side not in SNOMED_LATERALITY:
        raise ValueError(f"Laterality {side[:20]!r} is unknown: use one of {', '.join(SNOMED_LATERALITY)}.")
    meaning = BODY_SITES[code].meaning if code and code in BODY_SITES else None
    extensions = []
    if side:
        extensions.append(
            extension(LATERALITY, valueCodeableConcept=concept(SNOMED, SNOMED_LATERALITY[side], text=side))
        )
    if lesion:
        extensions.append(extension(BODY_STRUCTURE, valueReference=reference(lesion)))
    found = _only(
        extension=extensions or None,
        coding=[coding(SNOMED, code)] if code else None,
        text=", ".join(filter(None, [meaning, side])) or None,
    )
    return found or None


def _site_of(media: Mapping[str, Any]) -> dict[str, str | None]:
    """The arguments of `_body_site`, read back from what it wrote."""
    body_site = media.get("bodySite", {})
    codes = [c["code"] for c in body_site.get("coding", []) if c.get("system") == SNOMED]
    values = {ext["url"]: ext for ext in body_site.get("extension", [])}
    sides = {code: side for side, code in SNOMED_LATERALITY.items()}
    side = values.get(LATERALITY, {}).get("valueCodeableConcept", {}).get("coding", [{}])[0].get("code")
    lesion = values.get(BODY_STRUCTURE, {}).get("valueReference", {}).get("reference")
    return {"code": codes[0] if codes else None, "side": sides.get(side), "lesion": lesion}


def site_code(media: Mapping[str, Any]) -> str | None:
    """The SNOMED code of the body site."""
    return _site_of(media)["code"]


def is_bound(media: Json) -> bool:
    """Whether the identity state of a Media is `bound`."""
    return has_code(media.get("meta", {}).get("tag"), IDENTITY_STATE, "bound")


def attachment(content: Content) -> Json:
    """`Media.content` of a clean copy."""
    return {
        "extension": [extension(CONTENT_SHA256, valueString=content.sha256_hex)],
        "contentType": content.content_type,
        "url": f"Binary/{content.binary_id}",
        "size": content.size,
        "hash": content.sha1_b64,
        "creation": fhir_date_time(content.created),
    }
