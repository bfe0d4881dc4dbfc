"""A photo or a PDF as an HL7 v2 message: ORU^R01, or MDM^T02/T04/T10 with its content and MDM^T11 to take it back.

HL7 v2.9.1 chapters 7.3.1 and 9.6; OBX-5 data types ED and RP in 2A.2.24 and 2A.2.66. Receivers differ in which
component of OBX-5 holds what, so its layout is an argument: a template for each component, `{data}` the base64 text,
`{type}` and `{subtype}` what it is (`DATA_TYPES`), `{url}` a pointer.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from mappings.hl7v2.escapes import Escapes
from mappings.hl7v2.header import Separators

Resource = Mapping[str, Any]

_SEPARATORS: Final = Separators()
_ESCAPES: Final = Escapes(_SEPARATORS.letters, bytes.decode)
_CODECS: Final = {"UNICODE UTF-8": "utf-8", "8859/1": "latin-1", "ASCII": "ascii", "": "utf-8"}
_STRUCTURES: Final = {"ORU^R01": "ORU_R01", "MDM^T11": "MDM_T01"}  # every other MDM that carries content: MDM_T02
_SEX: Final = {"male": "M", "female": "F", "other": "O", "unknown": "U"}
# MIME type -> type and subtype of referenced data (tables 0191 and 0291; PDF is what receivers expect beside them).
DATA_TYPES: Final[Mapping[str, tuple[str, str]]] = {
    "image/jpeg": ("IM", "JPEG"),
    "image/png": ("IM", "PNG"),
    "image/tiff": ("IM", "TIFF"),
    "application/pdf": ("AP", "PDF"),
    "text/rtf": ("TEXT", "RTF"),
    "text/plain;charset=utf-8": ("TEXT", "PLAIN"),
    "application/xhtml+xml;charset=utf-8": ("TEXT", "XML"),
}


@dataclass(frozen=True, slots=True)
class MessageProfile:
    """How one receiver wants its messages. `document_type` is (code, text, coding system) of OBX-3, OBR-4 and TXA-2.

    `authorities` maps FHIR identifier systems to assigning authorities (PID-3.4, PV1-19.4).
    """

    version: str = "2.5.1"
    msh_3: str = "DERMBRIDGE"
    msh_4: str = ""
    msh_5: str = ""
    msh_6: str = ""
    msh_11: str = "P"
    msh_15: str = ""
    msh_16: str = ""
    charset: str = "UNICODE UTF-8"
    authorities: Mapping[str, str] | None = None
    obx_2: str = "ED"
    obx_5: tuple[str, ...] = ("", "{type}", "{subtype}", "Base64", "{data}")
    document_type: tuple[str, str, str] = ("72170-4", "Photographic image", "LN")
    txa_2: str = ""
    txa_17: str = "AU"  # table 0271: authenticated
    txa_19: str = "AV"  # table 0273: available for patient care
    pv1_2: str = "O"
    default_authority: str | None = None


@dataclass(frozen=True, slots=True)
class PhotoMessage:
    """What one message says. `control_id` is MSH-10, `document_id` TXA-12 and the filler number, `parent_id` TXA-13
    and the filler number of what is corrected."""

    event: str
    control_id: str
    document_id: str
    at: datetime
    taken_at: datetime | None
    patient: Resource
    encounter: Resource | None
    content: bytes = b""
    content_type: str = "image/jpeg"
    url: str = ""
    lines: Sequence[str] = ()
    parent_id: str = ""
    consent: str = ""
    confidentiality: str = ""  # v3-Confidentiality; TXA-18 (table 0272) has R and V alike
    withdrawn: bool = False  # an ORU that takes its photo back: results of status W, without content


def photo_message(message: PhotoMessage, profile: MessageProfile) -> bytes:
    """The ER7 message, segments ended by CR. Raises ValueError when a text is not in the receiver's character set."""
    taken = message.taken_at or message.at
    header = [_msh(message, profile)]
    order = [_obr(message, profile, taken)] if message.event == "ORU^R01" else [_txa(message, profile, taken)]
    if message.event.startswith("MDM"):
        header.append(_segment("EVN", message.event.partition("^")[2], _time(message.at)))
    results = [] if message.event == "MDM^T11" else _results(message, profile, taken)
    segments = [*header, _pid(message.patient, profile), _pv1(message.encounter, profile), *order, *results]
    return "".join(f"{segment}\r" for segment in segments).encode(_CODECS[profile.charset])


def names_type(obx_5: Sequence[str], content_type: str) -> bool:
    """Whether this layout says of such content what it is, be it in the receiver's own words (`application^pdf`). One
    that names none of `DATA_TYPES` (`image^jpg`) is taken to mean photos."""
    if content_type not in DATA_TYPES or "{subtype}" in obx_5:
        return content_type in DATA_TYPES
    told = "^".join(obx_5).upper()
    named = {subtype for _, subtype in DATA_TYPES.values() if subtype in told}
    return DATA_TYPES[content_type][1] in named or (not named and content_type.startswith("image/"))


