"""Lengths, areas and shapes against plain geometry, and photos whose truth is known."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapter.capture.renditions import upright
from adapter.compare.geometry import Points
from adapter.errors import Unprocessable
from adapter.measure.card import card_mask, find_card
from adapter.measure.child import measuring
from adapter.measure.colour import fit_correction, lab_of, linear
from adapter.measure.measures import asymmetry, check_outline, measure_line, measure_outline
from adapter.measure.outline import draw_outline
from adapter.measure.scale import Scale, no_scale, scale_from_field_of_view, scale_from_points
from mappings.calibration_card import MARKERS, PATCHES, card_pdf, card_svg
from tests.measure.scenes import scene

pytestmark = pytest.mark.long


def ellipse(a: float, b: float, *, turn: float = 0.0, count: int = 120) -> Points:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    x, y = a * np.cos(angle), b * np.sin(angle)
    return np.asarray(np.c_[x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)] + 500.0)


# --- geometry -------------------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(a=st.floats(60, 300), share=st.floats(0.3, 0.95), turn=st.floats(0, np.pi), mm=st.floats(0.01, 0.5))
def test_an_ellipse_has_its_area_axes_and_no_asymmetry_in_any_turn_and_scale(
    a: float, share: float, turn: float, mm: float
) -> None:
    scale = scale_from_points(np.array([[0.0, 0.0], [1000.0, 0.0]]), max(0.1, 1000 * mm), 0.5)
    per_pixel = max(0.1, 1000 * mm) / 1000
    area, longest, across, skew = measure_outline(ellipse(a, a * share, turn=turn), scale, 0.5, 0.5)
    assert area.value == pytest.approx(np.pi * a * a * share * per_pixel**2, rel=2e-3)
    assert longest.value == pytest.approx(2 * a * per_pixel, rel=2e-3)
    assert across.value == pytest.approx(2 * a * share * per_pixel, rel=5e-3)
    assert skew.value < 0.02
    assert (area.unit, longest.unit, skew.unit) == ("mm2", "mm", "1")


def test_a_half_disc_is_asymmetric_about_one_axis_only() -> None:
    angle = np.linspace(0, np.pi, 180)
    half = np.c_[np.cos(angle), np.sin(angle)] * 100
    lens = np.concatenate([half, -half])
    assert asymmetry(lens) < 0.02
    assert 0.05 < asymmetry(half) < 0.2


def test_perspective_is_taken_out_of_what_lies_in_the_plane() -> None:
    to_photo = np.array([[14.0, 2.0, 300.0], [-1.0, 13.0, 200.0], [0.004, 0.006, 1.0]])
    corners = np.array([[0.0, 0.0], [80.0, 0.0], [80.0, 50.0], [0.0, 50.0]])
    seen = cv2.perspectiveTransform(corners[None], to_photo)[0]
    scale = Scale("card", seen, corners, 0.1, 0.0)
    circle = ellipse(10, 10) - 500 + np.array([40.0, 70.0])
    area = measure_outline(cv2.perspectiveTransform(circle[None], to_photo)[0], scale, 0.1, 0.1)[0]
    assert area.value == pytest.approx(np.pi * 100, rel=2e-3)


def test_uncertainty_grows_with_how_unsteadily_it_was_drawn_and_how_short_the_scale_was() -> None:
    long, short = (scale_from_points(np.array([[0.0, 0.0], [px, 0.0]]), px / 10, 2.0) for px in (2000.0, 100.0))
    line = np.array([[0.0, 0.0], [300.0, 400.0]])
    steady, unsteady = (measure_line(line, long, sigma)[0].uncertainty or 0.0 for sigma in (0.5, 8.0))
    assert steady < unsteady
    assert unsteady == pytest.approx(8 * np.sqrt(2) / 10, rel=0.25)
    by_short = measure_line(line, short, 0.5)[0].uncertainty or 0.0
    assert by_short == pytest.approx(50 * np.hypot(2 * np.sqrt(2) / 100, 0.014), rel=0.25)


def test_the_stated_uncertainty_covers_clicks_that_miss() -> None:
    chance, true = np.random.default_rng(5), 50.0
    inside = 0
    for _ in range(40):
        ends = np.array([[100.0, 100.0], [1100.0, 100.0]]) + chance.normal(0, 3, (2, 2))
        line = np.array([[200.0, 300.0], [500.0, 700.0]]) + chance.normal(0, 3, (2, 2))
        found = measure_line(line, scale_from_points(ends, 100.0, 3.0), 3.0)[0]
        inside += abs(found.value - true) <= 2 * (found.uncertainty or 0.0)
    assert inside >= 37


def test_figures_do_not_change_from_one_time_to_the_next() -> None:
    once, again = (measure_outline(ellipse(80, 50), no_scale(), 2.0, 2.0) for _ in range(2))
    assert once == again
    assert once[0].unit == "px2"


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([[0, 0], [100, 100], [100, 0], [0, 100]], "crosses itself"),
        ([[0, 0], [3, 0], [3, 3]], "too small"),
        ([[0, 0], [3, 0]], "between 3 and"),
    ],
)
def test_an_outline_that_is_none_is_refused(points: list[list[float]], said: str) -> None:
    with pytest.raises(Unprocessable, match=said):
        check_outline(np.array(points, np.float64))


@pytest.mark.parametrize(("ends", "mm"), [([[0, 0], [5, 0]], 10.0), ([[0, 0], [900, 0]], 0.0)])
def test_a_scale_worth_nothing_is_refused(ends: list[list[float]], mm: float) -> None:
    with pytest.raises(Unprocessable):
        scale_from_points(np.array(ends, np.float64), mm, 1.0)


def test_a_field_of_view_scales_what_is_seen_through_it_within_its_tolerance() -> None:
    scale = scale_from_field_of_view(99.5, 1099.5, 900, 20.0, tolerance=0.03, sigma=2.0)
    found = measure_line(np.array([[0.0, 0.0], [0.0, 500.0]]), scale, 1.0)[0]
    assert found.value == pytest.approx(10.0)
    assert 0.03 < (found.uncertainty or 0.0) / found.value < 0.04


# --- the card -------------------------------------------------------------------------------------------------------


def test_the_markers_drawn_are_those_that_opencv_knows() -> None:
    dictionary = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_5X5_50)
    for marker in MARKERS:
        drawn = cv2.aruco.generateImageMarker(dictionary, int(marker.name), 7)
        assert tuple("".join("1" if bit else "0" for bit in row[1:-1]) for row in drawn[1:-1]) == marker.bits


def test_no_two_things_on_the_card_overlap_and_markers_keep_their_quiet_zone() -> None:
    boxes = [(*one.at, one.edge, 1.7 if one.bits else 0.0) for one in (*MARKERS, *PATCHES)]
    for (x, y, edge, quiet), (u, v, other, also) in ((a, b) for n, a in enumerate(boxes) for b in boxes[n + 1 :]):
        gap = max(quiet, also)
        assert x + edge + gap <= u or u + other + gap <= x or y + edge + gap <= v or v + other + gap <= y


def test_the_card_is_drawn_at_true_size_and_always_alike() -> None:
    assert b'width="85.6mm" height="54.0mm"' in card_svg()
    assert card_pdf() == card_pdf()


@pytest.mark.parametrize("name", ["card", "tilted", "dark skin"])
def test_a_card_in_a_photo_scales_the_skin_beside_it(name: str) -> None:
    photo = scene(name)
    image, found = upright(photo.jpeg, 1400)
    card = find_card(np.asarray(image), (found.width, found.height))
    assert card is not None
    line = photo.seen(np.array([[70.0, 100.0], [120.0, 100.0]]))
    length = measure_line(line, card.scale, 0.2)[0]
    assert length.value == pytest.approx(50.0, rel=0.004)
    assert abs(length.value - 50.0) <= 2 * (length.uncertainty or 0.0)


def test_a_card_seen_in_a_mirror_is_no_card() -> None:
    image, found = upright(scene("card").jpeg, 1400)
    mirrored = np.ascontiguousarray(np.asarray(image)[:, ::-1])
    assert find_card(mirrored, (found.width, found.height)) is None


# --- outlines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["card", "tilted", "dark skin"])
def test_a_lesion_is_outlined_from_one_point(name: str) -> None:
    photo = scene(name)
    image, found = upright(photo.jpeg, 1400)
    picture, full = np.asarray(image), (found.width, found.height)
    card = find_card(picture, full)
    assert card is not None
    outline = draw_outline(picture, full, np.array([photo.middle]), avoid=card_mask(picture, card, full))
    area = measure_outline(outline.points, card.scale, 0.5, outline.edge)[0]
    assert area.value == pytest.approx(photo.area, rel=0.08)
    assert abs(area.value - photo.area) <= 2.5 * (area.uncertainty or 0.0)
    assert all(here.tolist() != there.tolist() for here, there in pairwise(outline.points))


@pytest.mark.parametrize("bright", [200, 60], ids=["light", "dark"])
def test_a_hair_along_its_edge_is_no_part_of_a_lesion(bright: int) -> None:
    def area(*, hair: bool) -> float:
        picture = np.full((800, 800, 3), (bright, bright, 0.8 * bright), np.uint8)
        cv2.circle(picture, (400, 400), 60, (0.6 * bright, 0.6 * bright, 0.48 * bright), cv2.FILLED)
        if hair:
            cv2.line(picture, (100, 452), (700, 472), (bright // 5,) * 3, 7, cv2.LINE_AA)
        shown = np.asarray(cv2.GaussianBlur(picture, (0, 0), 1.5), np.uint8)
        found = draw_outline(shown, (800, 800), np.array([[400.0, 400.0]]))
        return float(cv2.contourArea(found.points.astype(np.float32)))

    assert area(hair=True) == pytest.approx(area(hair=False), rel=0.03)


@pytest.mark.parametrize("name", ["faint", "card"])
def test_what_does_not_stand_out_is_not_outlined(name: str) -> None:
    photo = scene(name)
    image, found = upright(photo.jpeg, 1400)
    at = photo.middle if name == "faint" else (60.0, 700.0)
    with pytest.raises(Unprocessable, match="by hand"):
        draw_outline(np.asarray(image), (found.width, found.height), np.array([at]))


# --- colour ---------------------------------------------------------------------------------------------------------


def test_colours_are_those_of_the_standard() -> None:
    """sRGB red and mid grey in CIELAB, D65 (Lindbloom's calculator)."""
    red, grey = lab_of(linear(np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.5]])))
    assert red == pytest.approx([53.24, 80.09, 67.20], abs=0.03)
    assert grey == pytest.approx([53.39, 0.0, 0.0], abs=0.03)


