"""Every file of the corpora is cleaned without touching a pixel, and rendered, or refused in words."""

from __future__ import annotations

import io
import re
import warnings

import pytest
from PIL import Image, ImageFile, ImageOps

from adapter.capture.formats import ImageFormat
from adapter.capture.inspection import inspect
from adapter.capture.rendition import DEFAULT_SIZES
from adapter.capture.renditions import render
from adapter.errors import DermBridgeError

ORIENTATION, EXIF_IFD, GPS_IFD = 0x0112, 0x8769, 0x8825
TELLING_TAGS = {0x010E, 0x013B, 0x8298, 0x9286, 0xA420, 0xA430, 0xA431, 0xA435}
METADATA_MARKS = (b"http://ns.adobe.com/", b"<x:xmpmeta", b"xpacket", b"Photoshop 3.0", b"8BIM", b"MPF\0", b"ftypmp4")
MINIMAL_EXIF = re.compile(rb"Exif\0\0MM\0\*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0[\x02-\x08]\0\0\0\0\0\0")


def test_every_file_is_cleaned_without_touching_a_pixel_or_refused_in_words(corpus_file):
    original = corpus_file.read_bytes()
    try:
        found = inspect(original)
    except DermBridgeError as refusal:
        assert re.fullmatch(r"This .{30,250}\.", str(refusal))
        return
    clean = found.view.assemble(original)
    assert found.view.size == len(clean) <= len(original) + 64
    before, after = opened(original), opened(clean)
    if before is not None:
        assert after is not None
        assert (after.mode, after.size) == (before.mode, before.size)
        assert after.tobytes() == before.tobytes()
        assert ImageOps.exif_transpose(after).size == (found.width, found.height)
    check_nothing_personal_left(found.format, before, clean, after)
    again = inspect(clean)
    assert again.view.is_identity
    assert again.removed == ()
    assert (again.width, again.height, again.orientation) == (found.width, found.height, found.orientation)


def test_every_file_renders_or_is_refused_in_words(corpus_file):
    original = corpus_file.read_bytes()
    try:
        renditions = render(original)
    except DermBridgeError as refusal:
        assert re.fullmatch(r"Th(is|e) .{30,250}\.", str(refusal))
        return
    found = inspect(original)
    for name, edge in DEFAULT_SIZES.items():
        picture = opened(renditions[name].content)
        assert picture is not None
        assert picture.mode == "RGB"
        assert max(picture.size) == min(edge, max(found.width, found.height))
        assert not {"exif", "xmp", "icc_profile", "comment", "photoshop"} & picture.info.keys()


def opened(content: bytes) -> Image.Image | None:
    """Decoded by Pillow, or None when even Pillow cannot."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(content))
            image.load()
        except (OSError, SyntaxError, ValueError):
            return None
    return image


def check_nothing_personal_left(
    format_: ImageFormat, before: Image.Image | None, clean: bytes, after: Image.Image | None
) -> None:
    for value in telling_values(before):
        assert value not in clean
    without_minimal = MINIMAL_EXIF.sub(b"", clean)
    marks = METADATA_MARKS if format_ is not ImageFormat.TIFF else METADATA_MARKS[:3]
    assert not [mark for mark in (*marks, b"Exif\0\0") if mark in without_minimal]
    left = after.getexif() if after is not None else Image.Exif()
    assert set(left) <= {ORIENTATION} or format_ is ImageFormat.TIFF
    assert not left.get_ifd(EXIF_IFD)
    assert not left.get_ifd(GPS_IFD)
    assert after is None or not after.info.get("thumbnails")


def telling_values(image: Image.Image | None) -> list[bytes]:
    """Names, comments and serial numbers that Pillow finds, long enough not to occur by chance."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tags = image.getexif() if image is not None else Image.Exif()
            found = [*tags.items(), *tags.get_ifd(EXIF_IFD).items()]
        except (ValueError, TypeError, KeyError, SyntaxError, OSError):
            return []
    texts = [value if isinstance(value, bytes) else str(value).encode() for tag, value in found if tag in TELLING_TAGS]
    return [text.strip(b"\0 ")[:32] for text in texts if len(text.strip(b"\0 ")) > 6]


def test_truncated_images_stay_refused_by_the_decoder():
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("name", ["87_OSError.jpg", "32-lens_data.jpeg", "45-gps_ifd.jpg"])
def test_the_corpus_check_has_something_to_find(name, request):
    folder = request.path.parents[1] / "data" / "photos"
    assert telling_values(opened((folder / name).read_bytes()))
