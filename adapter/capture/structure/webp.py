"""WebP: RIFF chunks (RFC 9649); picture, alpha and ICC stay, EXIF shrinks to its orientation, the rest goes."""

from __future__ import annotations

import struct

from adapter.capture import exif
from adapter.capture.formats import ImageFormat
from adapter.capture.structure.model import (
    TRAILER,
    Structure,
    animated,
    check_pixels,
    malformed,
    truncated,
    unpack,
)
from adapter.records.clean_view import CleanView, Keep, Literal, Segment

_WEBP = ImageFormat.WEBP
_KEPT = frozenset({b"VP8X", b"ICCP", b"ALPH", b"VP8 ", b"VP8L"})
_KINDS = {b"EXIF": exif.SETTINGS, b"XMP ": "XMP"}
_EXIF_FLAG, _XMP_FLAG = 0x08, 0x04  # RFC 9649 section 2.7.1
MAX_CHUNKS = 1000


def walk(data: bytes, max_pixels: int) -> Structure:
    chunks, stop = _chunks(data)
    width, height = _size(data, chunks, max_pixels)
    block = next((data[at + 8 : end].removeprefix(b"Exif\0\0") for name, at, end in chunks if name == b"EXIF"), None)
    facts = exif.read(block)
    orientation = _exif_chunk(facts.orientation) if facts.orientation != 1 else b""
    body, dropped = _kept(data, chunks, orientation)
    size = sum(segment.length for segment in body)
    content = b"RIFF" + struct.pack("<I", size + 4) + b"WEBP"
    header = Keep(0, 12) if content == data[:12] else Literal(content)
    return Structure(
        width=width,
        height=height,
        orientation=facts.orientation,
        exif=block,
        facts=facts,
        has_icc=any(name == b"ICCP" for name, _, _ in chunks),
        dropped=(
            *[kind for kind in dropped if kind != exif.SETTINGS or not facts.kinds],
            *[TRAILER] * (stop < len(data)),
        ),
        view=CleanView.in_sequence([header, *body], len(data)),
    )


def _chunks(data: bytes) -> tuple[list[tuple[bytes, int, int]], int]:
    """(type, start, end of its content) of each chunk, and where the RIFF body ends."""
    (size,) = unpack(_WEBP, "<I", data, 4)
    stop = size + 8
    if stop > len(data):
        raise truncated(_WEBP, f"{stop - len(data)} of {stop} bytes are missing")
    chunks: list[tuple[bytes, int, int]] = []
    at = 12
    while at + 8 <= stop:
        name, length = unpack(_WEBP, "<4sI", data, at)
        if at + 8 + length > stop:
            raise truncated(_WEBP, f"a chunk at byte {at} runs past the end of the file")
        if len(chunks) >= MAX_CHUNKS:
            raise malformed(_WEBP, f"it has more than {MAX_CHUNKS} chunks")
        chunks.append((name, at, at + 8 + length))
        at += 8 + length + length % 2
    return chunks, stop


def _size(data: bytes, chunks: list[tuple[bytes, int, int]], max_pixels: int) -> tuple[int, int]:
    if any(name in (b"ANIM", b"ANMF") for name, _, _ in chunks):
        raise animated(_WEBP, "an animation")
    pictures = [(name, at, end) for name, at, end in chunks if name in (b"VP8 ", b"VP8L")]
    if not pictures:
        raise truncated(_WEBP, "it holds no picture data")
    if len(pictures) > 1:
        raise animated(_WEBP, "several pictures")
    sizes = [_picture_size(data, *pictures[0])]
    sizes += [_canvas_size(data, at, end) for name, at, end in chunks if name == b"VP8X"]
    if len(set(sizes)) > 1:
        raise malformed(_WEBP, "its headers disagree about the picture's size")
    check_pixels(_WEBP, *sizes[0], max_pixels)
    return sizes[0]


def _picture_size(data: bytes, name: bytes, at: int, end: int) -> tuple[int, int]:
    if name == b"VP8L":
        signature, bits = unpack(_WEBP, "<BI", data, at + 8)
        if signature != 0x2F or end - at < 13:
            raise malformed(_WEBP, "its lossless picture header is wrong")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    tag, first, start_code, width, height = unpack(_WEBP, "<HB3sHH", data, at + 8)
    if start_code != b"\x9d\x01\x2a" or tag & 1:
        raise malformed(_WEBP, "its picture header is wrong")
    if (tag | first << 16) >> 5 > end - at - 18:  # RFC 6386 section 9.1: size of the first partition
        raise truncated(_WEBP, "a part of the picture data is missing")
    return width & 0x3FFF, height & 0x3FFF


def _canvas_size(data: bytes, at: int, end: int) -> tuple[int, int]:
    if end - at < 18:
        raise malformed(_WEBP, "its canvas header is too short")
    _, low, high = unpack(_WEBP, "<I3s3s", data, at + 8)
    return int.from_bytes(low, "little") + 1, int.from_bytes(high, "little") + 1


def _kept(data: bytes, chunks: list[tuple[bytes, int, int]], orientation: bytes) -> tuple[list[Segment], list[str]]:
    """The chunks of the clean copy; an EXIF chunk, if any, takes its place after the picture (RFC 9649: XMP last)."""
    kept: list[Segment] = []
    dropped: list[str] = []
    has_minimal = False
    for name, at, end in chunks:
        if name == b"VP8X":
            kept += _canvas(data, at, end, bool(orientation))
        elif name in _KEPT or (orientation and not has_minimal and data[at:end] == orientation):
            has_minimal = has_minimal or name == b"EXIF"
            kept += [Keep(at, end - at), *_padding(data, end, (end - at) % 2)]
        else:
            dropped.append(_KINDS.get(name, "application data"))
    if orientation and not has_minimal:
        kept.append(Literal(orientation))
    return kept, dropped


def _canvas(data: bytes, at: int, end: int, with_exif: bool) -> list[Segment]:
    flags = data[at + 8] & ~(_EXIF_FLAG | _XMP_FLAG) | (_EXIF_FLAG if with_exif else 0)
    if flags == data[at + 8]:
        return [Keep(at, end - at), *_padding(data, end, (end - at) % 2)]
    return [Keep(at, 8), Literal(bytes([flags])), Keep(at + 9, end - at - 9), *_padding(data, end, (end - at) % 2)]


def _padding(data: bytes, end: int, odd: int) -> list[Segment]:
    """The pad byte of an odd chunk, which some writers leave out at the end of the file."""
    if not odd:
        return []
    return [Keep(end, 1) if data[end : end + 1] == b"\0" else Literal(b"\0")]


def _exif_chunk(orientation: int) -> bytes:
    block = exif.minimal(orientation)
    return b"EXIF" + struct.pack("<I", len(block)) + block
