"""One structural walk per format, behind one name."""

from __future__ import annotations

from collections.abc import Callable

from adapter.capture.formats import ImageFormat
from adapter.capture.structure import heic, jpeg, png, tiff, webp
from adapter.capture.structure.model import Structure

_WALKS: dict[ImageFormat, Callable[[bytes, int], Structure]] = {
    ImageFormat.JPEG: jpeg.walk,
    ImageFormat.PNG: png.walk,
    ImageFormat.HEIC: heic.walk,
    ImageFormat.WEBP: webp.walk,
    ImageFormat.TIFF: tiff.walk,
}

__all__ = ["Structure", "walk"]


def walk(format_: ImageFormat, data: bytes, max_pixels: int) -> Structure:
    """Walks a file without decoding a pixel.

    Raises Unprocessable (truncated, damaged, several pictures), TooLarge (more than `max_pixels`) or UnsupportedMedia
    (a variant that is not a photo).
    """
    return _WALKS[format_](data, max_pixels)
