"""Finding the calibration card (`mappings.calibration_card`) in a photo: where it lies, and what colours it shows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from adapter.compare.geometry import Picture, Points, Size, size_of, to_copy, to_full
from adapter.measure.scale import ALLOWANCES, Scale
from mappings.calibration_card import MARKERS, PATCHES, SIZE

_FEWEST = 3
"""Markers; the fourth may be covered or outside."""
_PER_MM = 10
_LARGEST_RESIDUAL = 0.25
"""Millimetres on the card: beyond, it is bent, or no card of ours."""
_CORNER = 0.12
"""Pixels of the picture searched in: least standard uncertainty of a marker's corner (benchmarks/measure.py)."""
_LIGHT = (255 * (np.arange(256) / 255) ** 2.2).round().astype(np.uint8)
"""Encoded grey -> light: where a blurred edge is half as bright is where it is; encoded, black would look smaller."""
_INNER = 0.2
"""Share of a patch left out on each side: print and focus blur its edge."""


@dataclass(frozen=True)
class SeenCard:
    """`scale` is in full-resolution pixels, `residual` (mm) how far the corners are from a plane, `patches` the median
    colour of each patch (n, 3), sRGB 0 to 255, and `clipped` the names of those too bright or too dark to be true."""

    scale: Scale
    residual: float
    patches: npt.NDArray[np.float64]
    clipped: tuple[str, ...]


def find_card(picture: Picture, full: Size) -> SeenCard | None:
    """None where fewer than three of its markers are seen, or they do not lie as on a flat card.

    `picture` is an upright sRGB copy of a photo of size `full`.
    """
    corners, ids, _ = _detector().detectMarkers(cv2.LUT(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), _LIGHT))
    known = {int(one.name): np.array(one.corners) for one in MARKERS}
    found = {} if ids is None else dict(zip(ids.ravel().tolist(), corners, strict=True))
    mine = [name for name in known if name in found]
    if len(mine) < _FEWEST:
        return None
    seen = np.concatenate([found[name].reshape(4, 2) for name in mine]).astype(np.float64)
    plane = np.concatenate([known[name] for name in mine])
    to_mm, _ = cv2.findHomography(seen, plane, 0)
    if to_mm is None:
        return None
    residual = _rms(cv2.perspectiveTransform(seen[None], to_mm)[0] - plane)
    if residual > _LARGEST_RESIDUAL:
        return None
    back = cv2.perspectiveTransform(plane[None], np.linalg.inv(to_mm))[0]
    sigma = max(_CORNER, _rms(back - seen)) * full[0] / picture.shape[1]
    scale = Scale("card", to_full(seen, size_of(picture), full), plane, sigma, ALLOWANCES["card"])
    return SeenCard(scale, residual, *_patches(picture, np.asarray(to_mm, np.float64)))


def card_mask(picture: Picture, card: SeenCard, full: Size) -> npt.NDArray[np.uint8]:
    """1 where the card lies: no skin, for whoever measures the skin around a lesion."""
    edges = np.array([[[0, 0], [SIZE[0], 0], [*SIZE], [0, SIZE[1]]]], np.float64)
    seen = cv2.perspectiveTransform(edges, np.linalg.inv(card.scale.matrix()))[0]
    mask = np.zeros(picture.shape[:2], np.uint8)
    return np.asarray(
        cv2.fillConvexPoly(mask, to_copy(seen, size_of(picture), full).round().astype(np.int32), 1), np.uint8
    )


def _patches(picture: Picture, to_mm: Points) -> tuple[npt.NDArray[np.float64], tuple[str, ...]]:
    scaled = np.diag([_PER_MM, _PER_MM, 1.0]) @ to_mm
    flat = cv2.warpPerspective(picture, scaled, (round(SIZE[0] * _PER_MM), round(SIZE[1] * _PER_MM)))
    medians, clipped = [], []
    for patch in PATCHES:
        (left, top), (right, bottom) = (
            [round(_PER_MM * (edge + side * _INNER * patch.edge)) for edge in corner]
            for corner, side in ((patch.corners[0], 1), (patch.corners[2], -1))
        )
        inner = flat[top:bottom, left:right].reshape(-1, 3)
        medians.append(np.median(inner, axis=0))
        if np.mean(inner.max(axis=1) >= 254) > 0.02 or np.mean(inner.max(axis=1) <= 2) > 0.02:
            clipped.append(patch.name)
    return np.array(medians), tuple(clipped)


def _rms(differences: Points) -> float:
    """Of one coordinate, for a homography fitted to them (8 parameters)."""
    return float(np.sqrt((differences**2).sum() / max(1, differences.size - 8)))


@cache
def _detector() -> cv2.aruco.ArucoDetector:
    parameters = cv2.aruco.DetectorParameters()
    parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    return cv2.aruco.ArucoDetector(cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_5X5_50), parameters)
