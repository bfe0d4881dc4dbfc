"""HTTP/1.1 to one destination over kept connections (RFC 9112), parsed by httptools.

A small delivery is some seven requests. A general client costs 0.4 to 0.6 ms of processor time for each, which would be
most of what a delivery costs; this one costs a fifth. Hence no redirects, cookies, proxies or compression.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, quote, urlsplit

import httptools

from connectors.knobs import Timeouts

IDLE_SECONDS: Final = 4.0  # a create on a connection the server just closed would count as a lost answer
PIECE: Final = 256 * 1024
HEAD_LIMIT: Final = 512 * 1024  # bytes
_TARGET: Final = "/?:@!$&'()*+,;=%-._~"  # what needs no escape in path and query (RFC 3986)
_BROKEN: Final = re.compile(r"[\r\n\0]")


class NotSent(Exception):
    """Nothing left for the destination; what kept it back is the cause."""


class Lost(Exception):
    """It left, wholly or in part, and nobody can say what came of it."""


@dataclass(slots=True)
class Reply:
    """What came back; header names are lower case. `content` ends soon after the limit it was read with."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""


class Wire:
    """Any number of threads, each on a connection of its own while it waits for its answer."""

    def __init__(self, timeouts: Timeouts, tls: Callable[[], ssl.SSLContext]) -> None:
        self._timeouts = timeouts
        self._tls = tls
        self._idle: dict[tuple[str, str], deque[tuple[socket.socket, float]]] = {}
        self._closed = False

    def exchange(self, method: str, url: str, headers: Mapping[str, str], body: bytes, limit: int) -> Reply:
        """One request and its answer, of which about `limit` bytes are read. Raises NotSent, Lost."""
        parts = urlsplit(url)
        head = _head(method, parts, headers, len(body))
        connection = self._take(parts)
        kept = False
        try:
            reading = _Reading(limit)
            kept = self._speak(connection, head, body, reading)
        finally:
            if not kept or self._closed:
                connection.close()
            else:
                self._idle.setdefault(parts[:2], deque()).append((connection, time.monotonic()))
        return reading.reply

    def close(self) -> None:
        """What is under way ends; nothing is kept any more."""
        self._closed = True
        for connections in list(self._idle.values()):
            while connections:
                connections.pop()[0].close()

    def _speak(self, connection: socket.socket, head: bytes, body: bytes, reading: _Reading) -> bool:
        """Whether the connection can be used again."""
        refusal: OSError | None = None
        try:
            connection.settimeout(self._timeouts.write)
            _send(connection, head, body)
        except OSError as error:  # it may have answered without wanting to hear the rest
            refusal = error
        try:
            connection.settimeout(self._timeouts.read)
            reading.read(connection)
        except (OSError, httptools.HttpParserError) as error:
            raise Lost(type(refusal or error).__name__) from (refusal or error)
        return refusal is None and reading.keeps

    def _take(self, parts: SplitResult) -> socket.socket:
        idle = self._idle.get(parts[:2], deque())
        while idle:
            try:
                connection, since = idle.pop()
            except IndexError:  # another thread was faster
                break
            if time.monotonic() - since < IDLE_SECONDS and not _is_readable(connection):
                return connection
            connection.close()
        return self._connected(parts)

    def _connected(self, parts: SplitResult) -> socket.socket:
        plain = None
        try:
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ValueError("no address of http or https")
            port = parts.port or {"http": 80, "https": 443}[parts.scheme]
            plain = socket.create_connection((parts.hostname, port), self._timeouts.connect)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return plain if parts.scheme == "http" else self._tls().wrap_socket(plain, server_hostname=parts.hostname)
        except (OSError, ValueError) as error:
            if plain is not None:
                plain.close()
            raise NotSent(type(error).__name__) from error


class _Reading:
    """One answer as it comes; httptools calls the methods that begin with `on_`."""

    def __init__(self, limit: int) -> None:
        self.reply = Reply()
        self.keeps = False
        self._limit = limit
        self._pieces: list[bytes] = []
        self._length = 0
        self._heard = 0
        self._parser = httptools.HttpResponseParser(self)
        self._whole = False

    def read(self, connection: socket.socket) -> None:
        piece = bytearray(PIECE)
        while not self._whole and self._length <= self._limit:
            count = connection.recv_into(piece)
            if not count:
                self._end()
                break
            self._heard += count
            # A chunk of one byte takes six.
            if self._heard > (HEAD_LIMIT + 8 * self._limit if self.reply.status else HEAD_LIMIT):
                raise ConnectionAbortedError("more than any answer needs")
            self._feed(memoryview(piece)[:count])
        self.reply.content = b"".join(self._pieces)

    def _feed(self, heard: memoryview) -> None:
        try:
            self._parser.feed_data(heard)
        except httptools.HttpParserError:
            if not self._whole:
                raise
            self.keeps = False  # nobody asked for what follows the answer

    def _end(self) -> None:
        """The end of the connection is the end of an answer that says no length."""
        measured = self.reply.headers.keys() & {"content-length", "transfer-encoding"}
        if not self.reply.status or measured:
            raise ConnectionResetError("closed before the answer was whole")

    def on_message_begin(self) -> None:
        if self._whole:
            raise ValueError("a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        known = self.reply.headers.get(key)
        self.reply.headers[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        self.reply.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        self._length += len(body)

    def on_message_complete(self) -> None:
        if self.reply.status >= 200:
            self._whole, self.keeps = True, self._parser.should_keep_alive()
        else:  # 100 Continue and the like: the answer follows
            self.reply.status = 0
            self.reply.headers.clear()


def _head(method: str, parts: SplitResult, headers: Mapping[str, str], length: int) -> bytes:
    target = quote(parts.path or "/", _TARGET) + (f"?{quote(parts.query, _TARGET)}" if parts.query else "")
    given = {"Host": parts.netloc.rpartition("@")[2], "Accept-Encoding": "identity"} | dict(headers)
    if length or method in {"POST", "PUT", "PATCH"}:
        given["Content-Length"] = str(length)
    if _BROKEN.search("".join([*given, *given.values()])):
        raise NotSent("a header with a line break")
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
    try:
        return "\r\n".join(lines).encode("latin-1")
    except UnicodeEncodeError as error:
        raise NotSent("a header that is not Latin-1") from error


def _send(connection: socket.socket, head: bytes, body: bytes) -> None:
    """The time limit is for each piece: a large photo over a slow line takes longer than one."""
    if len(body) < PIECE:
        connection.sendall(head + body)
        return
    connection.sendall(head)
    rest = memoryview(body)
    while rest:
        rest = rest[connection.send(rest) :]


def _is_readable(connection: socket.socket) -> bool:
    """On an idle connection there is nothing to read but its end."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
