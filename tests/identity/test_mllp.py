"""The MLLP socket, driven from outside with real bytes over real sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from structlog.testing import capture_logs

from adapter.errors import Unavailable
from adapter.identity.mllp_client import send
from adapter.identity.mllp_intake import MAX_BATCH, Answer, Inbound
from mappings.hl7v2.framing import Deframer, frame
from tests.identity.listening import MESSAGE, Ledger, exchange, read_all, serving


def test_messages_are_answered_one_by_one_in_order() -> None:
    ledger = Ledger()
    messages = [b"MSH|%d" % i for i in range(20)]
    with serving(ledger) as port:
        assert send("127.0.0.1", port, messages) == [b"ACK " + message for message in messages]
    assert [len(batch) for batch in ledger.batches] == [1] * 20
    assert ledger.peers[0].startswith("127.0.0.1:")


def test_a_pipelined_burst_is_received_in_batches_and_answered_in_order() -> None:
    ledger = Ledger()
    messages = [b"MSH|%d" % i + b"x" * 300 for i in range(1000)]
    with serving(ledger) as port:
        assert send("127.0.0.1", port, messages, pipelined=1000) == [b"ACK " + message for message in messages]
    assert ledger.received == messages
    assert len(ledger.batches) < 200
    assert max(map(len, ledger.batches)) <= MAX_BATCH


def test_a_message_in_any_number_of_pieces_is_one_message() -> None:
    ledger = Ledger()
    stream = frame(MESSAGE) + frame(b"MSH|2")
    with serving(ledger) as port, socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(len(stream)):
            connection.sendall(stream[i : i + 1])
        connection.shutdown(socket.SHUT_WR)
        read_all(connection)
    assert ledger.received == [MESSAGE, b"MSH|2"]


@pytest.mark.parametrize(
    "chunk", [b"\x0b" + MESSAGE + b"\x1c\n", b"\xef\xbb\xbf" + frame(MESSAGE), MESSAGE + b"\x1c\r"]
)
def test_odd_framing_is_answered_all_the_same(chunk: bytes) -> None:
    with serving(Ledger()) as port:
        assert exchange(port, chunk) == [b"ACK " + MESSAGE]


def test_a_sender_that_never_ends_with_cr_is_answered_after_a_pause() -> None:
    with serving(Ledger()) as port, socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(b"\x0b" + MESSAGE + b"\x1c")
        connection.settimeout(5)
        assert connection.recv(1000) == frame(b"ACK " + MESSAGE)


def test_a_sender_that_wants_no_answer_gets_none() -> None:
    with serving(Ledger(answer=lambda message: Answer(b"" if b"2" in message else message))) as port:
        assert exchange(port, frame(b"MSH|1") + frame(b"MSH|2") + frame(b"MSH|3")) == [b"MSH|1", b"MSH|3"]


def test_what_came_before_a_framing_fault_is_answered_and_then_the_fault() -> None:
    ledger = Ledger()
    with serving(ledger, max_message_bytes=100) as port, capture_logs() as logs:
        answers = exchange(port, frame(MESSAGE) + frame(b"MSH|" + b"SECRET" * 100) + frame(MESSAGE))
    assert answers == [b"ACK " + MESSAGE, b"\x15"]
    assert ledger.received == [MESSAGE]
    (entry,) = logs
    assert entry["peer"].startswith("127.0.0.1:")
    assert "100 bytes" in entry["reason"]
    assert "SECRET" not in str(logs)


def test_a_peer_that_leaves_in_the_middle_of_a_message_is_logged_without_content() -> None:
    ledger = Ledger()
    with serving(ledger) as port, capture_logs() as logs:
        assert exchange(port, frame(MESSAGE) + b"\x0bMSH|SECRET") == [b"ACK " + MESSAGE]
    assert ledger.received == [MESSAGE]
    assert [entry["reason"] for entry in logs] == ["the peer closed in the middle of a message, which was not accepted"]


@pytest.mark.parametrize(("first", "limit"), [(b"", "idle_seconds"), (b"\x0bMSH|never ended", "stall_seconds")])
def test_a_silent_peer_is_closed(first: bytes, limit: str) -> None:
    with (
        serving(Ledger(), **{limit: 0.2}) as port,
        capture_logs() as logs,
        socket.create_connection(("127.0.0.1", port), 10) as connection,
    ):
        connection.sendall(first)
        with suppress(ConnectionResetError):  # the server aborts: a peer this slow may not read either
            assert read_all(connection) == b""
    assert limit in logs[0]["reason"]


def test_a_peer_that_trickles_bytes_does_not_hold_the_connection() -> None:
    with (
        serving(Ledger(), stall_seconds=0.3) as port,
        socket.create_connection(("127.0.0.1", port), 10) as connection,
        pytest.raises(OSError),
    ):
        connection.sendall(b"\x0bMSH|")
        for _ in range(100):
            connection.sendall(b"x")
            time.sleep(0.05)


def test_reading_stops_while_a_batch_is_in_flight() -> None:
    ledger = Ledger()
    ledger.gate.clear()
    with serving(ledger) as port, socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.setblocking(False)
        big = frame(b"MSH|" + b"x" * 100_000)
        sent = 0
        with pytest.raises(BlockingIOError):
            while sent < 500 * 2**20:
                sent += connection.send(big)
                if sent > 2**20:
                    time.sleep(0.005)
        ledger.gate.set()
    assert sent < 100 * 2**20


def test_a_receiver_that_cannot_store_closes_without_an_answer() -> None:
    def fail(batch: Sequence[Inbound]) -> list[Answer]:
        raise Unavailable("The database does not answer.")

    with serving(fail) as port, capture_logs() as logs:
        assert exchange(port, frame(MESSAGE)) == []
    assert logs[0]["reason"] == "The database does not answer."


def test_what_comes_on_all_connections_meanwhile_makes_one_batch() -> None:
    ledger = Ledger()
    ledger.gate.clear()
    with serving(ledger) as port:
        peers = [threading.Thread(target=send, args=("127.0.0.1", port, [b"MSH|%d" % n])) for n in range(20)]
        peers[0].start()
        while not ledger.batches:
            time.sleep(0.001)
        for peer in peers[1:]:
            peer.start()
        time.sleep(0.2)
        ledger.gate.set()
        for peer in peers:
            peer.join(10)
    assert len(ledger.received) == 20
    assert len(ledger.batches) <= 3


def test_one_sender_that_cannot_be_stored_does_not_close_the_others() -> None:
    entered, gate = threading.Event(), threading.Event()

    def receive(batch: Sequence[Inbound]) -> list[Answer]:
        entered.set()
        assert gate.wait(10)
        if any(message.raw == b"MSH|bad" for message in batch):
            raise ZeroDivisionError
        return [Answer(message.raw) for message in batch]

    with serving(receive) as port, capture_logs() as logs, ThreadPoolExecutor(4) as pool:
        first = pool.submit(exchange, port, frame(b"MSH|first"))
        assert entered.wait(10)
        rest = [pool.submit(exchange, port, frame(raw)) for raw in (b"MSH|bad", b"MSH|good")]
        time.sleep(0.1)
        gate.set()
        assert [one.result(10) for one in (first, *rest)] == [[b"MSH|first"], [], [b"MSH|good"]]
    assert [entry["event"] for entry in logs] == ["mllp connection failed"]


def test_a_connection_above_the_limit_is_refused_to_its_face() -> None:
    with serving(Ledger(), max_connections=1) as port, capture_logs() as logs:
        with socket.create_connection(("127.0.0.1", port), 10) as first:
            first.sendall(frame(MESSAGE))
            assert first.recv(1000)
            with socket.create_connection(("127.0.0.1", port), 10) as second:
                assert read_all(second) == frame(b"\x15")
            first.sendall(frame(MESSAGE))
            assert first.recv(1000)
        assert "max_connections" in logs[0]["reason"]
        while exchange(port, frame(MESSAGE)) == [b"\x15"]:
            time.sleep(0.01)  # until the server has seen the first one leave


def test_senders_that_together_exceed_the_memory_are_served_one_after_the_other() -> None:
    ledger = Ledger(answer=lambda message: Answer(message[:20]))
    big = [b"MSH|%d|" % n + b"x" * 3_000_000 for n in range(4)]
    with (
        serving(ledger, max_message_bytes=4_000_000, max_bytes_in_flight=1_000_000) as port,
        ThreadPoolExecutor(4) as pool,
    ):
        answers = list(pool.map(lambda message: exchange(port, frame(message)), big))
    assert [one for [one] in answers] == [message[:20] for message in big]
    assert all(len(batch) == 1 for batch in ledger.batches)


def test_a_huge_message_arrives_whole() -> None:
    ledger = Ledger(answer=lambda message: Answer(b"%d" % len(message)))
    message = b"MSH|" + b"x" * (30 * 2**20)
    with serving(ledger, max_message_bytes=100 * 2**20) as port:
        assert exchange(port, frame(message)) == [b"%d" % len(message)]
    assert ledger.received == [message]


def test_a_batch_is_received_message_by_message_and_answered_as_a_batch() -> None:
    ledger = Ledger()
    first, second = b"MSH|^~\\&|1\r", b"MSH|^~\\&|2\r"
    block = b"BHS|^~\\&|A|B|C|D|||||7\r" + first + second + b"BTS|2\r"
    with serving(ledger) as port:
        before, batch, after = exchange(port, frame(MESSAGE) + frame(block) + frame(MESSAGE))
    assert ledger.received == [MESSAGE, first, second, MESSAGE]
    assert before == after == b"ACK " + MESSAGE
    assert batch.startswith(b"BHS|^~\\&|C|D|A|B|")
    assert batch.endswith(b"ACK " + first + b"ACK " + second + b"BTS|2\r")


def test_an_answer_that_echoes_a_framing_byte_is_sent_without_it() -> None:
    with serving(Ledger()) as port:
        assert exchange(port, b"\x0bMSH|A\x0bB\x1cC\x1c\r") == [b"ACK MSH|ABC"]


def test_an_empty_batch_is_answered_with_an_empty_batch() -> None:
    with serving(Ledger()) as port:
        (answer,) = exchange(port, frame(b"BHS|^~\\&|A|B|C|D\rBTS|0\r"))
    assert [line[:5] for line in answer.split(b"\r")] == [b"BHS|^", b"BTS|0", b""]


def test_messages_in_one_block_without_a_batch_are_answered_each_in_a_block_of_its_own() -> None:
    first, second = b"MSH|^~\\&|1\r", b"MSH|^~\\&|2\r"
    with serving(Ledger()) as port:
        assert exchange(port, frame(first + second)) == [b"ACK " + first, b"ACK " + second]


def test_an_application_acknowledgement_follows_on_the_same_connection() -> None:
    settled: dict[str, bytes] = {}
    ledger = Ledger(answer=lambda message: Answer(b"ACK " + message, awaits=message.decode()))
    with (
        serving(ledger, find_answers=lambda ids: {one: settled[one] for one in ids if one in settled}) as port,
        socket.create_connection(("127.0.0.1", port), 10) as connection,
    ):
        connection.settimeout(10)
        connection.sendall(frame(b"MSH|1") + frame(b"MSH|2") + frame(b"MSH|3"))
        deframer, seen = Deframer(), []
        while len(seen) < 5:
            deframer.feed(connection.recv(1000))
            seen += deframer.messages()
            if len(seen) == 3:
                settled |= {"MSH|2": b"", "MSH|3": b"AA 3", "MSH|1": b"AE 1"}
    assert seen[:3] == [b"ACK MSH|1", b"ACK MSH|2", b"ACK MSH|3"]
    assert sorted(seen[3:]) == [b"AA 3", b"AE 1"]


def test_a_peer_that_goes_on_sending_does_not_disturb_the_end(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger()

    def send_on(connection: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection.sendall(frame(MESSAGE) * 50)

    def read_on(connection: socket.socket) -> None:
        with suppress(OSError):
            read_all(connection)

    with socket.socket() as connection:
        peer = [threading.Thread(target=does, args=(connection,)) for does in (send_on, read_on)]
        with serving(ledger) as port:
            connection.connect(("127.0.0.1", port))
            for thread in peer:
                thread.start()
            while len(ledger.batches) < 3:
                time.sleep(0.001)
        for thread in peer:
            thread.join(10)
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_what_was_read_is_answered_before_the_server_ends() -> None:
    ledger = Ledger()
    ledger.gate.clear()
    with socket.socket() as connection:
        with serving(ledger) as port:
            connection.connect(("127.0.0.1", port))
            connection.sendall(frame(MESSAGE))
            while not ledger.batches:
                time.sleep(0.001)
            threading.Timer(0.1, ledger.gate.set).start()
        assert read_all(connection) == frame(b"ACK " + MESSAGE)


def test_the_client_says_how_many_were_answered_when_the_server_gives_up() -> None:
    with (
        serving(Ledger(), max_message_bytes=100) as port,
        pytest.raises(Unavailable, match="answered 1 of 4"),
    ):
        send("127.0.0.1", port, [MESSAGE, b"MSH|" + b"x" * 200, MESSAGE, MESSAGE])


def test_the_client_says_so_when_nobody_listens() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(Unavailable, match="answered 0 of 1"):
            send("127.0.0.1", closed.getsockname()[1], [MESSAGE])


def test_a_peer_that_does_not_read_its_answers_is_closed() -> None:
    ledger = Ledger(answer=lambda message: Answer(b"MSH|" + b"x" * 2_000_000))
    with (
        serving(ledger, stall_seconds=0.3) as port,
        capture_logs() as logs,
        socket.create_connection(("127.0.0.1", port), 10) as connection,
    ):
        connection.sendall(frame(MESSAGE) * 20)
        while not logs:
            time.sleep(0.01)
    assert "stall_seconds" in logs[0]["reason"]
