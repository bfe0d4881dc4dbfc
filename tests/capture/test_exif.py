"""EXIF tells when, with what and which way up; a broken block tells nothing and harms nothing."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from adapter.capture import exif


def block(tags: dict[int, object], private: dict[int, object] | None = None) -> bytes:
    written = Image.Exif()
    for tag, value in tags.items():
        written[tag] = value
    written.get_ifd(exif.EXIF_IFD).update(private or {})
    return written.tobytes().removeprefix(b"Exif\0\0")


def test_the_moment_comes_with_the_offset_the_camera_says():
    facts = exif.read(block({}, {0x9003: "2026:11:20 09:30:00", 0x9291: "25", 0x9011: "-03:30"}))
    assert facts.taken_at_local == datetime(2026, 11, 20, 9, 30, 0, 250000)  # noqa: DTZ001 - naive by nature
    assert facts.utc_offset == timedelta(hours=-3, minutes=-30)


def test_the_moment_stays_local_without_an_offset():
    facts = exif.read(block({}, {0x9003: "2026:11:20 09:30:00"}))
    assert facts.taken_at_local == datetime(2026, 11, 20, 9, 30)  # noqa: DTZ001 - naive by nature
    assert facts.utc_offset is None


def test_the_digitized_moment_stands_in_for_a_missing_original():
    facts = exif.read(block({}, {0x9003: "    :  :     :  :  ", 0x9004: "2025:01:02 03:04:05", 0x9012: "+00:00"}))
    assert facts.taken_at_local == datetime(2025, 1, 2, 3, 4, 5)  # noqa: DTZ001 - naive by nature
    assert facts.utc_offset == timedelta(0)


@pytest.mark.parametrize("offset", ["", "CEST", "+25:00", "   :  ", "+2"])
def test_a_nonsense_offset_is_no_offset(offset):
    assert exif.read(block({}, {0x9003: "2026:11:20 09:30:00", 0x9011: offset})).utc_offset is None


@pytest.mark.parametrize(
    ("make", "model", "device"),
    [
        ("Apple", "iPhone 12", "Apple iPhone 12"),
        ("Canon", "Canon EOS 5D", "Canon EOS 5D"),
        ("NIKON CORPORATION", "NIKON D300\0\0", "NIKON D300"),
        ("", "SM-G930F", "SM-G930F"),
        ("", "", None),
    ],
)
def test_the_device_is_named_once(make, model, device):
    assert exif.read(block({exif.MAKE: make, exif.MODEL: model} if make or model else {})).device == device


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_impossible_orientation_is_upright(orientation):
    assert exif.read(block({exif.ORIENTATION: orientation})).orientation == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_minimal_block_holds_the_orientation_and_nothing_else(orientation):
    facts = exif.read(exif.minimal(orientation))
    assert (facts.orientation, facts.kinds) == (orientation, ())
    assert dict(_loaded(exif.minimal(orientation))) == {exif.ORIENTATION: orientation}


def _loaded(content: bytes) -> Image.Exif:
    loaded = Image.Exif()
    loaded.load(b"Exif\0\0" + content)
    return loaded


@given(st.binary(max_size=200))
def test_any_bytes_after_a_tiff_header_are_read_or_ignored(tail):
    for header in (b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"):
        assert 1 <= exif.read(header + tail).orientation <= 8


@given(st.data())
def test_a_damaged_block_never_raises(data):
    whole = bytearray(block({exif.ORIENTATION: 6, exif.MAKE: "Apple"}, {0x9003: "2026:11:20 09:30:00"}))
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=6)):
        whole[at] = data.draw(st.integers(0, 255))
    exif.read(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
