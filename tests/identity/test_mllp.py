"""The MLLP socket, driven from outside with real bytes over real sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs

from adapter.errors import Unavailable
from adapter.identity.mllp import MAX_BATCH, serve_mllp
from adapter.identity.mllp_client import send
from mappings.hl7v2.framing import Deframer, frame

MESSAGE = b"MSH|^~\\&|A\rPID|1||SECRET\r"


@dataclass
class Ledger:
    """A receiver that remembers the batches and answers each message with itself."""

    batches: list[list[bytes]] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    answer: Callable[[bytes], bytes] = lambda message: b"ACK " + message

    def __post_init__(self) -> None:
        self.gate.set()

    def __call__(self, batch: Sequence[bytes], peer: str) -> list[bytes]:
        self.batches.append(list(batch))
        self.peers.append(peer)
        assert self.gate.wait(10)
        return [self.answer(message) for message in batch]

    @property
    def received(self) -> list[bytes]:
        return [message for batch in self.batches for message in batch]


@contextmanager
def serving(receive: Callable[[Sequence[bytes], str], Sequence[bytes]], **options: Any) -> Iterator[int]:
    """A server in a thread; yields its port and ends with its connections."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(serve_mllp("127.0.0.1", 0, receive, **options))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(_stop(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def _stop(server: asyncio.Server) -> None:
    server.close()
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


def read_all(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    connection.settimeout(10)
    return b"".join(iter(lambda: connection.recv(65536), b""))


def exchange(port: int, *chunks: bytes) -> list[bytes]:
    """Send the chunks, close our side, and read the answers until the server closes."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        for chunk in chunks:
            connection.sendall(chunk)
        connection.shutdown(socket.SHUT_WR)
        deframer = Deframer()
        deframer.feed(read_all(connection))
        return list(deframer.messages())


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
    with serving(Ledger(answer=lambda message: b"" if b"2" in message else message)) as port:
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


@pytest.mark.parametrize("first", [b"", b"\x0bMSH|never ended"])
def test_a_silent_peer_is_closed(first: bytes) -> None:
    with (
        serving(Ledger(), idle_seconds=0.2) as port,
        capture_logs() as logs,
        socket.create_connection(("127.0.0.1", port), 10) as connection,
    ):
        connection.sendall(first)
        with suppress(ConnectionResetError):  # the server aborts: a peer this slow may not read either
            assert read_all(connection) == b""
    assert "idle_seconds" in logs[0]["reason"]


def test_a_peer_that_trickles_bytes_does_not_hold_the_connection() -> None:
    with (
        serving(Ledger(), idle_seconds=0.3) as port,
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
    def fail(batch: Sequence[bytes], peer: str) -> list[bytes]:
        raise Unavailable("The database does not answer.")

    with serving(fail) as port, capture_logs() as logs:
        assert exchange(port, frame(MESSAGE)) == []
    assert logs[0]["reason"] == "The database does not answer."


def test_connections_do_not_wait_for_each_other() -> None:
    slow = threading.Event()

    def receive(batch: Sequence[bytes], peer: str) -> list[bytes]:
        if batch[0] == b"MSH|slow":
            assert slow.wait(10)
        else:
            slow.set()
        return list(batch)

    with serving(receive) as port:
        first = threading.Thread(target=send, args=("127.0.0.1", port, [b"MSH|slow"]))
        first.start()
        assert send("127.0.0.1", port, [b"MSH|fast"]) == [b"MSH|fast"]
        first.join(10)
        assert not first.is_alive()


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


def test_the_certificate_of_a_tls_peer_is_part_of_its_name(tmp_path: Path) -> None:
    certificate = _certificate(tmp_path)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificate))
    server.load_cert_chain(certificate)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=str(certificate))
    client.load_cert_chain(certificate)
    stranger = ssl.create_default_context(cafile=str(certificate))
    ledger = Ledger()
    with serving(ledger, ssl=server) as port:
        assert send("127.0.0.1", port, [MESSAGE], ssl=client) == [b"ACK " + MESSAGE]
        with pytest.raises(Unavailable):
            send("127.0.0.1", port, [MESSAGE], ssl=stranger)
    assert [peer.split("/")[1] for peer in ledger.peers] == ["adt-feed"]


def _certificate(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "adt-feed")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "peer.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + built.public_bytes(serialization.Encoding.PEM))
    return path
