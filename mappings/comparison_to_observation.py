"""A comparison that somebody saved <-> R4 Observation (http://hl7.org/fhir/R4/observation.html).

Why an Observation: `derivedFrom` is the one element of R4 made for "found on these images" and takes Media; verdict,
method and note have elements of their own. A DiagnosticReport would claim that somebody reported, a DocumentReference
knows no method; both can point at this one. What EHRs take (a document) is the sheet made from it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from mappings.canonical_resources import codes_of
from mappings.fhir_time import fhir_instant, span
from mappings.security_labels import raise_labels
from mappings.terms import (
    COMPARISON_VERDICT,
    COMPARISON_VIEW,
    DATA_ABSENT,
    OBSERVATION_CATEGORY,
    PHOTO_FINDING,
    Json,
    concept,
    extension,
    reference,
)

COMPARISON: Final = "comparison"
_VALUES: Final = {
    str: "valueCode",
    bool: "valueBoolean",
    float: "valueDecimal",
    int: "valuePositiveInt",
    tuple: "valueString",
}
_NOT_COMPARED: Final = "http://terminology.hl7.org/CodeSystem/data-absent-reason"


@dataclass(frozen=True, slots=True)
class View:
    """How it was looked at: extension comparison-view. `x`, `y` are shares of the reference's width; `reference` and
    `other`, which is laid over it, count the photos from 1; `speed` is that of the blinking, 1 to 5; `hands` how each
    was moved by hand from the reference: x, y and scale of one photo after the other."""

    mode: str = "side"
    zoom: float = 1.0
    x: float | None = None
    y: float | None = None
    blend: float = 0.5
    linked: bool = True
    reference: int = 1
    other: int | None = None
    speed: int | None = None
    colours: bool = False
    hands: tuple[float, ...] = ()


def comparison_to_observation(
    result: Mapping[str, Any] | None,
    photos: Sequence[Json],
    *,
    observation_id: str,
    view: View,
    note: str | None,
    performer: Json,
    saved_at: datetime,
) -> Json:
    """`photos` are Media of one patient, in the order shown, each in the version compared; `result` is what the engine
    found of two (docs/compare.md), None where it was not asked. Of the photos' labels the highest count.
    """
    labels = [label for photo in photos for label in photo.get("meta", {}).get("security", [])]
    taken = [photo["createdDateTime"] for photo in photos if "createdDateTime" in photo]
    latest = max(taken, key=lambda text: span(text, UTC), default=None)
    found: Json = {
        "resourceType": "Observation",
        "id": observation_id,
        "meta": {"security": raise_labels(labels)},
        "extension": [extension(COMPARISON_VIEW, extension=_view(view))],
        "status": "final",
        "category": [concept(OBSERVATION_CATEGORY, "imaging")],
        "code": concept(PHOTO_FINDING, COMPARISON, text=codes_of("photo-finding")[COMPARISON]),
        "subject": reference(photos[0]["subject"]["reference"]),
        "issued": fhir_instant(saved_at),
        "performer": [performer],
        "derivedFrom": [reference(_version(photo)) for photo in photos],
    }
    if latest:
        found["effectiveDateTime"] = latest
    else:
        found["_effectiveDateTime"] = {"extension": [extension(DATA_ABSENT, valueCode="unknown")]}
    if site := photos[0].get("bodySite"):
        found["bodySite"] = site
    if note:
        found["note"] = [{"authorReference": performer, "time": fhir_instant(saved_at), "text": note}]
    return found | (_result(result) if result else {"dataAbsentReason": concept(_NOT_COMPARED, "not-performed")})


def _result(result: Mapping[str, Any]) -> Json:
    verdict = result["verdict"]
    parts = [("reason", {"valueString": reason}) for reason in result["reasons"]]
    if transform := result.get("transform"):
        parts.append(("homography", {"valueString": matrix(transform["homography"])}))
        parts.append(("bend", {"valueQuantity": {"value": transform["bend_px"], "unit": "pixels"}}))
    change = result.get("change")
    if change:
        parts.append(("regions", {"valueInteger": len(change["regions"])}))
        parts.append(("change-method", {"valueString": f"{change['method']}, version {change['version']}"}))
    return {
        "valueCodeableConcept": concept(COMPARISON_VERDICT, verdict, text=codes_of("comparison-verdict")[verdict]),
        "method": {"text": f"{result['method']}, version {result['version']}"},
        "component": [{"code": concept(PHOTO_FINDING, code), **value} for code, value in parts],
    }


def matrix(rows: Sequence[Sequence[float]]) -> str:
    """Nine numbers, row by row: from full-resolution pixels of the first photo to those of the second."""
    return " ".join(f"{value:.9g}" for row in rows for value in row)


def photos_of(observation: Json) -> list[tuple[str, int]]:
    """(Media id, version) of each photo, in the order shown."""
    found = (one["reference"].removeprefix("Media/").partition("/_history/") for one in observation["derivedFrom"])
    return [(media_id, int(version)) for media_id, _, version in found]


def view_of(observation: Json) -> View:
    """Parts that are not there are as `View` has them."""
    saved = [one for one in observation.get("extension", ()) if one["url"] == COMPARISON_VIEW]
    parts = (part for one in saved for part in one["extension"])
    given = {part["url"]: value for part in parts for name, value in part.items() if name != "url"}
    return View(**given | {"hands": tuple(float(one) for one in given.get("hands", "").split())})


def verdict_of(observation: Json) -> str | None:
    """aligned, approximate, not-aligned; None where nothing was computed."""
    code: str | None = observation.get("valueCodeableConcept", {}).get("coding", [{}])[0].get("code")
    return code


def components_of(observation: Json, code: str) -> list[Any]:
    """The values of its components of that code: reason, homography, bend, regions, change-method."""
    parts = (one for one in observation.get("component", ()) if one["code"]["coding"][0]["code"] == code)
    return [value for part in parts for name, value in part.items() if name.startswith("value")]


def withdrawn(observation: Json, why: str, *, author: Json, at: datetime) -> Json:
    """Entered in error, with the reason among its notes."""
    changed = copy.deepcopy(observation)
    told = {"authorReference": author, "time": fhir_instant(at), "text": f"Withdrawn: {why}"}
    return changed | {"status": "entered-in-error", "note": [*changed.get("note", ()), told]}


def _version(photo: Json) -> str:
    return f"Media/{photo['id']}/_history/{photo['meta']['versionId']}"


def _view(view: View) -> list[Json]:
    given = {name: value for name, value in asdict(view).items() if value not in (None, ())}
    given |= {"hands": " ".join(f"{one}" for one in view.hands)} if view.hands else {}
    return [extension(name, **{_VALUES[type(getattr(view, name))]: value}) for name, value in given.items()]
