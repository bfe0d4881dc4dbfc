"""How far the skin of one block has moved: the peak of its cross-correlation with the other photo.

The way particle image velocimetry measures flow (Willert and Gharib, Experiments in Fluids 1991): each block is
compared as a whole, so that what is in one photo only (a new lesion, hair, a reflection) adds noise to the correlation
and does not pull its peak, as it pulls gradient-based optical flow. A peak counts by how far it stands out.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from adapter.compare.geometry import Plane, Points

_LEAST_TEXTURE = 0.3
"""Root mean square a block needs, where 1 is the average."""
_AT_ONCE = 64
_INVERSE = cv2.DFT_INVERSE | cv2.DFT_SCALE


@dataclass(frozen=True, slots=True)
class Shifts:
    """`right(point + shift)` looks like `left(point)`, in pixels of the planes compared. `peak` is the correlation
    there (1: identical), `clarity` how many standard deviations it stands above the others (chance: 3 to 4)."""

    points: Points
    shifts: Points
    peak: npt.NDArray[np.float64]
    clarity: npt.NDArray[np.float64]


def measure_shifts(left: Plane, right: Plane, *, block: int, reach: int, stride: int) -> Shifts:
    """One shift per block of `block` pixels, every `stride` pixels, found within `reach` pixels.

    `left` and `right` are textures (zero mean, unit variance, 0 where nothing is to be seen) of the same size.
    """
    pad = block // 2 + reach
    height, width = left.shape
    padded = [np.pad(plane, pad) for plane in (left, right)]
    xs, ys = np.meshgrid(np.arange(stride // 2, width, stride), np.arange(stride // 2, height, stride))
    corners = np.c_[xs.ravel(), ys.ravel()]  # of the search window in the padded planes
    chunks = [corners[at : at + _AT_ONCE] for at in range(0, len(corners), _AT_ONCE)]
    with ThreadPoolExecutor(2) as threads:
        parts = list(threads.map(lambda chunk: _correlate(padded[0], padded[1], chunk, block, reach), chunks))
    return Shifts(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _correlate(
    left: Plane, right: Plane, corners: npt.NDArray[np.int64], block: int, reach: int
) -> tuple[Points, Points, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    span = block + 2 * reach
    window = _window(block)
    ours = _cut(left, corners + reach, block) * window
    searched = _cut(right, corners, span)
    theirs = searched[:, reach : reach + block, reach : reach + block] * window
    our_energy, their_energy = (np.einsum("nij,nij->n", one, one) for one in (ours, theirs))
    energy = np.sqrt(our_energy * their_energy)
    least = _LEAST_TEXTURE**2 * float(np.square(window).sum())
    enough = (our_energy > least) & (their_energy > least)
    ours, searched, energy, corners = ours[enough], searched[enough], energy[enough], corners[enough]
    surface = np.empty((len(ours), 2 * reach + 1, 2 * reach + 1), np.float32)
    template = np.zeros((span, span), np.float32)
    for each, (one, other) in enumerate(zip(ours, searched, strict=True)):  # cv2.dft: a fifth of numpy.fft's time
        template[:block, :block] = one
        product = cv2.mulSpectrums(cv2.dft(other), cv2.dft(template), 0, conjB=True)
        surface[each] = cv2.dft(product, flags=_INVERSE)[: 2 * reach + 1, : 2 * reach + 1]
    surface /= energy[:, None, None]
    shifts, peak, clarity = _peaks(surface, reach)
    return (
        np.asarray(corners - 0.5, np.float64),
        shifts,
        peak,
        clarity,
    )  # an even block's centre lies between its pixels


def _cut(plane: Plane, corners: npt.NDArray[np.int64], size: int) -> Plane:
    """(n, size, size) windows."""
    return np.lib.stride_tricks.sliding_window_view(plane, (size, size))[corners[:, 1], corners[:, 0]]


def _peaks(surface: Plane, reach: int) -> tuple[Points, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The highest point of each surface to a fraction of a pixel (a parabola through its neighbours); on the rim of
    the search it is no peak, and its clarity 0."""
    count, side, each = len(surface), 2 * reach + 1, np.arange(len(surface))
    flat = surface.reshape(count, side * side)
    highest = flat.argmax(axis=1)
    ys, xs = np.divmod(highest, side)
    value = flat[each, highest].astype(np.float64)
    on_rim = (xs == 0) | (ys == 0) | (xs == side - 1) | (ys == side - 1)
    clarity = np.where(on_rim, 0.0, value / np.maximum(flat.std(axis=1), 1e-6))
    cx, cy = np.clip(xs, 1, side - 2), np.clip(ys, 1, side - 2)
    dx = _vertex(surface[each, cy, cx - 1], surface[each, cy, cx], surface[each, cy, cx + 1])
    dy = _vertex(surface[each, cy - 1, cx], surface[each, cy, cx], surface[each, cy + 1, cx])
    return np.c_[cx + dx - reach, cy + dy - reach].astype(np.float64), value, clarity


def _vertex(before: Plane, at: Plane, after: Plane) -> Plane:
    bend = before - 2 * at + after
    return np.clip(np.where(bend < -1e-9, 0.5 * (before - after) / np.minimum(bend, -1e-9), 0), -1, 1)


@cache
def _window(size: int) -> Plane:
    taper = np.hanning(size + 2)[1:-1].astype(np.float32)
    return np.outer(taper, taper)
