"""JPEG: markers and segments (ITU-T T.81 Annex B), JFIF, Adobe, ICC; everything else is dropped.

The walk ends at the end-of-image marker of the first picture, so second pictures (CIPA DC-007 MPF), motion-photo
videos and any other trailer fall away. Entropy-coded data is skipped by one regular expression at memory speed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from adapter.capture import exif
from adapter.capture.formats import ImageFormat
from adapter.capture.structure.model import (
    TRAILER,
    Structure,
    check_pixels,
    malformed,
    truncated,
    unpack,
)
from adapter.errors import TooLarge
from adapter.records.clean_view import CleanView, Keep, Literal, Segment

_JPEG = ImageFormat.JPEG
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # not a stuffed 0xFF, not a restart marker, not a fill byte
_SOI, _EOI, _SOS, _COM, _APP0, _APP14, _APP15 = 0xD8, 0xD9, 0xDA, 0xFE, 0xE0, 0xEE, 0xEF
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HUFFMAN_DCT = frozenset({0xC0, 0xC1, 0xC2})
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_TABLES = frozenset({0xC4, 0xCC, *range(0xDB, 0xE0)})  # DHT, DAC, DQT, DNL, DRI, DHP, EXP

_EXIF, _JFIF, _ADOBE, _ICC_PROFILE = b"Exif\0\0", b"JFIF\0", b"Adobe", b"ICC_PROFILE\0"
_DROPPED: tuple[tuple[bytes, str], ...] = (
    (b"http://ns.adobe.com/", "XMP"),
    (b"Photoshop 3.0", "IPTC"),
    (b"Adobe_Photoshop", "IPTC"),
    (b"MPF\0", "further pictures (MPF)"),
    (b"JFXX", exif.THUMBNAIL),
)
_OTHER = "application data"

# A progressive file can ask for a pass over all coefficients with each 20-byte scan. Cameras and encoders write at
# most 12 scans (libjpeg's default script has 10).
MAX_SCANS = 64
MAX_SEGMENTS = 4096


@dataclass(slots=True)
class _Walk:
    """What is gathered on the way from SOI to EOI."""

    segments: list[Segment] = field(default_factory=lambda: [Keep(0, 2)])
    dropped: list[str] = field(default_factory=list)
    block: bytes | None = None
    facts: exif.ExifFacts = field(default_factory=exif.ExifFacts)
    has_icc: bool = False
    frame: tuple[int, int, int] | None = None  # (marker, width, height)
    components: set[int] = field(default_factory=set)
    scanned: set[int] = field(default_factory=set)
    scans: int = 0
    coded: int = 0


def walk(data: bytes, max_pixels: int) -> Structure:
    found = _Walk()
    at = 2
    for _ in range(MAX_SEGMENTS):
        match = _MARKER.search(data, at)
        if match is None:
            raise truncated(_JPEG, "the end-of-image marker is missing")
        start, marker = match.start(), data[match.start() + 1]
        if marker == _EOI:
            return _finish(found, data, start)
        at = start + 2 if marker in _STANDALONE else _segment(found, data, start, marker, max_pixels)
    raise malformed(_JPEG, f"it has more than {MAX_SEGMENTS} segments")


def _segment(found: _Walk, data: bytes, start: int, marker: int, max_pixels: int) -> int:
    """Files one segment away; returns where the next marker is to be looked for."""
    stop: int = start + 2 + unpack(_JPEG, ">H", data, start + 2)[0]
    if stop > len(data):
        raise truncated(_JPEG, f"a segment at byte {start} runs past the end of the file")
    if stop < start + 4:
        raise malformed(_JPEG, f"a segment at byte {start} has an impossible length")
    if marker == _SOS:
        stop = _scan(found, data, start, stop)
    elif marker in _FRAMES:
        _frame(found, data, start, max_pixels)
    elif marker not in _TABLES:
        found.segments.extend(_application(found, data, start, stop, marker))
        return stop
    found.segments.append(Keep(start, stop - start))
    return stop


def _application(found: _Walk, data: bytes, start: int, stop: int, marker: int) -> list[Segment]:
    """APPn and COM: what is needed to show the colours right stays, an EXIF block shrinks to its orientation."""
    body = start + 4
    if marker == _APP0 and data.startswith(_JFIF, body) and stop >= start + 18:
        return _exactly(found, data, start, stop, data[body : start + 16] + bytes(2))  # no thumbnail: 0 x 0
    if marker == _APP14 and data.startswith(_ADOBE, body) and stop >= start + 16:
        return _exactly(found, data, start, stop, data[body : start + 16])
    if data.startswith(_ICC_PROFILE, body) and marker == _APP0 + 2:
        found.has_icc = True
        return [Keep(start, stop - start)]
    if data.startswith(_EXIF, body) and marker == _APP0 + 1:
        return _orientation_only(found, data, start, stop)
    named = (kind for magic, kind in _DROPPED if data.startswith(magic, body) and marker != _COM)
    found.dropped.append(next(named, exif.COMMENTS if marker == _COM else _OTHER))
    return []


def _exactly(found: _Walk, data: bytes, start: int, stop: int, body: bytes) -> list[Segment]:
    """The segment with the body its definition knows; what was appended to it is dropped."""
    content = data[start : start + 2] + (len(body) + 2).to_bytes(2, "big") + body
    if content == data[start:stop]:
        return [Keep(start, stop - start)]
    found.dropped.append(exif.THUMBNAIL if data[start + 1] == _APP0 else _OTHER)
    return [Literal(content)]


def _orientation_only(found: _Walk, data: bytes, start: int, stop: int) -> list[Segment]:
    if found.block is not None:
        found.dropped.append(exif.SETTINGS)
        return []
    found.block = data[start + 10 : stop]
    found.facts = exif.read(found.block)
    if found.facts.orientation == 1:
        found.dropped.extend([] if found.facts.kinds else [exif.SETTINGS])
        return []
    body = _EXIF + exif.minimal(found.facts.orientation)
    content = b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body
    return [Keep(start, stop - start) if content == data[start:stop] else Literal(content)]


def _frame(found: _Walk, data: bytes, start: int, max_pixels: int) -> None:
    _, height, width, count = unpack(_JPEG, ">BHHB", data, start + 4)
    if found.frame is not None:
        raise malformed(_JPEG, "it has two frame headers")
    _check_length(data, start, 8 + 3 * count)
    check_pixels(_JPEG, width, height, max_pixels)
    found.frame = (data[start + 1], width, height)
    found.components = set(data[start + 10 : start + 10 + 3 * count : 3])


def _scan(found: _Walk, data: bytes, start: int, header_stop: int) -> int:
    """Skips one scan; returns where its entropy-coded data ends."""
    if found.frame is None:
        raise malformed(_JPEG, "picture data comes before the frame header")
    count = unpack(_JPEG, ">B", data, start + 4)[0]
    _check_length(data, start, 6 + 2 * count)
    found.scanned |= set(data[start + 5 : start + 5 + 2 * count : 2])
    found.scans += 1
    if found.scans > MAX_SCANS:
        raise TooLarge(f"This JPEG asks for more than {MAX_SCANS} decoding passes. Export it as a plain JPEG.")
    match = _END_OF_SCAN.search(data, header_stop)
    if match is None:
        raise truncated(_JPEG, "the picture data stops before the end-of-image marker")
    found.coded += match.start() - header_stop
    return match.start()


def _check_length(data: bytes, start: int, expected: int) -> None:
    if int.from_bytes(data[start + 2 : start + 4], "big") != expected:
        raise malformed(_JPEG, f"the header at byte {start} contradicts its own length")


def _finish(found: _Walk, data: bytes, eoi: int) -> Structure:
    if found.frame is None or not found.scans:
        raise truncated(_JPEG, "it holds no picture data")
    marker, width, height = found.frame
    # Each 8 x 8 block of the largest component costs at least one bit (T.81 F.1.2), so fewer bytes prove a hole.
    if found.components - found.scanned or (marker in _HUFFMAN_DCT and found.coded < width * height // 512):
        raise truncated(_JPEG, "a part of the picture data is missing")
    found.segments.append(Keep(eoi, 2))
    if eoi + 2 < len(data):
        found.dropped.append(TRAILER)
    return Structure(
        width=width,
        height=height,
        orientation=found.facts.orientation,
        exif=found.block,
        facts=found.facts,
        has_icc=found.has_icc,
        dropped=tuple(found.dropped),
        view=CleanView.in_sequence(found.segments, len(data)),
    )
