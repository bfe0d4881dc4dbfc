"""Whether an alignment may be trusted: a wrong "aligned" shows a clinician change where there is none, or hides it.

The evidence is gathered after the fact and does not ask the key points that led there: does the skin agree, patch by
patch; is it spread over the photo; do two halves of the patches, which know nothing of each other, give the same map;
is the map one that skin and a camera can make? Every limit is a row of `CRITERIA`. What non-matching pairs reach is in
docs/compare.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from adapter.compare.flow import PASSES, Measured, fit
from adapter.compare.geometry import Size, inside
from adapter.compare.skin_map import SkinMap

Verdict = Literal["aligned", "approximate", "not-aligned"]

_AGREES = 1.5
"""In pixels of the last pass."""
_TILES = 4


@dataclass(frozen=True, slots=True)
class Evidence:
    """`inliers` of `matches` key points led here. `agreeing` of `patches` of skin seen in both photos lie where the map
    says; `spread` is the share of the common area's sixteenths that hold some of them; `halves` and `halves_p95` are
    the median and the 95th percentile of how far two independent halves disagree, and `pixel` the unit of measurement,
    all in full-resolution pixels of LEFT; `folding` is the least local enlargement relative to the median (negative:
    mirrored), `shear` the greatest ratio of the two axes of a stretched patch."""

    inliers: int
    matches: int
    patches: int
    agreeing: int
    spread: float
    halves: float
    halves_p95: float
    pixel: float
    folding: float
    shear: float

    @property
    def share(self) -> float:
        return self.agreeing / max(1, self.patches)


@dataclass(frozen=True, slots=True)
class Criterion:
    """`aligned` and `approximate` are the least (or, where `at_most`, the greatest) values that still pass."""

    read: Callable[[Evidence], float]
    aligned: float
    approximate: float
    sentence: str
    at_most: bool = False

    def is_met(self, evidence: Evidence, verdict: Verdict) -> bool:
        limit = self.aligned if verdict == "aligned" else self.approximate
        value = self.read(evidence)
        return value <= limit if self.at_most else value >= limit


CRITERIA = (
    Criterion(
        lambda e: e.share,
        0.14,
        0.08,
        "Only {e.agreeing} of {e.patches} patches of skin look alike where they should.",
    ),
    Criterion(lambda e: e.agreeing, 24, 16, "Too little skin is common to both photos ({e.agreeing} patches)."),
    Criterion(
        lambda e: e.spread,
        0.6,
        0.4,
        "What looks alike is in {e.spread:.0%} of the common area; the rest was not found again.",
    ),
    Criterion(
        lambda e: e.halves / e.pixel,
        1.0,
        2.0,
        "Two independent halves of the measurement disagree by {e.halves:.1f} px (median).",
        at_most=True,
    ),
    Criterion(
        lambda e: e.halves_p95 / e.pixel,
        3.0,
        6.0,
        "In places two independent halves of the measurement disagree by {e.halves_p95:.1f} px.",
        at_most=True,
    ),
    Criterion(lambda e: e.folding, 0.4, 0.25, "The map would fold the skin or squeeze it as skin cannot be."),
    Criterion(lambda e: e.shear, 1.6, 2.0, "One photo is taken at too flat an angle to the other.", at_most=True),
)


def gather(skin_map: SkinMap, found: Measured, *, inliers: int, matches: int) -> tuple[Evidence, npt.NDArray[np.bool_]]:
    """The evidence for a map from its last pass, and which of the patches agree with it."""
    apart = np.hypot(*(found.displacements - skin_map.spline.at(found.points)).T)
    agrees = np.asarray((apart < _AGREES * found.pixel) & (found.clarity > 0))
    seen = inside(skin_map.to_right(found.points), skin_map.right)
    disagreement = _halves(found, skin_map.left) if agrees.sum() >= 8 else np.full(1, float(max(skin_map.left)))
    stretch = skin_map.stretch(found.points[seen]) if seen.any() else np.zeros((1, 2, 2))
    enlargement, axes = np.linalg.det(stretch), np.linalg.svd(stretch, compute_uv=False)
    evidence = Evidence(
        inliers=inliers,
        matches=matches,
        patches=len(found.points),
        agreeing=int(agrees.sum()),
        spread=_spread(found.points, agrees, skin_map.left),
        halves=float(np.median(disagreement)),
        halves_p95=float(np.percentile(disagreement, 95)),
        pixel=found.pixel,
        folding=float(enlargement.min() / max(abs(float(np.median(enlargement))), 1e-9)),
        shear=float(np.percentile(axes[:, 0] / np.maximum(axes[:, 1], 1e-9), 95)),
    )
    return evidence, agrees


def decide(evidence: Evidence) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict, and why in sentences."""
    verdicts: tuple[Verdict, ...] = ("aligned", "approximate")
    for verdict in verdicts:
        if all(criterion.is_met(evidence, verdict) for criterion in CRITERIA):
            kept = (
                f"{evidence.agreeing} of {evidence.patches} patches of skin are where the map says, in "
                f"{evidence.spread:.0%} of the common area; two independent halves of them agree within "
                f"{evidence.halves:.1f} px (median).",
            )
            return verdict, kept + _failures(evidence, "aligned")
    return "not-aligned", _failures(evidence, "approximate")


def _failures(evidence: Evidence, verdict: Verdict) -> tuple[str, ...]:
    return tuple(c.sentence.format(e=evidence) for c in CRITERIA if not c.is_met(evidence, verdict))


def _halves(found: Measured, size: Size) -> npt.NDArray[np.float64]:
    """How far the splines through either half of a chequerboard of patches are apart, at every patch."""
    step = PASSES[-1].stride * found.pixel
    odd = np.asarray((found.points // step).sum(axis=1) % 2 == 1)
    one, other = (fit(_only(found, half), size).at(found.points) for half in (odd, ~odd))
    return np.asarray(np.hypot(*(one - other).T))


def _only(found: Measured, chosen: npt.NDArray[np.bool_]) -> Measured:
    return replace(
        found,
        points=found.points[chosen],
        displacements=found.displacements[chosen],
        weights=found.weights[chosen],
        clarity=found.clarity[chosen],
    )


def _spread(points: npt.NDArray[np.float64], agrees: npt.NDArray[np.bool_], size: Size) -> float:
    tile = np.clip((points / np.array(size) * _TILES).astype(int), 0, _TILES - 1) @ [1, _TILES]
    common, held = (np.bincount(tile[which], minlength=_TILES**2) for which in (slice(None), agrees))
    counted = common >= 4
    return float((held[counted] >= 2).mean()) if counted.any() else 0.0
