"""The processes of one service share its address evenly and count together."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

PATIENCE_SECONDS = 30
MOST = 500  # as long as the second process takes to start
COUNTED = 'dermbridge_http_response_start_seconds_count{method="GET",route="/readyz",status="200"} '


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def service(tmp_path: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DERMBRIDGE_")} | {
        "DERMBRIDGE_DATA_DIR": str(tmp_path / "data"),
        "DERMBRIDGE_HTTP_PORT": str(port),
        "DERMBRIDGE_PROCESSES": "2",
    }
    running = subprocess.Popen([sys.executable, "-m", "adapter", "serve", "--web-only"], env=environment)
    yield running
    running.kill()
    running.wait()


def ask(connection: HTTPConnection, path: str) -> str:
    connection.request("GET", path)
    answer = connection.getresponse()
    told = answer.read().decode()
    assert answer.status == 200
    return told


def connect(port: int) -> HTTPConnection:
    """With one answer received, so that somebody has accepted it."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
        try:
            ask(connection, "/readyz")
            return connection
        except ConnectionError:
            assert time.monotonic() < until
            time.sleep(0.02)


def counting(folder: Path) -> int:
    """How many processes have counted something."""
    return sum(file.read_bytes()[:4] != bytes(4) for file in (folder / "data" / "counts").rglob("histogram_*.db"))


@pytest.mark.long
def test_connections_are_shared_and_each_process_tells_the_counts_of_all(
    service: subprocess.Popen[bytes], port: int, tmp_path: Path
) -> None:
    connections: list[HTTPConnection] = []
    with ExitStack() as stack:
        while counting(tmp_path) < 2:  # the second is there as well
            assert len(connections) < MOST
            connections.append(stack.enter_context(closing(connect(port))))
        told = {ask(each, "/metrics").partition(COUNTED)[2].partition("\n")[0] for each in connections}
    assert told == {f"{len(connections)}.0"}


@pytest.mark.long
def test_a_second_service_on_the_same_address_says_what_to_change(
    service: subprocess.Popen[bytes], port: int, tmp_path: Path
) -> None:
    connect(port).close()
    environment = os.environ | {"DERMBRIDGE_DATA_DIR": str(tmp_path / "other"), "DERMBRIDGE_HTTP_PORT": str(port)}
    command = [sys.executable, "-m", "adapter", "serve", "--web-only"]
    second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert second.returncode == 2
    assert "http_port" in second.stderr
