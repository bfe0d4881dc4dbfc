"""The `meta` box of a HEIC file without the rows of dropped items, padded to its old length."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from adapter.capture.structure.boxes import HEIC, Association, Box, Location, boxes, version
from adapter.capture.structure.heic_meta import Meta
from adapter.capture.structure.model import malformed
from adapter.records.clean_view import Keep, Literal, Segment, Zeros

_HANDLER_NAME_AT = 32  # in hdlr: header 8, version 4, pre-defined 4, type 4, reserved 12
# Properties that describe the scene or the file instead of the pixels.
_BLANKED_PROPERTIES = frozenset({b"udes", b"uuid", b"altt", b"crtt", b"mdft"})


def rewritten(data: bytes, meta: Meta, kept_ids: set[int], ranges: list[tuple[int, int]]) -> list[Segment]:
    """Segments as long as the original box; `ranges` are the bytes of kept items, of which some may lie in `idat`."""
    rewriting = _Rewriting(data, meta, kept_ids, ranges)
    segments: list[Segment] = [Keep(meta.box.start, meta.box.body + 4 - meta.box.start)]
    for child in meta.children:
        rewrite = _CHILDREN.get(child.name)
        segments += rewrite(rewriting, child) if rewrite else []
    room = meta.box.stop - meta.box.start - _length(segments)
    if room == 0:
        return segments
    if room < 8:
        raise malformed(HEIC, "its item tables leave no room for a filler")
    return [*segments, Literal(struct.pack(">I4s", room, b"free")), Zeros(room - 8)]


@dataclass(frozen=True, slots=True)
class _Rewriting:
    """One method per child of `meta`; children without one are dropped."""

    data: bytes
    meta: Meta
    kept_ids: set[int]
    ranges: list[tuple[int, int]]

    def hdlr(self, box: Box) -> list[Segment]:
        name_at = min(box.start + _HANDLER_NAME_AT, box.stop)
        return [Keep(box.start, name_at - box.start), Zeros(box.stop - name_at)]

    def iinf(self, box: Box) -> list[Segment]:
        """Rows of kept items, their names (often a file name) blanked."""
        kept = [item for item in self.meta.items.values() if item.id in self.kept_ids]
        starts = [Keep(item.box.start, item.name_at - item.box.start) for item in kept]
        names = [Zeros(item.box.stop - item.name_at) for item in kept]
        rows: list[Segment] = [part for row in zip(starts, names, strict=True) for part in row]
        return self._table(box, 4, len(kept), rows)

    def iloc(self, box: Box) -> list[Segment]:
        rows = [row for row in self.meta.locations.values() if row.id in self.kept_ids]
        return self._table(box, 6, len(rows), _rows(rows), narrow_below=2)

    def iref(self, box: Box) -> list[Segment]:
        kept = [ref.box for ref in self.meta.references if {ref.from_id, *ref.to_ids} <= self.kept_ids]
        return _box(box, [Keep(box.body, 4), *_rows(kept)])

    def iprp(self, box: Box) -> list[Segment]:
        inner = [child for child in boxes(self.data, box.body, box.stop) if child.name in _INNER]
        return _box(box, [part for child in inner for part in _CHILDREN[child.name](self, child)])

    def ipco(self, box: Box) -> list[Segment]:
        return _box(box, [part for inner in self.meta.properties for part in _kept_or_blank(inner)])

    def ipma(self, box: Box) -> list[Segment]:
        rows = [row for row in self.meta.associations.values() if row.id in self.kept_ids]
        return self._table(box, 4, len(rows), _rows(rows), narrow_below=0)

    def idat(self, box: Box) -> list[Segment]:
        """Keeps its length, because items are found in it by offset."""
        segments: list[Segment] = [Keep(box.start, box.body - box.start)]
        at = box.body
        for low, high in sorted(part for part in self.ranges if box.body <= part[0] and part[1] <= box.stop):
            segments += [Zeros(max(low - at, 0)), Keep(max(low, at), max(high - max(low, at), 0))]
            at = max(at, high)
        return [*segments, Zeros(box.stop - at)]

    def as_is(self, box: Box) -> list[Segment]:
        return [Keep(box.start, box.stop - box.start)]

    def _table(
        self, box: Box, count_at: int, rows: int, content: Sequence[Segment], narrow_below: int = 1
    ) -> list[Segment]:
        """A box whose rows follow a count at `count_at` of its body: 2 bytes below version `narrow_below`, else 4."""
        width = 2 if version(self.data, box) < narrow_below else 4
        head = self.data[box.body : box.body + count_at] + rows.to_bytes(width, "big")
        return _box(box, [Literal(head), *content])


_INNER = frozenset({b"ipco", b"ipma"})
_CHILDREN: dict[bytes, Callable[[_Rewriting, Box], list[Segment]]] = {
    b"hdlr": _Rewriting.hdlr,
    b"pitm": _Rewriting.as_is,
    b"dinf": _Rewriting.as_is,
    b"iinf": _Rewriting.iinf,
    b"iloc": _Rewriting.iloc,
    b"iref": _Rewriting.iref,
    b"iprp": _Rewriting.iprp,
    b"ipco": _Rewriting.ipco,
    b"ipma": _Rewriting.ipma,
    b"idat": _Rewriting.idat,
}


def _kept_or_blank(box: Box) -> list[Segment]:
    if box.name not in _BLANKED_PROPERTIES:
        return [Keep(box.start, box.stop - box.start)]
    return [Keep(box.start, 4), Literal(b"free"), Zeros(box.stop - box.start - 8)]


def _rows(rows: Iterable[Box | Location | Association]) -> list[Segment]:
    return [Keep(row.start, row.stop - row.start) for row in rows]


def _box(box: Box, body: list[Segment]) -> list[Segment]:
    """A box with a new body; its header is kept when the size has not changed."""
    size = box.body - box.start + _length(body)
    if size == box.stop - box.start:
        return [Keep(box.start, box.body - box.start), *body]
    if box.body - box.start != 8:
        raise malformed(HEIC, "an item table uses a 64-bit size")
    return [Literal(struct.pack(">I4s", size, box.name)), *body]


def _length(segments: Iterable[Segment]) -> int:
    return sum(segment.length for segment in segments)
