"""Pictures of a comparison, for people: all in LEFT's frame, at working size, without metadata."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from adapter.capture.renditions import upright
from adapter.compare.alignment import Alignment
from adapter.compare.changes import Change
from adapter.compare.geometry import Picture, fitted, size_of
from adapter.compare.skin_map import warped
from adapter.errors import Unprocessable

_QUALITY = 90
_NOT_ALIGNED = "These photos are not aligned, so there is no aligned picture. Compare side by side."
WHOLE = 4096
"""Longest edge of the picture in tiles: all of 12 megapixels, and the memory of the map stays bounded."""


def aligned_jpeg(alignment: Alignment) -> bytes:
    """RIGHT moved onto LEFT, its colours untouched; black where it does not reach."""
    return _jpeg(_aligned(alignment))


def aligned_whole(alignment: Alignment, right: bytes, *, max_pixels: int) -> Image.Image:
    """RIGHT, whose file is `right`, moved onto LEFT in all its pixels, but no wider or higher than `WHOLE`."""
    whole = np.asarray(upright(right, WHOLE, max_pixels=max_pixels)[0])
    return Image.fromarray(moved(alignment, whole, WHOLE))


def moved(alignment: Alignment, right: Picture, edge: int) -> Picture:
    """A copy of RIGHT, of any size, moved onto LEFT; its longest edge is at most `edge`, black where it does not reach.

    Raises Unprocessable where they are not aligned.
    """
    if alignment.skin_map is None:
        raise Unprocessable(_NOT_ALIGNED)
    frame = fitted(alignment.left.size, edge)
    return warped(right, alignment.skin_map.lookup(frame, size_of(right)))


def overlay_jpeg(alignment: Alignment) -> bytes:
    """LEFT in red, RIGHT in green and blue: grey where they coincide, fringes where they do not."""
    ours, theirs = (cv2.cvtColor(one, cv2.COLOR_RGB2GRAY) for one in (alignment.left.picture, _aligned(alignment)))
    return _jpeg(np.stack([ours, theirs, theirs], axis=-1).astype(np.uint8))


def change_png(alignment: Alignment, change: Change) -> bytes:
    """The change map over LEFT in grey, the regions boxed; grey hatching is left to pages."""
    grey = cv2.cvtColor(alignment.left.picture, cv2.COLOR_RGB2GRAY)
    heat = cv2.applyColorMap(
        np.clip(change.difference / (3 * change.threshold) * 255, 0, 255).astype(np.uint8), cv2.COLORMAP_INFERNO
    )[..., ::-1]
    share = np.clip(change.difference / (2 * change.threshold), 0, 0.85)[..., None]
    picture = (grey[..., None] * (1 - share) + heat * share).astype(np.uint8)
    picture = np.ascontiguousarray(picture)
    scale = picture.shape[1] / alignment.left.size[0]
    for region in change.regions:
        x, y, width, height = (round(edge * scale) for edge in region.box)
        cv2.rectangle(picture, (x - 2, y - 2), (x + width + 2, y + height + 2), (255, 255, 255), 1, cv2.LINE_AA)
    return _encoded(".png", picture)


def _aligned(alignment: Alignment) -> Picture:
    return moved(alignment, alignment.right.picture, max(size_of(alignment.left.picture)))


def _jpeg(picture: Picture) -> bytes:
    return _encoded(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])


def _encoded(suffix: str, picture: npt.NDArray[np.uint8], options: list[int] | None = None) -> bytes:
    _, content = cv2.imencode(suffix, np.ascontiguousarray(picture[..., ::-1]), options or [])
    return bytes(content)
