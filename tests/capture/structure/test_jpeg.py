"""JPEG: complete or refused, everything but the picture gone."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from PIL import Image

from adapter.capture import exif
from adapter.capture.inspection import inspect
from adapter.errors import TooLarge, Unprocessable

DATA = Path(__file__).parents[2] / "data"


def clean(data: bytes) -> bytes:
    return inspect(data).view.assemble(data)


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def with_segment(data: bytes, added: bytes) -> bytes:
    """Right after the start-of-image marker."""
    return data[:2] + added + data[2:]


@pytest.mark.parametrize("cut", [3, 20, 200, 700, -1, -2, -3])
def test_a_truncated_jpeg_is_refused_with_its_reason(photo, cut):
    with pytest.raises(Unprocessable, match="truncated"):
        inspect(photo("JPEG")[:cut])


def test_a_cut_file_with_a_forged_end_marker_is_refused(scene, photo):
    whole = photo("JPEG", scene(1600, 1200), quality=20)
    start_of_scan = whole.rindex(b"\xff\xda")
    with pytest.raises(Unprocessable, match="a part of the picture data is missing"):
        inspect(whole[: start_of_scan + 60] + b"\xff\xd9")


def test_a_picture_without_one_of_its_colours_is_refused(photo):
    whole = photo("JPEG", progressive=True)
    scans = [match.start() for match in re.finditer(rb"\xff\xda", whole)]
    first = whole[scans[0] + 4]
    assert first == 3, "the first scan of a progressive photo holds all three components"
    only_luma = bytearray(whole)
    only_luma[scans[0] + 7 : scans[0] + 11] = only_luma[scans[0] + 5 : scans[0] + 7] * 2
    cut = bytes(only_luma[: scans[1]]) + b"\xff\xd9"
    with pytest.raises(Unprocessable, match="a part of the picture data is missing"):
        inspect(cut)


def test_what_follows_the_picture_is_cut(photo):
    motion = photo("JPEG") + b"\0\0\0\x18ftypmp42" + b"video with a voice" * 50 + b"\xff\xd9"
    found = inspect(motion)
    assert "data after the picture" in found.removed
    assert b"ftypmp42" not in clean(motion)
    assert clean(motion).endswith(b"\xff\xd9")


@pytest.mark.parametrize("name", ["frozenpond.mpo", "sugarshack.mpo", "frame_size.mpo"])
def test_second_pictures_are_cut(name, opened):
    original = (DATA / "malformed" / name).read_bytes()
    found = inspect(original)
    assert {"further pictures (MPF)", "data after the picture"} <= set(found.removed)
    assert b"MPF\0" not in clean(original)
    assert opened(clean(original)).format == "JPEG"


def test_only_the_orientation_survives_of_exif(photo, opened, secrets):
    original = photo("JPEG", orientation=6)
    found = inspect(original)
    left = clean(original)
    assert dict(opened(left).getexif()) == {exif.ORIENTATION: 6}
    assert all(secret in original and secret not in left for secret in secrets)
    assert set(found.removed) == {
        "GPS position",
        "device serial number",
        "owner or author name",
        "maker note",
        "comments",
        "camera settings and times",
        "XMP",
    }


def test_an_upright_photo_keeps_no_exif_at_all(photo):
    assert b"Exif" not in clean(photo("JPEG"))


def test_what_the_colours_need_is_kept(photo, opened, scene):
    profile = opened((DATA / "malformed" / "icc-after-SOF.jpg").read_bytes()).info["icc_profile"]
    cmyk = photo("JPEG", scene(mode="CMYK"), icc_profile=profile)
    left = opened(clean(cmyk))
    assert left.info["icc_profile"] == profile
    assert left.info["adobe_transform"] == opened(cmyk).info["adobe_transform"]
    assert left.tobytes() == opened(cmyk).tobytes()


def test_a_jfif_thumbnail_is_dropped_and_its_size_zeroed(photo):
    plain = photo("JPEG", exif=b"", xmp=b"", comment=b"")
    face = b"\x01\x02\x03" * 4
    body = b"JFIF\0\x01\x01\0\0\x01\0\x01" + bytes([2, 2]) + face
    original = plain[:2] + segment(0xE0, body) + plain[20:]
    found = inspect(original)
    assert found.removed == ("embedded thumbnail",)
    assert face not in clean(original)
    assert clean(original)[:20] == plain[:2] + segment(0xE0, body[:12] + b"\0\0")


@pytest.mark.parametrize("marker", [*range(0xE1, 0xF0), 0xF0, 0xF7, 0xFD, 0xFE])
def test_unknown_application_segments_are_dropped(photo, marker):
    original = with_segment(photo("JPEG"), segment(marker, b"VENDOR\0serial 4711"))
    assert b"serial 4711" not in clean(original)


def test_bytes_between_segments_are_dropped(photo):
    whole = photo("JPEG")
    original = whole[:20] + b"hidden between segments" + whole[20:]
    assert b"hidden between" not in clean(original)


def test_declared_size_is_checked_before_any_decoding(photo):
    bomb = bytearray(photo("JPEG"))
    frame = bomb.index(b"\xff\xc0")
    bomb[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    with pytest.raises(TooLarge, match="60000 x 60000 pixels, over the limit of 120 megapixels"):
        inspect(bytes(bomb))


def test_the_size_limit_is_the_callers(photo):
    with pytest.raises(TooLarge, match="over the limit"):
        inspect(photo("JPEG"), max_pixels=96 * 64 - 1)


def test_a_picture_of_no_height_is_refused(photo):
    flat = bytearray(photo("JPEG"))
    frame = flat.index(b"\xff\xc0")
    flat[frame + 5 : frame + 7] = b"\0\0"
    with pytest.raises(Unprocessable, match="96 x 0 pixels"):
        inspect(bytes(flat))


def test_thousands_of_progressive_passes_are_refused(photo):
    whole = photo("JPEG", progressive=True)
    scans = [match.start() for match in re.finditer(rb"\xff\xda", whole)]
    last = whole[scans[-1] : -2]
    with pytest.raises(TooLarge, match="passes"):
        inspect(whole[:-2] + last * 100 + b"\xff\xd9")


def test_thousands_of_segments_are_refused(photo):
    with pytest.raises(Unprocessable, match="segments"):
        inspect(with_segment(photo("JPEG"), segment(0xFE, b"") * 5000))


def test_restart_markers_and_stuffed_bytes_belong_to_the_picture(photo, scene, opened):
    noisy = Image.effect_noise((160, 120), 90).convert("RGB")
    original = photo("JPEG", noisy, quality=98, restart_marker_rows=1)
    assert b"\xff\xd3" in original
    assert b"\xff\x00" in original
    assert opened(clean(original)).tobytes() == opened(original).tobytes()
