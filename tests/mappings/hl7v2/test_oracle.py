"""HL7apy as an independent reader: every real message, the fields that decide whose photo it is.

HL7apy gets one segment at a time (its message parser drops what it does not know) with line ends and the lost
backslash put right, since it reads neither; it does not unescape, so that is done to its answer.
"""

from __future__ import annotations

from functools import cache

import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.core import Element
from hl7apy.parser import parse_segment

from mappings.hl7v2.datatypes import CX
from mappings.hl7v2.er7 import NULL, Message, Repetition, Segment, Separators, Value, patient_keys
from mappings.hl7v2.escapes import Escapes
from mappings.hl7v2.validate import KNOWN_VERSIONS
from tests.mappings.hl7v2.golden import DATA

REAL = sorted([*(DATA / "fhir-converter").iterdir(), *(DATA / "efferent").iterdir()])
FIELDS = {"PID": (3, 5, 7), "PV1": (19,), "MRG": (1,)}


def ours(segment: Segment, n: int) -> list[list[list[str]]]:
    return [_shape(repetition) for repetition in segment.field(n)]


def _shape(repetition: Repetition) -> list[list[str]]:
    def text(value: Value) -> str:
        return '""' if value is NULL else str(value)

    return _trimmed([_trimmed([text(value) for value in component]) for component in repetition])


def _trimmed(items: list) -> list:
    """Without empty items at the end: HL7apy does not keep them."""
    while items and items[-1] in ("", [], [""]):
        items = items[:-1]
    return items


@cache
def parsed_by_hl7apy(line: str, version: str, separators: Separators) -> tuple[Element, dict[str, str]]:
    characters = {
        "FIELD": separators.field,
        "COMPONENT": separators.component,
        "REPETITION": separators.repetition,
        "ESCAPE": separators.escape,
        "SUBCOMPONENT": separators.subcomponent,
        "SEGMENT": "\r",
        "GROUP": "\r",
    }
    level = VALIDATION_LEVEL.TOLERANT
    return parse_segment(line, version=version, encoding_chars=characters, validation_level=level), characters


def theirs(segment: Segment, n: int, version: str) -> list[list[list[str]]]:
    separators = segment.separators
    line = separators.field.join([segment.name, *(segment.raw(i) for i in range(1, segment.last + 1))])
    element, characters = parsed_by_hl7apy(line, version, separators)
    unescape = Escapes(separators.letters, lambda run: run.decode("iso8859-1")).decode
    found = []
    for repetition in getattr(element, f"{segment.name.lower()}_{n}"):
        er7 = repetition.to_er7(characters)
        components = [c.split(separators.subcomponent) for c in er7.split(separators.component)]
        found.append(_trimmed([_trimmed([unescape(value) for value in component]) for component in components]))
    return [] if found in ([[]], [[[" "]]]) else found


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_our_reading_of_the_identifying_fields_is_that_of_hl7apy(path) -> None:
    message = Message.parse(path.read_bytes())
    version = message.header.version if message.header.version in KNOWN_VERSIONS else "2.6"
    for segment in message.segments:
        for n in FIELDS.get(segment.name, ()):
            assert ours(segment, n) == theirs(segment, n, version), (segment.name, n)


def test_the_corpus_holds_enough_of_every_field_to_mean_something() -> None:
    counts = dict.fromkeys(((name, n) for name, fields in FIELDS.items() for n in fields), 0)
    for path in REAL:
        for segment in Message.parse(path.read_bytes()).segments:
            for n in FIELDS.get(segment.name, ()):
                counts[segment.name, n] += bool(segment.field(n))
    assert min(counts.values()) >= 6
    assert counts["PID", 3] > 140


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_the_quick_keys_are_those_of_the_full_reading(path) -> None:
    raw = path.read_bytes()
    identifiers = [
        cx.key
        for segment in Message.parse(raw).segments
        for repetition in segment.field({"PID": 3, "MRG": 1}.get(segment.name, 9999))
        if (cx := CX.find(repetition))
    ]
    assert patient_keys(raw) == tuple(dict.fromkeys(identifiers))
