"""From a rough guess to a map good to a fraction of a pixel: block shifts, a spline through them, warp, and again.

Iterative image deformation (Scarano, Measurement Science and Technology 2002): every pass measures what the passes
before left over, with smaller reach and a more supple spline. The passes are data; the figures behind them are in
docs/compare.md, where dense optical flow (DIS) constrained by a block median is the alternative measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from adapter.compare.blocks import Shifts, measure_shifts
from adapter.compare.geometry import Homography, Mask, Plane, Points, Size, fitted, projected, size_of, to_full
from adapter.compare.prepared import Prepared
from adapter.compare.skin import texture
from adapter.compare.skin_map import SkinMap, warped
from adapter.compare.spline import Spline, fit_spline

_SIGMA = 12.0
_CLEAR = 4.5
"""Clarity from which a block is taken for found: chance reaches 4."""


@dataclass(frozen=True, slots=True)
class Pass:
    """`edge` is the longest edge at work, `block`, `reach`, `stride` and `scales` are in pixels of it.

    `block + 2 * reach` has only the prime factors 2, 3 and 5, for the Fourier transform.
    """

    edge: int
    block: int
    reach: int
    stride: int
    spans: tuple[int, int]
    scales: tuple[float, ...]
    stiffness: float = 0.015


CAMERA = Pass(500, 96, 24, 32, (1, 1), ())
PASSES = (
    Pass(500, 64, 16, 24, (6, 4), (20, 12, 8, 6, 4)),
    Pass(500, 64, 8, 24, (8, 6), (20, 12, 8, 6, 4)),
    Pass(500, 48, 8, 24, (12, 9), (6, 4, 3, 2, 1.5)),
    Pass(1000, 80, 8, 32, (12, 9), (3, 2, 1.5, 1, 1)),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """The shifts of a pass as displacements in full-resolution pixels; `weights` is how much each counts, `pixel` the
    full-resolution pixels per pixel of the pass."""

    points: Points
    displacements: Points
    weights: npt.NDArray[np.float64]
    clarity: npt.NDArray[np.float64]
    pixel: float


def find_camera(left: Prepared, right: Prepared, guess: Homography) -> Homography:
    """The homography that most blocks agree on (MAGSAC++, Barath et al., CVPR 2020), spread evenly over the photo.

    Key points crowd on hair and moles; blocks do not. Falls back to `guess` where too few blocks are found.
    """
    spline = Spline(left.size)
    found = _measure(Layer(left, right, guess), spline, CAMERA)
    clear = found.clarity > _CLEAR
    if clear.sum() < 12:
        return guess
    ours = found.points[clear]
    theirs = projected(guess, ours + found.displacements[clear])
    cv2.setRNGSeed(0)
    tolerance = 6 * found.pixel * float(np.sqrt(abs(np.linalg.det(guess[:2, :2]))))
    homography, _ = cv2.findHomography(ours, theirs, cv2.USAC_MAGSAC, tolerance, maxIters=5000, confidence=0.999)
    if homography is None or np.linalg.det(homography[:2, :2]) <= 0:
        return guess
    return np.asarray(homography, np.float64)


def refine(
    left: Prepared, right: Prepared, homography: Homography, passes: Sequence[Pass] = PASSES
) -> tuple[SkinMap, Measured]:
    """The map after all passes, and what the last one measured."""
    layer = Layer(left, right, homography)
    spline = Spline(left.size)
    for each in passes:
        found = _measure(layer, spline, each)
        spline = fit(found, left.size, each)
    return SkinMap(left.size, right.size, homography, spline), found


def fit(found: Measured, size: Size, how: Pass = PASSES[-1]) -> Spline:
    """The spline through what was measured on a LEFT of `size`."""
    return fit_spline(
        size,
        how.spans,
        found.points,
        found.displacements,
        found.weights,
        stiffness=how.stiffness,
        scales=[scale * found.pixel for scale in how.scales],
    )


class Layer:
    """The textures of LEFT and of RIGHT seen through the homography, at each size, made when first asked for."""

    def __init__(self, left: Prepared, right: Prepared, homography: Homography) -> None:
        self.left = left
        where = SkinMap(left.size, right.size, homography, Spline(left.size)).lookup(
            size_of(left.picture), size_of(right.picture)
        )
        self._planes = [
            (left.picture[..., 1], left.mask),
            (warped(np.ascontiguousarray(right.picture[..., 1]), where), warped(right.mask, where)),
        ]
        self._textures: dict[int, tuple[Plane, Plane]] = {}

    def textures(self, edge: int) -> tuple[Plane, Plane]:
        if edge not in self._textures:
            ours, theirs = (_texture(grey, mask, edge) for grey, mask in self._planes)
            self._textures[edge] = ours, theirs
        return self._textures[edge]


def _texture(grey: npt.NDArray[np.uint8], mask: Mask, edge: int) -> Plane:
    size = fitted(size_of(grey), edge)
    smaller = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.float32)
    return texture(smaller, cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST).astype(np.uint8), _SIGMA)


def _measure(layer: Layer, spline: Spline, how: Pass) -> Measured:
    ours, theirs = layer.textures(how.edge)
    copy, full = size_of(ours), layer.left.size
    pixel = full[0] / copy[0]
    x, y = (shift / np.float32(pixel) for shift in spline.on_grid(copy))
    xs, ys = np.arange(copy[0], dtype=np.float32), np.arange(copy[1], dtype=np.float32)[:, None]
    moved = cv2.remap(theirs, xs + x, ys + y, cv2.INTER_CUBIC)
    found: Shifts = measure_shifts(
        ours, np.asarray(moved, np.float32), block=how.block, reach=how.reach, stride=how.stride
    )
    points = to_full(found.points, copy, full)
    shifts = found.shifts * (full[0] / copy[0], full[1] / copy[1])
    weights = np.clip(found.clarity - 3.5, 0, 6) * np.clip(found.peak, 0, None)
    return Measured(points, shifts + spline.at(points + shifts), weights, found.clarity, pixel)
