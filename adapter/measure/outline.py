"""The outline of a lesion from one point on it: where its colour gives way to that of the skin around.

Every pixel is asked how far it is from the skin's colour towards the lesion's (CIELAB, projected on the line between
both). Where that is one half is the edge: a blurred or soft edge has it in the same place as a sharp one, so that the
area has no bias. Measured against GrabCut and k-means on the same drawn lesions in benchmarks/measure.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from adapter.compare.geometry import Mask, Picture, Plane, Points, Size, fitted, size_of, to_copy, to_full
from adapter.compare.prepared import EDGE
from adapter.compare.skin import usable
from adapter.errors import Unprocessable

_LEAST_CONTRAST = 5.0
"""CIELAB units between lesion and skin, and no less than `_NOISES` times what skin alone differs by."""
_NOISES = 3.0
_SEED = 0.006
"""Radius of the seed, of the longest edge; the first window is this many times larger, then grows."""
_WINDOWS = (6, 9, 13, 19, 28, 40, 60)
_DETAIL = 500
"""Longest edge of the crop worked on."""
_PASSES = 4
_SEEN_OF_RING = 0.4
"""How much of the ring around the lesion must show skin."""
_HAIR = 9
"""Pixels: what is thinner, and darker than both its sides by `_DARKER` of the skin's brightness, is hair."""
_DARKER = 0.1
_NEAR = 0.2
_SPUR = 0.15
"""Of the lesion's radius: half of how thin something may be and still belong to it."""
_SMOOTH = 0.02
_TOLERANCE = 0.0025
"""Of the outline's length: how far its corners may be from the edge found."""

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Outline:
    """`points` (n, 2) in photo pixels; `edge` is how many pixels its edge is wide; `contrast` in CIELAB units."""

    points: Points
    edge: float
    contrast: float


def draw_outline(picture: Picture, full: Size, point: Points, *, avoid: Mask | None = None) -> Outline:
    """Around what is at `point` (1, 2; photo pixels). `avoid` is 1 where there is no skin, such as a card.

    Raises Unprocessable, saying what to do, where lesion and skin differ too little or the lesion leaves the photo.
    """
    copy = size_of(picture)
    x, y = to_copy(point, copy, full)[0]
    if not (0 <= x < copy[0] and 0 <= y < copy[1]):
        raise Unprocessable("This point is outside the photo.")
    skin = skin_mask(picture)
    if avoid is not None:
        skin = np.asarray(skin & (1 - avoid), np.uint8)
    seed = _SEED * max(copy)
    refusal = Unprocessable("Nothing here stands out from the skin around it.")
    for window in _WINDOWS:
        reach = round(seed * window)
        left, top = max(0, round(x) - reach), max(0, round(y) - reach)
        right, bottom = min(copy[0], round(x) + reach + 1), min(copy[1], round(y) + reach + 1)
        crop = _Crop(picture[top:bottom, left:right], skin[top:bottom, left:right], (x - left, y - top))
        try:
            found = crop.outline(seed)
        except Unprocessable as why:
            refusal = why
            continue
        points = to_full(found.points + np.array([left, top]), copy, full)
        return Outline(points, found.edge * full[0] / copy[0], found.contrast)
    raise Unprocessable(f"{refusal} Draw the outline by hand.")


