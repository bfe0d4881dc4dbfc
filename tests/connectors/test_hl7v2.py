"""HL7 v2 to receivers that answer late, elsewhere, to others, or not at all."""

from __future__ import annotations

import socket
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from connectors.contract import CannotLook, DeliveryError, Parcel, Receipt, Retry, RouteRefused
from connectors.hl7v2 import Hl7v2, control_id
from connectors.profile import build_profile
from mappings.hl7v2.er7 import Message
from mappings.hl7v2.framing import Deframer, frame
from mappings.hl7v2.photo_message import names_type
from mappings.terms import CONFIDENTIALITY
from tests.connectors.test_contract import MRN, VISIT, parcel

Answers = Callable[[str], list[bytes]]


@contextmanager
def receiver(answers: Answers) -> Iterator[tuple[int, list[bytes]]]:
    """One receiver that answers each message with the frames of `answers(MSH-10)` and hangs up after none."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    deframer = Deframer()
                    while not received or deframer.is_mid_message or not list(deframer.messages()):
                        chunk = connection.recv(65_536)
                        if not chunk:
                            break
                        deframer.feed(chunk)
                        for raw in deframer.messages():
                            received.append(raw)
                            for each in answers(Message.parse(raw).header.msh_10):
                                connection.sendall(each)
                            break
                        if received:
                            break

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], received
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def ack(code: str, control: str, more: str = "") -> bytes:
    return frame(f"MSH|^~\\&|R||D||20261123||ACK|a|P|2.5.1\rMSA|{code}|{control}\r{more}".encode())


PDF = b"%PDF-1.3 a visit %%EOF"


def sheet(version: int = 1, previous: Receipt | None = None) -> Parcel:
    return parcel(version=version, content=PDF, content_type="application/pdf", filename="s.pdf", previous=previous)


def told(message: bytes, segment: str, field: int) -> str:
    """A field as it was sent."""
    line = next(each for each in message.decode().split("\r") if each.startswith(segment))
    return line.split("|")[field]


def opened(port: int, **changes: Any) -> Hl7v2:
    table = {"name": "x", "kind": "hl7v2", "host": "127.0.0.1", "port": port, "timeouts": {"read": 0.5}}
    table |= {"authorities": {MRN: "HOSP", VISIT: "HOSP"}}
    profile = build_profile(table | changes, source="test")
    return Hl7v2(profile)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("acknowledge", "answers"),
    [
        ("original", lambda control: [ack("AA", control)]),
        ("original", lambda control: [ack("AE", "somebody else's"), ack("AA", control)]),
        ("commit", lambda control: [ack("CA", control)]),
        ("application", lambda control: [ack("CA", control), ack("AA", control)]),
    ],
)
def test_the_answer_to_this_message_settles_it(acknowledge: str, answers: Answers) -> None:
    with receiver(answers) as (port, received):
        receipt = opened(port, acknowledge=acknowledge).send(parcel())
    header = Message.parse(received[0]).header
    assert receipt.ids["Patient"] == "A-1" and header.msh_10 == control_id(parcel(), "ORU^R01")
    assert (header.msh_15, header.msh_16) == {
        "original": ("", ""),
        "commit": ("AL", "NE"),
        "application": ("AL", "AL"),
    }[acknowledge]


@pytest.mark.parametrize(
    ("answers", "retry"),
    [
        (lambda control: [], Retry.UNKNOWN),
        (lambda control: [ack("AA", "somebody else's")], Retry.UNKNOWN),
        (lambda control: [b"\x0bno message\x1c\r"], Retry.UNKNOWN),
        (lambda control: [ack("AE", control)], Retry.NEVER),
        (lambda control: [ack("AR", control)], Retry.NEVER),
        (lambda control: [ack("CE", control)], Retry.LATER),
        (lambda control: [ack("XX", control)], Retry.NEVER),
    ],
)
def test_whatever_else_comes_says_whether_to_try_again(answers: Answers, retry: Retry) -> None:
    with receiver(answers) as (port, _), pytest.raises(DeliveryError) as error:
        opened(port).send(parcel())
    assert error.value.retry is retry and error.value.remedy


def test_the_receivers_own_error_code_is_read_by_the_profile() -> None:
    signals = [{"code": "207", "means": "later"}]
    answers: Answers = lambda control: [ack("AE", control, "ERR|||207^Application internal error^HL70357|E\r")]  # noqa: E731
    with receiver(answers) as (port, _), pytest.raises(DeliveryError) as error:
        opened(port, signals=signals).send(parcel())
    assert error.value.retry is Retry.LATER


def test_nobody_listening_is_an_outage_without_any_effect() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(DeliveryError) as error:
        opened(port).send(parcel())
    assert error.value.retry is Retry.LATER and error.value.outage


def test_a_lost_answer_names_the_document_to_look_for() -> None:
    with pytest.raises(CannotLook) as error:
        opened(1).find(parcel())
    assert error.value.presumed is not None and error.value.presumed.ids["Document"] in error.value.remedy


@pytest.mark.parametrize(
    ("changes", "given", "reason"),
    [
        ({"authorities": {}}, parcel(), "assigning authority"),
        ({"encounter": {"policy": "required"}}, parcel(encounter=None), "under a visit"),
        ({"charset": "ASCII"}, parcel(media={**parcel().media, "note": [{"text": "ä"}]}), "character set"),
        ({"max_bytes": 10}, parcel(), "this destination takes 10"),
    ],
)
def test_what_cannot_be_told_is_not_sent(changes: dict[str, Any], given: Parcel, reason: str) -> None:
    with pytest.raises(DeliveryError, match=reason):
        opened(1, **changes).send(given)


@pytest.mark.parametrize("message", ["ORU^R01", "MDM^T02"])
def test_a_visits_pdf_travels_as_what_it_is(message: str) -> None:
    with receiver(lambda control: [ack("AA", control)]) as (port, received):
        opened(port, message=message).send(sheet())
    assert told(received[0], "OBX", 2) == "ED"
    assert told(received[0], "OBX", 5) == f"^AP^PDF^Base64^{b64encode(PDF).decode()}"
    assert message == "ORU^R01" or told(received[0], "TXA", 3) == "AP"


def test_a_document_made_again_replaces_the_former_and_is_cancelled_by_its_own_number() -> None:
    changes = {"message": "MDM^T02", "replace_with": "MDM^T10", "retract_with": "MDM^T11"}
    with receiver(lambda control: [ack("AA", control)]) as (port, _):
        first = opened(port, **changes).send(sheet())
    newer = sheet(2, first)
    with receiver(lambda control: [ack("AA", control)]) as (port, received):
        second = opened(port, **changes).send(newer)
    assert Message.parse(received[0]).header.trigger_event == "T10"
    assert told(received[0], "TXA", 13) == first.ids["Document"] != second.ids["Document"]
    with receiver(lambda control: [ack("AA", control)]) as (port, received):
        opened(port, **changes).retract(newer, second, "wrong")
    assert Message.parse(received[0]).header.trigger_event == "T11" and b"OBX" not in received[0]
    assert told(received[0], "TXA", 13) == second.ids["Document"]


def test_a_corrected_result_keeps_the_filler_number_that_it_had() -> None:
    """Receivers replace by OBR-3: another number would be a second result beside the first."""
    sent: list[bytes] = []
    receipt = None
    for version in (1, 2, 3):
        with receiver(lambda control: [ack("AA", control)]) as (port, received):
            receipt = opened(port).send(sheet(version, receipt))
        sent += received
    with receiver(lambda control: [ack("AA", control)]) as (port, received):
        opened(port, retract_with="ORU^R01").retract(sheet(3, receipt), receipt, "wrong")  # type: ignore[arg-type]
    assert len({told(each, "OBR", 3) for each in [*sent, *received]}) == 1
    assert [told(each, "OBR", 25) for each in [*sent, *received]] == ["F", "C", "C", "W"]


def test_what_stands_in_another_patients_record_is_not_named_as_replaced() -> None:
    with receiver(lambda control: [ack("AA", control)]) as (port, _):
        wrong = opened(port, message="MDM^T02").send(parcel("1"))
    with receiver(lambda control: [ack("AA", control)]) as (port, received):
        opened(port, message="MDM^T02", replace_with="MDM^T10").send(parcel("2", version=2, previous=wrong))
    assert (
        Message.parse(received[0]).header.trigger_event == "T02" and wrong.ids["Document"].encode() not in received[0]
    )


@pytest.mark.parametrize("level", ["N", "R", "V"])
def test_a_documents_confidentiality_stands_in_txa_18(level: str) -> None:
    labels = {"security": [{"system": CONFIDENTIALITY, "code": level}]}
    given = replace(sheet(), media={**sheet().media, "meta": labels})
    with receiver(lambda control: [ack("AA", control)]) as (port, received):
        opened(port, message="MDM^T02").send(given)
    assert told(received[0], "TXA", 18) == {"N": ""}.get(level, level)


@pytest.mark.parametrize(
    ("words", "takes"),
    [
        (("{type}", "{subtype}"), {"image/jpeg", "image/png", "application/pdf"}),
        (("image", "image/jpeg"), {"image/jpeg"}),
        (("image", "jpg"), {"image/jpeg", "image/png"}),
        (("application", "pdf"), {"application/pdf"}),
    ],
)
def test_a_layout_takes_what_it_names_in_whatever_words(words: tuple[str, str], takes: set[str]) -> None:
    kinds = ("image/jpeg", "image/png", "application/pdf", "image/heic")
    assert {each for each in kinds if names_type(("", *words, "Base64", "{data}"), each)} == takes


def test_a_layout_that_says_jpeg_holds_nothing_else() -> None:
    with pytest.raises(RouteRefused, match="application/pdf") as refused:
        opened(1, obx_5=["", "IM", "JPEG", "Base64", "{data}"]).send(sheet())
    assert "{subtype}" in refused.value.remedy
