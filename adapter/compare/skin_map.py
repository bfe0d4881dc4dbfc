"""Where each point of LEFT is in RIGHT: a homography for the camera after a spline for the skin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from adapter.compare.geometry import Homography, Plane, Points, Size, projected, to_full
from adapter.compare.spline import Spline


@dataclass(frozen=True, slots=True)
class SkinMap:
    """LEFT to RIGHT, both upright and at full resolution."""

    left: Size
    right: Size
    homography: Homography
    spline: Spline

    def to_right(self, points: Points) -> Points:
        """(n, 2) points of LEFT -> (n, 2) points of RIGHT, which may lie outside it."""
        return projected(self.homography, points + self.spline.at(points))

    def to_left(self, points: Points) -> Points:
        """The way back, by fixed-point iteration: the spline moves neighbours by almost the same."""
        flat = projected(np.asarray(np.linalg.inv(self.homography), np.float64), points)
        found = flat
        for _ in range(12):
            found = flat - self.spline.at(np.clip(found, -0.5, np.array(self.left) - 0.5))
        return found

    def stretch(self, points: Points, step: float = 1.0) -> npt.NDArray[np.float64]:
        """(n, 2, 2): the derivative of `to_right`. Its determinant is negative where the map folds or mirrors."""
        right, down = np.array([step, 0]), np.array([0, step])
        dx = self.to_right(points + right) - self.to_right(points - right)
        dy = self.to_right(points + down) - self.to_right(points - down)
        return np.stack([dx, dy], axis=-1) / (2 * step)

    def as_json(self) -> dict[str, Any]:
        """`homography`: 3 x 3, row by row, LEFT to RIGHT in full-resolution pixels; `bend_px`: the most that the skin
        moves away from it, in LEFT's pixels."""
        across, down = (np.linspace(0, edge - 1, 33) for edge in self.left)
        bend = self.spline.at(np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2))
        scaled = self.homography / self.homography[2, 2]
        return {"homography": scaled.tolist(), "bend_px": round(float(np.linalg.norm(bend, axis=1).max()), 2)}

    def lookup(self, left_copy: Size, right_copy: Size) -> tuple[Plane, Plane]:
        """For cv2.remap: the pixel of a copy of RIGHT that each pixel of a copy of LEFT shows."""
        (across, down), (moved_x, moved_y) = left_copy, self.spline.on_grid(left_copy)
        ends = to_full(np.array([[0, 0], [across - 1, down - 1]]), left_copy, self.left)
        x = np.linspace(ends[0, 0], ends[1, 0], across, dtype=np.float32) + moved_x
        y = np.linspace(ends[0, 1], ends[1, 1], down, dtype=np.float32)[:, None] + moved_y
        scale_x, scale_y = np.float32(right_copy[0] / self.right[0]), np.float32(right_copy[1] / self.right[1])
        h, half = self.homography.astype(np.float32), np.float32(0.5)
        depth = h[2, 0] * x + h[2, 1] * y + h[2, 2]
        seen_x = ((h[0, 0] * x + h[0, 1] * y + h[0, 2]) / depth + half) * scale_x - half
        seen_y = ((h[1, 0] * x + h[1, 1] * y + h[1, 2]) / depth + half) * scale_y - half
        return seen_x, seen_y


def warped(image: npt.NDArray[np.uint8], where: tuple[Plane, Plane]) -> npt.NDArray[np.uint8]:
    """RIGHT in the frame of LEFT; black where RIGHT does not reach."""
    seen = cv2.remap(image, where[0], where[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(seen, np.uint8)
