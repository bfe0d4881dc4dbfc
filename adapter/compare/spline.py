"""A smooth displacement of the skin: a cubic B-spline surface fitted robustly to scattered measurements.

Penalised least squares (Eilers and Marx, Statistical Science 1996) with the bending energy of a thin plate as penalty,
re-weighted after Geman and McClure so that measurements which contradict their neighbourhood lose their say. That is
what keeps a new lesion from bending the map: the skin around it outvotes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from adapter.compare.geometry import Plane, Points, Size, to_full

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spline:
    """A displacement (x, y) at every point of a photo of `size`; `spans` polynomial pieces across and down."""

    size: Size
    spans: tuple[int, int] = (1, 1)
    coefficients: Matrix = field(default_factory=lambda: np.zeros((16, 2)))

    def at(self, points: Points) -> Points:
        """(n, 2) displacements."""
        columns, values = _design(points, self.size, self.spans)
        return np.asarray((values[:, :, None] * self.coefficients[columns]).sum(axis=1))

    def on_grid(self, copy: Size) -> tuple[Plane, Plane]:
        """The displacement (x and y, in full pixels) of every pixel of a copy."""
        xs = to_full(np.c_[np.arange(copy[0]), np.zeros(copy[0])], copy, self.size)[:, 0]
        ys = to_full(np.c_[np.zeros(copy[1]), np.arange(copy[1])], copy, self.size)[:, 1]
        across, down = _basis(xs, self.size[0], self.spans[0]), _basis(ys, self.size[1], self.spans[1])
        control = self.coefficients.reshape(self.spans[1] + 3, self.spans[0] + 3, 2).astype(np.float32)
        rows = [np.ascontiguousarray(control[..., axis]) @ across.T for axis in (0, 1)]
        x, y = (cv2.gemm(down, row, 1.0, np.empty(0, np.float32), 0.0) for row in rows)  # no threads that spin
        return np.asarray(x, np.float32), np.asarray(y, np.float32)


def fit_spline(
    size: Size,
    spans: tuple[int, int],
    points: Points,
    displacements: Points,
    weights: npt.NDArray[Any],
    *,
    stiffness: float,
    scales: Sequence[float],
) -> Spline:
    """The spline nearest to the measurements at `points`; without any, one that moves nothing.

    `scales` (pixels, falling) are the distances at which a measurement begins to lose its say, one per round.
    """
    if not len(points):
        return Spline(size)
    columns, values = _design(points, size, spans)
    unknowns = (spans[0] + 3) * (spans[1] + 3)
    penalty = stiffness * _bending(spans) + 1e-6 * np.eye(unknowns)
    cells = (columns[:, :, None] * unknowns + columns[:, None, :]).ravel()
    products = values[:, :, None] * values[:, None, :]
    say = np.asarray(weights, np.float64)
    coefficients = np.zeros((unknowns, 2))
    for scale in scales:
        normal = np.bincount(cells, (products * say[:, None, None]).ravel(), unknowns**2).reshape(unknowns, unknowns)
        sums = [np.bincount(columns.ravel(), (values * (say * d)[:, None]).ravel(), unknowns) for d in displacements.T]
        _, solved = cv2.solve(normal + penalty, np.stack(sums, axis=1), flags=cv2.DECOMP_CHOLESKY)
        coefficients = np.asarray(solved, np.float64)
        fitted = (values[:, :, None] * coefficients[columns]).sum(axis=1)
        squared = ((displacements - fitted) ** 2).sum(axis=1)
        say = weights / (1 + squared / scale**2) ** 2
    return Spline(size, spans, coefficients)


def _pieces(values: npt.NDArray[np.float64], length: int, spans: int) -> tuple[npt.NDArray[np.intp], Matrix]:
    """The first of the four uniform cubic B-splines that differ from zero at each value, and their (n, 4) values
    (de Boor, A Practical Guide to Splines)."""
    position = (values + 0.5) / length * spans
    span = np.clip(np.floor(position).astype(np.intp), 0, spans - 1)
    u = position - span
    pieces = np.stack([(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3], axis=1)
    return span, pieces / 6


def _basis(values: npt.NDArray[np.float64], length: int, spans: int) -> Plane:
    """(n, spans + 3): every B-spline at each value."""
    span, pieces = _pieces(values, length, spans)
    basis = np.zeros((len(values), spans + 3), np.float32)
    np.put_along_axis(basis, span[:, None] + np.arange(4), pieces.astype(np.float32), axis=1)
    return basis


def _design(points: Points, size: Size, spans: tuple[int, int]) -> tuple[npt.NDArray[np.intp], Matrix]:
    """The 16 control points that matter at each point, and how much: (n, 16) indices and values."""
    (column, across), (row, down) = (_pieces(points[:, axis], size[axis], spans[axis]) for axis in (0, 1))
    rows, columns = row[:, None] + np.arange(4), column[:, None] + np.arange(4)
    indices = rows[:, :, None] * (spans[0] + 3) + columns[:, None, :]
    return indices.reshape(len(points), 16), (down[:, :, None] * across[:, None, :]).reshape(len(points), 16)


def _bending(spans: tuple[int, int]) -> Matrix:
    """Second differences of the control points: xx + yy + 2 xy."""
    first, second = ([np.diff(np.eye(n + 3), order, axis=0) for n in spans] for order in (1, 2))
    slope, bend = ([m.T @ m for m in group] for group in (first, second))
    rows, columns = np.eye(spans[1] + 3), np.eye(spans[0] + 3)
    return np.asarray(np.kron(rows, bend[0]) + np.kron(bend[1], columns) + 2 * np.kron(slope[1], slope[0]))