def test_a_card_takes_the_colour_of_the_light_away() -> None:
    means = []
    for name in ("card", "coloured light"):
        image, found = upright(scene(name).jpeg, 1400)
        picture, full = np.asarray(image), (found.width, found.height)
        card = find_card(picture, full)
        assert card is not None
        correction = fit_correction(card)
        assert correction.residual < 2
        means.append(
            [
                lab_of(linear(one[900:, 200:600].reshape(-1, 3).mean(axis=0) / 255))
                for one in (picture, correction.corrected(picture))
            ]
        )
    (raw, corrected), (raw_then, corrected_then) = means
    assert np.linalg.norm(raw - raw_then) > 8
    assert np.linalg.norm(corrected - corrected_then) < 1.5


def test_a_card_that_is_overexposed_tells_no_colours_but_still_the_scale() -> None:
    asked = {"photo": "bright", "max_pixels": 10**8}
    found, _ = measuring(asked | {"task": "look"}, [scene("overexposed").jpeg])
    assert [one["source"] for one in found["scales"]] == ["card"]
    assert not found["colour"]["calibrated"]
    assert "too bright" in found["colour"]["reason"]
    with pytest.raises(Unprocessable, match="too bright"):
        measuring(asked | {"task": "normalise"}, [scene("overexposed").jpeg])


