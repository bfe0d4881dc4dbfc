"""Image file directories: the tag tables of TIFF 6.0, which EXIF (CIPA DC-008) is made of too.

Bounds come first: a reader that trusts a count or an offset from a stranger's file is how decoders hang.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

MAX_ENTRIES = 4096
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_INTEGER_CODES = {1: "B", 3: "H", 4: "I", 13: "I"}


class BadDirectory(ValueError):
    """The directory cannot be read: no TIFF header, or it lies outside the block."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One tag: `size` bytes of value at `value_at`, `type` as in TIFF 6.0 section 2, the entry itself at `at`."""

    tag: int
    type: int
    count: int
    size: int
    value_at: int
    at: int

    @property
    def is_inline(self) -> bool:
        return self.size <= 4


@dataclass(frozen=True, slots=True)
class Directory:
    """Entries by tag (the first of a repeated tag wins), where it lies, and where the next one is (0: none)."""

    entries: dict[int, Entry]
    at: int
    stop: int
    next_at: int


@dataclass(frozen=True, slots=True)
class TagReader:
    """Reads directories from `block`, whose offsets count from its first byte."""

    block: bytes
    order: str

    @classmethod
    def open(cls, block: bytes) -> tuple[TagReader, int]:
        """The reader and the offset of the first directory; BadDirectory without a TIFF header."""
        order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(block[:4])
        if order is None or len(block) < 8:
            raise BadDirectory("the block does not start with a TIFF header")
        return cls(block, order), int(struct.unpack_from(order + "I", block, 4)[0])

    def directory(self, at: int) -> Directory:
        """The directory at `at`; BadDirectory when it does not lie inside the block. Values may still lie outside."""
        if at < 8 or at + 2 > len(self.block):
            raise BadDirectory("a tag directory lies outside the file")
        (count,) = struct.unpack_from(self.order + "H", self.block, at)
        stop = at + 2 + 12 * count
        if count > MAX_ENTRIES or stop > len(self.block):
            raise BadDirectory("a tag directory runs past the end of the file")
        entries: dict[int, Entry] = {}
        for index, row in enumerate(struct.iter_unpack(self.order + "HHII", self.block[at + 2 : stop])):
            tag, type_, values, value = row
            size = _TYPE_SIZES.get(type_, 0) * values
            entry_at = at + 2 + 12 * index
            where = entry_at + 8 if size <= 4 else value
            entries.setdefault(tag, Entry(tag, type_, values, size, where, entry_at))
        has_next = stop + 4 <= len(self.block)
        next_at = struct.unpack_from(self.order + "I", self.block, stop)[0] if has_next else 0
        return Directory(entries, at, stop + 4 if has_next else stop, next_at)

    def is_inside(self, entry: Entry) -> bool:
        return entry.value_at + entry.size <= len(self.block)

    def integers(self, entry: Entry | None) -> Sequence[int]:
        """The values of a BYTE, SHORT or LONG tag; empty when absent, of another type, or outside the block."""
        if entry is None or entry.type not in _INTEGER_CODES or not self.is_inside(entry):
            return ()
        layout = f"{self.order}{entry.count}{_INTEGER_CODES[entry.type]}"
        return struct.unpack_from(layout, self.block, entry.value_at)

    def integer(self, entry: Entry | None, default: int = 0) -> int:
        values = self.integers(entry) if entry is None or entry.count <= 1 else ()
        return values[0] if values else default

    def text(self, entry: Entry | None, limit: int = 128) -> str:
        """The value of an ASCII tag up to its first NUL, printable characters only; empty when absent or broken."""
        if entry is None or entry.type not in (2, 7) or not self.is_inside(entry):
            return ""
        raw = self.block[entry.value_at : entry.value_at + min(entry.size, limit)].split(b"\0")[0]
        decoded = raw.decode("utf-8", "replace").replace("�", "")
        return " ".join("".join(char if char.isprintable() else " " for char in decoded).split())