def _segment(name: str, *fields: str) -> str:
    return "|".join([name, *fields]).rstrip("|")


def _text(value: object) -> str:
    return _ESCAPES.encode(str(value or ""))


def _components(*values: object) -> str:
    return "^".join(_text(value) for value in values).rstrip("^")


def _time(at: datetime) -> str:
    return at.strftime("%Y%m%d%H%M%S%z")[:19]


def _msh(message: PhotoMessage, profile: MessageProfile) -> str:
    structure = _STRUCTURES.get(message.event, "MDM_T02")
    typed = f"{message.event}^{structure}" if profile.version >= "2.3.1" else message.event
    # MSH-2 holds the delimiters themselves, so it is not escaped.
    sent = [profile.msh_3, profile.msh_4, profile.msh_5, profile.msh_6]
    tail = ["", "", profile.msh_15, profile.msh_16, "", profile.charset]
    fields = [*map(_components, sent), _time(message.at), "", typed, message.control_id, profile.msh_11]
    return _segment("MSH", _SEPARATORS.msh_2, *fields, profile.version, *tail)


def _pid(patient: Resource, profile: MessageProfile) -> str:
    name: Resource = next(iter(patient.get("name", [])), {})
    given = [*name.get("given", []), "", ""]
    born = str(patient.get("birthDate", "")).replace("-", "")
    identifiers = "~".join(_identifiers(patient.get("identifier", []), profile, "MR"))
    family = name.get("family") or name.get("text", "")
    person = _components(family, given[0], " ".join(filter(None, given[1:])))
    return _segment("PID", "1", "", identifiers, "", person, "", born, _SEX.get(str(patient.get("gender")), ""))


def _identifiers(identifiers: Sequence[Resource], profile: MessageProfile, kind: str) -> list[str]:
    """Those whose assigning authority is known, be it an empty one."""
    known = profile.authorities or {}
    authorities = [known.get(str(each.get("system")), profile.default_authority) for each in identifiers]
    return [
        _components(each["value"], "", "", authority, kind)
        for each, authority in zip(identifiers, authorities, strict=True)
        if each.get("value") and each.get("use") != "old" and authority is not None
    ]


def _pv1(encounter: Resource | None, profile: MessageProfile) -> str:
    visits = _identifiers((encounter or {}).get("identifier", []), profile, "VN")
    return _segment("PV1", "1", profile.pv1_2, *[""] * 16, next(iter(visits), ""))


def _obr(message: PhotoMessage, profile: MessageProfile, taken: datetime) -> str:
    number = message.parent_id or message.document_id  # a correction keeps the one of what it corrects
    filler = _components(number[:75], profile.msh_3)
    result = _status(message)
    middle = [""] * 14
    return _segment(
        "OBR",
        "1",
        "",
        filler,
        _components(*profile.document_type),
        "",
        "",
        _time(taken),
        *middle,
        _time(message.at),
        "",
        "",
        result,
    )


def _status(message: PhotoMessage) -> str:
    """Tables 0085 and 0123: wrong (posted in error), corrected, final."""
    return "W" if message.withdrawn else "C" if message.parent_id else "F"


def _txa(message: PhotoMessage, profile: MessageProfile, taken: datetime) -> str:
    presented = DATA_TYPES[message.content_type][0] if profile.obx_2 in {"ED", "RP"} else "TX"
    fields = ["1", _text(profile.txa_2 or profile.document_type[0]), presented, _time(taken), "", _time(message.at)]
    level = message.confidentiality if message.confidentiality in {"R", "V"} else ""
    states = [profile.txa_17, level, "CA" if message.event == "MDM^T11" else profile.txa_19]  # CA: cancelled
    names = [_components(message.document_id, profile.msh_3), _components(message.parent_id)]
    return _segment("TXA", *fields, *[""] * 5, *names, "", "", "", *states)


def _results(message: PhotoMessage, profile: MessageProfile, taken: datetime) -> list[str]:
    kind, subtype = DATA_TYPES[message.content_type]
    data = base64.b64encode(message.content).decode()
    values = {"data": data, "url": message.url, "type": kind, "subtype": subtype}
    filled = "^".join(
        values[part[1:-1]] if part in {"{data}"} else _text(part.format(**values) if "{" in part else part)
        for part in profile.obx_5
    )
    code = _components(*profile.document_type)
    if message.withdrawn:
        filled = _text("Withdrawn: posted in error")
    said = [("Caption", line) for line in message.lines] + ([("Consent", message.consent)] if message.consent else [])
    rows = [("ST" if message.withdrawn else profile.obx_2, code, filled)] + [
        ("ST", _components(name), _text(line)) for name, line in said
    ]
    status = _status(message)
    return [
        _segment("OBX", str(number), kind, code, str(number), value, *[""] * 5, status, "", "", _time(taken))
        for number, (kind, code, value) in enumerate(rows, 1)
    ]
