"""Photos of a lesion beside a card with known truth, small enough for a test; made once per run."""

from __future__ import annotations

from functools import cache

from benchmarks.lesions import Photo, Scene, take

__all__ = ["Photo", "scene"]

WIDTH = 1400
SCENES = {
    "card": Scene(1, width=WIDTH, per_mm=8),
    "tilted": Scene(2, width=WIDTH, per_mm=8, tilt=28.0, irregular=0.05),
    "coloured light": Scene(1, width=WIDTH, per_mm=8, cast=(0.98, 0.86, 0.66)),
    "overexposed": Scene(1, width=WIDTH, per_mm=8, exposure=1.4),
    "faint": Scene(1, width=WIDTH, per_mm=8, contrast=0.03),
    "no card": Scene(1, width=WIDTH, per_mm=8, card=False),
    "dark skin": Scene(3, width=WIDTH, per_mm=8, tone="V"),
}


@cache
def scene(name: str) -> Photo:
    return take(SCENES[name])
