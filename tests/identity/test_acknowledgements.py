"""Enhanced acknowledgement: at once that a message is safe, later what became of it, and only what was asked for."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import select

from adapter.bridge import Bridge
from adapter.db.tables import adt_message, work
from adapter.identity import apply_message, find_answers, receive, receive_messages, replay, send_application_ack
from adapter.identity.mllp_intake import Answer, Inbound
from adapter.settings import ApplicationAckChannel
from adapter.work import Lane, WorkLoop
from mappings.hl7v2.er7 import Message
from mappings.hl7v2.framing import Deframer, frame
from tests.conftest import Clock
from tests.identity.conftest import MRN, adt
from tests.identity.listening import Ledger, serving

Do = Callable[[], int]
UNKNOWN = {"authority": "ELSEWHERE"}


def asking(accept: str, application: str, control_id: str = "1", event: str = "A28", **options: str) -> bytes:
    """An ADT message with MSH-15 and MSH-16."""
    return adt(event, control_id, **options).replace(b"|P|2.5.1\r", f"|P|2.5.1|||{accept}|{application}\r".encode())


def receive_one(site: Bridge, raw: bytes, peer: str = "test") -> Answer:
    (answer,) = receive(site, [Inbound(raw, peer)])
    return answer


def codes(answer: bytes) -> tuple[str, str]:
    msa = Message.parse(answer).find("MSA")
    assert msa is not None
    return msa.text(1), msa.text(2)


def application_acks(site: Bridge) -> list[bytes | None]:
    with site.db.snapshot() as tx:
        return list(tx.execute(select(adt_message.c.application_ack).order_by(adt_message.c.id)).scalars())


def states(site: Bridge) -> list[str]:
    with site.db.snapshot() as tx:
        return list(tx.execute(select(adt_message.c.state).order_by(adt_message.c.id)).scalars())


@pytest.mark.parametrize(
    ("accept", "application", "good", "bad"),
    [
        ("", "", "AA", "AE"),
        ("AL", "NE", "CA", "CE"),
        ("NE", "NE", "", ""),
        ("ER", "NE", "", "CE"),
        ("SU", "NE", "CA", ""),
        ("NE", "AL", "", "AE"),
        ("NE", "SU", "", ""),
        ("", "AL", "CA", "CE"),
    ],
)
def test_what_is_answered_at_once_is_what_the_sender_asked_for(
    site: Bridge, accept: str, application: str, good: str, bad: str
) -> None:
    raws = [asking(accept, application, "1"), asking(accept, application, "2", mrn="")]
    answers = receive_messages(site, raws, "test")
    assert [(answer and codes(answer)[0]) or "" for answer in answers] == [good, bad]
    assert receive_messages(site, raws, "test") == answers
    assert states(site) == ["received", "refused"]


def test_a_refusal_names_condition_place_remedy_and_our_message(site: Bridge) -> None:
    answer = receive_one(site, adt("A28", "1", mrn="")).ack
    err = Message.parse(answer).find("ERR")
    with site.db.snapshot() as tx:
        kept = tx.execute(select(adt_message.c.id)).scalar_one()
    assert err is not None
    assert (err.text(2), err.text(3), err.text(3, 3)) == ("PID", "101", "HL70357")
    assert err.text(7).endswith(kept)
    assert "PID-3" in err.text(8)


def test_once_applied_the_sender_that_asked_is_told(site: Bridge, apply_all: Do) -> None:
    answer = receive_one(site, asking("AL", "AL"))
    assert codes(answer.ack) == ("CA", "1")
    assert find_answers(site, [answer.awaits]) == {}
    apply_all()
    ack = find_answers(site, [answer.awaits])[answer.awaits]
    assert codes(ack) == ("AA", "1")
    assert Message.parse(ack).header.msh_16 == "NE"


def test_the_same_message_again_waits_for_the_same_acknowledgement(site: Bridge, apply_all: Do) -> None:
    first = receive_one(site, asking("AL", "AL"))
    apply_all()
    assert receive_one(site, asking("AL", "AL")) == first
    apply_all()
    assert len(application_acks(site)) == 1


def test_a_message_that_waits_in_the_queue_is_an_application_error_and_is_told_once(
    site: Bridge, apply_all: Do
) -> None:
    answer = receive_one(site, asking("AL", "AL", **UNKNOWN))
    apply_all()
    (ack,) = application_acks(site)
    assert ack is not None and codes(ack) == ("AE", "1")
    err = Message.parse(ack).find("ERR")
    assert err is not None and err.text(7).endswith(answer.awaits) and err.text(8)
    site.settings.identifier_systems["ELSEWHERE"] = MRN + ".9"
    with site.db.transaction() as tx:
        replay(tx, site, answer.awaits)
    apply_all()
    assert states(site) == ["applied"]
    assert application_acks(site) == [ack]


@pytest.mark.parametrize(
    ("application", "good", "bad"), [("NE", None, None), ("ER", None, "AE"), ("SU", "AA", None), ("", None, None)]
)
def test_only_the_outcome_asked_for_is_told(
    site: Bridge, apply_all: Do, application: str, good: str | None, bad: str | None
) -> None:
    messages = [asking("AL", application, "1"), asking("AL", application, "2", mrn="200", **UNKNOWN)]
    answers = [receive_one(site, message) for message in messages]
    assert [bool(answer.awaits) for answer in answers] == [bool(good or bad)] * 2
    apply_all()
    assert [ack and codes(ack)[0] for ack in application_acks(site)] == [good, bad]
    awaited = [answer.awaits for answer in answers if answer.awaits]
    assert find_answers(site, awaited).keys() == set(awaited)  # nobody waits for what will never come


def test_an_acknowledgement_is_neither_answered_nor_kept(site: Bridge) -> None:
    ack = b"MSH|^~\\&|A|B|C|D|20261123||ACK^A01^ACK|7|P|2.5.1\rMSA|AA|1\r"
    first, answer, last = receive(site, [Inbound(raw, "test") for raw in (adt("A28", "1"), ack, adt("A28", "2"))])
    assert answer == Answer(b"")
    assert [codes(one.ack) for one in (first, last)] == [("AA", "1"), ("AA", "2")]
    assert states(site) == ["received", "received"]


def test_a_certificate_is_good_only_for_the_senders_it_is_registered_for(site: Bridge) -> None:
    only = site.settings.model_copy(update={"mllp_senders": {"adt-feed": ("ADT|HOSP",), "lab": ("LAB|HOSP",)}})
    bound = replace(site, settings=only)
    peers = ["10.0.0.1:5/adt-feed", "10.0.0.1:5/lab", "10.0.0.1:5/unheard-of", "10.0.0.1:5"]
    answers = [receive_one(bound, adt("A28", str(n)), peer) for n, peer in enumerate(peers)]
    assert [codes(answer.ack)[0] for answer in answers] == ["AA", "AR", "AR", "AA"]
    assert states(site) == ["received", "refused", "refused", "received"]


# --- the channel of the sender --------------------------------------------------------------------------------------


def with_channel(site: Bridge, port: int) -> Bridge:
    channel = ApplicationAckChannel(sender="ADT|HOSP", host="127.0.0.1", port=port)
    return replace(site, settings=site.settings.model_copy(update={"application_ack_channels": (channel,)}))


def do_everything(bridge: Bridge) -> None:
    lanes = {
        "apply-adt": Lane(partial(apply_message, bridge), dead_blocks=True),
        "application-ack": Lane(partial(send_application_ack, bridge)),
    }
    WorkLoop(bridge.db, lanes, now=bridge.now).run_until_idle()


def unfinished(bridge: Bridge) -> list[tuple[str, str]]:
    with bridge.db.snapshot() as tx:
        return [(row.kind, row.state) for row in tx.execute(select(work.c.kind, work.c.state))]


def taken(code: str) -> Callable[[bytes], Answer]:
    return lambda ack: Answer(b"MSH|^~\\&|||||||ACK|9|P|2.5.1\rMSA|%s|%s\r" % (code.encode(), ack.split(b"|")[9]))


@pytest.mark.parametrize("code", ["CA", "AA"])
def test_a_sender_with_a_channel_is_told_there(site: Bridge, code: str) -> None:
    other = Ledger(answer=taken(code))
    with serving(other) as port:
        bridge = with_channel(site, port)
        answer = receive_one(bridge, asking("AL", "AL"))
        assert (codes(answer.ack), answer.awaits) == (("CA", "1"), "")
        do_everything(bridge)
    assert [codes(ack) for ack in other.received] == [("AA", "1")]
    assert Message.parse(other.received[0]).header.msh_15 == "AL"
    assert unfinished(bridge) == []


def test_a_channel_that_refuses_leaves_a_dead_letter_and_holds_nothing_up(site: Bridge) -> None:
    other = Ledger(answer=taken("CE"))
    with serving(other) as port:
        bridge = with_channel(site, port)
        receive(bridge, [Inbound(asking("AL", "AL", control_id, mrn=control_id), "test") for control_id in "12"])
        do_everything(bridge)
    assert [codes(ack)[1] for ack in other.received] == ["1", "2"]
    assert unfinished(bridge) == [("application-ack", "dead")] * 2
    assert states(site) == ["applied", "applied"]


def test_a_channel_nobody_listens_at_is_tried_again(site: Bridge, clock: Clock) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    bridge = with_channel(site, port)
    receive(bridge, [Inbound(asking("AL", "AL"), "test")])
    do_everything(bridge)
    assert unfinished(bridge) == [("application-ack", "waiting")]
    other = Ledger(answer=taken("CA"))
    with serving(other) as port:
        clock.advance(minutes=5)
        do_everything(with_channel(site, port))
    assert len(other.received) == 1
    assert unfinished(bridge) == []


def test_over_a_socket_the_commit_answer_comes_at_once_and_the_application_answer_once_applied(
    site: Bridge, apply_all: Do
) -> None:
    with (
        serving(partial(receive, site), find_answers=partial(find_answers, site)) as port,
        socket.create_connection(("127.0.0.1", port), 10) as connection,
    ):
        connection.settimeout(10)
        connection.sendall(frame(asking("AL", "AL")))
        deframer = Deframer()
        deframer.feed(connection.recv(10_000))
        assert [codes(answer) for answer in deframer.messages()] == [("CA", "1")]
        apply_all()
        deframer.feed(connection.recv(10_000))
        assert [codes(answer) for answer in deframer.messages()] == [("AA", "1")]


def test_a_last_line_end_more_or_less_is_no_other_content(site: Bridge) -> None:
    message = adt("A28", "1")
    answers = receive_messages(site, [message, message.rstrip(b"\r"), message + b"\n"], "test")
    assert answers[0] == answers[1] == answers[2]
