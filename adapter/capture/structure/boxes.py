"""ISO base media boxes and the HEIF item tables (ISO/IEC 14496-12 section 8.11, ISO/IEC 23008-12).

Each table keeps the raw byte range of every row, so that rows can be left out without writing the others anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from adapter.capture.formats import ImageFormat
from adapter.capture.structure.model import malformed, truncated, unpack

HEIC = ImageFormat.HEIC
MAX_ROWS = 20_000
_HIGHEST_VERSIONS = {b"iloc": 2, b"infe": 3}


@dataclass(frozen=True, slots=True)
class Box:
    """`start` is the size field, `body` the first byte after the header, `stop` the first byte after the box."""

    name: bytes
    start: int
    body: int
    stop: int


@dataclass(frozen=True, slots=True)
class Item:
    """A row of `iinf`: the item's four-character type and where its optional name begins."""

    id: int
    type: bytes
    box: Box
    name_at: int


@dataclass(frozen=True, slots=True)
class Location:
    """A row of `iloc`: `(offset, length)` extents, in the file (method 0) or in `idat` (method 1)."""

    id: int
    method: int
    is_external: bool
    extents: tuple[tuple[int, int], ...]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Reference:
    """A box of `iref`: `from_id` refers to `to_ids` in the sense of `box.name` (dimg, thmb, auxl, cdsc)."""

    box: Box
    from_id: int
    to_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Association:
    """A row of `ipma`: 1-based indexes into `ipco`, in the order in which transforms apply."""

    id: int
    properties: tuple[int, ...]
    start: int
    stop: int


def boxes(data: bytes, start: int, stop: int) -> list[Box]:
    """The boxes between `start` and `stop`, all inside."""
    found: list[Box] = []
    at = start
    while at + 8 <= stop:
        size, name = unpack(HEIC, ">I4s", data, at)
        body = at + 8
        if size == 1:
            size, body = unpack(HEIC, ">Q", data, body)[0], at + 16
        end = stop if size == 0 else at + size
        if end > stop:
            raise truncated(HEIC, f"a box at byte {at} runs past its end")
        if end < body or len(found) >= MAX_ROWS:
            raise malformed(HEIC, f"a box at byte {at} has an impossible size")
        found.append(Box(name, at, body, end))
        at = end
    if at != stop and stop == len(data):
        raise truncated(HEIC, "it ends inside a box header")
    return found


def version(data: bytes, box: Box) -> int:
    """The version of a full box; Unprocessable above the highest that its standard defines."""
    found = int(unpack(HEIC, ">B", data, box.body)[0])
    if found > _HIGHEST_VERSIONS.get(box.name, 1):
        raise malformed(HEIC, f"a table has the unknown version {found}")
    return found


def count(data: bytes, at: int, wide: bool) -> tuple[int, int]:
    """A row count and where the first row begins."""
    rows = unpack(HEIC, ">I" if wide else ">H", data, at)[0]
    if rows > MAX_ROWS:
        raise malformed(HEIC, f"a table declares {rows} rows")
    return rows, at + (4 if wide else 2)


def items(data: bytes, iinf: Box) -> list[Item]:
    _, at = count(data, iinf.body + 4, wide=version(data, iinf) > 0)
    return [_item(data, box) for box in boxes(data, at, iinf.stop)]


def _item(data: bytes, box: Box) -> Item:
    if version(data, box) < 2:
        return Item(unpack(HEIC, ">H", data, box.body + 4)[0], b"", box, box.stop)
    layout, name_at = (">HH4s", box.body + 12) if version(data, box) == 2 else (">IH4s", box.body + 14)
    id_, _, type_ = unpack(HEIC, layout, data, box.body + 4)
    return Item(id_, type_, box, min(name_at, box.stop))


def locations(data: bytes, iloc: Box) -> list[Location]:
    kind = version(data, iloc)
    sizes = unpack(HEIC, ">H", data, iloc.body + 4)[0]
    rows, at = count(data, iloc.body + 6, wide=kind == 2)
    found: list[Location] = []
    for _ in range(rows):
        found.append(_location(data, at, kind, sizes))
        at = found[-1].stop
        if at > iloc.stop:
            raise truncated(HEIC, "the table of item locations is cut")
    return found


def _location(data: bytes, start: int, kind: int, sizes: int) -> Location:
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    index_size = index_size if kind else 0
    at = start + (4 if kind == 2 else 2)
    id_ = _number(data, start, at - start)
    method = unpack(HEIC, ">H", data, at)[0] & 15 if kind else 0
    at += 2 if kind else 0
    reference, base = unpack(HEIC, ">H", data, at)[0], _number(data, at + 2, base_size)
    at += 2 + base_size
    extents, at = unpack(HEIC, ">H", data, at)[0], at + 2
    stride = index_size + offset_size + length_size
    if at + extents * stride > len(data) or extents > MAX_ROWS:
        raise truncated(HEIC, "the table of item locations is cut")
    firsts = range(at + index_size, at + index_size + extents * stride, stride) if stride else range(0)
    found = tuple(
        (base + _number(data, first, offset_size), _number(data, first + offset_size, length_size)) for first in firsts
    )
    return Location(id_, method, reference != 0, found, start, at + extents * stride)


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


def references(data: bytes, iref: Box | None) -> Iterator[Reference]:
    if iref is None:
        return
    width, code = (4, "I") if version(data, iref) else (2, "H")
    for box in boxes(data, iref.body + 4, iref.stop):
        from_id, total = unpack(HEIC, f">{code}H", data, box.body)
        if box.body + width + 2 + total * width > box.stop:
            raise truncated(HEIC, "the table of item references is cut")
        yield Reference(box, from_id, unpack(HEIC, f">{total}{code}", data, box.body + width + 2))


def associations(data: bytes, ipma: Box) -> list[Association]:
    is_wide_id, is_wide_index = version(data, ipma) > 0, data[ipma.body + 3] & 1
    rows, at = count(data, ipma.body + 4, wide=True)
    found: list[Association] = []
    for _ in range(rows):
        start = at
        id_, total = unpack(HEIC, ">IB" if is_wide_id else ">HB", data, at)
        at += 5 if is_wide_id else 3
        indexes = unpack(HEIC, f">{total}{'H' if is_wide_index else 'B'}", data, at)
        at += total * (2 if is_wide_index else 1)
        if at > ipma.stop:
            raise truncated(HEIC, "the table of item properties is cut")
        mask = 0x7FFF if is_wide_index else 0x7F
        found.append(Association(id_, tuple(index & mask for index in indexes), start, at))
    return found
