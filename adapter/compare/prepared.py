"""What one photo brings to a comparison: its pixels at working size, which of them show skin, and its key points.

Made once per photo and kept by the caller if it likes: a second comparison then needs no decoding. The bytes of
`to_bytes` show the photo: keep them in memory or sealed, never in the clear on disk.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from zipfile import BadZipFile

import numpy as np

from adapter.capture.inspection import MAX_PIXELS
from adapter.capture.renditions import upright
from adapter.compare.features import Features, detect
from adapter.compare.geometry import Mask, Picture, Size
from adapter.compare.skin import usable
from adapter.errors import BadInput

EDGE = 1000
"""Longest edge at work: measured, more pixels cost time and gain nothing (docs/compare.md)."""
_LAYOUT = 1


@dataclass(frozen=True, slots=True)
class Prepared:
    """`size` is the upright photo's, in full-resolution pixels; `picture` and `mask` are at working size."""

    size: Size
    picture: Picture
    mask: Mask
    features: Features

    def to_bytes(self) -> bytes:
        """For a cache; `from_bytes` is the way back."""
        content = io.BytesIO()
        np.savez(
            content,
            layout=np.array(_LAYOUT),
            size=np.array(self.size),
            picture=self.picture,
            mask=np.packbits(self.mask),
            points=self.features.points,
            descriptors=self.features.descriptors,
        )
        return content.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Prepared:
        """Raises BadInput for what another version has written: prepare the photo again."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as kept:
                if int(kept["layout"]) != _LAYOUT:
                    raise BadInput("This cached photo was prepared by another version. Prepare it again.")
                picture = kept["picture"]
                mask = np.unpackbits(kept["mask"], count=picture.shape[0] * picture.shape[1])
                width, height = (int(edge) for edge in kept["size"])
                features = Features(kept["points"], kept["descriptors"])
                return cls((width, height), picture, mask.reshape(picture.shape[:2]), features)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise BadInput("This is no cached photo, or a damaged one. Prepare it again.") from error


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
