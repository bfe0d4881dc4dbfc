"""What comparing two photos found, as the answer of `Media/$compare`: R4 Parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mappings.comparison_to_observation import matrix
from mappings.terms import Json

_EVIDENCE = {  # part -> FHIR type of its value
    "matches": "valueInteger",
    "inliers": "valueInteger",
    "patches": "valueInteger",
    "agreeing": "valueInteger",
    "spread": "valueDecimal",
    "halves_px": "valueDecimal",
    "halves_p95_px": "valueDecimal",
    "folding": "valueDecimal",
    "shear": "valueDecimal",
}
_BOX = ("x", "y", "width", "height")


def comparison_to_parameters(
    result: Mapping[str, Any], *, left: str, right: str, pictures: Mapping[str, tuple[str, str]]
) -> Json:
    """`result` as the engine gives it (docs/compare.md); `left`, `right` are `Media/id`; `pictures` name -> (MIME type,
    absolute URL). Boxes are in pixels of the left photo at full resolution, differences in CIELAB units; the transform
    is the homography from those pixels to the right photo's, row by row, and the most that the skin bends beside it.
    """
    change = result.get("change") or {}
    found = [
        {"name": "left", "valueReference": {"reference": left}},
        {"name": "right", "valueReference": {"reference": right}},
        {"name": "verdict", "valueCode": result["verdict"]},
        *({"name": "reason", "valueString": reason} for reason in result["reasons"]),
        {"name": "method", "valueString": f"{result['method']}, version {result['version']}"},
    ]
    if evidence := _parts(result.get("evidence") or {}):
        found.append({"name": "quality", "part": evidence})
    if transform := result.get("transform"):
        found.append({"name": "transform", "part": _transform(transform)})
    if change:
        found.append({"name": "change-method", "valueString": f"{change['method']}, version {change['version']}"})
    found += [{"name": "region", "part": _region(region)} for region in change.get("regions", ())]
    found += [
        {"name": f"picture-{name}", "valueAttachment": {"contentType": content_type, "url": url}}
        for name, (content_type, url) in pictures.items()
    ]
    return {"resourceType": "Parameters", "parameter": found}


def _transform(transform: Mapping[str, Any]) -> list[Json]:
    homography = {"name": "homography", "valueString": matrix(transform["homography"])}
    return [homography, {"name": "bend", "valueDecimal": transform["bend_px"]}]


def _parts(evidence: Mapping[str, Any]) -> list[Json]:
    return [
        {"name": name.replace("_", "-"), kind: evidence[name]}
        for name, kind in _EVIDENCE.items()
        if evidence.get(name) is not None
    ]


def _region(region: Mapping[str, Any]) -> list[Json]:
    edges = [{"name": name, "valueInteger": edge} for name, edge in zip(_BOX, region["box"], strict=True)]
    return [
        *edges,
        {"name": "difference", "valueDecimal": region["difference"]},
        {"name": "certain", "valueBoolean": region["certain"]},
    ]
