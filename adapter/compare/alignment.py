"""Aligning two prepared photos: guess, refine, and let the gate decide.

Pure and repeatable: the same two photos always give the same map. What is returned says how it was made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from adapter.compare.features import detect, match
from adapter.compare.flow import find_camera, refine
from adapter.compare.gate import Evidence, Verdict, decide, gather
from adapter.compare.geometry import Homography, Points, inside
from adapter.compare.prepared import Prepared
from adapter.compare.similarity import find_similarity
from adapter.compare.skin_map import SkinMap

METHOD = "key points, block correlation, spline"
VERSION = "1"

NOTHING_IN_COMMON = "The two photos have too few points in common to say how one lies on the other."
MIRRORED = (
    "RIGHT is a mirror image: the skin matches only when it is flipped. Selfie cameras mirror; "
    "switch that off and take the photo again, or flip it at its source."
)


@dataclass(frozen=True, slots=True)
class Alignment:
    """`skin_map` is None when `verdict` is not-aligned. `patches` (n, 2, in LEFT) are where the skin was measured, and
    `agrees` says which of them support the map."""

    left: Prepared
    right: Prepared
    verdict: Verdict
    reasons: tuple[str, ...]
    skin_map: SkinMap | None = None
    evidence: Evidence | None = None
    patches: Points | None = None
    agrees: npt.NDArray[np.bool_] | None = None
    method: str = METHOD
    version: str = VERSION

    def mapped(self, points: Sequence[Sequence[float]]) -> list[list[float] | None]:
        """Points (x, y) of LEFT in RIGHT, to a thousandth of a pixel; None where RIGHT does not show them."""
        given = np.asarray(points, np.float64).reshape(-1, 2)
        if self.skin_map is None or not len(given):
            return [None] * len(given)
        found = self.skin_map.to_right(given)
        shown = inside(given, self.left.size) & inside(found, self.right.size) & np.isfinite(found).all(axis=1)
        return [
            [round(float(x), 3), round(float(y), 3)] if is_shown else None
            for (x, y), is_shown in zip(found, shown, strict=True)
        ]

    def as_json(self) -> dict[str, Any]:
        """Verdict, reasons, evidence, transform and how they were found; for the points see `mapped`."""
        seen = self.evidence
        return {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "evidence": None
            if seen is None
            else {
                "matches": seen.matches,
                "inliers": seen.inliers,
                "patches": seen.patches,
                "agreeing": seen.agreeing,
                "spread": round(seen.spread, 3),
                "halves_px": round(seen.halves, 3),
                "halves_p95_px": round(seen.halves_p95, 3),
                "folding": round(seen.folding, 3),
                "shear": round(seen.shear, 3),
            },
            "transform": self.skin_map.as_json() if self.skin_map else None,
            "method": self.method,
            "version": self.version,
        }


def align(left: Prepared, right: Prepared) -> Alignment:
    """Where the skin of LEFT is in RIGHT, and whether that may be trusted. Photos that do not match raise nothing."""
    found = _attempt(left, right)
    if found.verdict != "not-aligned":
        return found
    if _attempt(left, mirrored(right)).verdict != "not-aligned":
        return replace(found, reasons=(MIRRORED,))
    return found


def align_from(
    left: Prepared, right: Prepared, guess: Homography, *, inliers: int, matches: int, method: str = METHOD
) -> Alignment:
    """Refines a guess (LEFT to RIGHT, full resolution) and judges what comes out of it."""
    skin_map, measured = refine(left, right, find_camera(left, right, guess))
    evidence, agrees = gather(skin_map, measured, inliers=inliers, matches=matches)
    verdict, reasons = decide(evidence)
    kept = None if verdict == "not-aligned" else skin_map
    return Alignment(left, right, verdict, reasons, kept, evidence, measured.points, agrees, method)


def mirrored(photo: Prepared) -> Prepared:
    """The photo with left and right exchanged."""
    picture, mask = np.ascontiguousarray(photo.picture[:, ::-1]), np.ascontiguousarray(photo.mask[:, ::-1])
    features = detect(np.ascontiguousarray(picture[..., 1]), mask, photo.size)
    return Prepared(photo.size, picture, mask, features)


def _attempt(left: Prepared, right: Prepared) -> Alignment:
    ours, theirs = match(left.features, right.features)
    guess = find_similarity(ours, theirs, left.size, right.size)
    if guess is None:
        return Alignment(left, right, "not-aligned", (NOTHING_IN_COMMON,))
    return align_from(left, right, guess.homography, inliers=guess.inliers, matches=guess.matches)
