"""What a line or an outline measures, and how sure that is.

Uncertainty is found by doing it again: points are placed and the scale is taken `_AGAIN` times as uncertainly as they
were, and the values spread (JCGM 101:2008, propagation of distributions by a Monte Carlo method). What does not differ
from time to time, the scale's allowance, is added. The same photo and points give the same figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import hypot

import cv2
import numpy as np

from adapter.compare.geometry import Points
from adapter.errors import Unprocessable
from adapter.measure.scale import Scale

_AGAIN = 80
_HARMONICS = 5
_RASTER = 160
_MOST_POINTS = 400
_LEAST_AREA = 30.0
"""Square pixels: a smaller outline says nothing."""


@dataclass(frozen=True)
class Measure:
    """`uncertainty` is the standard uncertainty (one standard deviation) in `unit`; None where it cannot be told."""

    name: str
    value: float
    uncertainty: float | None
    unit: str

    def as_json(self) -> dict[str, object]:
        return vars(self).copy()


def measure_line(points: Points, scale: Scale, sigma: float) -> list[Measure]:
    """The length along points (n, 2), each placed within `sigma` pixels."""
    if not 2 <= len(points) <= _MOST_POINTS:
        raise Unprocessable("Mark the two ends of what is to be measured.")
    return _measured(lambda where, how: {"length": _length(how.to_plane(where))}, points, scale, sigma, 0.0, _shaken)


def measure_outline(points: Points, scale: Scale, sigma: float, edge: float) -> list[Measure]:
    """Area, longest diameter and the extent across it, and asymmetry of a polygon (n, 2).

    `sigma` pixels is how unsteadily the outline was drawn, `edge` how far all of it may lie too far out or in.
    Raises Unprocessable for a polygon that is too small or crosses itself.
    """
    check_outline(points)
    return _measured(_shape, points, scale, sigma, edge, _breathed)


def check_outline(points: Points) -> None:
    if not 3 <= len(points) <= _MOST_POINTS:
        raise Unprocessable(f"An outline has between 3 and {_MOST_POINTS} points.")
    if _crosses_itself(points):
        raise Unprocessable("This outline crosses itself. Move the points so that it goes round the lesion once.")
    if cv2.contourArea(points.astype(np.float32)) < _LEAST_AREA:
        raise Unprocessable("This outline is too small to be measured. Zoom in and draw it again.")


def asymmetry(plane: Points) -> float:
    """How much of the shape does not cover itself when folded: 0 symmetric, towards 1 not at all.

    The mean over both principal axes through the centroid, each as the share of the area that stays uncovered, as in
    the A of the ABCD rule of dermoscopy (Stolz et al., Eur J Dermatol 1994).
    """
    m = cv2.moments(plane.astype(np.float32))
    centre = np.array([m["m10"], m["m01"]]) / m["m00"]
    angle = 0.5 * np.arctan2(2 * m["mu11"], m["mu20"] - m["mu02"])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    along = (plane - centre) @ turn
    drawn = along * (_RASTER / 2 - 2) / np.abs(along).max()
    shape = np.zeros((_RASTER + 1, _RASTER + 1), np.uint8)
    shift = 4
    cv2.fillPoly(shape, [((drawn + _RASTER / 2) * 2**shift).round().astype(np.int32)], 1, shift=shift)
    return float(np.mean([(shape != folded).sum() / (2 * shape.sum()) for folded in (shape[::-1], shape[:, ::-1])]))


def _shape(points: Points, scale: Scale) -> dict[str, float]:
    plane = scale.to_plane(points)
    hull = cv2.convexHull(plane.astype(np.float32)).reshape(-1, 2).astype(np.float64)
    between = hull[:, None] - hull[None]
    apart = np.hypot(between[..., 0], between[..., 1])
    longest = between[np.unravel_index(apart.argmax(), apart.shape)] / apart.max()
    across = float(np.ptp(hull @ np.array([-longest[1], longest[0]])))
    area = float(cv2.contourArea(plane.astype(np.float32)))
    return {"area": area, "long-axis": float(apart.max()), "short-axis": across, "asymmetry": asymmetry(plane)}


_POWERS = {"length": 1, "long-axis": 1, "short-axis": 1, "area": 2, "asymmetry": 0}


def _measured(
    values: Callable[[Points, Scale], dict[str, float]],
    points: Points,
    scale: Scale,
    sigma: float,
    edge: float,
    redrawn: Callable[[Points, float, float, np.random.Generator], Points],
) -> list[Measure]:
    chance = np.random.default_rng(0)
    again = [values(redrawn(points, sigma, edge, chance), scale.redrawn(chance)) for _ in range(_AGAIN)]
    found = []
    for name, value in values(points, scale).items():
        power = _POWERS[name]
        spread = float(np.std([one[name] for one in again], ddof=1))
        unit = {0: "1", 1: scale.unit, 2: f"{scale.unit}2"}[power]
        found.append(Measure(name, value, hypot(spread, power * scale.allowance * value), unit))
    return found


def _shaken(points: Points, sigma: float, _edge: float, chance: np.random.Generator) -> Points:
    return np.asarray(points + chance.normal(0, sigma, points.shape))


def _breathed(points: Points, sigma: float, edge: float, chance: np.random.Generator) -> Points:
    """Moved along its normals: all of it by one draw of `edge`, and in slow waves with the variance of `sigma`."""
    ahead, behind = np.roll(points, -1, axis=0), np.roll(points, 1, axis=0)
    tangent = ahead - behind
    normal = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)
    normal /= np.maximum(np.hypot(*normal.T), 1e-9)[:, None]
    steps = np.hypot(*(ahead - points).T)
    phase = 2 * np.pi * np.cumsum(steps) / steps.sum()
    waves = np.array([wave(k * phase) for k in range(1, _HARMONICS + 1) for wave in (np.sin, np.cos)])
    shift = chance.normal(0, edge) + sigma / np.sqrt(_HARMONICS) * chance.normal(0, 1, len(waves)) @ waves
    return np.asarray(points + shift[:, None] * normal)


def _length(plane: Points) -> float:
    return float(sum(hypot(*(there - here)) for here, there in pairwise(plane)))


def _crosses_itself(points: Points) -> bool:
    """Whether any two sides that are no neighbours meet: each side's ends lie on both sides of the other."""
    start, end = points, np.roll(points, -1, axis=0)

    def side(a: Points, b: Points, c: Points) -> Points:
        return np.sign(
            (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])
        )

    a, b, c, d = start[:, None], end[:, None], start[None], end[None]
    crossing = (side(a, b, c) * side(a, b, d) < 0) & (side(c, d, a) * side(c, d, b) < 0)
    return bool(crossing.any())
