"""A simulated vendor on loopback sockets: HTTP and, where it has one, MLLP."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from adapter.errors import Conflict
from adapter.sandbox.vendors.behaviour import MllpBehaviour, read_behaviour
from adapter.sandbox.vendors.engine import Request, Vendor
from adapter.sandbox.vendors.mllp_side import respond as respond_to_message
from mappings.hl7v2.framing import Deframer, frame


@dataclass(frozen=True, slots=True)
class RunningVendor:
    """A vendor that answers at `address` and, if not None, at `mllp_port`."""

    vendor: Vendor
    address: str
    mllp_port: int | None

    def destination(self, name: str, **changes: Any) -> dict[str, Any]:
        """A `[[destinations]]` entry that reaches it with the shipped profile of that vendor."""
        behaviour = self.vendor.behaviour
        known = {"{http}": self.address, "{mllp_port}": self.mllp_port}
        given: dict[str, Any] = _filled(behaviour.destination, known)
        return {"name": name, "based_on": behaviour.profile} | given | changes


def _filled(value: Any, known: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(each, known) for name, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, known) for each in value]
    if isinstance(value, str) and value in known:
        return known[value]
    return value.replace("{http}", known["{http}"]) if isinstance(value, str) else value


@contextmanager
def running_vendor(name: str, *, port: int = 0, mllp_port: int = 0) -> Iterator[RunningVendor]:
    """Serve until the block ends; port 0 takes a free one. Raises Conflict when a port is not to be had."""
    behaviour = read_behaviour(name)
    vendor = Vendor(behaviour)
    with ExitStack() as stack:
        handler = type("Handler", (_Handler,), {"vendor": vendor})
        http = stack.enter_context(_serving(_bound(_HttpServer, port, handler)))
        vendor.address = f"http://127.0.0.1:{http.server_address[1]}"
        listening = None
        if behaviour.mllp is not None:
            receiver = type("Receiver", (_Receiver,), {"vendor": vendor, "behaviour": behaviour.mllp})
            mllp = stack.enter_context(_serving(_bound(_MllpServer, mllp_port, receiver)))
            listening = int(mllp.server_address[1])
        yield RunningVendor(vendor, vendor.address, listening)


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


class _MllpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True


def _bound(server: type[Any], port: int, handler: type[socketserver.BaseRequestHandler]) -> Any:
    try:
        return server(("127.0.0.1", port), handler)
    except OSError as error:
        raise Conflict(f"port {port}: {error.strerror}; choose another, or 0 for a free one") from error


@contextmanager
def _serving(server: Any) -> Iterator[Any]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet
    vendor: Vendor

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: addresses hold identifiers."""

    def _do(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.vendor.respond(Request(self.command, self.path, headers, body))
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = do_PUT = do_DELETE = _do


class _Receiver(socketserver.BaseRequestHandler):
    vendor: Vendor
    behaviour: MllpBehaviour

    def handle(self) -> None:
        deframer = Deframer(self.behaviour.max_bytes * 2)
        while chunk := self.request.recv(65_536):
            deframer.feed(chunk)
            for raw in deframer.messages():
                answer = respond_to_message(self.vendor, self.behaviour, raw)
                if answer is None:
                    return
                self.request.sendall(frame(answer))
