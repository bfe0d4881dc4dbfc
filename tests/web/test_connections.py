"""Connections that go on too long: past the end of the service, or without a request."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import func, select

from adapter import accepting
from adapter.accepting import listen
from adapter.access.tokens import issue_token
from adapter.bridge import Bridge
from adapter.db.tables import capture
from adapter.serve import http_server


@contextmanager
def stopping_after(bridge: Bridge, *, grace: int) -> Iterator[tuple[socket.socket, threading.Event]]:
    """A connection to a service, and what asks that service to end."""
    server, stop = http_server(bridge, everything=False), threading.Event()
    server.config.timeout_graceful_shutdown = grace

    def stopped() -> None:
        stop.wait()
        server.should_exit = True

    with listen(bridge.settings.model_copy(update={"http_host": "127.0.0.1", "http_port": 0})) as listening:
        threads = [threading.Thread(target=server.run, args=([listening],)), threading.Thread(target=stopped)]
        for thread in threads:
            thread.start()
        try:
            with socket.create_connection(listening.getsockname(), timeout=20) as connection:
                yield connection, stop
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def test_an_upload_slower_than_the_grace_is_told_to_come_again_and_nothing_is_kept(bridge: Bridge) -> None:
    with bridge.db.transaction() as tx:
        _, secret = issue_token(tx, name="slow", scope="system/Media.c", at=bridge.now())
    head = f"POST /captures HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\nContent-Type: image/jpeg\r\n"
    with stopping_after(bridge, grace=0) as (connection, stop):
        connection.sendall(f"{head}Content-Length: 100000\r\nExpect: 100-continue\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100")  # it waits for the photo
        connection.sendall(b"\xff\xd8\xff")
        time.sleep(0.05)
        stop.set()
        answer = b"".join(iter(lambda: connection.recv(10_000), b"")).decode()
    assert answer.startswith("HTTP/1.1 503")
    assert "retry-after: 10" in answer.lower() and '"transient"' in answer
    with bridge.db.snapshot() as tx:
        assert tx.execute(select(func.count()).select_from(capture)).scalar_one() == 0


@pytest.mark.long  # uvicorn looks once a second
def test_a_connection_that_never_sends_a_whole_head_is_closed_and_others_stay(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepting, "HEAD_SECONDS", 1.5)
    with stopping_after(bridge, grace=0) as (silent, _stop):
        silent.sendall(b"GET /healthz HTTP/1.1\r\nHost:")
        with socket.create_connection(silent.getpeername(), timeout=20) as busy:
            for _ in range(5):
                busy.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                assert busy.recv(10_000).startswith(b"HTTP/1.1 200")
                time.sleep(0.8)
        assert silent.recv(100) == b""
