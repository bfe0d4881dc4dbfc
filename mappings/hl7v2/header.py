"""The MSH segment read from bytes, in microseconds: all that stands between the socket and the acknowledgement."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

from mappings.hl7v2.charset import UTF8_BOM, codec_of, find_wide_encoding, is_switched
from mappings.hl7v2.errors import UNSUPPORTED_MESSAGE_TYPE, MessageError
from mappings.hl7v2.tables import load_table

ADT_EVENTS: dict[str, dict[str, Any]] = load_table("hl7v2_adt_events")
_LINE_END = re.compile(rb"[\r\n]")
_LEADING = b"\r\n\t \x00" + UTF8_BOM
_COMBINED = re.compile(r"([A-Z]{3})_([A-Z]\d\d)")


class Separators(NamedTuple):
    """The delimiters of one message, from MSH-1 and MSH-2.

    A short MSH-2 is completed with the recommended characters; `^~&`, which senders produce by losing the backslash,
    is read as `^~\\&`.
    """

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"
    truncation: str = ""

    @property
    def msh_2(self) -> str:
        """MSH-2 as we write it: always complete."""
        return self.component + self.repetition + self.escape + self.subcomponent + self.truncation

    @property
    def letters(self) -> dict[str, str]:
        """Escape letter -> delimiter (HL7 v2.9.1 section 2.7)."""
        named = {"F": self.field, "S": self.component, "R": self.repetition, "E": self.escape, "T": self.subcomponent}
        return named | ({"P": self.truncation} if self.truncation else {})


class Header(NamedTuple):
    """MSH as sent: whole fields, not unescaped, so that an acknowledgement can echo them byte for byte.

    `encoding` is the codec the header was read with. `structure` is the standard's for a known ADT event, whatever
    MSH-9.3 says (`ADT_A40` is ADT_A39); otherwise MSH-9.3 or "".
    """

    separators: Separators
    encoding: str
    msh_3: str
    msh_4: str
    msh_5: str
    msh_6: str
    msh_7: str
    code: str
    trigger_event: str
    structure: str
    msh_10: str
    msh_11: str
    msh_12: str
    msh_15: str
    msh_16: str
    msh_18: str

    @property
    def version(self) -> str:
        """MSH-12.1, e.g. `2.5.1`."""
        return self.msh_12.partition(self.separators.component)[0].strip()

    @property
    def charset(self) -> str:
        """The character set of the message: the first repetition of MSH-18, "" when absent.

        ASCII with an ISO 2022 set besides (`~ISO IR87`) is that set, which holds ASCII and switches by itself.
        """
        first, *others = (one.strip() for one in self.msh_18.split(self.separators.repetition))
        switched = next((one for one in others if is_switched(one)), None)
        return switched if switched and codec_of(first) == "ascii" else first


UNREADABLE = Header(Separators(), "ascii", "", "", "", "", "", "", "", "", "", "P", "2.5.1", "", "", "")
"""Stands for a header that could not be read, so that even such a message can be refused to the sender's face."""


def single_byte(raw: bytes) -> bytes:
    """The message as ASCII-compatible bytes beginning with its first segment: wide encodings become UTF-8.

    Raises MessageError (condition 102) when a wide encoding is broken.
    """
    if wide := find_wide_encoding(raw):
        try:
            return raw.decode(wide).removeprefix("\ufeff").encode()
        except UnicodeError:
            raise MessageError("The message is not valid UTF-16 or UTF-32.", condition=102) from None
    return raw if raw.startswith(b"MSH") else raw.lstrip(_LEADING)


def read_header(raw: bytes) -> Header:
    """Read MSH without parsing the message.

    Raises MessageError (condition 200) when the message does not begin with a usable MSH.
    """
    message = single_byte(raw)
    end = _LINE_END.search(message)
    line = message[: end.start()] if end else message
    if len(line) < 5 or not line.startswith(b"MSH"):
        raise MessageError(
            "The message does not begin with an MSH segment.", condition=UNSUPPORTED_MESSAGE_TYPE, location="MSH"
        )
    try:
        text, encoding = line.decode(), "utf-8"
    except UnicodeDecodeError:
        text, encoding = line.decode("iso8859-1"), "iso8859-1"
    fields = text.split(text[3], 19)
    fields += [""] * (19 - len(fields))
    separators = _separators(text[3], fields[1])
    code, trigger_event, structure = _message_type(fields[8].strip(), separators.component)
    return Header(
        separators,
        find_wide_encoding(raw) or encoding,
        fields[2],
        fields[3],
        fields[4],
        fields[5],
        fields[6],
        code,
        trigger_event,
        structure,
        fields[9],
        fields[10],
        fields[11],
        fields[14].strip(),
        fields[15].strip(),
        fields[17],
    )


@lru_cache(maxsize=256)
def _separators(field: str, msh_2: str) -> Separators:
    if msh_2 == "^~&":
        return Separators(field)
    if not msh_2 or len({field, *msh_2}) <= len(msh_2) or any(c.isalnum() or c.isspace() for c in field + msh_2):
        raise MessageError(
            "MSH-1 and MSH-2 must hold distinct delimiters such as |^~\\&.",
            condition=UNSUPPORTED_MESSAGE_TYPE,
            location="MSH^1^2",
        )
    rest = [c for c in Separators()[1:5] if c not in field + msh_2]
    completed = [*msh_2[:5], *rest][: max(4, min(len(msh_2), 5))]
    return Separators(field, *completed)


@lru_cache(maxsize=1024)
def _message_type(msh_9: str, component: str) -> tuple[str, str, str]:
    code, trigger_event, structure, *_ = [*map(str.strip, msh_9.split(component)), "", ""]
    if not trigger_event and (combined := _COMBINED.fullmatch(code)):
        code, trigger_event = combined.groups()
    known = ADT_EVENTS.get(trigger_event, {}) if code == "ADT" else {}
    return code, trigger_event, known.get("structure", structure)
