"""A destination that costs as little as it can, for benchmarks/deliveries.py: FHIR R4 over HTTP, or MLLP that says AA.

python -m benchmarks.delivery_stub fhir|mllp|silent|slow      prints its port, ends with its standard input
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import orjson

SLOW_SECONDS = 2.0
_HEAD = re.compile(rb"([A-Z]+) (\S+) HTTP")
_LENGTH = re.compile(rb"content-length: *(\d+)", re.I)
_TYPE = re.compile(rb"content-type: *([^\r;]+)", re.I)
_CONTROL_ID = re.compile(rb"MSH\|(?:[^|\r]*\|){8}([^|\r]*)")


class Fhir:
    """Any patient is known; what was created is found by its identifiers and read back as it came."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[bytes, bytes]] = {}  # path -> (content type, body)
        self.named: dict[str, str] = {}  # an identifier's value -> path

    def answer(self, method: bytes, target: str, content_type: bytes, body: bytes) -> tuple[bytes, bytes, bytes]:
        """(status line, content type, body)."""
        path, _, query = target.removeprefix("/fhir/").partition("?")
        kind, _, rest = path.partition("/")
        if not kind:
            return b"200 OK", b"application/fhir+json", self._batch(orjson.loads(body))
        if rest == "_search" or (method == b"GET" and not rest):
            return b"200 OK", b"application/fhir+json", self._search(kind, body or query.encode())
        if method == b"GET":
            held = self.held.get(path)
            return (b"200 OK", *held) if held else (b"404 Not Found", b"application/fhir+json", b"{}")
        return self._create(kind, content_type, body)

    def _batch(self, bundle: Any) -> bytes:
        """Only looks come in batches: their answers are spliced in as they are."""
        found = [self.answer(b"GET", f"/fhir/{one['request']['url']}", b"", b"") for one in bundle["entry"]]
        entries = [
            {"resource": orjson.Fragment(said), "response": {"status": status.decode()}} for status, _, said in found
        ]
        return orjson.dumps({"resourceType": "Bundle", "type": "batch-response", "entry": entries})

    def _search(self, kind: str, asked: bytes) -> bytes:
        system, _, value = parse_qs(asked.decode())["identifier"][0].rpartition("|")
        if kind in {"Patient", "Encounter"}:
            bears = {"identifier": [{"system": system, "value": value}], "subject": {"reference": "Patient/p"}}
            found: list[Any] = [{"resource": {"resourceType": kind, "id": kind[0].lower()} | bears}]
        else:
            path = self.named.get(value)
            mine = path is not None and path.startswith(f"{kind}/")
            found = [{"resource": orjson.loads(self.held[path][1])}] if mine and path else []
        return orjson.dumps({"resourceType": "Bundle", "type": "searchset", "entry": found})

    def _create(self, kind: str, content_type: bytes, body: bytes) -> tuple[bytes, bytes, bytes]:
        path = f"{kind}/{len(self.held)}"
        if kind == "Binary":
            self.held[path] = (content_type, body)
            body = orjson.dumps({"resourceType": "Binary", "id": path.partition("/")[2]})
            return b"201 Created", b"application/fhir+json", body
        resource = orjson.loads(body) | {"id": path.partition("/")[2], "meta": {"versionId": "1"}}
        self.held[path] = (b"application/fhir+json", orjson.dumps(resource))
        for identifier in resource.get("identifier", []):
            self.named[identifier["value"]] = path
        return b"201 Created", b"application/fhir+json", self.held[path][1]


class HttpStub(asyncio.Protocol):
    """HTTP/1.1 with kept connections, as far as our own client needs it."""

    def __init__(self, fhir: Fhir, delay: float) -> None:
        self._fhir, self._delay = fhir, delay
        self._buffer = bytearray()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n", 0, 65_536)) >= 0:
            head = bytes(self._buffer[:end])
            length = int(found[1]) if (found := _LENGTH.search(head)) else 0
            if len(self._buffer) < end + 4 + length:
                return
            body = bytes(self._buffer[end + 4 : end + 4 + length])
            del self._buffer[: end + 4 + length]
            if self._delay:
                asyncio.get_running_loop().call_later(self._delay, self._answer, head, body)
            else:
                self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        request = _HEAD.match(head)
        assert request is not None
        content_type = found[1] if (found := _TYPE.search(head)) else b""
        status, kind, said = self._fhir.answer(request[1], request[2].decode(), content_type, body)
        self._transport.write(
            b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (status, kind, len(said)) + said
        )


class MllpStub(asyncio.Protocol):
    """Says AA to every message."""

    def connection_made(self, transport: Any) -> None:
        self._transport, self._buffer = transport, bytearray()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\x1c\r")) >= 0:
            found = _CONTROL_ID.search(bytes(self._buffer[:4096]))
            control = found[1] if found else b""
            del self._buffer[: end + 2]
            header = rb"MSH|^~\&|STUB||DERMBRIDGE||20261123093000||ACK|1|P|2.5.1"
            self._transport.write(b"\x0b%s\rMSA|AA|%s\r\x1c\r" % (header, control))


class Silent(asyncio.Protocol):
    """Takes everything and never says a word."""


async def serve(kind: str) -> None:
    fhir = Fhir()
    speaks: dict[str, Callable[[], asyncio.Protocol]] = {
        "fhir": lambda: HttpStub(fhir, 0.0),
        "slow": lambda: HttpStub(fhir, SLOW_SECONDS),
        "mllp": MllpStub,
        "silent": Silent,
    }
    loop = asyncio.get_running_loop()
    server = await loop.create_server(speaks[kind], "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
