"""PNG: chunks and their CRCs (W3C PNG, third edition); only what shapes pixels and colours stays."""

from __future__ import annotations

import struct
import zlib

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

_PNG = ImageFormat.PNG
_HEADER_STOP = 33  # signature 8, IHDR 25
_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_COLOUR = frozenset({b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"pHYs", b"bKGD", b"cICP", b"mDCV", b"cLLI"})
_KEPT = _CRITICAL | _COLOUR
_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})
_KINDS = {
    b"tEXt": exif.COMMENTS,
    b"zTXt": exif.COMMENTS,
    b"iTXt": exif.COMMENTS,
    b"tIME": exif.SETTINGS,
    b"eXIf": exif.SETTINGS,
}
_XMP, _RAW_EXIF = b"XML:com.adobe.xmp", b"Raw profile type exif\0"
_MAX_RAW_EXIF = 256 * 1024
MAX_CHUNKS = 100_000


def walk(data: bytes, max_pixels: int) -> Structure:
    chunks = _chunks(data)
    width, height = _size(data, chunks, max_pixels)
    block = _exif_block(data, chunks)
    facts = exif.read(block)
    kept, dropped = _kept(data, chunks, facts)
    stop = chunks[-1][2]
    return Structure(
        width=width,
        height=height,
        orientation=facts.orientation,
        exif=block,
        facts=facts,
        has_icc=any(name == b"iCCP" for name, _, _ in chunks),
        dropped=(*dropped, *[TRAILER] * (stop < len(data))),
        view=CleanView.in_sequence(kept, len(data)),
    )


def _chunks(data: bytes) -> list[tuple[bytes, int, int]]:
    """(type, start, stop) of each chunk up to IEND, every CRC checked."""
    chunks: list[tuple[bytes, int, int]] = []
    view = memoryview(data)
    at = 8
    while not chunks or chunks[-1][0] != b"IEND":
        if at >= len(data):
            raise truncated(_PNG, "the IEND chunk is missing")
        length, name = unpack(_PNG, ">I4s", data, at)
        stop = at + 12 + length
        if stop > len(data):
            raise truncated(_PNG, f"a chunk at byte {at} runs past the end of the file")
        if zlib.crc32(view[at + 4 : stop - 4]) != int.from_bytes(view[stop - 4 : stop], "big"):
            raise malformed(_PNG, f"the checksum of the chunk at byte {at} is wrong")
        if len(chunks) >= MAX_CHUNKS:
            raise malformed(_PNG, f"it has more than {MAX_CHUNKS} chunks")
        chunks.append((name, at, stop))
        at = stop
    return chunks


def _size(data: bytes, chunks: list[tuple[bytes, int, int]], max_pixels: int) -> tuple[int, int]:
    names = [name for name, _, _ in chunks]
    if names[0] != b"IHDR" or chunks[0][2] != _HEADER_STOP or names.count(b"IHDR") != 1:
        raise malformed(_PNG, "it does not start with one image header")
    width, height = unpack(_PNG, ">II", data, 16)
    check_pixels(_PNG, width, height, max_pixels)
    if b"IDAT" not in names:
        raise truncated(_PNG, "it holds no picture data")
    unknown = next((name for name in names if name not in _CRITICAL and name[:1].isupper()), None)
    if unknown is not None:
        raise malformed(_PNG, "it needs a chunk that no standard decoder knows")
    _check_still(data, chunks)
    return width, height


def _check_still(data: bytes, chunks: list[tuple[bytes, int, int]]) -> None:
    """One picture only: an APNG with several frames is refused, a stray animation chunk is merely dropped."""
    for name, start, stop in chunks:
        frames = unpack(_PNG, ">I", data, start + 8)[0] if name == b"acTL" and stop - start >= 16 else 0
        if frames > 1:
            raise animated(_PNG, "an animation")


def _exif_block(data: bytes, chunks: list[tuple[bytes, int, int]]) -> bytes | None:
    """The eXIf chunk, or the hexadecimal text that ImageMagick writes instead."""
    for name, start, stop in chunks:
        if name == b"eXIf":
            return data[start + 8 : stop - 4].removeprefix(b"Exif\0\0")
    for name, start, stop in chunks:
        if name in (b"tEXt", b"zTXt") and data.startswith(_RAW_EXIF, start + 8):
            return _raw_profile(name, data[start + 8 + len(_RAW_EXIF) : stop - 4])
    return None


def _raw_profile(name: bytes, text: bytes) -> bytes | None:
    """`\\nexif\\n    <length>\\n<hex lines>`, deflated in zTXt; at most 256 KiB of it."""
    try:
        plain = zlib.decompressobj().decompress(text[1:], _MAX_RAW_EXIF) if name == b"zTXt" else text[:_MAX_RAW_EXIF]
        return bytes.fromhex("".join(plain.decode("ascii").split("\n")[3:])).removeprefix(b"Exif\0\0")
    except (zlib.error, ValueError):
        return None


def _kept(data: bytes, chunks: list[tuple[bytes, int, int]], facts: exif.ExifFacts) -> tuple[list[Segment], list[str]]:
    orientation = _exif_chunk(facts.orientation) if facts.orientation != 1 else b""
    kept: list[Segment] = [Keep(0, _HEADER_STOP)]
    dropped: list[str] = []
    if orientation and not data.startswith(orientation, _HEADER_STOP):
        kept.append(Literal(orientation))
    for name, start, stop in chunks[1:]:
        if name in _KEPT or (orientation and start == _HEADER_STOP and data[start:stop] == orientation):
            kept.append(Keep(start, stop - start))
        else:
            dropped.append(_kind(data, name, start, facts))
    return kept, [kind for kind in dropped if kind]


def _kind(data: bytes, name: bytes, start: int, facts: exif.ExifFacts) -> str:
    if name == b"eXIf" and facts.kinds:
        return ""  # named tag by tag already
    if name == b"iTXt" and data.startswith(_XMP, start + 8):
        return "XMP"
    return "animation" if name in _ANIMATION else _KINDS.get(name, "application data")


def _exif_chunk(orientation: int) -> bytes:
    body = b"eXIf" + exif.minimal(orientation)
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
