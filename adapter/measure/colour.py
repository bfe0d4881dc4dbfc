"""Colour in CIELAB (D65), inside a lesion and around it, and the card's correction of camera and light.

The correction is fitted in linear light on the card's patches: a 3 x 3 matrix, or root polynomials of degree 2, which
do not depend on the exposure (Finlayson, Mackiewicz and Hurlbert, IEEE TIP 2015). Whichever predicts patches it has not
seen better is used; that error, per patch left out, is its uncertainty. It serves figures and comparison only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from adapter.compare.geometry import Mask, Picture, Points, Size, size_of, to_copy
from adapter.errors import Unprocessable
from adapter.measure.card import SeenCard
from adapter.measure.measures import Measure
from mappings.calibration_card import PATCHES

_WORST = 6.0
"""CIELAB units: a correction that misses patches by more is none; light is uneven, or the print is not true."""
_SECTORS = 8
_RING = (0.15, 0.6)
"""From where to where the skin around is taken, in radii of the lesion beyond its edge."""
_WEIGHTS = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])
"""IEC 61966-2-1: linear sRGB -> XYZ, and its white."""

Colours = npt.NDArray[np.float64]
"""(..., 3)."""
Terms = Callable[[Colours], Colours]


@dataclass(frozen=True)
class Correction:
    """`weights` (terms, 3) take the terms of linear sRGB to linear sRGB; `residual` is the mean CIELAB difference of a
    patch that had no part in the fit."""

    terms: str
    weights: Colours
    residual: float

    def corrected(self, picture: Picture) -> Picture:
        """The whole picture, sRGB."""
        light = _LIGHT_OF[picture].reshape(-1, 3)
        return (
            (255 * _encoded(_TERMS[self.terms](light) @ self.weights)).round().astype(np.uint8).reshape(picture.shape)
        )


def fit_correction(card: SeenCard) -> Correction:
    """Raises Unprocessable, saying what to do, where the card cannot tell the colours of this photo."""
    if card.clipped:
        raise Unprocessable(
            f"The card's {', '.join(card.clipped)} is too bright or too dark in this photo to tell its colours. "
            "Photograph again with other light or exposure."
        )
    seen, true = linear(card.patches / 255), linear(np.array([one.srgb for one in PATCHES]) / 255)
    fits = [
        Correction(name, _fitted(terms(seen), true), _left_out(terms(seen), true)) for name, terms in _TERMS.items()
    ]
    best = min(fits, key=lambda one: one.residual)
    if best.residual > _WORST:
        raise Unprocessable(
            f"The card's colours do not fit together ({best.residual:.1f} CIELAB units apart). Light the card evenly, "
            "without reflections, and use a card printed true to colour."
        )
    return best


def measure_colour(
    picture: Picture, full: Size, outline: Points, skin: Mask, correction: Correction | None
) -> list[Measure]:
    """Mean L*, a*, b* inside the outline (photo pixels), around it, and their difference dE*ab (CIE 1976).

    `skin` is 1 where a pixel may be used. The uncertainty is that of a mean of eight sectors, and the correction's;
    without a correction that of camera and light is not known, and not in it. [] where too little skin can be seen.
    """
    inside, around, angle = _parts(to_copy(outline, size_of(picture), full), picture, skin)
    if inside.sum() < 30 or around.sum() < 30:
        return []
    sampled = {name: picture[part] for name, part in (("inside", inside), ("around", around))}
    if correction is not None:
        sampled = {name: correction.corrected(colours[:, None])[:, 0] for name, colours in sampled.items()}
    lab = {name: lab_of(linear(colours / 255)) for name, colours in sampled.items()}
    sectors = {name: _by_sector(lab[name], angle[part]) for name, part in (("inside", inside), ("around", around))}
    lost = correction.residual if correction else 0.0
    found = [
        Measure(
            f"{name}-{axis}", float(lab[name][:, n].mean()), float(np.hypot(_of_mean(sectors[name][:, n]), lost)), "1"
        )
        for name in lab
        for n, axis in enumerate(("l", "a", "b"))
    ]
    apart = np.linalg.norm(lab["inside"].mean(axis=0) - lab["around"].mean(axis=0))
    apart_by_sector = np.linalg.norm(sectors["inside"] - sectors["around"], axis=1)
    return [*found, Measure("contrast", float(apart), float(np.hypot(_of_mean(apart_by_sector), lost / 2)), "1")]


def linear(encoded: Colours) -> Colours:
    """sRGB 0 to 1 -> light (IEC 61966-2-1)."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def lab_of(light: Colours) -> Colours:
    """Linear sRGB -> CIELAB (CIE 15)."""
    xyz = light @ _WEIGHTS.T / _WHITE
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def _encoded(light: Colours) -> Colours:
    kept = np.clip(light, 0, 1)
    return np.where(kept <= 0.0031308, 12.92 * kept, 1.055 * kept ** (1 / 2.4) - 0.055)


def _roots(light: Colours) -> Colours:
    r, g, b = light[..., 0], light[..., 1], light[..., 2]
    return np.stack([r, g, b, np.sqrt(r * g), np.sqrt(g * b), np.sqrt(r * b)], axis=-1)


_TERMS: dict[str, Terms] = {"matrix": lambda light: light, "root-polynomial": _roots}
_LIGHT_OF = linear(np.arange(256) / 255)


def _fitted(terms: Colours, true: Colours) -> Colours:
    """Least squares with each patch weighed by how much CIELAB changes there: dark patches count as bright ones do."""
    weight = 1 / np.sqrt(true.mean(axis=1, keepdims=True) + 0.02)
    return np.asarray(np.linalg.lstsq(terms * weight, true * weight, rcond=None)[0])


def _left_out(terms: Colours, true: Colours) -> float:
    missed = []
    for n in range(len(true)):
        rest = np.arange(len(true)) != n
        guess = terms[n] @ _fitted(terms[rest], true[rest])
        missed.append(np.linalg.norm(lab_of(np.clip(guess, 0, 1)) - lab_of(true[n])))
    return float(np.mean(missed))


def _parts(outline: Points, picture: Picture, skin: Mask) -> tuple[Mask, Mask, Colours]:
    """Boolean masks of the lesion without its edge and of the ring around it, and each pixel's direction."""
    shape = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillPoly(shape, [outline.round().astype(np.int32)], 1)
    radius = np.sqrt(max(1, int(shape.sum())) / np.pi)
    beyond = cv2.distanceTransform(1 - shape, cv2.DIST_L2, 3)
    within = cv2.distanceTransform(shape, cv2.DIST_L2, 3)
    centre = outline.mean(axis=0)
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]]
    inside = (within > min(0.1 * radius, 3)) & (skin > 0)
    around = (beyond > _RING[0] * radius) & (beyond <= _RING[1] * radius) & (skin > 0)
    return inside, around, np.arctan2(rows - centre[1], columns - centre[0])


def _by_sector(lab: Colours, angle: Colours) -> Colours:
    """(sectors, 3): the mean colour in each direction; the whole's where a direction shows nothing."""
    number = ((angle + np.pi) / (2 * np.pi) * _SECTORS).astype(int) % _SECTORS
    whole = lab.mean(axis=0)
    return np.array([lab[number == n].mean(axis=0) if (number == n).any() else whole for n in range(_SECTORS)])


def _of_mean(sectors: Colours) -> float:
    return float(np.std(sectors, ddof=1) / np.sqrt(len(sectors)))
