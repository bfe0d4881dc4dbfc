"""Photo pairs with a known displacement, small enough for a test; made once per run."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from adapter.compare import Alignment, Prepared, align, prepare
from benchmarks.skin import HARD, NORMAL, Image, Pair, Recipe, make_pair, make_photo

WIDTH = 1200
FULL = 4000 / WIDTH
"""Pixels of a 12-megapixel photo per pixel of these."""


@cache
def pair(name: str) -> Pair:
    """`normal` is a close-up with a new lesion, `hard` a dermoscopic photo with everything else changed, too."""
    if name == "normal":
        return make_pair(Recipe(seed=302, kind="close-up", width=WIDTH, lesion=60, **NORMAL))
    return make_pair(Recipe(seed=303, kind="dermoscopic", width=WIDTH, lesion=60, **HARD))


@cache
def photos(name: str) -> tuple[Prepared, Prepared]:
    left, right = (prepare(file) for file in pair(name).jpegs())
    return left, right


@cache
def aligned(name: str) -> Alignment:
    return align(*photos(name))


@cache
def other_skin(seed: int, kind: str = "dermoscopic") -> Image:
    return make_photo(Recipe(seed=seed, kind=kind, width=WIDTH))


def jpeg(photo: Image) -> bytes:
    return cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()


def errors(name: str, found: Alignment, points: npt.NDArray[np.float64] | None = None) -> npt.NDArray[np.float64]:
    """Distances from the truth, in pixels of a 12-megapixel photo."""
    assert found.skin_map is not None, found.reasons
    wanted = pair(name).grid(25) if points is None else points
    return np.asarray(np.hypot(*(found.skin_map.to_right(wanted) - pair(name).view.seen_at(wanted)).T) * FULL)


def around_the_lesion(name: str) -> npt.NDArray[np.float64]:
    x, y, radius = pair(name).lesion or (0.0, 0.0, 0.0)
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    return np.concatenate(
        [np.c_[x + r * radius * np.cos(angle), y + r * radius * np.sin(angle)] for r in (0.01, 0.5, 1.0, 1.5, 2.0)]
    )
