"""Several messages in one block: the batch protocol (HL7 v2.9.1 section 2.10.3) and plain concatenation.

[FHS] { [BHS] { MSH ... } [BTS] } [FTS]
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

_HEADERS = (b"FHS", b"BHS")
_TRAILERS = (b"BTS", b"FTS")
_LEADING = b"\r\n\t \x00"


@dataclass(frozen=True, slots=True)
class Batch:
    """The parts of a block in order: batch segments on their own, messages whole.

    `separator` is the field separator of the first segment, which is that of every batch segment.
    """

    parts: tuple[bytes, ...]
    separator: bytes
    digest: str

    @property
    def messages(self) -> list[bytes]:
        """Every message; also what stands between batch segments without being one, to be refused on its own."""
        return [part for part in self.parts if not part.startswith(_HEADERS + _TRAILERS)]

    @property
    def is_framed(self) -> bool:
        """True when there is a batch segment, so that the answers belong into one batch answer."""
        return len(self.messages) < len(self.parts)

    def answer(self, answers: Sequence[bytes]) -> bytes:
        """The batch of the answers to `messages` (b"" for a message that wants none), under its own batch segments.

        The same bytes for the same block and answers: its control ids are taken from the block's digest, and it
        states no time. A BTS-1 that does not count right is told in BTS-2.
        """
        waiting = iter(answers)
        written: list[bytes] = []
        found = answered = batches = 0
        for part in self.parts:
            kind = part[:3]
            if kind == b"BTS":
                written.append(self._trailer(part, answered, found))
            elif kind == b"FTS":
                written.append(self._segment(kind, str(batches).encode()))
            elif kind in _HEADERS:
                found, answered, batches = 0, 0, batches + (kind == b"BHS")
                written.append(self._header(part, len(written)))
            else:
                answer = next(waiting)
                found, answered = found + 1, answered + bool(answer)
                written.append(answer)
        return b"".join(written)

    def _header(self, line: bytes, position: int) -> bytes:
        """FHS and BHS alike: 3/4 and 5/6 change places, 11 is ours, 12 refers to the sender's 11."""
        fields = [*line.rstrip(b"\r\n").split(self.separator), *[b""] * 12]
        ours = f"{self.digest[:16]}{position:04d}"[:20].encode()
        mirrored = [fields[4], fields[5], fields[2], fields[3], b"", b"", fields[8], b"", ours, fields[10]]
        return self._segment(fields[0], fields[1], *mirrored)

    def _trailer(self, line: bytes, answered: int, found: int) -> bytes:
        announced = [*line.rstrip(b"\r\n").split(self.separator), b""][1].strip()
        wrong = announced.isdigit() and int(announced) != found
        comment = [b"BTS-1 announced %s messages but %d were found" % (announced[:10], found)] if wrong else []
        return self._segment(b"BTS", str(answered).encode(), *comment)

    def _segment(self, *fields: bytes) -> bytes:
        return self.separator.join(fields).rstrip(self.separator) + b"\r"


def find_batch(block: bytes) -> Batch | None:
    """The block as a batch, or None when it is a single message (or no message at all)."""
    start = block if block.startswith((b"MSH", *_HEADERS)) else block.lstrip(_LEADING)
    separator = start[3:4]
    is_batch = start.startswith(_HEADERS)
    if not separator or separator.isspace() or not (is_batch or _has_second_message(start, separator)):
        return None
    names = b"MSH|FHS|BHS|BTS|FTS" if is_batch else b"MSH"
    edge = re.compile(rb"(?:\A|(?<=[\r\n]))(?:%s)(?=%s|[\r\n]|\Z)" % (names, re.escape(separator)))
    return Batch(tuple(_parts(start, edge)), separator, hashlib.sha256(block).hexdigest())


def _has_second_message(block: bytes, separator: bytes) -> bool:
    return block.startswith(b"MSH") and (b"\rMSH" + separator in block or b"\nMSH" + separator in block)


def _parts(block: bytes, edge: re.Pattern[bytes]) -> list[bytes]:
    starts = [match.start() for match in edge.finditer(block)]
    found: list[bytes] = []
    for start, end in zip(starts, [*starts[1:], len(block)], strict=True):
        part = block[start:end]
        if part.startswith(b"MSH"):
            found.append(part)
            continue
        line, stray = _first_line(part)
        found += [line, stray] if stray.strip() else [line]
    return found


def _first_line(part: bytes) -> tuple[bytes, bytes]:
    match = re.search(rb"[\r\n]+", part)
    return (part[: match.end()], part[match.end() :]) if match else (part, b"")
