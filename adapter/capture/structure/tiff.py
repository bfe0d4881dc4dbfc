"""TIFF 6.0: the first directory's picture tags and its strips or tiles stay in place, every other byte is blanked.

Keeping by list instead of deleting by list: private directories (EXIF, GPS, maker notes), XMP, IPTC, names, serial
numbers, previews, further pages and anything hidden between them vanish without being understood. Tag numbers: TIFF
6.0 and its supplements; 34675 is ICC.1 Annex B.
"""

from __future__ import annotations

import re
import struct

from adapter.capture import exif
from adapter.capture.formats import ImageFormat
from adapter.capture.ifd import BadDirectory, Directory, Entry, TagReader
from adapter.capture.structure.model import Structure, animated, check_pixels, malformed, truncated
from adapter.errors import TooLarge, UnsupportedMedia
from adapter.records.clean_view import CleanView, Literal

_TIFF = ImageFormat.TIFF
_KEPT = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 274, 277, 278, 279, 280, 281, 282, 283, 284, 290, 291, 292, 293}
    | {296, 301, 317, 318, 319, 320, 321, 322, 323, 324, 325, 332, 334, 336, 338, 339, 340, 341, 342, 347}
    | {529, 530, 531, 532, 34675}
)
_RAW = frozenset({33421, 33422, 50706})  # CFARepeatPatternDim, CFAPattern, DNGVersion
_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946})  # none, fax, LZW, JPEG, deflate, PackBits
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES = 256, 257, 258, 259, 277
_STRIPS, _TILES, _TILE_WIDTH, _TILE_HEIGHT = (273, 279), (324, 325), 322, 323
_SUB_DIRECTORIES, _REDUCED = 330, 1
_JPEG_METADATA = re.compile(rb"\xff[\xe1\xed\xfe]")  # APP1, APP13, COM
MAX_SAMPLES, MAX_BITS, MAX_BLOCKS = 5, 32, 70_000


def walk(data: bytes, max_pixels: int) -> Structure:
    reader, main = _open(data)
    tags = {number: entry for number, entry in main.entries.items() if number in _KEPT}
    for entry in tags.values():
        if not reader.is_inside(entry):
            raise truncated(_TIFF, f"the value of tag {entry.tag} lies outside the file")
    width, height = reader.integer(tags.get(_WIDTH)), reader.integer(tags.get(_HEIGHT))
    check_pixels(_TIFF, width, height, max_pixels)
    _check_layout(reader, tags, max_pixels)
    facts = exif.read(data, _KEPT)
    return Structure(
        width=width,
        height=height,
        orientation=facts.orientation,
        exif=data,
        facts=facts,
        has_icc=34675 in tags,
        dropped=("previews",) if _SUB_DIRECTORIES in main.entries else (),
        view=_view(reader, main, tags),
    )


def _open(data: bytes) -> tuple[TagReader, Directory]:
    try:
        reader, first_at = TagReader.open(data)
        main = reader.directory(first_at)
    except BadDirectory as error:
        raise truncated(_TIFF, str(error)) from error
    if data[8:10] == b"CR" or _RAW & main.entries.keys() or _is_preview(reader, main):
        raise UnsupportedMedia("This looks like a camera raw file; send the JPEG or HEIC the camera makes of it.")
    _check_single(reader, main)
    return reader, main


def _is_preview(reader: TagReader, directory: Directory) -> bool:
    return bool(reader.integer(directory.entries.get(254)) & _REDUCED)


def _check_single(reader: TagReader, main: Directory) -> None:
    """A second directory may only be a reduced copy (NewSubfileType bit 0); another page is another photo."""
    if not main.next_at or main.next_at == main.at:
        return
    try:
        second = reader.directory(main.next_at)
    except BadDirectory:
        return
    if _WIDTH in second.entries and not _is_preview(reader, second):
        raise animated(_TIFF, "several pages")


def _check_layout(reader: TagReader, tags: dict[int, Entry], max_pixels: int) -> None:
    """Refuses what would make a decoder allocate more than the picture's size explains."""
    compression = reader.integer(tags.get(_COMPRESSION), 1)
    if compression not in _COMPRESSIONS:
        raise UnsupportedMedia(f"This TIFF uses compression {compression}; save it uncompressed, LZW or deflate.")
    bits = reader.integers(tags.get(_BITS)) or (1,)
    samples = reader.integer(tags.get(_SAMPLES), 1)
    if not 1 <= samples <= MAX_SAMPLES or max(bits) > MAX_BITS or len(bits) > MAX_SAMPLES:
        raise malformed(_TIFF, f"it declares {samples} samples of {max(bits)} bits per pixel")
    if reader.integer(tags.get(_TILE_WIDTH)) * reader.integer(tags.get(_TILE_HEIGHT)) > max_pixels:
        raise TooLarge("This TIFF declares tiles larger than the limit for a whole photo. Save it again in strips.")


def _view(reader: TagReader, main: Directory, tags: dict[int, Entry]) -> CleanView:
    kept = [(0, 8), *_blocks(reader, tags)]
    kept += [(entry.value_at, entry.value_at + entry.size) for entry in tags.values() if not entry.is_inline]
    rows = [reader.block[entry.at : entry.at + 12] for _, entry in sorted(tags.items())]
    directory = struct.pack(reader.order + "H", len(rows)) + b"".join(rows) + bytes(4)
    try:
        return CleanView.in_place(reader.block, kept, {main.at: (Literal(directory),)})
    except ValueError as error:
        raise malformed(_TIFF, str(error)) from error


def _blocks(reader: TagReader, tags: dict[int, Entry]) -> list[tuple[int, int]]:
    """The byte ranges of the strips or tiles, all inside the file."""
    offsets_tag, counts_tag = _TILES if _TILES[0] in tags else _STRIPS
    offsets, counts = reader.integers(tags.get(offsets_tag)), reader.integers(tags.get(counts_tag))
    if not offsets or len(offsets) != len(counts) or len(offsets) > MAX_BLOCKS:
        raise malformed(_TIFF, "it does not say where its picture data lies")
    blocks = [(offset, offset + count) for offset, count in zip(offsets, counts, strict=True)]
    if max(stop for _, stop in blocks) > len(reader.block):
        raise truncated(_TIFF, "a part of the picture data lies past the end of the file")
    if min(offsets) < 8:
        raise malformed(_TIFF, "its picture data overlaps its header")
    if reader.integer(tags.get(_COMPRESSION), 1) == 7:
        _check_plain_jpeg(reader.block, blocks)
    return blocks


def _check_plain_jpeg(data: bytes, blocks: list[tuple[int, int]]) -> None:
    """JPEG-coded strips are whole JPEG streams and can carry EXIF, IPTC or comments of their own."""
    for start, stop in blocks:
        if _JPEG_METADATA.search(data, start, max(data.find(b"\xff\xda", start, stop), start)):
            raise UnsupportedMedia("This TIFF holds JPEG strips with metadata of their own; save it as a JPEG.")