def skin_mask(picture: Picture) -> Mask:
    """1 where skin can be seen, found on a smaller copy."""
    copy = size_of(picture)
    small = np.asarray(cv2.resize(picture, fitted(copy, EDGE), interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.resize(usable(small), copy, interpolation=cv2.INTER_NEAREST), np.uint8)


class _Crop:
    """What lies around the seed, at a size that shows the edge well."""

    def __init__(self, picture: Picture, skin: Mask, seed: tuple[float, float]) -> None:
        factor = min(4.0, _DETAIL / max(picture.shape))
        size = (max(8, round(picture.shape[1] * factor)), max(8, round(picture.shape[0] * factor)))
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        shown = np.asarray(cv2.resize(_without_hair(picture), size, interpolation=how), np.uint8)
        self.scale = size[0] / picture.shape[1]
        self.lab = np.asarray(cv2.cvtColor(shown.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)
        self.valid = cv2.resize(skin, size, interpolation=cv2.INTER_NEAREST) > 0
        self.seed = ((seed[0] + 0.5) * self.scale - 0.5, (seed[1] + 0.5) * self.scale - 0.5)

    def outline(self, radius: float) -> Outline:
        """In pixels of the picture; the seed has this radius. Raises Unprocessable with what is the matter."""
        inside, outside = self._first_guess(radius * self.scale / 2)
        for _ in range(_PASSES):
            share, contrast = self._share(inside, outside)
            blob = _blob(share, self.valid, self.seed)
            if not blob.any():
                raise Unprocessable("Nothing here stands out from the skin around it.")
            near = max(3.0, 0.25 * np.sqrt(blob.sum() / np.pi))
            beyond, within = (cv2.distanceTransform(one, cv2.DIST_L2, 3) for one in (1 - blob, blob))
            ring = (beyond > near) & (beyond <= 3 * near)
            inside, outside = (within > near / 2) if (within > near / 2).any() else blob > 0, ring & self.valid
            if outside.sum() < _SEEN_OF_RING * ring.sum() or not outside.any():
                raise Unprocessable("Too little of the skin around it can be seen.")
        if _leaves(blob, near):
            raise Unprocessable("It does not end within the photo.")
        blob = _without_spurs(blob)
        edge = _edge_width(share, self.valid, self.seed, blob)
        return Outline((_contour(blob, share) + 0.5) / self.scale - 0.5, edge / self.scale, contrast)

    def _first_guess(self, radius: float) -> tuple[Flags, Flags]:
        """The seed is lesion, and what is nearly as far away as the crop reaches is skin."""
        rows, columns = np.ogrid[: self.valid.shape[0], : self.valid.shape[1]]
        away = np.hypot(columns - self.seed[0], rows - self.seed[1])
        reach = min(away[0].min(), away[-1].min(), away[:, 0].min(), away[:, -1].min())
        inside, outside = self.valid & (away <= max(2.0, radius)), self.valid & (away > 0.8 * reach)
        if not inside.any() or outside.sum() < 0.05 * outside.size:
            raise Unprocessable("There is a reflection, or too little skin, around this point.")
        return inside, outside

    def _share(self, inside: Flags, outside: Flags) -> tuple[Plane, float]:
        """How far each pixel is from the colour of the skin (0) to that of the lesion (1), and their contrast."""
        lesion, skin = np.median(self.lab[inside], axis=0), np.median(self.lab[outside], axis=0)
        contrast = float(np.linalg.norm(lesion - skin))
        share = cv2.GaussianBlur((self.lab - skin) @ ((lesion - skin) / max(contrast, 1e-6) ** 2), (0, 0), 1.2)
        noise = 1.4826 * float(np.median(np.abs(share[outside] - np.median(share[outside])))) * contrast
        if contrast < max(_LEAST_CONTRAST, _NOISES * noise):
            raise Unprocessable("It differs too little in colour from the skin around it.")
        return np.asarray(share, np.float32), contrast


def _blob(share: Plane, valid: Flags, seed: tuple[float, float], level: float = 0.5) -> Mask:
    """What is connected to the seed and at least `level` of the way to the lesion's colour, without its holes; all 0
    where nothing is."""
    above = np.asarray((share >= level) & valid, np.uint8)
    count, labels = cv2.connectedComponents(cv2.morphologyEx(above, cv2.MORPH_OPEN, _disc(2)))
    column, row = round(seed[0]), round(seed[1])
    around = labels[max(0, row - 4) : row + 5, max(0, column - 4) : column + 5]
    names = around[around > 0]
    if count < 2 or not names.size:
        return np.zeros(share.shape, np.uint8)
    blob = np.asarray(labels == np.bincount(names).argmax(), np.uint8)
    contours, _ = cv2.findContours(blob, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(np.zeros_like(blob), contours, -1, 1, cv2.FILLED), np.uint8)


def _without_spurs(blob: Mask) -> Mask:
    """Without what is too thin to belong to it: hairs that touch it."""
    opened = cv2.morphologyEx(blob, cv2.MORPH_OPEN, _disc(_SPUR * np.sqrt(blob.sum() / np.pi)))
    contours, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return blob
    kept = max(contours, key=cv2.contourArea)
    return np.asarray(cv2.drawContours(np.zeros_like(blob), [kept], -1, 1, cv2.FILLED), np.uint8)


def _contour(blob: Mask, share: Plane) -> Points:
    """The blob's border, each point moved along the gradient to where the share is one half; then thinned."""
    contours, _ = cv2.findContours(blob, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    border = max(contours, key=cv2.contourArea).reshape(-1, 2)
    smooth = cv2.GaussianBlur(share, (0, 0), 1.0)
    dx, dy = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8)
    at = (border[:, 1], border[:, 0])
    steep = dx[at] ** 2 + dy[at] ** 2
    step = np.where(steep > 1e-6, (0.5 - smooth[at]) / np.maximum(steep, 1e-6), 0.0)
    move = np.stack([dx[at] * step, dy[at] * step], axis=1)
    far = np.hypot(*move.T)[:, None]
    exact = np.asarray(border + np.where(far > 1.5, 0.0, move), np.float64)
    closed = _smoothed(exact).astype(np.float32)[:, None]
    thinned = cv2.approxPolyDP(closed, _TOLERANCE * cv2.arcLength(closed, closed=True), closed=True)
    return np.asarray(thinned.reshape(-1, 2), np.float64)


def _smoothed(points: Points) -> Points:
    """A closed curve without the bites of hairs: each point the mean of its neighbours along `_SMOOTH` of the curve."""
    reach = max(1, round(_SMOOTH * len(points)))
    weights = np.hanning(2 * reach + 3)[1:-1]
    around = np.concatenate([points[-reach:], points, points[:reach]])
    return np.stack([np.convolve(around[:, axis], weights / weights.sum(), "valid") for axis in (0, 1)], axis=1)


def _edge_width(share: Plane, valid: Flags, seed: tuple[float, float], blob: Mask) -> float:
    """Half of how far the outline goes out or in when the edge is taken to be at 0.35 or 0.65 instead of one half; what
    is further away than `_NEAR` of the radius is something else of that colour."""
    radius = np.sqrt(max(1, int(blob.sum())) / np.pi)
    here = cv2.distanceTransform(1 - blob, cv2.DIST_L2, 3) <= _NEAR * radius
    areas = [int((_blob(share, valid, seed, level)[here]).sum()) for level in (0.35, 0.65)]
    outer, inner = (np.sqrt(max(1, area) / np.pi) for area in areas)
    return float(max(0.5, min((outer - inner) / 2, radius / 3)))


def _without_hair(picture: Picture) -> Picture:
    """Thin dark lines, found as DullRazor does (Lee et al., Comput Biol Med 1997), filled with what is beside them."""
    kernel = np.ones((1, _HAIR), np.uint8)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    across, along = (cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, one) for one in (kernel, kernel.T))
    dark = np.asarray(np.maximum(across, along) > max(5.0, _DARKER * float(np.median(grey))), np.uint8)
    if not dark.any():
        return picture
    hair = cv2.dilate(dark, _disc(3))
    seen = 1 - hair.astype(np.float32)
    weight = np.maximum(cv2.GaussianBlur(seen, (0, 0), _HAIR / 2), 1e-3)
    beside = cv2.GaussianBlur(picture * seen[..., None], (0, 0), _HAIR / 2) / weight[..., None]
    return np.where(hair[..., None] > 0, beside.clip(0, 255), picture).astype(np.uint8)


def _leaves(blob: Mask, margin: float) -> bool:
    """Whether it comes near the border, where more of it may be."""
    edge = max(1, round(margin))
    return bool(blob[:edge].any() or blob[-edge:].any() or blob[:, :edge].any() or blob[:, -edge:].any())


def _disc(radius: float) -> Mask:
    size = 2 * max(1, round(radius)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)), np.uint8)
