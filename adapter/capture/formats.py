"""Which picture format a body is, by its content alone.

File names and Content-Type headers are claims; the first bytes are what a decoder will act on. Whatever is not one of
the five accepted formats is refused by name, so that the sender learns what went wrong.
"""

from __future__ import annotations

from enum import Enum

from adapter.errors import UnsupportedMedia


class ImageFormat(Enum):
    """An accepted photo format; the value is its media type (IANA), `suffix` the usual file name ending."""

    JPEG = "image/jpeg"
    PNG = "image/png"
    HEIC = "image/heic"
    WEBP = "image/webp"
    TIFF = "image/tiff"

    @property
    def content_type(self) -> str:
        return self.value

    @property
    def suffix(self) -> str:
        return _SUFFIXES[self]

    @property
    def label(self) -> str:
        """The name people use, for sentences."""
        return "WebP" if self is ImageFormat.WEBP else self.name


_SUFFIXES = {
    ImageFormat.JPEG: ".jpg",
    ImageFormat.PNG: ".png",
    ImageFormat.HEIC: ".heic",
    ImageFormat.WEBP: ".webp",
    ImageFormat.TIFF: ".tif",
}

ACCEPTED = "send a JPEG, PNG, HEIC, WebP or TIFF photo"

_ACCEPTED_MAGIC: tuple[tuple[int, bytes, ImageFormat], ...] = (
    (0, b"\xff\xd8\xff", ImageFormat.JPEG),
    (0, b"\x89PNG\r\n\x1a\n", ImageFormat.PNG),
    (8, b"WEBP", ImageFormat.WEBP),
    (0, b"II*\x00", ImageFormat.TIFF),
    (0, b"MM\x00*", ImageFormat.TIFF),
)

_HEVC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"heif"})
_NEUTRAL_BRANDS = frozenset({b"mif1", b"mif2"})

_REFUSED_BRANDS: dict[bytes, str] = {
    b"avif": "an AVIF picture",
    b"avis": "an AVIF image sequence",
    b"hevc": "a HEIC image sequence",
    b"hevx": "a HEIC image sequence",
    b"msf1": "a HEIF image sequence",
    b"qt  ": "a QuickTime video",
    b"crx ": "a Canon raw file (CR3)",
}

_REFUSED_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF", "a PDF"),
    (0, b"GIF8", "a GIF"),
    (0, b"BM", "a BMP"),
    (0, b"II+\x00", "a BigTIFF"),
    (0, b"MM\x00+", "a BigTIFF"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 code stream"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (0, b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture"),
    (0, b"\x00\x00\x01\x00", "an icon file (ICO)"),
    (0, b"FUJIFILMCCD-RAW", "a Fujifilm raw file"),
    (0, b"IIU\x00", "a Panasonic raw file"),
    (128, b"DICM", "a DICOM object"),
    (8, b"AVI ", "an AVI video"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (0, b"PK\x03\x04", "a ZIP archive or office document"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"{", "JSON"),
)

_REFUSED_TEXT: tuple[tuple[bytes, str], ...] = (
    (b"<svg", "an SVG drawing"),
    (b"<html", "an HTML page"),
    (b"<!doctype html", "an HTML page"),
    (b"<?xml", "an XML document"),
)


def sniff(data: bytes) -> ImageFormat:
    """The format of `data`; raises UnsupportedMedia naming what the bytes look like instead."""
    for offset, magic, found in _ACCEPTED_MAGIC:
        if data.startswith(magic, offset) and (found is not ImageFormat.WEBP or data.startswith(b"RIFF")):
            return found
    if data[4:8] == b"ftyp":
        return _sniff_boxes(data)
    raise _refusal(_name(data))


def _sniff_boxes(data: bytes) -> ImageFormat:
    """ISO base media: HEIC when a HEVC brand is there, or a neutral one and none that names another coding.

    ISO/IEC 23008-12 Annex B brands; the items themselves are checked by the structural walk.
    """
    size = min(int.from_bytes(data[:4], "big"), 4096)
    major = data[8:12]
    brands = {major} | {data[at : at + 4] for at in range(16, size, 4)}
    if major in _HEVC_BRANDS or (major in _NEUTRAL_BRANDS and (brands & _HEVC_BRANDS or b"avif" not in brands)):
        return ImageFormat.HEIC
    named = [_REFUSED_BRANDS[brand] for brand in (major, *sorted(brands)) if brand in _REFUSED_BRANDS]
    raise _refusal(named[0] if named else "an MP4 video")


def _name(data: bytes) -> str:
    if not data:
        return "an empty body"
    for offset, magic, name in _REFUSED_MAGIC:
        if data.startswith(magic, offset):
            return name
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"<"):
        return next((name for magic, name in _REFUSED_TEXT if magic in head), "an XML document")
    return "no picture format known here"


def _refusal(name: str) -> UnsupportedMedia:
    return UnsupportedMedia(f"This looks like {name}; {ACCEPTED}.")
