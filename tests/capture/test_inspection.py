"""One inspection gives what capture stores; whatever bytes arrive, the answer is an inspection or a refusal."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapter.capture.formats import ImageFormat
from adapter.capture.inspection import Inspection, inspect
from adapter.errors import DermBridgeError, TooLarge, Unprocessable, UnsupportedMedia

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "HEIF")
WHOLE_TO_THE_LAST_BYTE = ("JPEG", "PNG", "WEBP", "HEIF")
REFUSALS = (TooLarge, Unprocessable, UnsupportedMedia)


@pytest.mark.parametrize("format_", FORMATS)
def test_an_inspection_tells_what_capture_stores(format_, photo):
    found = inspect(photo(format_, orientation=6))
    assert found.format is (ImageFormat.HEIC if format_ == "HEIF" else ImageFormat[format_])
    assert (found.width, found.height, found.orientation) == (64, 96, 6)
    assert found.device == "Apple iPhone 12"
    assert found.taken_at_local == datetime(2026, 11, 20, 9, 30, 0, 250000)  # noqa: DTZ001 - naive by nature
    assert found.utc_offset == timedelta(hours=2)
    assert {"GPS position", "device serial number", "maker note"} <= set(found.removed)
    assert not found.view.is_identity


@pytest.mark.parametrize("format_", FORMATS)
def test_a_photo_without_metadata_is_its_own_clean_copy(format_, photo):
    bare = photo(format_)
    bare = inspect(bare).view.assemble(bare)
    assert inspect(bare).view.is_identity
    assert inspect(bare).removed == ()


@given(st.data())
def test_a_cut_photo_is_always_refused(photo, data):
    whole = _clean(photo(data.draw(st.sampled_from(WHOLE_TO_THE_LAST_BYTE)), orientation=6))
    with pytest.raises(DermBridgeError):
        inspect(whole[: data.draw(st.integers(0, len(whole) - 1))])


@settings(max_examples=250)
@given(st.data())
def test_damaged_bytes_are_inspected_or_refused(photo, data):
    broken = bytearray(photo(data.draw(st.sampled_from(FORMATS)), orientation=6))
    reach = data.draw(st.sampled_from([64, 400, len(broken)]))
    for at in data.draw(st.lists(st.integers(0, min(reach, len(broken)) - 1), min_size=1, max_size=8)):
        broken[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFE, 0xFF]) | st.integers(0, 255))
    check_inspected_or_refused(bytes(broken))


@settings(max_examples=200)
@given(st.data())
def test_random_bytes_after_a_valid_start_are_inspected_or_refused(photo, data):
    whole = photo(data.draw(st.sampled_from(FORMATS)))
    start = whole[: data.draw(st.integers(0, len(whole)))]
    check_inspected_or_refused(start + data.draw(st.binary(max_size=300)))


@given(st.binary(max_size=400))
def test_random_bytes_are_inspected_or_refused(content):
    check_inspected_or_refused(content)


def check_inspected_or_refused(content: bytes) -> None:
    """And what is accepted has a clean copy that would be accepted as it is."""
    try:
        found = inspect(content)
    except REFUSALS:
        return
    assert isinstance(found, Inspection)
    clean = found.view.assemble(content)
    again = inspect(clean)
    assert (again.width, again.height, again.orientation) == (found.width, found.height, found.orientation)
    assert again.view.is_identity


def _clean(content: bytes) -> bytes:
    return inspect(content).view.assemble(content)
