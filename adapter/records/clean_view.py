"""The clean copy of a photo as a recipe over its original, instead of a second file.

The original is stored once, encrypted and untouched. What leaves the building is described here as a short list of
segments: byte ranges of the original that are kept, literal bytes, and runs of zeros. Any HTTP range of the clean
copy becomes a few range reads over the original.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Bytes = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Keep:
    """`length` bytes of the original from `offset` on."""

    offset: int
    length: int

    def window(self, start: int, stop: int) -> Keep:
        return Keep(self.offset + start, stop - start)

    def read(self, original: Bytes) -> Bytes:
        return original[self.offset : self.offset + self.length]


@dataclass(frozen=True, slots=True)
class Literal:
    """Bytes that are not in the original (a minimal EXIF block, a corrected header)."""

    content: bytes

    @property
    def length(self) -> int:
        return len(self.content)

    def window(self, start: int, stop: int) -> Literal:
        return Literal(self.content[start:stop])

    def read(self, original: Bytes) -> bytes:  # noqa: ARG002 - one shape for all segments
        return self.content


@dataclass(frozen=True, slots=True)
class Zeros:
    """A blanked run: where offsets must not move, removed bytes become zeros."""

    length: int

    def window(self, start: int, stop: int) -> Zeros:
        return Zeros(stop - start)

    def read(self, original: Bytes) -> bytes:  # noqa: ARG002 - one shape for all segments
        return bytes(self.length)


Segment = Keep | Literal | Zeros


@dataclass(frozen=True, slots=True)
class CleanView:
    """The clean copy: `segments` in order, over an original of `original_size` bytes."""

    segments: tuple[Segment, ...]
    original_size: int

    @property
    def size(self) -> int:
        return sum(segment.length for segment in self.segments)

    @property
    def is_identity(self) -> bool:
        """True when the clean copy is the original, byte for byte."""
        return self.segments == (Keep(0, self.original_size),)

    def assemble(self, original: bytes) -> bytes:
        """The whole clean copy. Raises as `pieces` does."""
        return b"".join(self.pieces(original))

    def pieces(self, original: bytes) -> Iterator[Bytes]:
        """The clean copy without copying what it keeps; ValueError when `original` is not of the size this is for."""
        if len(original) != self.original_size:
            raise ValueError(f"this view belongs to an original of {self.original_size} bytes, not {len(original)}")
        whole = memoryview(original)
        return (segment.read(whole) for segment in self.segments)

    def ranges(self, start: int, stop: int) -> Iterator[Segment]:
        """The segments that make up bytes `start` to `stop` (exclusive) of the clean copy, clipped to its size."""
        at = 0
        for segment in self.segments:
            low, high = max(start - at, 0), min(stop - at, segment.length)
            if low < high:
                yield segment.window(low, high)
            at += segment.length
            if at >= stop:
                return

    def to_json(self) -> str:
        """Compact and stable: `[n, s, s, ...]` with n the original's size and s one of `[offset, length]` (kept),
        `"base64"` (literal), `length` (zeros)."""
        return json.dumps([self.original_size, *map(_encode, self.segments)], separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> CleanView:
        """The reverse of `to_json`; ValueError when the text is not one of its results."""
        match json.loads(text):
            case [int(original_size), *encoded]:
                view = cls(tuple(map(_decode, encoded)), original_size)
            case _:
                raise ValueError("a clean view is a JSON array that starts with the size of the original")
        for segment in view.segments:
            inside = not isinstance(segment, Keep) or 0 <= segment.offset <= original_size - segment.length
            if segment.length < 0 or not inside:
                raise ValueError("a clean view may only keep ranges inside the original")
        return view

    @classmethod
    def in_sequence(cls, segments: Iterable[Segment], original_size: int) -> CleanView:
        """From segments in order: neighbouring kept ranges become one, empty segments vanish."""
        merged: list[Segment] = []
        for segment in segments:
            last = merged[-1] if merged else None
            if not segment.length:
                continue
            if isinstance(segment, Keep) and isinstance(last, Keep) and last.offset + last.length == segment.offset:
                merged[-1] = Keep(last.offset, last.length + segment.length)
            elif isinstance(segment, Zeros) and isinstance(last, Zeros):
                merged[-1] = Zeros(last.length + segment.length)
            else:
                merged.append(segment)
        return cls(tuple(merged), original_size)

    @classmethod
    def in_place(
        cls,
        original: bytes,
        kept: Iterable[tuple[int, int]],
        patches: Mapping[int, Sequence[Segment]],
        stop: int = 0,
    ) -> CleanView:
        """Where offsets must not move: the bytes `(start, stop)` of `kept` and the `patches` at their offsets have
        their place, everything between is blanked, everything after the last of them and after `stop` is cut.

        ValueError when a patch overlaps another or a kept range.
        """
        parts: list[tuple[int, Sequence[Segment]]] = [(at, (Keep(at, end - at),)) for at, end in _union(kept)]
        segments: list[Segment] = []
        at = 0
        for start, content in sorted([*parts, *patches.items()], key=lambda part: part[0]):
            if start < at:
                raise ValueError("parts of the file overlap")
            segments += [Zeros(start - at), *content]
            at = start + sum(segment.length for segment in content)
        segments.append(Zeros(max(stop - at, 0)))
        return cls.in_sequence(_unchanged_kept(original, segments), len(original))


def _unchanged_kept(original: bytes, segments: Iterable[Segment]) -> Iterator[Segment]:
    """Segments that lie in place, each replaced by a kept range where it equals the original."""
    at = 0
    for segment in segments:
        stop = at + segment.length
        is_same = not isinstance(segment, Keep) and original[at:stop] == segment.read(original)
        yield Keep(at, segment.length) if is_same else segment
        at = stop


def _union(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(part for part in ranges if part[0] < part[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def _encode(segment: Segment) -> list[int] | str | int:
    match segment:
        case Keep(offset, length):
            return [offset, length]
        case Literal(content):
            return base64.b64encode(content).decode("ascii")
        case Zeros(length):
            return length


def _decode(encoded: object) -> Segment:
    match encoded:
        case [int(offset), int(length)]:
            return Keep(offset, length)
        case str(text):
            try:
                return Literal(base64.b64decode(text, validate=True))
            except binascii.Error as error:
                raise ValueError("a literal segment must be base64") from error
        case int(length):
            return Zeros(length)
    raise ValueError(f"a segment is an array, a string or a number, not {type(encoded).__name__}")
