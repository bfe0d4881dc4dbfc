"""A length or an outline measured on a photo <-> R4 Observation (http://hl7.org/fhir/R4/observation.html).

The first measure is the Observation's value, the others its components: one act, withdrawn as one. Standard
uncertainties stand beside their values (extension iso21090-uncertainty of R4), where the points were and what told the
scale in our extension photo-measurement, so that everybody can measure it again.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from typing import Any, Final

from mappings.canonical_resources import codes_of
from mappings.fhir_time import fhir_instant
from mappings.terms import (
    DATA_ABSENT,
    OBSERVATION_CATEGORY,
    PHOTO_MEASURE,
    PHOTO_MEASUREMENT,
    SNOMED,
    UCUM,
    UNCERTAINTY,
    UNCERTAINTY_TYPE,
    Json,
    concept,
    extension,
    reference,
)

MEASURES: Final[dict[str, dict[str, Any]]] = tomllib.loads(
    (files("mappings") / "tables" / "measures.toml").read_text("utf-8")
)
KINDS: Final = {"length": "length", "outline": "area"}
"""What was drawn -> the measure that is the Observation's value."""
SHOWN: Final = ("length", "area", "long-axis", "short-axis", "asymmetry", "contrast")
"""The measures that are told by themselves; the mean colours stand together."""
_SHOWN = {"mm": "mm", "mm2": "mm²", "px": "pixels", "px2": "pixels²", "1": ""}


def measurement_to_observation(
    found: Mapping[str, Any], photo: Json, *, observation_id: str, performer: Json, drawn: str, kept_at: datetime
) -> Json:
    """`found` is what measuring gave: kind, points, sigma, edge, measures, scale, colour; `photo` the Media in the
    version measured; `drawn` says in words how the points came about."""
    values = {one["name"]: one for one in found["measures"]}
    first = values.pop(KINDS[found["kind"]])
    made: Json = {
        "resourceType": "Observation",
        "id": observation_id,
        "meta": {"security": photo.get("meta", {}).get("security", [])},
        "extension": [extension(PHOTO_MEASUREMENT, extension=_parts(found))],
        "status": "final",
        "category": [concept(OBSERVATION_CATEGORY, "imaging")],
        "code": _code(first["name"]),
        "subject": photo["subject"],
        "effectiveDateTime": photo.get("createdDateTime"),
        "issued": fhir_instant(kept_at),
        "performer": [performer],
        "valueQuantity": _quantity(first),
        "bodySite": photo.get("bodySite"),
        "method": {"text": drawn},
        "derivedFrom": [reference(f"Media/{photo['id']}/_history/{photo['meta']['versionId']}")],
        "component": [{"code": _code(name), "valueQuantity": _quantity(one)} for name, one in values.items()],
        "encounter": photo.get("encounter"),
    }
    if "createdDateTime" not in photo:
        made["_effectiveDateTime"] = {"extension": [extension(DATA_ABSENT, valueCode="unknown")]}
    if not made["meta"]["security"]:
        made.pop("meta")
    return {name: value for name, value in made.items() if value not in (None, [])}


def observation_to_measurement(observation: Json) -> Json:
    """What pages show of it: kind, points, measures, source of the scale, as `found` above, with id and photo."""
    parts = _parts_of(observation)
    rows = [observation, *observation.get("component", [])]
    media_id, _, version = observation["derivedFrom"][0]["reference"].removeprefix("Media/").partition("/_history/")
    return {
        "id": observation["id"],
        "media": media_id,
        "media_version": int(version),
        "kind": parts["kind"],
        "points": [[float(one) for one in pair.split(",")] for pair in parts["points"].split()],
        "edge": parts["edge"],
        "scale": {"source": parts["scale"], "uncertainty": parts.get("scale-uncertainty")},
        "colour": {"calibrated": parts.get("colour-residual") is not None, "residual": parts.get("colour-residual")},
        "measures": [_measure(row) for row in rows],
        "at": observation.get("effectiveDateTime"),
        "by": observation["performer"][0].get("display"),
        "status": observation["status"],
    }


def is_measurement(observation: Json) -> bool:
    return any(one["url"] == PHOTO_MEASUREMENT for one in observation.get("extension", ()))


