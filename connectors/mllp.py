"""One message to an HL7 v2 receiver over MLLP, and its acknowledgement: a connection for each message.

HL7 v2.9.1 2.9.2 (original and enhanced mode), appendix C of HL7 v2.5.1 (MLLP).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Final

from connectors.contract import DeliveryError, Retry
from connectors.kinds import Hl7v2Profile
from connectors.profile import ProfileError
from connectors.reaching import tls_context, why_unreachable
from mappings.hl7v2.er7 import Message
from mappings.hl7v2.errors import MessageError
from mappings.hl7v2.framing import Deframer, FramingError, frame

_ANSWER_BYTES: Final = 1024 * 1024
_LOST: Final = (
    "Nothing to do, or see the next reason: what the receiver holds is found out before anything is sent again."
)


def exchange(profile: Hl7v2Profile, message: bytes, control_id: str) -> Message:
    """Send `message` and return the acknowledgement that settles it. Raises DeliveryError.

    Acknowledgements for other messages are passed over; with `acknowledge = "application"` a positive commit answer
    is waited beyond.
    """
    with reach(profile) as connection:
        try:
            connection.settimeout(profile.timeouts.write)
            connection.sendall(frame(message))
            for answer in _answers(connection, profile.timeouts.read):
                msa = answer.find("MSA")
                if msa is None or msa.text(2) != control_id:
                    continue
                if msa.text(1) == "CA" and profile.acknowledge == "application":
                    continue
                return answer
        except FramingError as error:
            raise DeliveryError(str(error), remedy="Choose another charset or route.", retry=Retry.NEVER) from error
        except (OSError, MessageError) as error:
            raise _lost(why_unreachable(error)[0]) from error
    raise _lost("the connection was closed")


def reach(profile: Hl7v2Profile) -> socket.socket:
    """A connection, TLS included. Raises DeliveryError."""
    try:
        return _connected(profile)
    except ProfileError as error:
        remedy = "Put the file in its place; it is tried again."
        raise DeliveryError(str(error), remedy=remedy, retry=Retry.LATER) from error
    except OSError as error:
        why, remedy = why_unreachable(error)
        told = f"{profile.host}:{profile.port} could not be reached: {why}."
        raise DeliveryError(told, remedy=remedy, retry=Retry.LATER, outage=True) from error


def _connected(profile: Hl7v2Profile) -> socket.socket:
    context = tls_context(profile.ca_file, profile.client_certificate) if profile.tls else None
    plain = socket.create_connection((profile.host, profile.port), timeout=profile.timeouts.connect)
    if context is None:
        return plain
    try:
        return context.wrap_socket(plain, server_hostname=profile.host)
    except OSError:
        plain.close()
        raise


def _answers(connection: socket.socket, seconds: float) -> Iterator[Message]:
    ends = time.monotonic() + seconds
    deframer = Deframer(_ANSWER_BYTES)
    while (left := ends - time.monotonic()) > 0:
        connection.settimeout(left)
        chunk = connection.recv(65_536)
        if not chunk:
            return
        deframer.feed(chunk)
        for raw in deframer.messages():
            yield Message.parse(raw)
    raise TimeoutError


def _lost(how: str) -> DeliveryError:
    return DeliveryError(f"The acknowledgement was lost ({how}).", remedy=_LOST, retry=Retry.UNKNOWN, outage=True)
