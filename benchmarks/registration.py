"""The alternatives that `benchmarks.compare` measures our comparison against, on the same pairs.

Each takes two BGR photos and gives a function from points of LEFT to points of RIGHT, or None when it finds nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np

from benchmarks.skin import Image, Points

Map = Callable[[Points], Points]
_WIDTH = 1000


def homography(detector: Any, norm: int, left: Image, right: Image) -> Map | None:
    """Key points, Lowe's ratio, USAC_MAGSAC: the plain way."""
    found = _plain(detector, norm, left, right)
    if found is None:
        return None
    scale = left.shape[1] / _WIDTH

    def mapped(points: Points) -> Points:
        copy = (points + 0.5) / scale - 0.5
        return (cv2.perspectiveTransform(copy[None], found)[0] + 0.5) * scale - 0.5

    return mapped


def orb(left: Image, right: Image) -> Map | None:
    """Plain ORB homography."""
    return homography(cv2.ORB.create(6000, fastThreshold=7), cv2.NORM_HAMMING, left, right)


def sift(left: Image, right: Image) -> Map | None:
    """Plain SIFT homography."""
    return homography(cv2.SIFT.create(6000, contrastThreshold=0.01), cv2.NORM_L2, left, right)


def dis(left: Image, right: Image) -> Map | None:
    """ORB homography, then dense optical flow (DIS) three times, held by the median of 16 x 12 blocks."""
    found = _plain(cv2.ORB.create(6000, fastThreshold=7), cv2.NORM_HAMMING, left, right)
    if found is None:
        return None
    scale = left.shape[1] / _WIDTH
    ours, theirs = _grey(left), _grey(right)
    height, width = ours.shape
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    seen = cv2.perspectiveTransform(np.stack([xs, ys], -1).reshape(1, -1, 2), found).reshape(height, width, 2)
    flow = np.zeros((height, width, 2), np.float32)
    engine = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    for _ in range(3):
        at = seen + flow
        moved = cv2.remap(theirs, at[..., 0], at[..., 1], cv2.INTER_LINEAR)
        flow = flow + engine.calc(_even(ours), _even(moved), None)
        blocks = np.array(
            [[np.median(b, axis=(0, 1)) for b in np.array_split(row, 16, axis=1)] for row in np.array_split(flow, 12)]
        )
        flow = cv2.resize(blocks.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    final = seen + flow

    def mapped(points: Points) -> Points:
        copy = ((points + 0.5) / scale - 0.5).astype(np.float32)
        at = cv2.remap(final, copy[:, 0], copy[:, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return (at.reshape(-1, 2).astype(np.float64) + 0.5) * scale - 0.5

    return mapped


def simpleitk(left: Image, right: Image) -> Map | None:
    """SIFT homography, then SimpleITK's B-spline registration (8 x 6, correlation metric)."""
    import SimpleITK as Itk

    found = _plain(cv2.SIFT.create(6000, contrastThreshold=0.01), cv2.NORM_L2, left, right)
    if found is None:
        return None
    scale = left.shape[1] / _WIDTH
    ours, theirs = _even(_grey(left)), _even(_grey(right))
    warped = cv2.warpPerspective(theirs, found, ours.shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    fixed, moving = (Itk.GetImageFromArray(one.astype(np.float32)) for one in (ours, warped))
    transform = Itk.BSplineTransformInitializer(fixed, [8, 6])
    method = Itk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.2, 1)
    method.SetOptimizerAsLBFGSB(numberOfIterations=60)
    method.SetInterpolator(Itk.sitkLinear)
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    method.SetInitialTransform(transform, True)
    spline = method.Execute(fixed, moving)

    def mapped(points: Points) -> Points:
        copy = (points + 0.5) / scale - 0.5
        moved = np.array([spline.TransformPoint((float(x), float(y))) for x, y in copy])
        return (cv2.perspectiveTransform(moved[None], found)[0] + 0.5) * scale - 0.5

    return mapped


def alternatives() -> dict[str, Callable[[Image, Image], Map | None]]:
    """By name; SimpleITK only where it is installed (`pip install 'dermbridge[benchmark]'`)."""
    known: dict[str, Callable[[Image, Image], Map | None]] = {"ORB": orb, "SIFT": sift, "ORB + DIS": dis}
    return known | ({"SIFT + SimpleITK": simpleitk} if find_spec("SimpleITK") else {})


def _plain(detector: Any, norm: int, left: Image, right: Image) -> Image | None:
    even = cv2.createCLAHE(3.0, (8, 8))
    (ours, bits), (theirs, other) = (detector.detectAndCompute(even.apply(_grey(one)), None) for one in (left, right))
    found = cv2.BFMatcher(norm).knnMatch(bits, other, 2)
    good = [best for best, second in found if best.distance < 0.8 * second.distance]
    if len(good) < 8:
        return None
    here = np.array([ours[one.queryIdx].pt for one in good])
    there = np.array([theirs[one.trainIdx].pt for one in good])
    cv2.setRNGSeed(0)
    return cv2.findHomography(here, there, cv2.USAC_MAGSAC, 4.0, maxIters=5000, confidence=0.999)[0]


def _grey(photo: Image) -> Image:
    size = (_WIDTH, round(photo.shape[0] * _WIDTH / photo.shape[1]))
    return cv2.resize(photo, size, interpolation=cv2.INTER_AREA)[..., 1]


def _even(grey: Image) -> Image:
    detail = grey.astype(np.float32) - cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 20)
    spread = np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), 20) + 1)
    return np.clip(detail / spread * 40 + 128, 0, 255).astype(np.uint8)
