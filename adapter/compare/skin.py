"""Which pixels may be compared, and what they look like without their light.

A dermatoscope's black rim and the reflections of its ring light stay where they are while the skin moves: left in, they
would say that nothing moved. Shading is taken out locally, since light differs from visit to visit and a global colour
correction makes changes harder to see, not easier (docs/compare.md).
"""

from __future__ import annotations

import cv2
import numpy as np

from adapter.compare.geometry import Mask, Picture, Plane

_DARK = 0.25
"""A rim is darker than this share of the photo's median, connected to the border, and not tiny."""
_CLIPPED = 248
_RIM_EDGE, _GLARE_EDGE = 0.03, 0.01
"""How far the penumbra of either reaches, of the longest edge."""
_SMALLEST_RIM = 0.002
_LOUDEST = 1.2
"""Texture is cut off here: hair and the edges of reflections are loud, and differ from visit to visit."""
_NOISE = 1.0
"""Variance, in squared grey levels, below which texture counts as noise."""


def usable(picture: Picture) -> Mask:
    """1 where skin can be seen: neither the rim of a dermatoscope nor a reflection, with a margin around both."""
    clipped = np.asarray(picture.min(axis=2) >= _CLIPPED, np.uint8)
    return np.asarray((_grown(rim(picture), _RIM_EDGE) | _grown(clipped, _GLARE_EDGE)) ^ 1, np.uint8)


def rim(picture: Picture) -> Mask:
    """1 where a dermatoscope's rim is: what is dark, not tiny, and reaches the border."""
    height, width = picture.shape[:2]
    brightest = picture.max(axis=2)
    dark = np.asarray(brightest < _DARK * np.median(brightest), np.uint8)
    found = np.zeros((height, width), np.uint8)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(dark)
    for label in range(1, count):
        x, y, w, h, area = boxes[label]
        if area > _SMALLEST_RIM * found.size and (x == 0 or y == 0 or x + w == width or y + h == height):
            found[labels == label] = 1
    return found


def texture(grey: Plane, mask: Mask, sigma: float) -> Plane:
    """The skin's texture: zero mean and unit variance within `sigma` pixels, limited, 0 where masked.

    Normalised convolution (Knutsson and Westin, CVPR 1993) keeps what the mask hides from leaking in.
    """
    weight = mask.astype(np.float32)
    near = smoothed(weight, sigma) + np.float32(1e-3)
    detail = (grey - smoothed(grey * weight, sigma) / near) * weight
    variance = smoothed(detail * detail, sigma) / near
    return np.asarray(np.clip(detail / np.sqrt(variance + np.float32(_NOISE)), -_LOUDEST, _LOUDEST), np.float32)


def _grown(mask: Mask, share: float) -> Mask:
    size = 2 * round(share * max(mask.shape)) + 1
    return np.asarray(cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))), np.uint8)


def smoothed(plane: Plane, sigma: float) -> Plane:
    """A Gaussian; a wide one on a smaller copy, which is as good and takes a fraction of the time."""
    factor = int(sigma / 3)
    if factor < 2:
        return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma), np.float32)
    height, width = plane.shape[:2]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    blurred = cv2.GaussianBlur(cv2.resize(plane, small, interpolation=cv2.INTER_AREA), (0, 0), sigma / factor)
    return np.asarray(cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
