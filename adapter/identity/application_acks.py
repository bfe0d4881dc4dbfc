"""Application acknowledgements: what became of a message, told to the sender that asks for it in MSH-16.

Written in the transaction that applies the message or queues it, once and for all. They go to the channel configured
for the sender, as work that is repeated until it is taken, or else back on the connection the message came by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, select, update

from adapter.bridge import Bridge
from adapter.db.tables import adt_message
from adapter.errors import Misconfigured
from adapter.identity.mllp_client import send
from adapter.identity.mllp_tls import client_tls
from adapter.records import new_id
from adapter.settings import ApplicationAckChannel, Settings
from adapter.work import Work, bury, enqueue, finish
from mappings.hl7v2.ack import AckCode, AckError, acknowledge, wants_application_ack
from mappings.hl7v2.er7 import Header, Message, read_header
from mappings.hl7v2.errors import MessageError

_APPLICATION_ERROR = 207
_TAKEN = {AckCode.AA, AckCode.CA}


def answers_on_same_connection(settings: Settings, header: Header, sender: str) -> bool:
    """True when `sender` may get an application acknowledgement and has no channel for it. `sender`: MSH-3|MSH-4."""
    asked_for = wants_application_ack(header, AckCode.AA) or wants_application_ack(header, AckCode.AE)
    return asked_for and _find_channel(settings, sender) is None


def answer_application(tx: Connection, bridge: Bridge, row: Row[Any], problem: Exception | None = None) -> None:
    """Keep the application acknowledgement of the `adt_message` row, if its MSH-16 wants one and it has none yet.

    `problem` is why the message was not applied; its text must hold nothing of the message.
    """
    header, outcome = read_header(row.raw), AckCode.AE if problem else AckCode.AA
    if row.application_ack is not None or not wants_application_ack(header, outcome):
        return
    at = bridge.now()
    channel = _find_channel(bridge.settings, row.sender)
    ack = acknowledge(
        header,
        outcome,
        control_id=new_id(at).replace("-", "")[:20],
        at=at,
        errors=[_error(problem, row.id)] if problem else [],
        conditions=("AL" if channel else "NE", "NE"),
    )
    tx.execute(update(adt_message).where(adt_message.c.id == row.id).values(application_ack=ack))
    if channel:
        work = Work(
            "application-ack", f"application-ack:{row.id}", {"message": row.id}, destination=channel.sender[:64]
        )
        enqueue(tx, work, at=at)


def find_answers(bridge: Bridge, message_ids: Sequence[str]) -> dict[str, bytes]:
    """The messages among these that are settled, with their application acknowledgement, b"" where none is wanted."""
    column = adt_message.c
    statement = select(column.id, column.application_ack).where(column.id.in_(message_ids), column.state != "received")
    with bridge.db.snapshot() as tx:
        return {row.id: row.application_ack or b"" for row in tx.execute(statement)}


def send_application_ack(bridge: Bridge, work: Work) -> None:
    """Handler of work kind "application-ack": to the sender's channel, until it is taken there.

    Raises Unavailable when the channel does not answer, so that it is tried again, and Misconfigured without one.
    """
    column = adt_message.c
    with bridge.db.snapshot() as tx:
        statement = select(column.sender, column.application_ack).where(column.id == work.payload["message"])
        sender, ack = tx.execute(statement).one()
    channel = _find_channel(bridge.settings, sender)
    if channel is None:
        raise Misconfigured("this sender has no application_ack_channels entry any more; put it back, or cancel this")
    tls = client_tls(channel.ca, channel.certificate, channel.key)
    (answer,) = send(channel.host, channel.port, [ack], ssl=tls)
    with bridge.db.transaction() as tx:
        if (code := _code_of(answer)) in _TAKEN:
            finish(tx, work)
        else:
            reason = f"the channel of the sender answered {code or 'without MSA'} to the application acknowledgement"
            bury(tx, work, reason=reason, remedy="ask its operator what it expects, then try it again", blocks=False)


def _find_channel(settings: Settings, sender: str) -> ApplicationAckChannel | None:
    return next((channel for channel in settings.application_ack_channels if channel.sender == sender), None)


def _error(problem: Exception, message_id: str) -> AckError:
    diagnostic = f"waits as message {message_id}"
    if isinstance(problem, MessageError):
        return AckError(problem.condition, str(problem), problem.location, diagnostic=diagnostic)
    return AckError(_APPLICATION_ERROR, str(problem), diagnostic=diagnostic)


def _code_of(answer: bytes) -> str:
    try:
        msa = Message.parse(answer).find("MSA")
    except MessageError:
        return ""
    return msa.text(1) if msa else ""
