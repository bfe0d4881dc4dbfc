"""How many millimetres a pixel is, and how sure that is.

A scale is what was seen where: points of the photo with their places on a plane, in millimetres. Two points give a
similarity, four or more a homography, which takes the perspective out of everything that lies in that plane. What it
cannot know, it allows for: skin that is not in the plane, a ruler that is tilted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import hypot
from typing import Any

import cv2
import numpy as np

from adapter.compare.geometry import Homography, Points, projected
from adapter.errors import Unprocessable

ALLOWANCES = {"card": 0.011, "points": 0.014, "field-of-view": 0.01, "none": 0.0}
"""Relative standard uncertainty beyond what the points tell, by source (docs/measure.md): print and ruler 0.3 %,
skin up to 5 mm out of the plane at 300 mm, a ruler tilted by up to 10 degrees; each equally likely within its limits
(JCGM 100:2008, 4.3.7)."""
LEAST_POINTS_APART = 20.0
"""Pixels between two clicks, below which a scale would be worth nothing."""

_LEAST_DEPTH = 0.1
"""Of the depth at the scale itself; 0 is the horizon."""


@dataclass(frozen=True)
class Scale:
    """`seen` are photo pixels (n, 2), `plane` the same points in mm (n, 2); `sigma` is the standard uncertainty of a
    coordinate of `seen` in pixels, `allowance` the relative one of what else there is. No points: no scale, pixels.
    """

    source: str
    seen: Points
    plane: Points
    sigma: float
    allowance: float

    @property
    def unit(self) -> str:
        return "mm" if len(self.seen) else "px"

    def to_plane(self, points: Points) -> Points:
        """Photo pixels as mm on the plane; as they are where there is no scale."""
        return projected(self.matrix(), points) if len(self.seen) else points

    def matrix(self) -> Homography:
        """Photo pixels -> mm. Raises Unprocessable for points that make no map."""
        if not len(self.seen):
            return np.eye(3)
        if len(self.seen) == 2:
            return _similarity(self.seen, self.plane)
        found, _ = cv2.findHomography(self.seen, self.plane, 0)
        if found is None or not np.isfinite(found).all():
            raise Unprocessable("The scale's points do not make a plane. Take the scale again.")
        return np.asarray(found, np.float64)

    def check_reaches(self, points: Points) -> None:
        """Raises Unprocessable for points (n, 2) near or beyond the horizon of the plane, where it tells nothing."""
        if not len(self.seen):
            return
        row = self.matrix()[2]
        depth, near = points @ row[:2] + row[2], float((self.seen @ row[:2] + row[2]).mean())
        if (depth / near < _LEAST_DEPTH).any():
            raise Unprocessable("The card lies too flat for a measure so far from it. Photograph it from above.")

    def mm_per_pixel(self, at: Points) -> float:
        """At one place (1, 2) of the photo, as the root of how much a pixel's area becomes."""
        corners = self.to_plane(at + np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) - 0.5)
        return float(np.sqrt(abs(cv2.contourArea(corners.astype(np.float32)))))

    def redrawn(self, chance: np.random.Generator) -> Scale:
        """The same scale taken once more, as uncertainly."""
        return replace(self, seen=self.seen + chance.normal(0, self.sigma, self.seen.shape))

    def as_json(self, at: Points) -> dict[str, Any]:
        """`at` (1, 2): where the stated mm per pixel holds."""
        found: dict[str, Any] = {"source": self.source, "unit": self.unit}
        if not len(self.seen):
            return found
        return found | {
            "matrix": self.matrix().ravel().tolist(),
            "mm_per_pixel": self.mm_per_pixel(at),
            "uncertainty": self.relative_uncertainty(),
            "seen": self.seen.round(2).tolist(),
            "plane": self.plane.round(4).tolist(),
            "sigma": self.sigma,
        }

    def relative_uncertainty(self) -> float:
        """Standard uncertainty of a length about as long as the scale itself."""
        span = float(np.ptp(self.seen, axis=0).max())
        return hypot(np.sqrt(2) * self.sigma / span, self.allowance)


def no_scale() -> Scale:
    return Scale("none", np.empty((0, 2)), np.empty((0, 2)), 0.0, 0.0)


def scale_from_points(points: Points, millimetres: float, sigma: float) -> Scale:
    """Two points (2, 2) `millimetres` apart, each placed within `sigma` pixels. Raises Unprocessable when too near."""
    return _along(points, millimetres, sigma, "points", ALLOWANCES["points"])


def scale_from_field_of_view(
    left: float, right: float, height: float, millimetres: float, *, tolerance: float, sigma: float
) -> Scale:
    """What a dermatoscope shows from pixel column `left` to `right`, `tolerance` as its maker or the site states it."""
    edges = np.array([[left, height / 2], [right, height / 2]])
    return _along(edges, millimetres, sigma, "field-of-view", hypot(tolerance, ALLOWANCES["field-of-view"]))


def _along(points: Points, millimetres: float, sigma: float, source: str, allowance: float) -> Scale:
    if not 0.1 <= millimetres <= 3000:
        raise Unprocessable("Say how long the marked distance is: between 0.1 and 3000 mm.")
    if np.hypot(*(points[1] - points[0])) < max(LEAST_POINTS_APART, 6 * sigma):
        raise Unprocessable("The two points are too near each other for a scale. Mark a longer distance, or zoom in.")
    return Scale(source, points, np.array([[0.0, 0.0], [millimetres, 0.0]]), sigma, allowance)


def _similarity(seen: Points, plane: Points) -> Homography:
    """The turn, scale and shift that takes two points to two points."""
    (here, there), (ours, theirs) = (one @ np.array([1, 1j]) for one in (seen, plane))
    turn = (theirs - ours) / (there - here)
    shift = ours - turn * here
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag], [0, 0, 1]])
