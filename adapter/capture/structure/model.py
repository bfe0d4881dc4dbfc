"""What a structural walk finds, and the checks every walk shares.

A walk reads headers and tables only, never pixels: it proves that the file is complete, knows the picture's size
before any decoder allocates for it, and says which bytes make up the clean copy.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from adapter.capture.exif import ExifFacts
from adapter.capture.formats import ImageFormat
from adapter.errors import TooLarge, Unprocessable
from adapter.records.clean_view import CleanView

MAX_EDGE = 65_535
TRAILER = "data after the picture"


@dataclass(frozen=True, slots=True)
class Structure:
    """`width` and `height` are pixels as stored, before `orientation` (1..8, TIFF 6.0 tag 274) turns them upright."""

    width: int
    height: int
    orientation: int
    exif: bytes | None
    facts: ExifFacts
    has_icc: bool
    dropped: tuple[str, ...]
    view: CleanView


def truncated(format_: ImageFormat, reason: str) -> Unprocessable:
    return Unprocessable(f"This {format_.label} photo is truncated: {reason}. Send the complete file again.")


def malformed(format_: ImageFormat, reason: str) -> Unprocessable:
    return Unprocessable(f"This {format_.label} photo is damaged: {reason}. Export it again from its source.")


def animated(format_: ImageFormat, reason: str) -> Unprocessable:
    return Unprocessable(f"This {format_.label} file holds {reason}; send each photo as a file of its own.")


def unpack(format_: ImageFormat, layout: str, data: bytes, at: int) -> tuple[Any, ...]:
    """`struct.unpack_from`, with an end of file inside the field told as truncation."""
    try:
        return struct.unpack_from(layout, data, at)
    except struct.error as error:
        raise truncated(format_, f"it ends inside a header at byte {min(at, len(data))}") from error


def check_pixels(format_: ImageFormat, width: int, height: int, max_pixels: int) -> None:
    """Refuses empty pictures (Unprocessable) and decompression bombs (TooLarge), from the declared size alone."""
    if width < 1 or height < 1:
        raise malformed(format_, f"its header declares {width} x {height} pixels")
    if width * height > max_pixels or max(width, height) > MAX_EDGE:
        raise TooLarge(
            f"This {format_.label} file declares {width} x {height} pixels, over the limit of "
            f"{max_pixels // 1_000_000} megapixels. Send a smaller version."
        )
