"""How true measuring is, on photos of lesions beside a calibration card whose truth is known, each made from its seed.

    python -m benchmarks.measure [--scenes 12] [--json]

`scale`: a length of 10 mm by the card, by two clicks on its ruler, and by the card lying 3 mm above the skin.
`outline`: the outline found from one point, its area and axes, on light to dark skin; against GrabCut and k-means.
`hand`: an outline drawn by hand with clicks that miss by two pixels. `honest`: how often the truth lies within the two
standard uncertainties that are stated. `colour`: CIELAB error of skin and patches under coloured light, corrected by
the card. `refused`: faint lesions and clipped cards. Exits 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from adapter.capture.renditions import upright
from adapter.errors import Unprocessable
from adapter.measure.card import SeenCard, card_mask, find_card
from adapter.measure.child import EDGE
from adapter.measure.colour import fit_correction, lab_of, linear
from adapter.measure.measures import Measure, measure_line, measure_outline
from adapter.measure.outline import draw_outline
from adapter.measure.scale import Scale, scale_from_points
from benchmarks.lesions import Photo, Scene, take
from benchmarks.served import report
from mappings.calibration_card import PATCHES

Found = dict[str, list[float]]
TARGETS: dict[str, tuple[float, bool]] = {
    "card found %": (99.0, False),
    "card: 10 mm, worst error %": (1.0, True),
    "two clicks: 10 mm, p95 error %": (4.0, True),
    "card 3 mm above the skin: 10 mm, worst error %": (2.5, True),
    "found outline: area, median error %": (3.0, True),
    "found outline: area, p95 error %": (8.0, True),
    "found outline: longest diameter, p95 error %": (5.0, True),
    "hand-drawn outline: area, p95 error %": (8.0, True),
    "truth within two standard uncertainties %": (92.0, False),
    "found outline: area, median error of the worst tone %": (6.0, True),
    "corrected colour, mean dE": (3.0, True),
    "faint or clipped and not refused": (0.0, True),
}
"""Limit, and whether it is the most (or the least) allowed."""
TONES = ("I", "II", "III", "IV", "V", "VI")
LIGHTS = ((1.0, 0.93, 0.8), (0.88, 0.95, 1.0), (1.0, 0.85, 0.62))
CLICK = 2.0
"""Pixels, standard deviation."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: Found = defaultdict(list)
    for scene in scenes(options.scenes):
        measure_scene(scene, found)
    for seed in range(max(2, options.scenes // 4)):
        measure_raised(Scene(300 + seed, raised=3.0, card=True), found)
        measure_light(seed, found)
        measure_refusals(seed, found)
    rows = [verdict(name, value) for name, value in summary(found).items()]
    report(f"{options.scenes} lesions, truth known", rows, as_json=options.json)
    return 0 if all(row["met"] in (True, None) for row in rows) else 1


def verdict(name: str, value: float) -> dict[str, Any]:
    limit, is_most = TARGETS.get(name, (None, True))
    met = None if limit is None else (value <= limit if is_most else value >= limit)
    return {"measure": name, "seen": value, "target": limit, "met": met}


def scenes(count: int) -> Iterator[Scene]:
    """Lesions of 3 to 10 mm, round to ragged, sharp to soft, on every tone, the camera up to 25 degrees aslant."""
    for seed in range(count):
        rng = np.random.default_rng([seed, 11])
        yield Scene(
            seed=100 + seed,
            radius=float(rng.uniform(1.6, 5.0)),
            oval=float(rng.uniform(0, 0.35)),
            irregular=float(rng.uniform(0.02, 0.12)),
            soft=float(rng.uniform(0.1, 0.6)),
            contrast=float(rng.uniform(0.35, 0.6)),
            tilt=float(rng.uniform(0, 25)),
            tone=TONES[seed % len(TONES)],
        )


def measure_scene(scene: Scene, found: Found) -> None:
    photo = take(scene)
    picture, full, card = seen(photo)
    found["card found"].append(float(card is not None))
    if card is None:
        return
    rng = np.random.default_rng([scene.seed, 12])
    ends = photo.curve.mean(axis=0) + np.array([[-5.0, 0.0], [5.0, 0.0]])
    line = measure_line(photo.seen(ends), card.scale, 0.1)[0]
    found["card"].append(error(line, 10.0))
    clicked = scale_from_points(
        photo.seen(np.array([[75.0, 88.0], [105.0, 88.0]])) + rng.normal(0, CLICK, (2, 2)), 30.0, CLICK
    )
    by_clicks = measure_line(photo.seen(ends) + rng.normal(0, CLICK, (2, 2)), clicked, CLICK)[0]
    found["clicks"].append(error(by_clicks, 10.0))
    found["honest"] += [honest(line, 10.0), honest(by_clicks, 10.0)]
    mask = card_mask(picture, card, full)
    measure_found(photo, scene, picture, full, card.scale, mask, found)
    drawn = photo.seen_curve[:: len(photo.seen_curve) // 24] + rng.normal(0, CLICK, (24 + (720 % 24 > 0), 2))
    by_hand = measure_outline(drawn, card.scale, CLICK, CLICK)[0]
    found["hand"].append(error(by_hand, photo.area))
    found["honest"].append(honest(by_hand, photo.area))
    for name, outline in (("GrabCut", grab_cut), ("k-means", k_means)):
        area = area_of(outline(picture, full, photo), card.scale)
        found[name].append(abs(area / photo.area - 1) * 100)


def measure_found(
    photo: Photo, scene: Scene, picture: Any, full: tuple[int, int], scale: Scale, mask: Any, found: Found
) -> None:
    try:
        outline = draw_outline(picture, full, np.array([photo.middle]), avoid=mask)
    except Unprocessable:
        found["not found"].append(1.0)
        return
    found["not found"].append(0.0)
    area, longest, *_ = measure_outline(outline.points, scale, 0.5, outline.edge)
    true_longest = float(np.ptp(photo.curve @ np.array([np.cos(a := best_angle(photo)), np.sin(a)])))
    found["area"].append(error(area, photo.area))
    found[f"tone {scene.tone}"].append(error(area, photo.area))
    found["longest"].append(error(longest, true_longest))
    found["honest"] += [honest(area, photo.area), honest(longest, true_longest)]


def measure_raised(scene: Scene, found: Found) -> None:
    photo = take(scene)
    _, _, card = seen(photo)
    if card is not None:
        ends = photo.curve.mean(axis=0) + np.array([[-5.0, 0.0], [5.0, 0.0]])
        line = measure_line(photo.seen(ends), card.scale, 0.1)[0]
        found["raised"].append(error(line, 10.0))
        found["honest"].append(honest(line, 10.0))


def measure_light(seed: int, found: Found) -> None:
    """The skin's colour under coloured light, corrected, against its colour under white light."""
    scene = Scene(400 + seed, exposure=0.93)
    (plain, full, white), truth = seen(take(scene)), []
    for cast in LIGHTS:
        picture, _, card = seen(take(replace(scene, cast=cast)))
        if card is None or white is None:
            continue
        covered = cv2.dilate(card_mask(plain, white, full), np.ones((9, 9), np.uint8)) > 0
        try:
            corrected = fit_correction(card).corrected(picture)
            truth = [fit_correction(white).corrected(plain), corrected]
        except Unprocessable:
            found["light refused"].append(1.0)
            continue
        means = [lab_of(linear(one[~covered].mean(axis=0) / 255)) for one in truth]
        raw = lab_of(linear(picture[~covered].mean(axis=0) / 255))
        found["colour"].append(float(np.linalg.norm(means[0] - means[1])))
        found["uncorrected colour"].append(float(np.linalg.norm(means[0] - raw)))
        patches = fit_correction(card).corrected(card.patches[:, None].round().astype(np.uint8))[:, 0]
        true = lab_of(linear(np.array([one.srgb for one in PATCHES]) / 255))
        found["patches"].append(float(np.linalg.norm(lab_of(linear(patches / 255)) - true, axis=1).mean()))


def measure_refusals(seed: int, found: Found) -> None:
    photo = take(Scene(500 + seed, contrast=0.03))
    picture, full, card = seen(photo)
    mask = card_mask(picture, card, full) if card else None
    try:
        draw_outline(picture, full, np.array([photo.middle]), avoid=mask)
        found["not refused"].append(1.0)
    except Unprocessable:
        found["not refused"].append(0.0)
    _, _, bright = seen(take(Scene(500 + seed, exposure=1.4)))
    try:
        fit_correction(bright) if bright else None
        found["not refused"].append(float(bright is not None))
    except Unprocessable:
        found["not refused"].append(0.0)


def summary(found: Found) -> dict[str, Any]:
    tones = {name: float(np.median(values)) for name, values in found.items() if name.startswith("tone ")}
    return {
        "scenes": len(found["card found"]),
        "card found %": 100 * float(np.mean(found["card found"])),
        "card: 10 mm, worst error %": max(found["card"]),
        "two clicks: 10 mm, p95 error %": p95(found["clicks"]),
        "card 3 mm above the skin: 10 mm, worst error %": max(found["raised"]),
        "outlines found %": 100 * (1 - float(np.mean(found["not found"]))),
        "found outline: area, median error %": float(np.median(found["area"])),
        "found outline: area, p95 error %": p95(found["area"]),
        "found outline: longest diameter, p95 error %": p95(found["longest"]),
        "hand-drawn outline: area, p95 error %": p95(found["hand"]),
        "GrabCut: area, median error %": float(np.median(found["GrabCut"])),
        "GrabCut: area, p95 error %": p95(found["GrabCut"]),
        "k-means: area, median error %": float(np.median(found["k-means"])),
        "k-means: area, p95 error %": p95(found["k-means"]),
        "truth within two standard uncertainties %": 100 * float(np.mean(found["honest"])),
        "found outline: area, median error of the worst tone %": max(tones.values()),
        "corrected colour, mean dE": float(np.mean(found["colour"])),
        "uncorrected colour, mean dE": float(np.mean(found["uncorrected colour"])),
        "card's patches corrected, mean dE": float(np.mean(found["patches"])),
        "faint or clipped and not refused": sum(found["not refused"]),
    }


def seen(photo: Photo) -> tuple[Any, tuple[int, int], SeenCard | None]:
    image, inspected = upright(photo.jpeg, EDGE)
    picture, full = np.asarray(image), (inspected.width, inspected.height)
    return picture, full, find_card(picture, full)


def error(measured: Measure, true: float) -> float:
    """Per cent."""
    return abs(measured.value / true - 1) * 100


def honest(measured: Measure, true: float) -> float:
    return float(abs(measured.value - true) <= 2 * (measured.uncertainty or 0.0))


def p95(values: list[float]) -> float:
    return float(np.percentile(values, 95))


def best_angle(photo: Photo) -> float:
    angles = np.linspace(0, np.pi, 360, endpoint=False)
    spans = np.ptp(photo.curve @ np.array([np.cos(angles), np.sin(angles)]), axis=0)
    return float(angles[spans.argmax()])


# --- what else could draw an outline; both are told how large the lesion is, which a click does not tell -------------


def crop_of(full: tuple[int, int], picture: Any, photo: Photo) -> tuple[Any, Any, float]:
    factor = picture.shape[1] / full[0]
    low, high = photo.seen_curve.min(axis=0) * factor, photo.seen_curve.max(axis=0) * factor
    margin = 0.6 * (high - low)
    (left, top), (right, bottom) = np.maximum(low - margin, 0).astype(int), (high + margin).astype(int)
    return picture[top:bottom, left:right], np.array([left, top]), factor


def grab_cut(picture: Any, full: tuple[int, int], photo: Photo) -> Any:
    crop, corner, factor = crop_of(full, picture, photo)
    height, width = crop.shape[:2]
    box = (round(width * 0.18), round(height * 0.18), round(width * 0.64), round(height * 0.64))
    mask = np.zeros((height, width), np.uint8)
    cv2.grabCut(crop[..., ::-1].copy(), mask, box, np.zeros((1, 65)), np.zeros((1, 65)), 5, cv2.GC_INIT_WITH_RECT)
    return largest((mask & 1).astype(np.uint8), corner, factor)


def k_means(picture: Any, full: tuple[int, int], photo: Photo) -> Any:
    crop, corner, factor = crop_of(full, picture, photo)
    lab = cv2.cvtColor(cv2.GaussianBlur(crop, (0, 0), 1.5), cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float32)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 30, 0.5)
    cv2.setRNGSeed(0)
    _, labels, centres = cv2.kmeans(lab, 2, np.empty(0), stop, 3, cv2.KMEANS_PP_CENTERS)
    dark = (labels == centres[:, 0].argmin()).reshape(crop.shape[:2]).astype(np.uint8)
    return largest(dark, corner, factor)


def largest(mask: Any, corner: Any, factor: float) -> Any:
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return np.zeros((3, 2))
    return (max(contours, key=cv2.contourArea).reshape(-1, 2) + corner + 0.5) / factor - 0.5


def area_of(points: Any, scale: Scale) -> float:
    return float(cv2.contourArea(scale.to_plane(np.asarray(points, np.float64)).astype(np.float32)))


if __name__ == "__main__":
    sys.exit(main())
