"""HTTP over kept connections: what is an answer, what is lost, and when a connection may be used again."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import NoReturn

import pytest

from connectors.knobs import Timeouts
from connectors.wire import Lost, NotSent, Wire

CLOSES = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Takes connections one after the other; on each it answers requests with `answers` in turn, then closes."""

    def __init__(self, *connections: list[bytes]) -> None:
        self.heard: list[bytes] = []
        self.closed = threading.Semaphore(0)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.thread = threading.Thread(target=self._serve, args=[connections], daemon=True)
        self.thread.start()

    def _serve(self, connections: tuple[list[bytes], ...]) -> None:
        for answers in connections:
            try:
                connection, _ = self._listening.accept()
            except OSError:  # closed
                return
            with connection:
                for answer in answers:
                    if not (request := _request(connection)):
                        break
                    self.heard.append(request)
                    with suppress(ConnectionError):  # who heard enough hangs up
                        connection.sendall(answer)
            self.closed.release()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self._listening.close()


Serve = Callable[..., Server]


def _request(connection: socket.socket) -> bytes:
    heard = b""
    while b"\r\n\r\n" not in heard:
        if not (piece := connection.recv(65_536)):
            return b""
        heard += piece
    head, _, body = heard.partition(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length")), 0)
    while len(body) < length:
        body += connection.recv(65_536)
    return head + b"\r\n\r\n" + body


@pytest.fixture
def wire() -> Iterator[Wire]:
    opened = Wire(Timeouts(connect=2, read=2, write=2), _no_tls)
    yield opened
    opened.close()


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Server] = []

    def serving(*connections: list[bytes]) -> Server:
        servers.append(Server(*connections))
        return servers[-1]

    yield serving
    for server in servers:
        server.close()


def _no_tls() -> NoReturn:
    raise AssertionError("nothing here is https")


def get(wire: Wire, server: Server, path: str = "/a", **headers: str) -> tuple[int, bytes]:
    reply = wire.exchange("GET", server.url + path, headers, b"", 1_000_000)
    return reply.status, bytes(reply.content)


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.0 200 OK\r\n\r\nok",  # to the end of the connection
    ],
)
def test_an_answer_is_whole_however_its_length_is_told(wire: Wire, serve: Serve, answer: bytes) -> None:
    assert get(wire, serve([answer])) == (200, b"ok")


def test_requests_share_a_connection_that_stays_open(wire: Wire, serve: Serve) -> None:
    server = serve([OK, b"HTTP/1.1 204 No Content\r\n\r\n", OK])
    assert [get(wire, server)[0] for _ in range(3)] == [200, 204, 200]


def test_a_connection_the_server_closed_is_not_used_again(wire: Wire, serve: Serve) -> None:
    server = serve([OK], [OK])
    get(wire, server)
    assert server.closed.acquire(timeout=2)
    assert get(wire, server) == (200, b"ok")


def test_a_connection_that_is_announced_to_close_is_not_kept(wire: Wire, serve: Serve) -> None:
    server = serve([CLOSES, OK], [OK])
    get(wire, server)
    get(wire, server)
    assert len(server.heard) == 2


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal", b"no HTTP at all\r\n\r\n"])
def test_half_an_answer_is_a_lost_one(wire: Wire, serve: Serve, answer: bytes) -> None:
    with pytest.raises(Lost):
        get(wire, serve([answer]))


def test_an_answer_that_never_comes_is_lost(serve: Serve) -> None:
    server = serve([b"HTTP/1.1 200 OK\r\n", OK])
    with closing(Wire(Timeouts(read=0.05), _no_tls)) as hasty, pytest.raises(Lost, match="TimeoutError"):
        get(hasty, server)


def test_a_large_body_arrives_whole(wire: Wire, serve: Serve) -> None:
    server, body = serve([OK]), bytes(range(256)) * 20_000
    wire.exchange("POST", f"{server.url}/Binary", {"Content-Type": "image/jpeg"}, body, 100)
    assert server.heard[0].endswith(b"\r\n\r\n" + body)


def test_a_refusal_in_the_middle_of_a_large_body_is_heard(wire: Wire) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def refuse() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1_000_000):
                    pass

        threading.Thread(target=refuse, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/Binary"
        assert wire.exchange("POST", url, {}, bytes(5_000_000), 100).status == 413


def test_no_more_is_read_than_was_asked_for(wire: Wire, serve: Serve) -> None:
    server = serve([b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n" + bytes(3_000_000)])
    assert len(wire.exchange("GET", server.url, {}, b"", 1000).content) < 1_000_000


@pytest.mark.parametrize("more", [b"junk\r\n", b"HTTP/1.1 500 Oops\r\nX-A: b\r\nContent-Length: 1\r\n\r\nx"])
def test_what_follows_an_answer_belongs_to_nobody(wire: Wire, serve: Serve, more: bytes) -> None:
    server = serve([OK + more], [OK])
    assert [get(wire, server), get(wire, server)] == [(200, b"ok")] * 2


@pytest.mark.parametrize("endless", [b"X-A: " + b"a" * 2_000_000, b"X-A: b\r\n" * 200_000])
def test_headers_without_an_end_are_not_listened_to(wire: Wire, serve: Serve, endless: bytes) -> None:
    with pytest.raises(Lost, match="ConnectionAbortedError"):
        get(wire, serve([b"HTTP/1.1 200 OK\r\n" + endless]))


def test_header_names_are_lower_case_and_repeated_ones_joined(wire: Wire, serve: Serve) -> None:
    server = serve([OK.replace(b"\r\n\r\n", b"\r\nX-A: 1\r\nx-a: 2\r\n\r\n")])
    assert wire.exchange("GET", server.url, {}, b"", 100).headers["x-a"] == "1, 2"


def test_what_an_address_may_not_hold_is_escaped_and_nothing_else(wire: Wire, serve: Serve) -> None:
    server = serve([OK])
    get(wire, server, "/Patient?identifier=urn:x|A B%20é&path=Media.content")
    assert server.heard[0].startswith(b"GET /Patient?identifier=urn:x%7CA%20B%20%C3%A9&path=Media.content HTTP/1.1\r\n")


@pytest.mark.parametrize("value", ["a\r\nX-Other: b", "a\nb", "\0", "漢"])
def test_no_header_value_becomes_a_header_of_its_own(wire: Wire, value: str) -> None:
    with pytest.raises(NotSent):
        wire.exchange("GET", "http://127.0.0.1:9/", {"X-Tenant": value}, b"", 100)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "file:///etc/passwd", "http://", "http://a:99999/"])
def test_where_nobody_answers_nothing_was_sent(wire: Wire, url: str) -> None:
    with pytest.raises(NotSent):
        wire.exchange("GET", url, {}, b"", 100)


def test_many_threads_have_a_connection_each(wire: Wire, serve: Serve) -> None:
    server = serve(*[[CLOSES] for _ in range(8)])
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(get(wire, server)[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 8
