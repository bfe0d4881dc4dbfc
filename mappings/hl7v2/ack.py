"""Acknowledgements (HL7 v2.9.1 section 2.9) written from a template: nothing heavy stands before an answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

from mappings.hl7v2.errors import CONDITIONS, MessageError
from mappings.hl7v2.escapes import Escapes
from mappings.hl7v2.header import Header

_LEADING_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")


class AckCode(StrEnum):
    """HL7 table 0008: A* application answers (original mode), C* commit answers (enhanced mode)."""

    AA = "AA"
    AE = "AE"
    AR = "AR"
    CA = "CA"
    CE = "CE"
    CR = "CR"

    @property
    def is_positive(self) -> bool:
        """True for AA and CA."""
        return self.endswith("A")


@dataclass(frozen=True, slots=True)
class AckError:
    """One ERR segment: a condition of table 0357, a sentence for the sender's user (ERR-8), where (`PID^1^3`), how bad
    (E, W, I, F of table 0516), and for the engineer where to look here (ERR-7). No text may hold any of the message.
    """

    condition: int
    text: str
    location: str = ""
    severity: str = "E"
    diagnostic: str = ""

    @classmethod
    def of(cls, error: MessageError) -> AckError:
        """The ERR for an exception of these mappings."""
        return cls(error.condition, str(error), error.location)


def find_answer_code(header: Header, outcome: AckCode) -> AckCode | None:
    """What to answer at once for the outcome AA, AE or AR, by MSH-15 and MSH-16 (table 0155).

    Both empty: original mode, the outcome itself. Otherwise enhanced mode: the commit code CA, CE or CR, or None when
    MSH-15 wants no answer for that outcome (NE never, ER errors only, SU successes only). An application
    acknowledgement that MSH-16 asks for is a message of its own, not this answer.
    """
    if not header.msh_15 and not header.msh_16:
        return outcome
    return AckCode(f"C{outcome.value[1]}") if _is_wanted(header.msh_15, outcome, otherwise=True) else None


def wants_application_ack(header: Header, outcome: AckCode) -> bool:
    """Whether MSH-16 (table 0155) asks for an application acknowledgement of the outcome AA, AE or AR."""
    return _is_wanted(header.msh_16, outcome, otherwise=False)


def _is_wanted(condition: str, outcome: AckCode, *, otherwise: bool) -> bool:
    """`otherwise` decides where the sender says nothing, or what table 0155 does not know."""
    on_success, on_error = _TABLE_0155.get(condition, (otherwise, otherwise))
    return on_success if outcome.is_positive else on_error


_TABLE_0155 = {"AL": (True, True), "NE": (False, False), "ER": (False, True), "SU": (True, False)}


def acknowledge(
    header: Header,
    code: AckCode,
    *,
    control_id: str,
    at: datetime,
    errors: Sequence[AckError] = (),
    conditions: tuple[str, str] = ("", ""),
) -> bytes:
    """The ACK message for `header`, segments ended by CR, in the sender's delimiters, charset and version.

    MSH-3/4 and MSH-5/6 change places, MSH-11, MSH-12 and MSH-18 are echoed, MSA-2 is the sender's MSH-10. Up to 2.4
    errors stand in one ERR-1, from 2.5 in an ERR segment each. `control_id` is our MSH-10, `at` an aware time,
    `conditions` what we ask for in MSH-15 and MSH-16. Raises ValueError when `at` has no zone.
    """
    if at.tzinfo is None:
        raise ValueError("An acknowledgement needs an aware time.")
    version = _version(header.version)
    segments = [_msh(header, version, control_id, at, conditions), _msa(header, version, code, errors)]
    segments += _errors(header, version, errors)
    return "".join(f"{segment}\r" for segment in segments).encode(header.encoding)


def _version(text: str) -> tuple[int, int, int]:
    match = _LEADING_VERSION.match(text)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else (2, 5, 1)


def _msh(
    header: Header, version: tuple[int, int, int], control_id: str, at: datetime, conditions: tuple[str, str]
) -> str:
    types = ["ACK", header.trigger_event, "ACK" if version >= (2, 3, 1) else ""] if header.trigger_event else ["ACK"]
    fields = [
        "MSH",
        header.separators.msh_2,
        header.msh_5,
        header.msh_6,
        header.msh_3,
        header.msh_4,
        _msh_7(at),
        "",
        header.separators.component.join(part for part in types if part),
        control_id,
        header.msh_11,
        header.msh_12,
        "",
        "",
        *conditions,
        "",
        header.msh_18,
    ]
    return header.separators.field.join(fields).rstrip(header.separators.field)


@lru_cache(maxsize=4)  # a burst is answered at one time
def _msh_7(at: datetime) -> str:
    return at.strftime("%Y%m%d%H%M%S%z")[:19]


def _msa(header: Header, version: tuple[int, int, int], code: AckCode, errors: Sequence[AckError]) -> str:
    """MSA-3 is the text up to 2.4; ERR-8 says it from 2.5 on."""
    text = [_escaped(header, errors[0].text)[:80]] if errors and version < (2, 5, 0) else []
    return header.separators.field.join(["MSA", code.value, header.msh_10, *text])


def _errors(header: Header, version: tuple[int, int, int], errors: Sequence[AckError]) -> list[str]:
    field, component, repetition, _, subcomponent, _ = header.separators
    if version >= (2, 5, 0):
        return [
            field.join(
                [
                    "ERR",
                    "",
                    error.location.replace("^", component),
                    component.join([str(error.condition), CONDITIONS[error.condition], "HL70357"]),
                    error.severity,
                    "",
                    "",
                    _escaped(header, error.diagnostic),
                    _escaped(header, error.text)[:250],
                ]
            )
            for error in errors
        ]
    places = []
    for error in errors:
        segment, sequence, position, *_ = [*error.location.split("^"), "", "", ""]
        coded = subcomponent.join([str(error.condition), CONDITIONS[error.condition], "HL70357"])
        places.append(component.join([segment, sequence, position, coded]))
    return [f"ERR{field}{repetition.join(places)}"] if places else []


def _escaped(header: Header, text: str) -> str:
    ascii_text = text.encode("ascii", "replace").decode()
    return Escapes(header.separators.letters, bytes.decode).encode(ascii_text)
