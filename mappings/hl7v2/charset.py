"""MSH-18 character sets (HL7 table 0211) and strict decoding: an undecodable byte is an error, never a `?`."""

from __future__ import annotations

import codecs

from mappings.hl7v2.errors import DATA_TYPE_ERROR, MessageError
from mappings.hl7v2.tables import load_table

_CODECS: dict[str, str] = load_table("hl7v2_codes")["charset"]
UTF8_BOM = b"\xef\xbb\xbf"
# A message begins with MSH: where the zero bytes stand in its first characters tells a wide encoding and its order.
_WIDE_STARTS = {
    b"\xff\xfeM\x00": "utf-16",
    b"\xfe\xff\x00M": "utf-16",
    b"M\x00S\x00": "utf-16-le",
    b"\x00M\x00S": "utf-16-be",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"M\x00\x00\x00": "utf-32-le",
    b"\x00\x00\x00M": "utf-32-be",
}


def find_wide_encoding(raw: bytes) -> str | None:
    """The UTF-16 or UTF-32 codec a message is written in, seen from its first four bytes; else None."""
    return _WIDE_STARTS.get(raw[:4])


def codec_of(msh_18: str) -> str:
    """Python codec of the first repetition of MSH-18; names outside table 0211 (`UTF-8`, `ISO8859-1`) are accepted.

    Raises MessageError (condition 102) for a charset nobody knows.
    """
    name = msh_18.strip().upper()
    if name in _CODECS:
        return _CODECS[name]
    try:
        return codecs.lookup(name).name
    except (LookupError, ValueError):
        raise MessageError(
            "MSH-18 names a character set that is not in HL7 table 0211; correct the sender or the table.",
            condition=DATA_TYPE_ERROR,
            location="MSH^1^18",
        ) from None


def is_switched(msh_18: str) -> bool:
    """Whether this repetition names a set of ISO 2022 that is switched to by escape sequences within the text."""
    return _CODECS.get(msh_18.strip().upper(), "").startswith("iso2022")


def decode(raw: bytes, msh_18: str = "", fallback: str | None = None) -> str:
    """Text of a message or of an escaped byte run.

    `msh_18`: the first repetition as sent. Absent or ASCII: UTF-8 is tried strictly, then `fallback` (a Python codec,
    the site's setting). A UTF-8 byte order mark is dropped. Raises MessageError (condition 102) instead of replacing.
    """
    codec = find_wide_encoding(raw) or codec_of(msh_18)
    if codec.startswith(("utf-16", "utf-32")) and not find_wide_encoding(raw):
        codec = "ascii"  # the bytes contradict MSH-18: a single-byte message that claims a wide one
    candidates = ["utf-8", *([fallback] if fallback else [])] if codec == "ascii" else [codec]
    for candidate in candidates:
        try:
            return raw.removeprefix(UTF8_BOM).decode(candidate).removeprefix("\ufeff")
        except UnicodeDecodeError:
            continue
    raise MessageError(
        "The message holds bytes that are not in its character set (MSH-18); correct MSH-18 at the sender, "
        "or set the feed's default character set.",
        condition=DATA_TYPE_ERROR,
        location="MSH^1^18",
    )
