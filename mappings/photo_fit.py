"""A photo made to fit a destination: re-encoded as JPEG only where it must be, otherwise its very bytes.

Decoding happens only for photos that were inspected on receipt. What is re-encoded keeps its ICC profile and loses all
other metadata; it is the caller's to say that the result is derived.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Final

from PIL import Image, ImageOps, UnidentifiedImageError

JPEG: Final = "image/jpeg"
HEIC_TYPES: Final = frozenset({"image/heic", "image/heif"})
_QUALITIES: Final = (92, 85, 78, 70)
_ORIENTATION: Final = 0x0112  # EXIF 2.32, table 4
_SMALLEST_EDGE: Final = 640  # pixels; a smaller clinical photo is no use to anybody


class CannotFit(ValueError):
    """The photo cannot be made to fit; the message says why."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What the header of a JPEG says. `width` and `height` are those of the stored pixels, before `orientation`.

    `orientation` is EXIF's 1 to 8; `is_baseline` is true for sequential Huffman coding with 8 bits (SOF0, SOF1), which
    is what DICOM's and PDF's readers know; `is_ycc` whether three components are YCbCr.
    """

    width: int
    height: int
    orientation: int
    components: int
    is_baseline: bool
    is_extended: bool
    is_ycc: bool
    icc_profile: bytes | None


def read_jpeg(content: bytes) -> Picture:
    """Read the header without decoding. Raises CannotFit when it is no JPEG."""
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as opened:
            image: Any = opened  # the JPEG plug-in's own attributes are not typed
            ids = [layer[0] for layer in image.layer]
            marker = _frame_marker(content)
            return Picture(
                width=image.width,
                height=image.height,
                orientation=int(image.getexif().get(_ORIENTATION, 1)) or 1,
                components=image.layers,
                is_baseline=marker in {0xC0, 0xC1} and image.bits == 8,
                is_extended=marker == 0xC1,
                # T.871 and Adobe TN 5116: the Adobe marker decides, then JFIF, then the component ids.
                is_ycc=image.layers == 3 and image.info.get("adobe_transform", 1 if ids != [82, 71, 66] else 0) == 1,
                icc_profile=image.info.get("icc_profile"),
            )
    except (UnidentifiedImageError, OSError, ValueError, IndexError) as error:
        raise CannotFit("The photo is no JPEG that can be read.") from error


def _frame_marker(content: bytes) -> int:
    """The start-of-frame marker (ITU-T T.81 table B.1)."""
    at = 2
    while at + 4 <= len(content):
        if content[at] != 0xFF:
            break
        marker = content[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            return marker
        at += 1 if marker == 0xFF else 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    raise ValueError("no frame")


def as_jpeg(
    content: bytes,
    content_type: str,
    *,
    max_bytes: int | None = None,
    max_edge: int | None = None,
    baseline: bool = False,
    upright: bool = False,
) -> bytes:
    """`content` as a JPEG within the limits; the very same bytes when it is one already.

    `max_edge` is in pixels of the longer side; `baseline` and `upright` ask for sequential coding in at most three
    components and for pixels that need no EXIF orientation. Raises CannotFit when even small is too large.
    """
    limit = max_bytes or len(content) + 1
    if content_type == JPEG and len(content) <= limit:
        picture = read_jpeg(content)
        fits = max_edge is None or max(picture.width, picture.height) <= max_edge
        flat = not baseline or (picture.is_baseline and picture.components in {1, 3})
        if fits and flat and (not upright or picture.orientation == 1):
            return content
    image, icc = _decoded(content, content_type)
    limit = max_bytes or 1 << 62
    edge = min(max(image.size), max_edge or max(image.size))
    while True:
        for quality in _QUALITIES:
            written = _encoded(image, edge, quality, icc)
            if len(written) <= limit:
                return written
        if edge <= _SMALLEST_EDGE:
            raise CannotFit(f"The photo does not fit into {limit} bytes without losing what it shows.")
        edge = max(_SMALLEST_EDGE, edge * 3 // 4)


def _decoded(content: bytes, content_type: str) -> tuple[Image.Image, bytes | None]:
    try:
        if content_type in HEIC_TYPES:
            import pillow_heif

            image = pillow_heif.read_heif(content).to_pillow()
        else:
            image = Image.open(io.BytesIO(content))
        icc = image.info.get("icc_profile") if image.mode != "CMYK" else None
        turned = ImageOps.exif_transpose(image)
        return turned.convert("L" if turned.mode == "L" else "RGB"), icc
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise CannotFit("The photo cannot be decoded.") from error


def _encoded(image: Image.Image, edge: int, quality: int, icc: bytes | None) -> bytes:
    if max(image.size) > edge:
        ratio = edge / max(image.size)
        size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, subsampling="4:2:2", icc_profile=icc)
    return out.getvalue()
