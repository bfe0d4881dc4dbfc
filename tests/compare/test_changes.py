"""What changed: a new lesion stands out, light and hair do not, and nothing is said of photos that do not match."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from adapter.compare import align, find_changes, prepare
from adapter.compare.render import aligned_jpeg, change_png, overlay_jpeg
from adapter.compare.skin import texture
from adapter.errors import Unprocessable
from tests.compare.pairs import aligned, jpeg, other_skin, pair, photos


@pytest.mark.parametrize("name", ["normal", "hard"])
def test_a_new_lesion_is_the_first_of_the_ranked_regions(name: str) -> None:
    x, y, radius = pair(name).lesion or (0.0, 0.0, 0.0)
    first = find_changes(aligned(name)).regions[0]
    left, top, width, height = first.box
    assert left <= x <= left + width
    assert top <= y <= top + height
    assert max(width, height) < 4 * radius
    assert first.lightness < -5
    assert first.is_certain


@pytest.mark.parametrize("name", ["normal", "hard"])
def test_alignment_keeps_the_contrast_of_a_new_lesion(name: str) -> None:
    skin_map = aligned(name).skin_map
    assert skin_map is not None
    assert pair(name).kept_contrast(skin_map.to_right) >= 0.8


def test_other_light_is_no_change() -> None:
    left, _ = photos("normal")
    ramp = np.linspace(0.7, 0.95, 1200)[None, :, None]
    lit = np.clip(pair("normal").left * ramp * (0.93, 1.0, 1.06), 0, 255).astype(np.uint8)
    assert find_changes(align(left, prepare(jpeg(lit)))).regions == ()


def test_the_lesion_weighs_more_than_everything_else_on_the_map() -> None:
    change, (x, y, radius) = find_changes(aligned("hard")), pair("hard").lesion or (0.0, 0.0, 0.0)
    height, width = change.difference.shape
    ys, xs = np.mgrid[0:height, 0:width] * (1200 / width)
    inside = np.hypot(xs - x, ys - y) < 0.7 * radius
    assert change.difference[inside].mean() > np.percentile(change.difference[~inside], 99.0)


def test_nothing_is_said_of_change_between_photos_that_do_not_match() -> None:
    found = align(photos("normal")[0], prepare(jpeg(other_skin(301))))
    for refused in (find_changes, aligned_jpeg, overlay_jpeg):
        with pytest.raises(Unprocessable, match="not aligned"):
            refused(found)


def test_the_pictures_lie_in_the_frame_of_left() -> None:
    found = aligned("normal")
    pictures = [aligned_jpeg(found), overlay_jpeg(found), change_png(found, find_changes(found))]
    shapes = {cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_COLOR).shape for one in pictures}
    assert shapes == {found.left.picture.shape}
    moved = cv2.imdecode(np.frombuffer(pictures[0], np.uint8), cv2.IMREAD_COLOR)[..., 1]
    seen = ((moved > 20) & (found.left.mask > 0)).astype(np.uint8)
    ours, theirs = (texture(one.astype(np.float32), seen, 12.0) for one in (found.left.picture[..., 1], moved))
    assert np.corrcoef(ours[seen > 0], theirs[seen > 0])[0, 1] > 0.7
