"""What comes from outside is bounded: nesting, addresses it points us to, answers it gives."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from adapter.access.clients import Asking
from adapter.access.outbound import MOST_BYTES, GuardedTransport, is_public, known_hosts, outbound_client
from adapter.errors import BadInput, Misconfigured
from adapter.fhir_api.exchange import DEEPEST, json_object
from adapter.settings import load_settings
from adapter.web import bodies
from adapter.web.bodies import parse_multipart


def nested(levels: int, opening: str, closing: str) -> bytes:
    return ('{"a":' + opening * levels + "1" + closing * levels + "}").encode()


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_json_nested_beyond_anything_in_fhir_is_refused(opening: str, closing: str) -> None:
    assert json_object(nested(DEEPEST - 1, opening, closing), "it")
    for levels in (DEEPEST, 900, 100_000):
        with pytest.raises(BadInput):
            json_object(nested(levels, opening, closing), "it")


@given(st.binary(max_size=60))
def test_anything_else_is_bad_input_or_an_object(raw: bytes) -> None:
    with contextlib.suppress(BadInput):
        assert isinstance(json_object(raw, "it"), dict)


@pytest.mark.parametrize("boundary", ["a" * 257, "", '"'])
def test_a_boundary_that_could_be_none_is_the_senders_error(boundary: str) -> None:
    with pytest.raises(BadInput, match="multipart body"):
        parse_multipart(f"multipart/form-data; boundary={boundary}", b"--a\r\n")


def test_a_sender_that_stalls_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "STALL_SECONDS", 0.05)
    pieces = iter([b"a part"])

    async def receive() -> Message:
        if (piece := next(pieces, None)) is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": piece, "more_body": True}

    with pytest.raises(BadInput, match="send it again"):
        asyncio.run(bodies.read_body(Request({"type": "http", "headers": []}, receive), 100))


@pytest.mark.parametrize("credentials", ["\u00ff", "=", "YQ", "/w==", ""])
def test_credentials_that_cannot_be_read_name_nobody(credentials: str) -> None:
    assert Asking({}, f"Basic {credentials}").named[0] == ""


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::8.8.8.8", True),
        ("64:ff9b::169.254.169.254", False),
        ("2002:7f00:1::", False),
        ("::127.0.0.1", False),
        ("::ffff:0:127.0.0.1", False),
        ("fec0::1", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) == public


class _Inside(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        size = MOST_BYTES + 1 if self.path == "/large" else 2
        self.send_response(302 if self.path == "/elsewhere" else 200)
        self.send_header("Location", "/large")
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(b" " * size)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def inside() -> Iterator[int]:
    """The port of something in our own network."""
    server = HTTPServer(("127.0.0.1", 0), _Inside)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "2130706433", "127.1"])
def test_an_address_that_leads_into_our_own_network_is_not_connected_to(inside: int, host: str) -> None:
    with outbound_client(load_settings(environment={})) as http, pytest.raises(httpx.ConnectError):
        http.get(f"http://{host}:{inside}/")


def test_a_host_that_an_operator_named_is_reached_wherever_it_is(inside: int) -> None:
    ehr = {"name": "L", "iss": f"http://127.0.0.1:{inside}/fhir", "client_id": "x"}
    settings = load_settings(environment={}, ehrs=[ehr], private_hosts=["keys.internal"])
    assert known_hosts(settings) == {"127.0.0.1", "keys.internal"}
    with outbound_client(settings) as http:
        assert http.get(f"http://127.0.0.1:{inside}/").status_code == 200
        assert http.get(f"http://127.0.0.1:{inside}/elsewhere").status_code == 302  # not followed
        with pytest.raises(httpx.ConnectError):
            http.get(f"http://localhost:{inside}/")


def test_an_endless_answer_is_cut_off(inside: int) -> None:
    with (
        httpx.Client(transport=GuardedTransport(frozenset({"127.0.0.1"}), httpx.create_ssl_context())) as http,
        pytest.raises(httpx.ReadError),
    ):
        http.get(f"http://127.0.0.1:{inside}/large")


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_a_file_that_holds_no_authority_stops_the_start_with_its_name(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "ca.pem"
    if content:
        file.write_bytes(content)
    with pytest.raises(Misconfigured, match=r"ca\.pem for ehr\.example cannot be read"):
        outbound_client(load_settings(environment={}, ca_files={"ehr.example": file}))
