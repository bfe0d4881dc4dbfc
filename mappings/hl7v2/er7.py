"""ER7, the pipe-and-hat notation: a message as segments, fields, repetitions, components, subcomponents.

Splitting comes first, escapes are decoded once after it, and HL7 null (`""`, "delete this") stays different from
absent ("no statement"): HL7 v2.9.1 sections 2.5 to 2.7.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TypeAlias

from mappings.hl7v2.charset import decode
from mappings.hl7v2.escapes import Escapes
from mappings.hl7v2.header import UNREADABLE, Header, Separators, read_header, single_byte

__all__ = ["NULL", "Header", "Message", "Null", "Repetition", "Segment", "Separators", "Value", "patient_keys"]
__all__ += ["UNREADABLE", "read_header"]


class Null(Enum):
    """The type of NULL, the two quotes that ask the receiver to delete its value. False in a condition."""

    NULL = '""'

    def __bool__(self) -> bool:
        return False


NULL = Null.NULL
Value: TypeAlias = str | Null
"""A decoded text, "" when absent, or NULL."""


class Repetition(tuple[tuple[Value, ...], ...]):
    """One repetition of a field: components of subcomponents, both counted from 1 in the methods."""

    __slots__ = ()

    def value(self, component: int = 1, subcomponent: int = 1) -> Value:
        """The subcomponent, "" when it was not sent, NULL when it was sent as two quotes."""
        try:
            return self[component - 1][subcomponent - 1]
        except IndexError:
            return ""

    def text(self, component: int = 1, subcomponent: int = 1) -> str:
        """The subcomponent trimmed, "" when absent or null."""
        value = self.value(component, subcomponent)
        return "" if value is NULL else str(value).strip()

    @property
    def is_null(self) -> bool:
        """True when something is null and nothing has a value: `""` and `""^""` alike."""
        values = {value for component in self for value in component if value != ""}
        return values == {NULL}


class Segment:
    """One segment, split as it is asked for. `field(n)` counts as the standard does, in MSH too."""

    __slots__ = ("_decode", "_fields", "_split", "name", "separators")

    def __init__(self, line: str, separators: Separators, decode_escapes: Callable[[str], str]) -> None:
        self._fields = line.split(separators.field)
        self.name = self._fields[0].strip()
        if self.name in ("MSH", "FHS", "BHS"):
            self._fields.insert(1, separators.field)
        self.separators = separators
        self._decode = decode_escapes
        self._split: dict[int, tuple[Repetition, ...]] = {}

    @property
    def last(self) -> int:
        """The number of the last field that was sent."""
        return len(self._fields) - 1

    def raw(self, n: int) -> str:
        """Field n as sent, "" when absent."""
        return self._fields[n] if n < len(self._fields) else ""

    def field(self, n: int) -> tuple[Repetition, ...]:
        """The repetitions of field n, () when it is absent. MSH-1 and MSH-2 are not split."""
        if n not in self._split:
            self._split[n] = self._repetitions(n)
        return self._split[n]

    def _repetitions(self, n: int) -> tuple[Repetition, ...]:
        raw = self.raw(n)
        if not raw or raw.isspace():
            return ()
        if n <= 2 and self.name in ("MSH", "FHS", "BHS"):
            return (Repetition(((raw,),)),)
        return tuple(self._repetition(text) for text in raw.split(self.separators.repetition))

    def _repetition(self, text: str) -> Repetition:
        components = text.split(self.separators.component)
        return Repetition(
            tuple(map(self._value, component.split(self.separators.subcomponent))) for component in components
        )

    def _value(self, text: str) -> Value:
        return NULL if text == '""' else self._decode(text)

    def first(self, n: int) -> Repetition:
        """The first repetition of field n, empty when absent."""
        return next(iter(self.field(n)), Repetition())

    def text(self, n: int, component: int = 1, subcomponent: int = 1) -> str:
        """A subcomponent of the first repetition, trimmed; "" when absent or null."""
        return self.first(n).text(component, subcomponent)

    def valued(self, n: int) -> tuple[Repetition, ...]:
        """The repetitions of field n that hold a value, so neither empty ones nor null ones."""
        return tuple(r for r in self.field(n) if any(v for component in r for v in component if v))

    def is_null(self, n: int) -> bool:
        """True when field n asks for deletion: at least one null repetition and none with a value."""
        repetitions = self.field(n)
        return any(r.is_null for r in repetitions) and not self.valued(n)


@dataclass(frozen=True, slots=True)
class Message:
    """Header and segments in the order they were sent, Z-segments included."""

    header: Header
    segments: tuple[Segment, ...]

    @classmethod
    def parse(cls, raw: bytes, charset: str | None = None) -> Message:
        """Read a whole message; segments end with CR, LF or CR LF.

        `charset` is the Python codec to fall back on when MSH-18 is absent and the bytes are not UTF-8.
        A line that does not begin like a segment continues the line before it (senders leave raw line ends in text).
        Raises MessageError when there is no MSH or a byte is not in the character set.
        """
        header = read_header(raw)
        text = decode(raw, header.charset, charset)
        escapes = Escapes(header.separators.letters, partial(decode, msh_18=header.charset, fallback=charset))
        lines = _segment_lines(text.lstrip("\r\n\t \0"), header.separators.field)
        return cls(header, tuple(Segment(line, header.separators, escapes.decode) for line in lines))

    def all(self, name: str) -> tuple[Segment, ...]:
        """Every segment of that name, in order."""
        return tuple(segment for segment in self.segments if segment.name == name)

    def find(self, name: str) -> Segment | None:
        """The first segment of that name."""
        return next((segment for segment in self.segments if segment.name == name), None)


def _segment_lines(text: str, field_separator: str) -> Iterator[str]:
    is_segment = re.compile(rf"[A-Z][A-Z0-9]{{2}}(?:{re.escape(field_separator)}|\s*$)").match
    current = ""
    for line in re.split(r"\r\n|\r|\n", text):
        if current and line.strip() and not is_segment(line):
            current += "\n" + line
        elif line.strip():
            if current:
                yield current
            current = line
    if current:
        yield current


def patient_keys(raw: bytes, default_authority: str = "", header: Header | None = None) -> tuple[str, ...]:
    """`authority|value` of every identifier in PID-3 and MRG-1, for ordering queues; plain splits, microseconds.

    The authority is CX.4.1, or CX.4.2 when there is no namespace, or `default_authority`. Not unescaped: equal in
    equal messages of one feed, which is all that ordering needs. `header`: that of `raw`, where it was read before.
    Raises MessageError when there is no MSH.
    """
    separators = (header or read_header(raw)).separators
    field, component, repetition, subcomponent = (
        s.encode() for s in (separators.field, separators.component, separators.repetition, separators.subcomponent)
    )
    keys: dict[str, None] = {}
    for line in single_byte(raw).replace(b"\n", b"\r").split(b"\r"):
        position = _KEY_FIELDS.get(line[:3])
        if position is None or line[3:4] != field:
            continue
        fields = line.split(field, position + 1)
        for identifier in fields[position].split(repetition) if len(fields) > position else ():
            components = identifier.split(component, 4)
            value = components[0].strip()
            if value and value != b'""':
                authority = components[3].split(subcomponent) if len(components) > 3 else []
                named = next((part for part in map(bytes.strip, authority[:2]) if part and part != b'""'), b"")
                keys[f"{_key_text(named) or default_authority}|{_key_text(value)}"] = None
    return tuple(keys)


_KEY_FIELDS = {b"PID": 3, b"MRG": 1}


def _key_text(part: bytes) -> str:
    try:
        return part.decode()
    except UnicodeDecodeError:
        return part.decode("iso8859-1")