def test_without_a_card_colours_are_the_cameras() -> None:
    photo = scene("no card")
    drawn = {"kind": "outline", "points": photo.seen_curve[::30].tolist(), "sigma": 1.0, "edge": 1.0}
    asked = {"photo": "plain", "max_pixels": 10**8, "task": "measure", "scale": {"source": "none"}}
    found, _ = measuring(asked | drawn, [photo.jpeg])
    assert not found["colour"]["calibrated"]
    values = {one["name"]: one for one in found["measures"]}
    assert values["area"]["unit"] == "px2"
    assert values["inside-l"]["value"] < values["around-l"]["value"]


def test_a_dermatoscopes_round_field_gives_its_scale() -> None:
    skin = np.full((600, 800, 3), (200, 150, 130), np.uint8)
    rows, columns = np.ogrid[:600, :800]
    skin[np.hypot(columns - 399.5, rows - 299.5) > 290] = 0
    content = cv2.imencode(".png", skin[..., ::-1])[1].tobytes()
    asked = {"photo": "round", "max_pixels": 10**8, "task": "look"}
    field = {"field_of_view": {"millimetres": 20.0, "tolerance": 0.02}}
    [offered] = measuring(asked | field, [content])[0]["scales"]
    assert offered["source"] == "field-of-view"
    assert offered["mm_per_pixel"] == pytest.approx(20 / 580, rel=0.01)
    assert measuring(asked, [content])[0]["scales"] == []


def test_beyond_the_horizon_of_a_flat_card_nothing_is_measured() -> None:
    seen = np.array([[0.0, 0.0], [100.0, 0.0], [90.0, 50.0], [10.0, 50.0]])  # its sides meet at (50, 250)
    card = Scale("card", seen, np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 10.0], [0.0, 10.0]]), 1.0, 0.01)
    card.check_reaches(np.array([[50.0, 100.0]]))
    for y in (249.0, 300.0, 5000.0):
        with pytest.raises(Unprocessable, match="too flat"):
            card.check_reaches(np.array([[50.0, 100.0], [50.0, y]]))
