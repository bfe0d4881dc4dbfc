"""A message as it arrives: what MSH and the patient identifiers say, whether it is taken, and the answer to it.

Only that much is read before the acknowledgement; everything else happens when the message is applied.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime

from adapter.identity.mllp_intake import Inbound
from adapter.records import new_id
from adapter.settings import Settings
from mappings.hl7v2.ack import AckCode, AckError, acknowledge, find_answer_code, wants_application_ack
from mappings.hl7v2.charset import decode
from mappings.hl7v2.er7 import UNREADABLE, Header, patient_keys, read_header
from mappings.hl7v2.errors import (
    REQUIRED_FIELD_MISSING,
    UNSUPPORTED_EVENT_CODE,
    UNSUPPORTED_MESSAGE_TYPE,
    MessageError,
)
from mappings.hl7v2.header import ADT_EVENTS

_UNSUPPORTED_VERSION = 203
_WRONG_SENDER = 207
_REJECTED = (UNSUPPORTED_MESSAGE_TYPE, UNSUPPORTED_EVENT_CODE, _UNSUPPORTED_VERSION, _WRONG_SENDER)
_CONTRADICTION = AckError(
    207, "MSH-10 was used before for a message with other content; give each message an MSH-10 of its own.", "MSH^1^10"
)


@dataclass(frozen=True)
class Arrival:
    """One message and its answer, before anything is stored. `error` None: it is to be applied."""

    id: str
    sender: str
    control_id: str
    header: Header
    fingerprint: str
    raw: bytes
    patient_keys: tuple[str, ...]
    error: AckError | None
    ack: bytes

    @property
    def key(self) -> tuple[str, str]:
        """What makes it the same message when it comes again."""
        return self.sender, self.control_id

    def contradicting(self, at: datetime) -> Arrival:
        """This message where another one came under its key: refused, and kept under a key of its own."""
        return replace(
            self,
            control_id=f"{self.control_id[:120]} {self.fingerprint}",
            error=_CONTRADICTION,
            ack=_answer(self.header, AckCode.AE, _CONTRADICTION, self.id, at),
        )


def read_arrival(settings: Settings, message: Inbound, at: datetime) -> Arrival | None:
    """What is to be done with a message; None for an acknowledgement, which is neither kept nor answered."""
    raw = message.raw
    header, error, outcome = UNREADABLE, None, AckCode.AA
    keys: tuple[str, ...] = ()
    try:
        header = read_header(raw)
        if header.code == "ACK":
            return None
        _check_sender(settings, header, message.peer)
        keys = patient_keys(raw, settings.default_authority or "", header)
        _check_header(header)
        decode(raw, header.charset, settings.hl7_charset)
        _check_patient(header, keys)
    except MessageError as problem:
        outcome = AckCode.AR if problem.condition in _REJECTED else AckCode.AE
        error = AckError.of(problem)
    fingerprint = hashlib.sha256(raw.rstrip(b"\r\n")).hexdigest()  # a last line end more or less is no other content
    control_id = storable(header.msh_10.strip())
    arrival_id = new_id(at)
    return Arrival(
        arrival_id,
        sender=storable(f"{header.msh_3}|{header.msh_4}")[:200],
        control_id=control_id if 0 < len(control_id) <= 200 else f"sha256:{fingerprint}",
        header=header,
        fingerprint=fingerprint,
        raw=raw,
        patient_keys=keys,
        error=error,
        ack=_answer(header, outcome, error, arrival_id, at),
    )


def storable(text: str) -> str:
    """Without the one character that a database does not take."""
    return text.replace("\x00", "")


def _answer(header: Header, outcome: AckCode, error: AckError | None, arrival_id: str, at: datetime) -> bytes:
    """b"" when MSH-15 wants none."""
    # MSH-10 holds 20 characters up to 2.6: those of a UUIDv7 that are time and counter, and some of chance.
    ours = arrival_id.replace("-", "")[:20]
    code = find_answer_code(header, outcome)
    if code is None and error and wants_application_ack(header, outcome):
        code = outcome  # nothing will be applied, so this is all the sender can be told
    errors = [replace(error, diagnostic=f"kept as message {arrival_id}")] if error else []
    return acknowledge(header, code, control_id=ours, at=at, errors=errors) if code else b""


def _check_sender(settings: Settings, header: Header, peer: str) -> None:
    """A client certificate may be good for some senders only (`mllp_senders`)."""
    _, has_certificate, name = peer.partition("/")
    if not has_certificate or not settings.mllp_senders:
        return
    if f"{header.msh_3}|{header.msh_4}" not in settings.mllp_senders.get(name, ()):
        text = "The client certificate is not registered for this MSH-3 and MSH-4; see mllp_senders."
        raise MessageError(text, condition=_WRONG_SENDER, location="MSH^1^3")


def _check_header(header: Header) -> None:
    if header.code != "ADT":
        text = "Only ADT messages are received here; route other message types elsewhere."
        raise MessageError(text, condition=UNSUPPORTED_MESSAGE_TYPE, location="MSH^1^9^1^1")
    if header.trigger_event and "does" not in ADT_EVENTS.get(header.trigger_event, {}):
        text = "The trigger event is unknown or not supported; remove it from the feed's subscription."
        raise MessageError(text, condition=UNSUPPORTED_EVENT_CODE, location="MSH^1^9^1^2")
    if header.version and not header.version.startswith("2."):
        text = "Only HL7 version 2 is received here; correct MSH-12."
        raise MessageError(text, condition=_UNSUPPORTED_VERSION, location="MSH^1^12")
    if not header.msh_10.strip():
        text = "MSH-10 is empty; every message needs a control id of its own."
        raise MessageError(text, condition=REQUIRED_FIELD_MISSING, location="MSH^1^10")


def _check_patient(header: Header, keys: tuple[str, ...]) -> None:
    if not keys and ADT_EVENTS.get(header.trigger_event, {}).get("does") != []:
        text = "PID-3 holds no patient identifier; the sender must fill it."
        raise MessageError(text, condition=REQUIRED_FIELD_MISSING, location="PID^1^3")
