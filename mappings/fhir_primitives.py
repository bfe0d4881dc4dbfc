"""Whether one JSON value is a right FHIR R4 primitive (http://hl7.org/fhir/R4/datatypes.html#primitive), stricter
than fhir.resources: no coercion of "12" to 12, no base64 that decodes to nothing, no id of 80 characters."""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from typing import Any, Final
from xml.etree import ElementTree

_DATE = r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?"
_TIME = r"([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?"
_ZONE = r"(Z|[+-]((0\d|1[0-3]):[0-5]\d|14:00))"
_MIME: Final = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(\s*;\s*[\w!#$&^.+-]+=(\"[^\"\r\n]*\"|[\w!#$&^.+:-]+))*", re.A)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_LONGEST_STRING: Final = 1024 * 1024  # R4: "Strings SHALL NOT exceed 1MB in size"
_INT32: Final = 2**31 - 1


def _matching(pattern: str) -> Callable[[Any], bool]:
    match = re.compile(pattern, re.ASCII).fullmatch
    return lambda value: isinstance(value, str) and match(value) is not None


def _integer(lowest: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and lowest <= value <= _INT32


def _is_string(value: Any) -> bool:
    return (
        isinstance(value, str)
        and len(value) <= _LONGEST_STRING
        and not value.isspace()
        and _CONTROL.search(value) is None
    )


def _is_base64(value: Any) -> bool:
    if not isinstance(value, str) or not value.isascii():
        return False
    text = "".join(value.split())  # R4 allows white space between the groups
    try:
        binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return False
    return len(text) % 4 == 0


def _is_decimal(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_mime_type(value: Any) -> bool:
    """`type/subtype` with parameters (BCP 13); the four short names R4 uses for formats pass as well."""
    return isinstance(value, str) and (_MIME.fullmatch(value) is not None or value in {"json", "xml", "ttl", "mime"})


PRIMITIVES: Final[dict[str, Callable[[Any], bool]]] = {
    "base64Binary": _is_base64,
    "boolean": lambda value: isinstance(value, bool),
    "canonical": _matching(r"\S+"),
    "code": _matching(r"[^\s]+(\s[^\s]+)*"),
    "date": _matching(_DATE),
    "dateTime": _matching(rf"{_DATE}|\d{{4}}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T{_TIME}{_ZONE}"),
    "decimal": _is_decimal,
    "id": _matching(r"[A-Za-z0-9.-]{1,64}"),
    "instant": _matching(rf"\d{{4}}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T{_TIME}{_ZONE}"),
    "integer": _integer(-_INT32 - 1),
    "markdown": _is_string,
    "oid": _matching(r"urn:oid:[0-2](\.(0|[1-9]\d*))+"),
    "positiveInt": _integer(1),
    "string": _is_string,
    "time": _matching(_TIME),
    "unsignedInt": _integer(0),
    "uri": _matching(r"\S+"),
    "url": _matching(r"\S+"),
    "uuid": _matching(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "xhtml": lambda value: isinstance(value, str),
}

_XHTML: Final = "{http://www.w3.org/1999/xhtml}"
# txt-1: "basic HTML formatting elements and attributes described in chapters 7-11 (except section 4 of chapter 9) and
# 15 of the HTML 4.0 standard, <a> elements, images and internally contained style attributes"
_TAG: Final = re.compile(
    r"a|abbr|acronym|b|big|blockquote|br|caption|cite|code|col|colgroup|dd|dfn|div|dl|dt|em|h[1-6]|hr|i|img|li|ol|p"
    r"|pre|q|samp|small|span|strong|sub|sup|table|tbody|td|tfoot|th|thead|tr|tt|ul|var"
)
_LINK: Final = re.compile(r"\s*(javascript|vbscript|data(?!:image/(png|jpeg|gif)))\s*:", re.I)


def find_narrative_fault(div: str) -> str | None:
    """Why this XHTML may not stand in `Narrative.div`, or None: it must be one `div` of plain formatting."""
    if "<!" in div.replace("<!--", ""):
        return "The narrative holds a document type or entity declaration."
    try:
        root = ElementTree.fromstring(div)  # noqa: S314 - declarations were refused above
    except ElementTree.ParseError:
        return "The narrative is not well-formed XHTML."
    if root.tag != f"{_XHTML}div":
        return "The narrative must be one <div> in the XHTML namespace."
    for element in root.iter():
        name = str(element.tag).removeprefix(_XHTML)
        if not _TAG.fullmatch(name):
            return f"The narrative may not hold <{name[:20]}>."
        if any(key.startswith("on") or _LINK.match(value) for key, value in element.attrib.items()):
            return f"The narrative holds active content in <{name}>."
    return None
