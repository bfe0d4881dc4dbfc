"""Key points: ORB (Rublee et al., ICCV 2011) on the green channel, where blood and melanin both absorb.

Taken at two sizes: the fine one serves sharp photos, the coarse one finds moles and mottling where pores, hair and
light have changed between the visits (there it kept three times as many true matches).
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from adapter.compare.geometry import Mask, Points, Size, fitted, size_of, to_full

_LEVELS = ((500, 3000), (1000, 2000))
"""Longest edge, and how many points are kept."""
_SMALLEST = 128
"""ORB looks at copies 3.6 times smaller, with 31 pixels around each point."""
_RATIO = 0.85


class Features(NamedTuple):
    """`points` (n, 2) in full-resolution pixels, `descriptors` (n, 33): the size they were taken at, then 256 bits."""

    points: npt.NDArray[np.float32]
    descriptors: npt.NDArray[np.uint8]


def detect(green: npt.NDArray[np.uint8], mask: Mask, full: Size) -> Features:
    """The key points of a photo's green channel at working size."""
    points, descriptors = [np.empty((0, 2), np.float32)], [np.empty((0, 33), np.uint8)]
    even = cv2.createCLAHE(clipLimit=3.0, tileGridSize=(8, 8))
    for level, (edge, count) in enumerate(_LEVELS):
        size = fitted(size_of(green), edge)
        if min(size) < _SMALLEST:
            continue
        smaller = cv2.resize(green, size, interpolation=cv2.INTER_AREA)
        where = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
        orb = cv2.ORB.create(count, 1.2, 8, fastThreshold=7)
        found, bits = orb.detectAndCompute(even.apply(smaller), where)
        if found:
            points.append(to_full(np.array([one.pt for one in found]), size, full).astype(np.float32))
            descriptors.append(np.insert(bits, 0, level, axis=1))
    return Features(np.concatenate(points), np.concatenate(descriptors))


def match(left: Features, right: Features) -> tuple[Points, Points]:
    """Points of LEFT and RIGHT that look alike and look like nothing else (Lowe's ratio, IJCV 2004); equal lengths."""
    pairs: list[tuple[int, int]] = []
    matcher = cv2.BFMatcher(cv2.NORM_HAMMING)
    for level in range(len(_LEVELS)):
        ours, theirs = (np.flatnonzero(one.descriptors[:, 0] == level) for one in (left, right))
        if len(ours) < 2 or len(theirs) < 2:
            continue
        found = matcher.knnMatch(left.descriptors[ours, 1:], right.descriptors[theirs, 1:], 2)
        pairs += [
            (int(ours[best.queryIdx]), int(theirs[best.trainIdx]))
            for best, second in found
            if best.distance < _RATIO * second.distance
        ]
    chosen = np.array(pairs, np.intp).reshape(-1, 2)
    return left.points[chosen[:, 0]].astype(np.float64), right.points[chosen[:, 1]].astype(np.float64)