def wording(measure: Mapping[str, Any], *, interval: bool = True) -> str:
    """`12.4 mm ± 0.5 mm`: value and expanded uncertainty (k = 2, about 95 %)."""
    digits, unit = MEASURES[measure["name"]]["digits"], _SHOWN[measure["unit"]]
    if unit.startswith("pixels"):
        digits = 0
    said = f"{measure['value']:,.{digits}f}".replace(",", " ")
    if interval and measure["uncertainty"] is not None:
        said += f" ± {max(2 * measure['uncertainty'], 10**-digits):,.{digits}f}".replace(",", " ")
    return f"{said} {unit}".strip()


def figures(observation: Json) -> str:
    """`area 77.0 ± 5.8 mm², longest diameter 12.3 ± 0.4 mm; scale: card`: as part of a sentence."""
    found = observation_to_measurement(observation)
    by_name = {one["name"]: one for one in found["measures"]}
    said = [f"{MEASURES[name]['wording'].lower()} {wording(by_name[name])}" for name in SHOWN if name in by_name]
    return f"{', '.join(said)}; scale: {found['scale']['source'].replace('-', ' ')}"


def _code(name: str) -> Json:
    row = MEASURES[name]
    if "sct" in row:
        return concept(SNOMED, row["sct"], text=row["wording"])
    return concept(PHOTO_MEASURE, name, text=codes_of("photo-measure")[name])


def _name(code: Json) -> str:
    system, value = code["coding"][0]["system"], str(code["coding"][0]["code"])
    return next(name for name, row in MEASURES.items() if row.get("sct") == value) if system == SNOMED else value


def _quantity(measure: Mapping[str, Any]) -> Json:
    """Rounded to a hundredth of its uncertainty or less: more digits would claim what nobody knows."""
    unit = measure["unit"]
    found: Json = {"value": round(measure["value"], 4), "unit": _SHOWN[unit] or "1"}
    if not unit.startswith("px"):  # UCUM knows no pixel
        found |= {"system": UCUM, "code": unit}
    if measure["uncertainty"] is not None:
        spread = [
            extension(UNCERTAINTY, valueDecimal=round(measure["uncertainty"], 4)),
            extension(UNCERTAINTY_TYPE, valueCode="N"),
        ]
        found["extension"] = spread
    return found


def _measure(row: Json) -> Json:
    quantity = row["valueQuantity"]
    spread = {one["url"]: one for one in quantity.get("extension", ())}
    unit = quantity.get("code") or next(code for code, shown in _SHOWN.items() if shown == quantity["unit"])
    return {
        "name": _name(row["code"]),
        "value": float(quantity["value"]),
        "uncertainty": float(spread[UNCERTAINTY]["valueDecimal"]) if UNCERTAINTY in spread else None,
        "unit": unit,
    }


def _parts(found: Mapping[str, Any]) -> list[Json]:
    scale, colour = found["scale"], found["colour"]
    parts = [
        extension("kind", valueCode=found["kind"]),
        extension("points", valueString=_points(found["points"])),
        extension("sigma", valueDecimal=round(found["sigma"], 3)),
        extension("edge", valueDecimal=round(found["edge"], 3)),
        extension("scale", valueCode=scale["source"]),
    ]
    if scale["source"] != "none":
        parts += [
            extension("mm-per-pixel", valueDecimal=round(scale["mm_per_pixel"], 8)),
            extension("scale-uncertainty", valueDecimal=round(scale["uncertainty"], 5)),
            extension("scale-seen", valueString=_points(scale["seen"])),
            extension("scale-plane", valueString=_points(scale["plane"])),
        ]
    if found["kind"] == "outline" and colour["calibrated"]:
        parts.append(extension("colour-residual", valueDecimal=colour["residual"]))
    return parts


def _parts_of(observation: Json) -> dict[str, Any]:
    held = next(one for one in observation["extension"] if one["url"] == PHOTO_MEASUREMENT)
    return {part["url"]: value for part in held["extension"] for name, value in part.items() if name != "url"}


def _points(points: Sequence[Sequence[float]]) -> str:
    """As in an SVG polygon: `x,y x,y`."""
    return " ".join(f"{x:.6g},{y:.6g}" for x, y in points)
