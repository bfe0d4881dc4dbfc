"""The first guess: a turn, a scale and a shift that many matched key points agree on.

RANSAC (Fischler and Bolles, CACM 1981) over pairs of matches: a similarity needs two of them, so that it survives one
true match in ten where a homography, which needs four, does not. The tolerance is wide, since limbs bend.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from adapter.compare.geometry import Homography, Points, Size

_TOLERANCE = 0.015
"""Of the longest edge of RIGHT."""
FEWEST = 8
_SCALES = (0.2, 5.0)


@dataclass(frozen=True, slots=True)
class Guess:
    """`homography` maps LEFT to RIGHT; `inliers` of `matches` agree with it."""

    homography: Homography
    inliers: int
    matches: int


def find_similarity(left: Points, right: Points, left_size: Size, right_size: Size) -> Guess | None:
    """None when fewer than `FEWEST` matches agree or the scale is absurd. The same input gives the same answer."""
    if len(left) < FEWEST:
        return None
    cv2.setRNGSeed(0)
    found, agreeing = cv2.estimateAffinePartial2D(
        left, right, None, cv2.RANSAC, _TOLERANCE * max(right_size), maxIters=5000, confidence=0.9999
    )
    if found is None or int(agreeing.sum()) < FEWEST:
        return None
    scale = float(np.hypot(found[0, 0], found[1, 0]))
    if not _SCALES[0] < scale * max(left_size) / max(right_size) < _SCALES[1]:
        return None
    return Guess(np.vstack([found, [0.0, 0.0, 1.0]]), int(agreeing.sum()), len(left))
