"""What differs between two aligned photos, apart from their light: a map of CIELAB differences and its ranked regions.

Local light is taken out by the ratio of wide Gaussians, leaving out what differs: a global colour correction lowers the
contrast of a new lesion, and so does a local one that takes the lesion for shading (docs/compare.md). A difference
counts only where no neighbouring pixel of RIGHT explains it, so that edges misplaced by a pixel are no change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from adapter.compare.alignment import Alignment
from adapter.compare.geometry import Mask, Picture, Plane, Size, size_of
from adapter.compare.skin import smoothed
from adapter.compare.skin_map import warped
from adapter.errors import Unprocessable

METHOD = "local light, CIELAB difference (CIE 1976)"
VERSION = "1"

_LIGHT = 0.05
"""Sigma of what counts as shading, of the longest edge."""
_LEAST = 6.0
"""Colour difference that always counts as none: about three times what an eye can tell apart."""
_OUTLYING = 6.0
_HAIR = 7
"""What is thinner than this at working size is hair or an edge, not skin that changed."""
_EDGE = 13
_SMALLEST = 16
"""Pixels at working size."""
_MOST = 20
_AROUND = 0.08
"""Reach of a patch's support, of the longest edge."""


@dataclass(frozen=True, slots=True)
class Region:
    """A place that changed. `box` is x, y, width, height in LEFT's full-resolution pixels, `area` in the same squared;
    `difference` and `greatest` are colour differences; `lightness`, `redness` and `yellowness` are RIGHT minus LEFT in
    CIELAB; `is_certain` is False where the skin around it could not be followed."""

    box: tuple[int, int, int, int]
    area: int
    difference: float
    greatest: float
    lightness: float
    redness: float
    yellowness: float
    is_certain: bool

    def as_json(self) -> dict[str, Any]:
        return {
            "box": list(self.box),
            "area": self.area,
            "difference": self.difference,
            "greatest": self.greatest,
            "lightness": self.lightness,
            "redness": self.redness,
            "yellowness": self.yellowness,
            "certain": self.is_certain,
        }


@dataclass(frozen=True, slots=True)
class Change:
    """`difference` is the map at working size (0 where nothing can be said), `aligned` RIGHT in LEFT's frame and light,
    `comparable` where both show skin; `regions` by weight (difference times area), the heaviest first."""

    difference: Plane
    aligned: Picture
    comparable: Mask
    threshold: float
    regions: tuple[Region, ...]
    method: str = METHOD
    version: str = VERSION


def find_changes(alignment: Alignment) -> Change:
    """Raises Unprocessable for photos that are not aligned: between those every place differs."""
    if alignment.skin_map is None:
        raise Unprocessable("These photos are not aligned, so nothing can be said about change. Compare side by side.")
    left, right = alignment.left, alignment.right
    where = alignment.skin_map.lookup(size_of(left.picture), size_of(right.picture))
    comparable = _inner(np.asarray(left.mask & warped(right.mask, where), np.uint8))
    ours, theirs = (
        one.astype(np.float32) * np.float32(1 / 255) for one in (left.picture, warped(right.picture, where))
    )
    lit = _relit(theirs, ours, comparable)
    before, after = _lab(ours), _lab(lit)
    shift = after - before
    seen = np.where(comparable > 0, _unexplained(before, after), 0).astype(np.float32)
    values = seen[comparable > 0]
    middle = float(np.median(values)) if values.size else 0.0
    spread = float(np.median(np.abs(values - middle))) * 1.4826 if values.size else 0.0
    threshold = max(_LEAST, middle + _OUTLYING * spread)
    certain = _certain(alignment, size_of(left.picture))
    regions = _regions(seen, shift, certain, threshold, left.size)
    return Change(seen, np.clip(lit * 255, 0, 255).astype(np.uint8), comparable, threshold, regions)


def _inner(mask: Mask) -> Mask:
    """Without its edges, which the blur reaches from outside."""
    return np.asarray(cv2.erode(mask, np.ones((_EDGE, _EDGE), np.uint8), borderValue=0), np.uint8)


