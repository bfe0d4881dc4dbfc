"""A picture made of photographs as R4 Media: labelled as derived, naming the versions it was made of.

R4 Media has no element for its sources (`partOf` is for events), so they stand in our extension derived-from, and in
the Provenance that comes with it. The tag picture-derivation tells such a Media from a photograph wherever photos are
listed; nothing sends it out by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from mappings.canonical_resources import codes_of
from mappings.capture_to_media import Content, attachment
from mappings.fhir_time import fhir_date_time, fhir_instant
from mappings.security_labels import raise_labels
from mappings.terms import (
    DERIVED_FROM,
    IDENTITY_STATE,
    MEDIA_TYPE,
    PICTURE_DERIVATION,
    URI,
    Json,
    coding,
    concept,
    extension,
    has_code,
    reference,
)

COMPARED: Final = ("modality", "bodySite")
VISIT_SHEETS: Final = ("contact-sheet", "visit-report")  # derivations that show all photos of a visit


def photos_to_picture(
    derivation: str,
    photos: Sequence[Json],
    content: Content,
    *,
    media_id: str,
    operator: Json,
    sources: Sequence[str],
    note: str | None = None,
    shared: Sequence[str] = COMPARED,
) -> Json:
    """`derivation` is a code of picture-derivation; `photos` are the Media it shows, all of one patient; `sources`
    what else it was made from (the saved comparison). Of the photos' labels the highest count; of the elements
    `shared`, those that are the same in all photos. A PDF has no `width` and `height`: they are 0 in `content`.
    """
    labels = [label for photo in photos for label in photo.get("meta", {}).get("security", [])]
    versions = [f"Media/{photo['id']}/_history/{photo['meta']['versionId']}" for photo in photos]
    picture: Json = {
        "resourceType": "Media",
        "id": media_id,
        "meta": {
            "security": raise_labels(labels),
            "tag": [coding(IDENTITY_STATE, "bound"), coding(PICTURE_DERIVATION, derivation)],
        },
        "extension": [extension(DERIVED_FROM, valueReference=reference(one)) for one in (*sources, *versions)],
        "identifier": [{"system": URI, "value": f"urn:uuid:{media_id}"}],
        "status": "completed",
        "type": concept(MEDIA_TYPE, "image"),
        **{name: photos[0][name] for name in shared if _same(photos, name)},
        "subject": reference(photos[0]["subject"]["reference"]),
        "createdDateTime": fhir_date_time(content.created),
        "issued": fhir_instant(content.created),
        "operator": operator,
        **({"height": content.height, "width": content.width} if content.width else {}),
        "content": attachment(content) | {"title": codes_of("picture-derivation")[derivation]},
    }
    return picture | ({"note": [{"text": note}]} if note else {})


def _same(photos: Sequence[Json], name: str) -> bool:
    return name in photos[0] and all(one.get(name) == photos[0][name] for one in photos)


def derivation_of(media: Mapping[str, Any]) -> str | None:
    """The code of picture-derivation; None for a photograph."""
    tags = media.get("meta", {}).get("tag", [])
    return next((str(tag["code"]) for tag in tags if has_code([tag], PICTURE_DERIVATION)), None)


def shown_on(media: Mapping[str, Any]) -> list[tuple[str, int]]:
    """(id, version) of the photographs a picture was made of; none for a photograph."""
    parts = [reference.split("/") for reference in _made_of(media) if reference.startswith("Media/")]
    return [(media_id, int(version)) for _, media_id, _, version in parts]


def comparison_of(media: Mapping[str, Any]) -> str | None:
    """The id of the saved comparison that a picture was made for."""
    return next(iter(observations_on(media)), None)


def observations_on(media: Mapping[str, Any]) -> list[str]:
    """Ids of what a picture tells of: the saved comparison, then what was measured on its photographs."""
    named = [one for one in _made_of(media) if one.startswith("Observation/")]
    return [one.removeprefix("Observation/").partition("/")[0] for one in named]


def _made_of(media: Mapping[str, Any]) -> list[str]:
    named = (one for one in media.get("extension", ()) if one["url"] == DERIVED_FROM)
    return [str(one["valueReference"]["reference"]) for one in named]
