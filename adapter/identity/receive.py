"""From the socket to an acknowledgement: the message is durable and in line to be applied before it is answered.

Only MSH and the patient identifiers are read here; everything else happens when the message is applied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, insert, select

from adapter.bridge import Bridge
from adapter.db.tables import adt_message
from adapter.identity.application_acks import answers_on_same_connection
from adapter.identity.mllp_intake import Answer, Inbound
from adapter.records import new_id
from adapter.settings import Settings
from adapter.work import Work, enqueue_all
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

_DUPLICATE = "MSH-10 was used before for a message with other content; give each message an MSH-10 of its own."
_REMEDY = "the sender was told; it must correct the message and send it again"
_IN_CLAUSE = 500


@dataclass(frozen=True)
class _Arrival:
    """One message and its answer, before anything is stored. `error` None: it is to be applied."""

    id: str
    sender: str
    control_id: str
    header: Header
    fingerprint: str
    raw: bytes
    patient_keys: tuple[str, ...]
    outcome: AckCode
    error: AckError | None
    ack: bytes

    @property
    def key(self) -> tuple[str, str]:
        return self.sender, self.control_id


def receive_messages(bridge: Bridge, raws: Sequence[bytes], peer: str) -> list[bytes]:
    """`receive` for messages of one peer, with no more than the bytes to answer at once."""
    return [answer.ack for answer in receive(bridge, [Inbound(raw, peer) for raw in raws])]


def receive(bridge: Bridge, inbound: Sequence[Inbound]) -> list[Answer]:
    """Keep a burst of messages in one transaction and return their acknowledgements in order.

    The same MSH-3, MSH-4 and MSH-10 with the same content is answered as before, byte for byte, without a second
    effect; with other content AE 207. What cannot be read is refused (AR, AE) and shown in the queue. Acknowledgements
    are neither kept nor answered: two systems that answered each other's answers would never end.
    """
    at = bridge.now()
    arrivals = [_arrival(bridge, message, at) for message in inbound]
    with bridge.db.transaction() as tx:
        bridge.db.lock(tx, *{f"adt-sender:{arrival.sender}" for arrival in arrivals if arrival})
        known = _known(tx, filter(None, arrivals))
        fresh, answers = [], []
        for arrival in arrivals:
            if arrival is None:
                answers.append(Answer(b""))
                continue
            new, kept = _compare(tx, arrival, known, at)
            fresh += [new] if new else []
            answers.append(_answer(bridge.settings, arrival, kept))
        _store(tx, fresh, at)
    return answers


def _answer(settings: Settings, arrival: _Arrival, kept: _Kept) -> Answer:
    follows = arrival.error is None and answers_on_same_connection(settings, arrival.header, arrival.sender)
    return Answer(kept.ack, kept.id if follows else "")


def _arrival(bridge: Bridge, message: Inbound, at: datetime) -> _Arrival | None:
    """None for an acknowledgement."""
    raw = message.raw
    header, error, outcome = UNREADABLE, None, AckCode.AA
    keys: tuple[str, ...] = ()
    try:
        header = read_header(raw)
        if header.code == "ACK":
            return None
        _check_sender(bridge.settings, header, message.peer)
        keys = patient_keys(raw, bridge.settings.default_authority or "", header)
        _check_header(header)
        decode(raw, header.charset, bridge.settings.hl7_charset)
        _check_patient(header, keys)
    except MessageError as problem:
        outcome = AckCode.AR if problem.condition in _REJECTED else AckCode.AE
        error = AckError.of(problem)
    fingerprint = hashlib.sha256(raw.rstrip(b"\r\n")).hexdigest()  # a last line end more or less is no other content
    control_id = _storable(header.msh_10.strip())
    return _built(
        new_id(at),
        sender=_storable(f"{header.msh_3}|{header.msh_4}")[:200],
        control_id=control_id if 0 < len(control_id) <= 200 else f"sha256:{fingerprint}",
        header=header,
        fingerprint=fingerprint,
        raw=raw,
        patient_keys=keys,
        outcome=outcome,
        error=error,
        at=at,
    )


def _built(
    arrival_id: str,
    *,
    sender: str,
    control_id: str,
    header: Header,
    fingerprint: str,
    raw: bytes,
    patient_keys: tuple[str, ...],
    outcome: AckCode,
    error: AckError | None,
    at: datetime,
) -> _Arrival:
    # MSH-10 holds 20 characters up to 2.6: those of a UUIDv7 that are time and counter, and some of chance.
    ours = arrival_id.replace("-", "")[:20]
    code = find_answer_code(header, outcome)
    if code is None and error and wants_application_ack(header, outcome):
        code = outcome  # nothing will be applied, so this is all the sender can be told
    errors = [replace(error, diagnostic=f"kept as message {arrival_id}")] if error else []
    ack = acknowledge(header, code, control_id=ours, at=at, errors=errors) if code else b""
    return _Arrival(arrival_id, sender, control_id, header, fingerprint, raw, patient_keys, outcome, error, ack)


_UNSUPPORTED_VERSION = 203
_WRONG_SENDER = 207
_REJECTED = (UNSUPPORTED_MESSAGE_TYPE, UNSUPPORTED_EVENT_CODE, _UNSUPPORTED_VERSION, _WRONG_SENDER)


def _check_sender(settings: Settings, header: Header, peer: str) -> None:
    """A client certificate may be good for some senders only (`mllp_senders`)."""
    _, has_certificate, name = peer.partition("/")
    if (
        has_certificate
        and settings.mllp_senders
        and f"{header.msh_3}|{header.msh_4}" not in settings.mllp_senders.get(name, ())
    ):
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


def _storable(text: str) -> str:
    return text.replace("\x00", "")


class _Kept(NamedTuple):
    """A message that came before, or earlier in this burst, and what it was answered with."""

    fingerprint: str
    ack: bytes
    id: str


_Known = dict[tuple[str, str], _Kept]
"""By sender and control id."""


def _known(tx: Connection, arrivals: Iterable[_Arrival]) -> _Known:
    by_sender: dict[str, list[str]] = {}
    for arrival in arrivals:
        by_sender.setdefault(arrival.sender, []).append(arrival.control_id)
    columns = adt_message.c
    known: _Known = {}
    for sender, control_ids in by_sender.items():
        for start in range(0, len(control_ids), _IN_CLAUSE):
            some = control_ids[start : start + _IN_CLAUSE]
            statement = select(columns.control_id, columns.fingerprint, columns.ack, columns.id).where(
                columns.sender == sender, columns.control_id.in_(some)
            )
            known |= {(sender, row.control_id): _Kept(*row[1:]) for row in tx.execute(statement)}
    return known


def _compare(tx: Connection, arrival: _Arrival, known: _Known, at: datetime) -> tuple[_Arrival | None, _Kept]:
    """(what is new, if anything, and what it is answered with)."""
    before = known.get(arrival.key)
    if before is None:
        kept = known[arrival.key] = _Kept(arrival.fingerprint, arrival.ack, arrival.id)
        return arrival, kept
    if before.fingerprint == arrival.fingerprint:
        return None, before
    contradiction = _built(
        arrival.id,
        sender=arrival.sender,
        control_id=f"{arrival.control_id[:120]} {arrival.fingerprint}",
        header=arrival.header,
        fingerprint=arrival.fingerprint,
        raw=arrival.raw,
        patient_keys=arrival.patient_keys,
        outcome=AckCode.AE,
        error=AckError(207, _DUPLICATE, "MSH^1^10"),
        at=at,
    )
    known |= {key: value for key, value in _known(tx, [contradiction]).items() if key not in known}
    return _compare(tx, contradiction, known, at)


def _store(tx: Connection, arrivals: Sequence[_Arrival], at: datetime) -> None:
    if not arrivals:
        return
    rows = [
        {
            "id": arrival.id,
            "sender": arrival.sender,
            "control_id": arrival.control_id,
            "trigger_event": _storable(arrival.header.trigger_event)[:16],
            "fingerprint": arrival.fingerprint,
            "raw": arrival.raw,
            "ack": arrival.ack,
            "state": "refused" if arrival.error else "received",
            "reason": arrival.error.text if arrival.error else None,
            "remedy": _REMEDY if arrival.error else None,
            "patient": _storable(", ".join(arrival.patient_keys)),
            "received_at": at,
        }
        for arrival in arrivals
    ]
    tx.execute(insert(adt_message), rows)
    enqueue_all(tx, [apply_work(a.id, a.patient_keys) for a in arrivals if a.error is None], at=at)


def apply_work(message_id: str, keys: Iterable[str]) -> Work:
    """Messages that share a patient identifier are applied in the order in which they came."""
    return Work(
        kind="apply-adt",
        idempotency_key=f"adt:{message_id}",
        payload={"message": message_id},
        order_keys=tuple(f"adt:{_storable(key)}" for key in keys),
    )
