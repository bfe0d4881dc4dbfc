"""What the bounded child does of measuring: decode, find the card, draw an outline, measure, correct colours.

Points are pixels of the upright photo at full resolution, the centre of the first pixel being 0,0.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from adapter.capture.renditions import upright
from adapter.compare.geometry import Mask, Picture, Points, Size, fitted, inside, size_of
from adapter.compare.skin import rim
from adapter.errors import Unprocessable
from adapter.measure.card import SeenCard, card_mask, find_card
from adapter.measure.colour import Correction, fit_correction, measure_colour
from adapter.measure.measures import check_outline, measure_line, measure_outline
from adapter.measure.outline import draw_outline, skin_mask
from adapter.measure.scale import Scale, no_scale, scale_from_field_of_view, scale_from_points

Json = dict[str, Any]
EDGE = 2400
"""Longest edge at work: a card that fills a fifth of a 12-megapixel photo is found."""
SHOWN = 1600
_KEPT = 4
_NOTE = "Colours normalised by the card. For comparison only; the stored photo is unchanged."
_shots: OrderedDict[str, Shot] = OrderedDict()


@dataclass
class Shot:
    """One decoded photo and what was found in it so far."""

    picture: Picture
    size: Size

    @cached_property
    def card(self) -> SeenCard | None:
        return find_card(self.picture, self.size)

    @cached_property
    def card_mask(self) -> Mask:
        if self.card is None:
            return np.zeros(self.picture.shape[:2], np.uint8)
        return card_mask(self.picture, self.card, self.size)

    @cached_property
    def skin(self) -> Mask:
        return np.asarray(skin_mask(self.picture) & (1 - self.card_mask), np.uint8)

    @cached_property
    def correction(self) -> Correction | None:
        """None without a card. Raises Unprocessable for one that cannot tell."""
        return fit_correction(self.card) if self.card else None


def measuring(request: Json, contents: Sequence[bytes]) -> tuple[Json, list[bytes]]:
    """`{"task", "photo": id, "max_pixels", …}` and the photo -> what was found. Raises Unprocessable."""
    shot = shot_of(request["photo"], contents[0], max_pixels=request["max_pixels"])
    return _TASKS[request["task"]](shot, request)


def _look(shot: Shot, request: Json) -> tuple[Json, list[bytes]]:
    """Which scales this photo offers by itself, and whether its card tells colours."""
    middle = np.array([shot.size]) / 2
    scales = [one.as_json(middle) for one in _own_scales(shot, request)]
    return {"scales": scales, "colour": _colour_json(shot), "width": shot.size[0], "height": shot.size[1]}, []


def _outline(shot: Shot, request: Json) -> tuple[Json, list[bytes]]:
    found = draw_outline(shot.picture, shot.size, np.array([request["point"]], np.float64), avoid=shot.card_mask)
    answer = {
        "points": found.points.round(1).tolist(),
        "edge": round(found.edge, 2),
        "contrast": round(found.contrast, 1),
    }
    return answer, []


def _measure(shot: Shot, request: Json) -> tuple[Json, list[bytes]]:
    points = np.array(request["points"], np.float64)
    scale, sigma = _scale(shot, request), float(request["sigma"])
    _check_inside(points, shot)
    scale.check_reaches(points)
    if request["kind"] == "length":
        measures = measure_line(points, scale, sigma)
    else:
        check_outline(points)
        edge = float(request["edge"])
        correction = _usable_correction(shot)
        measures = measure_outline(points, scale, sigma, edge)
        measures += measure_colour(shot.picture, shot.size, points, shot.skin, correction)
    middle: Points = points.mean(axis=0, keepdims=True)
    answer = {
        "measures": [one.as_json() for one in measures],
        "scale": scale.as_json(middle),
        "colour": _colour_json(shot),
    }
    return answer, []


def _normalise(shot: Shot, _request: Json) -> tuple[Json, list[bytes]]:
    return {"colour": _colour_json(shot)}, [labelled_jpeg(normalised(shot))]


def normalised(shot: Shot) -> Picture:
    """A copy, its longest edge `SHOWN`, in the colours that the card tells. Raises Unprocessable where none tells."""
    if shot.correction is None:
        raise Unprocessable("There is no calibration card in this photo, so its colours cannot be normalised.")
    small = cv2.resize(shot.picture, fitted(shot.size, SHOWN), interpolation=cv2.INTER_AREA)
    return shot.correction.corrected(np.asarray(small, np.uint8))


def labelled_jpeg(picture: Picture) -> bytes:
    """With a line at its foot that says what it is for: two of the same size have it in the same place."""
    shown = np.ascontiguousarray(picture[..., ::-1])
    width, height = size_of(picture)
    size = max(0.4, width / 2000)
    cv2.rectangle(shown, (0, height - round(44 * size)), (width, height), (30, 30, 30), cv2.FILLED)
    at = (round(14 * size), height - round(14 * size))
    cv2.putText(shown, _NOTE, at, cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), max(1, round(size)), cv2.LINE_AA)
    _, content = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return bytes(content)


_TASKS = {"look": _look, "outline": _outline, "measure": _measure, "normalise": _normalise}


def shot_of(photo_id: str, content: bytes, *, max_pixels: int) -> Shot:
    """A photo seen lately is not decoded again. Raises what `upright` raises."""
    found = _shots.pop(photo_id, None)
    if found is None:
        image, inspected = upright(content, EDGE, max_pixels=max_pixels)
        found = Shot(np.asarray(image), (inspected.width, inspected.height))
    _shots[photo_id] = found
    if len(_shots) > _KEPT:
        _shots.popitem(last=False)
    return found


def _own_scales(shot: Shot, request: Json) -> list[Scale]:
    return [shot.card.scale] if shot.card else _field_of_view(shot, request)


def _scale(shot: Shot, request: Json) -> Scale:
    """The one asked for. Raises Unprocessable when the photo does not offer it."""
    wanted = request["scale"]
    if wanted["source"] == "none":
        return no_scale()
    if wanted["source"] == "points":
        points = np.array(wanted["points"], np.float64)
        _check_inside(points, shot)
        return scale_from_points(points, float(wanted["millimetres"]), float(wanted["sigma"]))
    offered = next((one for one in _own_scales(shot, request) if one.source == wanted["source"]), None)
    if offered is None:
        raise Unprocessable("This photo does not offer that scale any more. Choose another, or mark two points.")
    return offered


def _check_inside(points: Points, shot: Shot) -> None:
    if not inside(points, shot.size).all():
        raise Unprocessable("A point lies outside the photo. Move it back, or start again.")


def _field_of_view(shot: Shot, request: Json) -> list[Scale]:
    """From what the site says that its device shows, `{"millimetres", "tolerance"}`, across the round field."""
    known = request.get("field_of_view")
    if not known:
        return []
    seen = np.flatnonzero(rim(shot.picture).mean(axis=0) < 0.98)
    if not seen.size:
        return []
    factor = shot.size[0] / shot.picture.shape[1]
    left, right = float(seen[0] * factor - 0.5), float((seen[-1] + 1) * factor - 0.5)
    sigma = max(2.0, 2 * factor)
    return [scale_from_field_of_view(left, right, shot.size[1], **known, sigma=sigma)]


def _usable_correction(shot: Shot) -> Correction | None:
    try:
        return shot.correction
    except Unprocessable:
        return None


def _colour_json(shot: Shot) -> Json:
    """Whether colours are calibrated; `reason` says why not."""
    try:
        found = shot.correction
    except Unprocessable as refusal:
        return {"calibrated": False, "reason": str(refusal)}
    if found is None:
        return {"calibrated": False, "reason": "There is no calibration card in this photo."}
    return {"calibrated": True, "terms": found.terms, "residual": round(found.residual, 2)}
