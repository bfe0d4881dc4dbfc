"""Points and pictures: where a pixel of a smaller copy lies in the photo itself.

Every map of this room goes from the upright LEFT to the upright RIGHT at full resolution, the centre of the first pixel
being (0, 0). A copy of n pixels across a photo W wide covers it exactly, so that full = (copy + 0.5) * W / n - 0.5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
"""(n, 2): x, y."""
Plane = npt.NDArray[np.float32]
"""(height, width): one value per pixel."""
Mask = npt.NDArray[np.uint8]
"""(height, width): 1 where a pixel may be used."""
Picture = npt.NDArray[np.uint8]
"""(height, width, 3): sRGB, red first."""
Homography = npt.NDArray[np.float64]
Size = tuple[int, int]
"""Width, height."""


def size_of(image: npt.NDArray[Any]) -> Size:
    """Width and height of an array of rows."""
    return image.shape[1], image.shape[0]


def fitted(size: Size, edge: int) -> Size:
    """The size of a copy whose longest edge is at most `edge`."""
    scale = min(1.0, edge / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def to_full(points: npt.NDArray[Any], copy: Size, full: Size) -> Points:
    """Points of a copy as points of the photo."""
    return np.asarray((points + 0.5) * (full[0] / copy[0], full[1] / copy[1]) - 0.5, np.float64)


def to_copy(points: npt.NDArray[Any], copy: Size, full: Size) -> Points:
    """Points of the photo as points of a copy."""
    return to_full(points, full, copy)


def projected(homography: Homography, points: Points) -> Points:
    """Points seen through a homography (Hartley and Zisserman, Multiple View Geometry, 2.3)."""
    lifted = points @ homography[:, :2].T + homography[:, 2]
    return np.asarray(lifted[:, :2] / lifted[:, 2:], np.float64)


def inside(points: Points, size: Size) -> npt.NDArray[np.bool_]:
    """Which points lie on a photo's pixels."""
    return np.asarray(((points >= -0.5) & (points <= np.array(size) - 0.5)).all(axis=1))
