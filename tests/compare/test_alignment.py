"""Where the skin is in the other photo: right to a pixel, never claimed for skin that is not there."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from adapter.compare import align, prepare
from adapter.compare.alignment import MIRRORED
from adapter.errors import Unprocessable, UnsupportedMedia
from tests.compare.pairs import FULL, WIDTH, aligned, around_the_lesion, errors, jpeg, other_skin, pair, photos

pytestmark = pytest.mark.long


@pytest.mark.parametrize(("name", "median", "p95"), [("normal", 0.5, 1.5), ("hard", 1.0, 4.0)])
def test_the_skin_is_found_to_a_pixel_of_a_12_megapixel_photo(name: str, median: float, p95: float) -> None:
    found = aligned(name)
    assert found.verdict == "aligned", found.reasons
    assert np.median(errors(name, found)) <= median
    assert np.percentile(errors(name, found), 95) <= p95


@pytest.mark.parametrize("name", ["normal", "hard"])
def test_a_new_lesion_does_not_bend_the_map(name: str) -> None:
    assert errors(name, aligned(name), around_the_lesion(name)).max() <= 4.0


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["normal", "hard"]), st.floats(0.2, 0.8), st.floats(0.2, 0.8))
def test_there_and_back_again_ends_where_it_began(name: str, x: float, y: float) -> None:
    there = aligned(name)
    back = _backwards(name)
    assert there.skin_map is not None
    assert back.skin_map is not None
    start = np.array([[x * WIDTH, y * WIDTH * 0.75]])
    seen = there.skin_map.to_right(start)
    if (seen > 60).all() and (seen < (WIDTH - 60, WIDTH * 0.75 - 60)).all():
        assert np.hypot(*(back.skin_map.to_right(seen) - start)[0]) * FULL < 8
        assert np.hypot(*(there.skin_map.to_left(seen) - start)[0]) < 0.05


_BACKWARDS: dict[str, Any] = {}


def _backwards(name: str) -> Any:
    if name not in _BACKWARDS:
        _BACKWARDS[name] = align(*photos(name)[::-1])
        assert _BACKWARDS[name].verdict == "aligned"
    return _BACKWARDS[name]


def test_the_same_photos_always_give_the_same_answer() -> None:
    again, points = align(*photos("hard")), [(400, 300), (700, 500)]
    assert again.mapped(points) == aligned("hard").mapped(points)
    assert again.as_json() == aligned("hard").as_json()


@pytest.mark.parametrize(
    ("left", "right"), [((300, "close-up"), (331, "close-up")), ((301, "dermoscopic"), (308, "dermoscopic"))]
)
def test_other_skin_is_not_aligned(left: tuple[int, str], right: tuple[int, str]) -> None:
    found = align(*(prepare(jpeg(other_skin(*one))) for one in (left, right)))
    assert found.verdict == "not-aligned"
    assert found.reasons
    assert found.mapped([(600, 450)]) == [None]


def test_what_a_device_leaves_on_every_photo_aligns_nothing() -> None:
    ruled = [other_skin(seed).copy() for seed in (301, 308)]
    for photo in ruled:
        for x in range(150, 1050, 18):
            cv2.line(photo, (x, 820), (x, 850 if x % 90 else 870), (20, 20, 20), 2)
        cv2.putText(photo, "DERM 2026", (420, 800), cv2.FONT_HERSHEY_SIMPLEX, 1.2, (20, 20, 20), 2)
    assert align(*(prepare(jpeg(photo)) for photo in ruled)).verdict == "not-aligned"


def test_a_mirrored_selfie_is_refused_by_name() -> None:
    found = align(photos("normal")[0], prepare(jpeg(pair("normal").right[:, ::-1])))
    assert found.verdict == "not-aligned"
    assert found.reasons == (MIRRORED,)


@pytest.mark.parametrize("turns", [1, 2])
def test_a_photo_taken_with_the_camera_turned_is_aligned(turns: int) -> None:
    turned = np.ascontiguousarray(np.rot90(pair("normal").right, turns))
    found = align(photos("normal")[0], prepare(jpeg(turned)))
    assert found.verdict == "aligned", found.reasons


def test_the_exif_orientation_is_followed_and_points_are_of_the_upright_photo() -> None:
    photo = Image.open(io.BytesIO(pair("normal").jpegs()[1]))
    lying, exif = photo.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6
    content = io.BytesIO()
    lying.save(content, "JPEG", quality=95, exif=exif)
    found = align(photos("normal")[0], prepare(content.getvalue()))
    assert found.right.size == (WIDTH, WIDTH * 3 // 4)
    assert np.median(errors("normal", found)) <= 0.6


def test_photos_of_different_resolution_are_mapped_in_the_pixels_of_each() -> None:
    half = cv2.resize(pair("normal").right, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    found = align(photos("normal")[0], prepare(jpeg(half)))
    points = pair("normal").grid(10)
    truth = (pair("normal").view.seen_at(points) + 0.5) / 2 - 0.5
    assert found.skin_map is not None
    assert np.median(np.hypot(*(found.skin_map.to_right(points) - truth).T)) * FULL < 0.5


def test_a_close_up_is_found_in_the_regional_view_around_it() -> None:
    x, y, w, h = 300, 200, 600, 450
    close = cv2.resize(pair("normal").right[y : y + h, x : x + w], (1200, 900), interpolation=cv2.INTER_CUBIC)
    found = align(photos("normal")[0], prepare(jpeg(close)))
    assert found.verdict == "aligned", found.reasons
    mapped = found.mapped([[600.0, 450.0], [20.0, 20.0]])
    seen = pair("normal").view.seen_at(np.array([[600.0, 450.0]]))[0]
    assert mapped[0] == pytest.approx(((seen - (x, y) + 0.5) * 2 - 0.5).tolist(), abs=1.0)
    assert mapped[1] is None


def test_points_outside_either_photo_are_mapped_to_nothing() -> None:
    assert aligned("normal").mapped([(-5, 10), (WIDTH, 10), (WIDTH * 9, 1)]) == [None, None, None]
    assert aligned("normal").mapped([]) == []


def test_what_is_no_photo_is_refused_with_its_reason() -> None:
    with pytest.raises(UnsupportedMedia):
        prepare(b"hello")
    with pytest.raises(Unprocessable):
        prepare(pair("normal").jpegs()[0][:5000])


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (40, 30)])
def test_photos_with_nothing_on_them_are_answered_not_crashed_on(size: tuple[int, int]) -> None:
    content = io.BytesIO()
    Image.new("RGB", size, (200, 150, 120)).save(content, "PNG")
    blank = prepare(content.getvalue())
    assert align(blank, blank).verdict == "not-aligned"
    assert align(photos("normal")[0], blank).verdict == "not-aligned"
