"""What one photo brings to a comparison: its pixels at working size, which of them show skin, and its key points.

Made once per photo and kept in memory by the caller if it likes: a second comparison then needs no decoding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adapter.capture.inspection import MAX_PIXELS
from adapter.capture.renditions import upright
from adapter.compare.features import Features, detect
from adapter.compare.geometry import Mask, Picture, Size
from adapter.compare.skin import usable

EDGE = 1000
"""Longest edge at work: measured, more pixels cost time and gain nothing (docs/compare.md)."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """`size` is the upright photo's, in full-resolution pixels; `picture` and `mask` are at working size."""

    size: Size
    picture: Picture
    mask: Mask
    features: Features


def prepare(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Prepared:
    """Decodes a photo file, upright and in sRGB (phones record Display P3), at working size.

    Raises what `capture.renditions.upright` raises: UnsupportedMedia, Unprocessable, TooLarge.
    """
    image, found = upright(data, EDGE, max_pixels=max_pixels)
    return prepare_pixels(np.asarray(image), (found.width, found.height))


def prepare_pixels(picture: Picture, size: Size) -> Prepared:
    """From sRGB pixels at working size, of an upright photo of `size`."""
    mask = usable(picture)
    return Prepared(size, picture, mask, detect(picture[..., 1], mask, size))
