"""Formats are told by content, and what is refused is named."""

from __future__ import annotations

import pytest

from adapter.capture.formats import ImageFormat, sniff
from adapter.errors import UnsupportedMedia

EXPECTED = {"JPEG": "JPEG", "PNG": "PNG", "WEBP": "WEBP", "TIFF": "TIFF", "HEIF": "HEIC"}


@pytest.mark.parametrize("made_as", EXPECTED)
def test_each_accepted_format_is_recognised(made_as, photo):
    assert sniff(photo(made_as)) is ImageFormat[EXPECTED[made_as]]


@pytest.mark.parametrize(
    ("head", "named"),
    [
        (b"%PDF-1.7\n", "a PDF"),
        (b"GIF89a", "a GIF"),
        (b"BM\x00\x00", "a BMP"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"<!DOCTYPE html><title>Login</title>", "an HTML page"),
        (b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmif1miaf", "an AVIF picture"),
        (b"\x00\x00\x00\x1cftypmif1\x00\x00\x00\x00mif1avifmiaf", "an AVIF picture"),
        (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom", "an MP4 video"),
        (b"\x00\x00\x00\x14ftypqt  \x00\x00\x00\x00qt  ", "a QuickTime video"),
        (b"RIFF\x10\x00\x00\x00AVI LIST", "an AVI video"),
        (bytes(128) + b"DICM", "a DICOM object"),
        (b"II+\x00\x08\x00\x00\x00", "a BigTIFF"),
        (b'{"resourceType":"Media"}', "JSON"),
        (b"", "an empty body"),
        (b"\x00\x01\x02\x03 nothing", "no picture format known here"),
    ],
)
def test_other_content_is_refused_by_name(head, named):
    with pytest.raises(UnsupportedMedia) as refused:
        sniff(head)
    assert str(refused.value) == f"This looks like {named}; send a JPEG, PNG, HEIC, WebP or TIFF photo."


def test_content_type_and_suffix_follow_the_format():
    assert (ImageFormat.HEIC.content_type, ImageFormat.HEIC.suffix) == ("image/heic", ".heic")
    assert {format_.suffix for format_ in ImageFormat} == {".jpg", ".png", ".heic", ".webp", ".tif"}
