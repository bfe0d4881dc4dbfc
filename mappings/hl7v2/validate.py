"""Check a message with HL7apy, the way an engineer wants to know what is wrong with a feed. Slow: 10 ms and more.

HL7apy 1.3.5 drops Z-segments and misreads LF line ends without a word, and knows no version above 2.8.2; all three are
handled here.
"""

from __future__ import annotations

from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.core import Element
from hl7apy.exceptions import HL7apyException
from hl7apy.parser import parse_message
from hl7apy.validation import Validator

from mappings.hl7v2.adt_event import adt_to_event
from mappings.hl7v2.er7 import Message, Segment
from mappings.hl7v2.errors import MessageError

KNOWN_VERSIONS = ("2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.8", "2.8.1", "2.8.2")
_STUMBLES = (LookupError, ValueError, AttributeError, TypeError)
_NEWEST = KNOWN_VERSIONS[-1]


def validate_message(raw: bytes, charset: str | None = None) -> list[str]:
    """Findings as sentences, most serious first; [] when nothing is wrong.

    They name segments, fields and sometimes values of the message: show them to the engineer, do not log them.
    `charset` as in `Message.parse`.
    """
    try:
        message = Message.parse(raw, charset)
    except MessageError as error:
        return [str(error)]
    findings = _own_findings(message)
    version = message.header.version
    if version not in KNOWN_VERSIONS:
        findings.append(f"MSH-12 says version {version or 'nothing'}; checked as {_NEWEST}.")
    return findings + _structure_findings(message, version if version in KNOWN_VERSIONS else _NEWEST)


def _own_findings(message: Message) -> list[str]:
    findings = []
    if message.header.code == "ADT":
        try:
            adt_to_event(message)
        except MessageError as error:
            findings.append(f"{error.location}: {error}")
    sent = message.segments[0].text(9, 3)
    if message.header.structure and sent != message.header.structure:
        findings.append(f"MSH-9.3 says {sent or 'nothing'} where the standard has {message.header.structure}.")
    if own := sorted({segment.name for segment in message.segments if segment.name.startswith("Z")}):
        findings.append(f"Not checked, since they are the sender's own: {', '.join(own)}.")
    return findings


def _structure_findings(message: Message, version: str) -> list[str]:
    header = message.header
    lines = [_line(segment) for segment in message.segments if not segment.name.startswith("Z")]
    msh = lines[0].split(header.separators.field)
    msh += [""] * (12 - len(msh))
    msh[1] = header.separators.msh_2
    msh[8] = header.separators.component.join(filter(None, (header.code, header.trigger_event, header.structure)))
    msh[11] = version
    lines[0] = header.separators.field.join(msh).rstrip(header.separators.field)
    try:
        tree = parse_message("\r".join(lines), validation_level=VALIDATION_LEVEL.TOLERANT, find_groups=True)
    except (HL7apyException, *_STUMBLES) as error:
        return [f"HL7apy cannot read the message: {error}"]
    return list(dict.fromkeys(_faults(tree)))


def _line(segment: Segment) -> str:
    start = 2 if segment.name == "MSH" else 1
    fields = [segment.name, *(segment.raw(n) for n in range(start, segment.last + 1))]
    return segment.separators.field.join(fields)


def _faults(element: Element) -> list[str]:
    """The first fault of the element and of everything in it: HL7apy reports one at a time.

    Where its 2.8 tables break its own validation (TypeError and the like), only the parts are judged.
    """
    found = []
    try:
        Validator.validate(element)
    except HL7apyException as error:
        found.append(str(error))
    except _STUMBLES:
        pass
    else:
        return []
    if element.classname in ("Message", "Group", "Segment"):
        for child in element.children:
            found += _faults(child)
    return found
