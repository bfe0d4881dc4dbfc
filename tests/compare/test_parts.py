"""The stages by themselves: shifts of blocks, splines, landmarks, the gate, colour."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms
from pillow_heif import open_heif

from adapter.compare import align_by_landmarks, prepare
from adapter.compare.blocks import measure_shifts
from adapter.compare.gate import CRITERIA, Evidence, decide
from adapter.compare.geometry import to_copy, to_full
from adapter.compare.skin import usable
from adapter.compare.spline import Spline, fit_spline
from adapter.errors import BadInput
from tests.compare.pairs import aligned, errors, jpeg, other_skin, pair, photos

DATA = Path(__file__).parents[1] / "data"
GOOD = Evidence(
    inliers=200,
    matches=300,
    patches=400,
    agreeing=300,
    spread=1.0,
    halves=0.5,
    halves_p95=2.0,
    pixel=4.0,
    folding=0.9,
    shear=1.1,
)
SIDE = st.integers(1, 9000)


@given(SIDE, SIDE, st.tuples(SIDE, SIDE), st.tuples(SIDE, SIDE))
def test_a_point_of_a_copy_is_the_same_point_of_the_photo(
    x: int, y: int, copy: tuple[int, int], full: tuple[int, int]
) -> None:
    point = np.array([[x, y]], np.float64)
    assert to_copy(to_full(point, copy, full), copy, full) == pytest.approx(point, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (2.3, -1.7), (-3.5, 0.4)])
def test_the_shift_of_a_block_is_measured_to_a_fraction_of_a_pixel(shift: tuple[float, float]) -> None:
    spectrum = np.fft.fft2(np.random.default_rng(1).normal(size=(200, 200)))
    fy, fx = np.meshgrid(np.fft.fftfreq(200), np.fft.fftfreq(200), indexing="ij")
    soft = np.exp(-((fx**2 + fy**2) * 200))
    moved = np.exp(-2j * np.pi * (fx * shift[0] + fy * shift[1]))
    left, right = (np.fft.ifft2(spectrum * soft * phase).real for phase in (1, moved))
    scale = left.std()
    found = measure_shifts(
        (left / scale).astype(np.float32), (right / scale).astype(np.float32), block=48, reach=8, stride=24
    )
    assert np.median(found.shifts, axis=0) == pytest.approx(shift, abs=0.15)
    assert np.median(found.clarity) > 3


def test_a_spline_goes_through_smooth_movement_and_past_what_contradicts_it() -> None:
    rng = np.random.default_rng(2)
    points = rng.uniform(0, (4000, 3000), (400, 2))
    true = np.c_[5 + points[:, 0] / 200, 8 * np.sin(points[:, 1] / 700)]
    given_ = true + rng.normal(0, 0.3, true.shape)
    wrong = np.hypot(*(points - (2000, 1500)).T) < 300
    given_[wrong] += (25, -18)
    spline = fit_spline(
        (4000, 3000), (8, 6), points, given_, np.ones(400), stiffness=0.02, scales=(40, 20, 10, 5, 2, 2)
    )
    apart = np.hypot(*(spline.at(points) - true).T)
    assert np.median(apart) < 0.3
    assert apart[wrong].max() < 3


def test_a_spline_is_the_same_point_by_point_and_as_a_grid() -> None:
    spline = Spline((400, 300), (3, 2), np.random.default_rng(3).normal(size=(30, 2)))
    grid = np.stack(spline.on_grid((40, 30)), axis=-1)
    points = to_full(np.array([[0, 0], [39, 29], [17, 5]]), (40, 30), (400, 300))
    assert spline.at(points) == pytest.approx(np.array([grid[0, 0], grid[29, 39], grid[5, 17]]), abs=1e-4)


def test_the_rim_and_the_reflections_of_a_dermatoscope_are_left_out() -> None:
    photo = prepare(jpeg(other_skin(301)))
    height, width = photo.mask.shape
    assert photo.mask[height // 2, width // 2] == 1
    assert photo.mask[:20, :20].max() == 0
    assert photo.mask[int(0.42 * height), int(0.02 * width)] == 0


def test_dark_skin_is_skin() -> None:
    dark = np.full((300, 400, 3), (52, 34, 26), np.uint8)
    assert usable(dark).min() == 1


def test_good_evidence_is_aligned_and_says_why() -> None:
    verdict, reasons = decide(GOOD)
    assert verdict == "aligned"
    assert len(reasons) == 1


@pytest.mark.parametrize(
    "bad",
    [
        {"agreeing": 12},
        {"agreeing": 20, "patches": 60},
        {"spread": 0.2},
        {"halves": 9.0},
        {"halves_p95": 25.0},
        {"folding": -0.5},
        {"shear": 3.0},
    ],
)
def test_each_criterion_alone_keeps_a_pair_from_being_called_aligned(bad: dict[str, float]) -> None:
    verdict, reasons = decide(replace(GOOD, **bad))
    assert verdict != "aligned"
    assert any(reason not in decide(GOOD)[1] for reason in reasons)


def test_a_verdict_of_approximate_names_what_is_missing() -> None:
    verdict, reasons = decide(replace(GOOD, halves=6.0))
    assert verdict == "approximate"
    assert any("halves" in reason and "6.0 px" in reason for reason in reasons[1:])


def test_the_limits_of_approximate_are_never_stricter_than_those_of_aligned() -> None:
    for one in CRITERIA:
        assert (one.approximate >= one.aligned) if one.at_most else (one.approximate <= one.aligned)


def test_three_points_placed_by_hand_are_refined() -> None:
    ours = np.array([[250.0, 250.0], [900.0, 300.0], [500.0, 700.0]])
    theirs = pair("hard").view.seen_at(ours) + np.array([[4, -3], [-5, 2], [3, 3]])
    found = align_by_landmarks(*photos("hard"), list(zip(map(tuple, ours), map(tuple, theirs), strict=True)))
    assert found.verdict == "aligned", found.reasons
    assert "by hand" in found.method
    assert np.median(errors("hard", found)) < 1.5


def test_where_the_skin_cannot_be_followed_the_points_alone_are_called_approximate() -> None:
    blank = prepare(jpeg(np.full((900, 1200, 3), 180, np.uint8)))
    marks = [((100, 100), (110, 120)), ((1000, 100), (1010, 120)), ((100, 800), (110, 820))]
    found = align_by_landmarks(blank, blank, marks)
    assert found.verdict == "approximate"
    assert found.mapped([(500, 400)]) == [pytest.approx([510, 420], abs=0.01)]


@pytest.mark.parametrize(
    ("marks", "sentence"),
    [
        ([((1, 1), (1, 1)), ((9, 9), (9, 9))], "three points"),
        ([((0, 0), (0, 0)), ((500, 1), (500, 0)), ((900, 0), (900, 0))], "one line"),
        ([((0, 0), (900, 0)), ((900, 0), (0, 0)), ((0, 800), (900, 800))], "mirror image"),
    ],
)
def test_points_that_make_no_map_are_refused(
    marks: list[tuple[tuple[float, float], tuple[float, float]]], sentence: str
) -> None:
    with pytest.raises(BadInput, match=sentence):
        align_by_landmarks(*photos("normal"), marks)


def test_a_phone_s_display_p3_is_compared_in_srgb() -> None:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(_display_p3()))
    plain = Image.fromarray(np.ascontiguousarray(pair("normal").left[..., ::-1]))
    wide = ImageCms.profileToProfile(plain, ImageCms.createProfile("sRGB"), profile, outputMode="RGB")
    assert wide is not None
    assert np.abs(np.asarray(wide, float) - np.asarray(plain, float)).mean() > 2
    content = io.BytesIO()
    wide.save(content, "PNG", icc_profile=_display_p3())
    ours = io.BytesIO()
    plain.save(ours, "PNG")
    apart = np.abs(prepare(content.getvalue()).picture.astype(int) - prepare(ours.getvalue()).picture.astype(int))
    assert apart.mean() < 1


def _display_p3() -> bytes:
    found = open_heif(DATA / "photos" / "iphone_13_pro_max.HEIC").info["icc_profile"]
    assert isinstance(found, bytes)
    return found


def test_what_is_measured_is_labelled_with_how() -> None:
    answer = aligned("normal").as_json()
    assert answer["method"]
    assert answer["version"]
