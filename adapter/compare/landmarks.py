"""Aligning by hand: three or more points that a clinician marks in both photos.

Three points give an affine map, four and more a homography. The block passes then refine it; where they find nothing,
the hand-made map stays and is called approximate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from adapter.compare.alignment import Alignment, align_from
from adapter.compare.geometry import Homography, Points, inside
from adapter.compare.prepared import Prepared
from adapter.compare.skin_map import SkinMap
from adapter.compare.spline import Spline
from adapter.errors import BadInput

_METHOD = "points placed by hand"
_FLATTEST = 0.02
"""Least height of the landmarks' triangle, relative to its longest side."""


def align_by_landmarks(
    left: Prepared, right: Prepared, landmarks: Sequence[tuple[tuple[float, float], tuple[float, float]]]
) -> Alignment:
    """`landmarks` are pairs of points ((x, y) of LEFT, (x, y) of RIGHT) at full resolution, three or more.

    Raises BadInput for fewer than three, for points outside a photo or (nearly) on one line, and for a mirror image.
    """
    if len(landmarks) < 3:
        raise BadInput("Mark at least three points in both photos.")
    ours, theirs = (np.array([pair[side] for pair in landmarks], np.float64) for side in (0, 1))
    if not (inside(ours, left.size).all() and inside(theirs, right.size).all()):
        raise BadInput("A marked point lies outside its photo. Mark it again.")
    if min(_height(ours), _height(theirs)) < _FLATTEST:
        raise BadInput("The marked points lie on one line. Mark one more, away from it.")
    by_hand = _homography(ours, theirs)
    if np.linalg.det(by_hand[:2, :2]) <= 0:
        raise BadInput("The marked points make RIGHT a mirror image of LEFT. Check that they are in the same order.")
    refined = align_from(
        left, right, by_hand, inliers=len(ours), matches=len(ours), method=f"{_METHOD}, block correlation, spline"
    )
    if refined.verdict == "aligned":
        return refined
    reason = f"Aligned by {len(ours)} points placed by hand; the skin between them could not be followed."
    flat = SkinMap(left.size, right.size, by_hand, Spline(left.size))
    return replace(refined, verdict="approximate", reasons=(reason,), skin_map=flat, method=_METHOD)


def _homography(ours: Points, theirs: Points) -> Homography:
    if len(ours) == 3:
        affine = cv2.getAffineTransform(ours.astype(np.float32), theirs.astype(np.float32))
        return np.vstack([affine, [0.0, 0.0, 1.0]])
    found, _ = cv2.findHomography(ours, theirs, 0)
    if found is None:
        raise BadInput("The marked points fit no camera. Mark them again.")
    return np.asarray(found, np.float64)


def _height(points: Points) -> float:
    """How far the points are from lying on one line: the ratio of their two principal extents."""
    extents = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return float(extents[1] / max(float(extents[0]), 1e-9))