def _relit(theirs: Plane, ours: Plane, comparable: Mask) -> Plane:
    """RIGHT under LEFT's light, found again twice without what differs."""
    weight = comparable.astype(np.float32)
    lit = theirs
    for _ in range(3):
        near = smoothed(weight, _LIGHT * max(size_of(ours))) + np.float32(1e-4)
        gain = [
            (smoothed(ours[..., c] * weight, _LIGHT * max(size_of(ours))) / near + np.float32(0.01))
            / (smoothed(theirs[..., c] * weight, _LIGHT * max(size_of(ours))) / near + np.float32(0.01))
            for c in range(3)
        ]
        lit = np.clip(theirs * np.stack(gain, axis=-1), 0, 1)
        apart = smoothed(_of_channels(np.maximum, np.abs(lit - ours)), 3.0)
        usual = float(np.median(apart[comparable > 0])) if comparable.any() else 0.0
        weight = comparable.astype(np.float32) * (apart < max(0.03, 3 * usual))
    return np.asarray(lit, np.float32)


def _lab(rgb: Plane) -> Plane:
    """CIELAB (D65) of sRGB 0..1, blurred by two pixels: noise and hair are no change."""
    return np.asarray(cv2.GaussianBlur(cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB), (0, 0), 2.0), np.float32)


def _unexplained(before: Plane, after: Plane) -> Plane:
    """The distance of each pixel from the range of its 3 x 3 neighbourhood in the other photo, the smaller way."""
    square = np.ones((3, 3), np.uint8)

    def outside(one: Plane, other: Plane) -> Plane:
        above, below = one - cv2.dilate(other, square), cv2.erode(other, square) - one
        return np.asarray(np.sqrt(_of_channels(np.add, np.square(np.maximum(0, np.maximum(above, below))))), np.float32)

    return np.minimum(outside(before, after), outside(after, before))


def _of_channels(combine: np.ufunc, picture: Plane) -> Plane:
    """The same as `combine.reduce` over the last axis, several times as fast."""
    first, second, third = cv2.split(picture)
    return np.asarray(combine(combine(first, second), third), np.float32)


def _certain(alignment: Alignment, copy: Size) -> Mask:
    """1 within reach of patches that support the map."""
    certain = np.zeros(copy[::-1], np.uint8)
    if alignment.patches is None or alignment.agrees is None:
        return certain
    reach = round(_AROUND * max(copy))
    for x, y in alignment.patches[alignment.agrees] * (copy[0] / alignment.left.size[0]):
        cv2.circle(certain, (round(x), round(y)), reach, 1, -1)
    return certain


def _regions(seen: Plane, shift: Plane, certain: Mask, threshold: float, full: Size) -> tuple[Region, ...]:
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_HAIR, _HAIR))
    changed = cv2.morphologyEx(np.asarray(seen > threshold, np.uint8), cv2.MORPH_OPEN, disc)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(cv2.dilate(changed, disc))
    scale = full[0] / seen.shape[1], full[1] / seen.shape[0]
    weighed = []
    for label in range(1, count):
        x, y, width, height, _ = (int(value) for value in boxes[label])
        part = np.s_[y : y + height, x : x + width]
        inside = np.asarray((labels[part] == label) & (seen[part] > threshold))
        if inside.sum() < _SMALLEST:
            continue
        values, moved = seen[part][inside], shift[part][inside].mean(axis=0)
        box = (round(x * scale[0]), round(y * scale[1]), round(width * scale[0]), round(height * scale[1]))
        region = Region(
            box=box,
            area=round(float(inside.sum()) * scale[0] * scale[1]),
            difference=round(float(values.mean()), 1),
            greatest=round(float(values.max()), 1),
            lightness=round(float(moved[0]), 1),
            redness=round(float(moved[1]), 1),
            yellowness=round(float(moved[2]), 1),
            is_certain=bool(certain[part][inside].mean() > 0.5),
        )
        weighed.append((float(values.sum()), region))
    ranked = sorted(weighed, key=lambda one: -one[0])
    return tuple(region for _, region in ranked[:_MOST])
