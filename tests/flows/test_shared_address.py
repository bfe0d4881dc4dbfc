"""The processes of one service share its address evenly and count together."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette

from adapter.accepting import Sharing
from adapter.access.tokens import issue_token
from adapter.processes import ALONE, Member
from adapter.records import create, new_id
from adapter.serve import open_prepared
from adapter.settings import load_settings

PATIENCE_SECONDS = 30
DESCRIPTORS = 400  # of each process
MOST = 500  # as long as the second process takes to start
COUNTED = 'dermbridge_http_response_start_seconds_count{method="GET",route="/readyz",status="200"} '


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def environment(tmp_path: Path, port: int) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("DERMBRIDGE_")} | {
        "DERMBRIDGE_DATA_DIR": str(tmp_path / "data"),
        "DERMBRIDGE_HTTP_PORT": str(port),
        "DERMBRIDGE_PROCESSES": "2",
    }


@pytest.fixture
def service(environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    few = ["sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh"]
    running = subprocess.Popen([*few, sys.executable, "-m", "adapter", "serve", "--web-only"], env=environment)
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
    service: subprocess.Popen[bytes], environment: dict[str, str], port: int, tmp_path: Path
) -> None:
    connect(port).close()
    environment |= {"DERMBRIDGE_DATA_DIR": str(tmp_path / "other")}
    command = [sys.executable, "-m", "adapter", "serve", "--web-only"]
    second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert second.returncode == 2
    assert "http_port" in second.stderr


@pytest.mark.long
def test_a_service_that_ran_out_of_descriptors_accepts_again_once_some_are_free(
    service: subprocess.Popen[bytes], port: int
) -> None:
    connect(port).close()
    with ExitStack() as held:
        for _ in range(2 * DESCRIPTORS):
            held.enter_context(socket.create_connection(("127.0.0.1", port)))
        late = held.enter_context(closing(HTTPConnection("127.0.0.1", port, timeout=1)))
        with pytest.raises(TimeoutError):
            ask(late, "/readyz")
    connect(port).close()


@pytest.mark.long
def test_who_watches_a_patient_is_told_the_end_when_the_service_is_asked_to_end(
    environment: dict[str, str], port: int, request: pytest.FixtureRequest
) -> None:
    bridge = open_prepared(load_settings(environment=environment))
    patient_id = new_id()
    with bridge.db.transaction() as tx:
        create(tx, {"resourceType": "Patient", "id": patient_id}, at=bridge.now())
        _, token = issue_token(tx, name="page", scope="system/*.rs", at=bridge.now())
    bridge.close()
    service: subprocess.Popen[bytes] = request.getfixturevalue("service")
    connect(port).close()
    with closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)) as page:
        page.request("GET", f"/patients/{patient_id}/events", headers={"Authorization": f"Bearer {token}"})
        stream = page.getresponse()
        assert stream.status == 200
        service.terminate()
        stream.read()  # to its end; it would raise IncompleteRead were it cut off
    assert service.wait(PATIENCE_SECONDS) == 0


def test_a_process_that_can_accept_no_more_ends_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_server: Sharing) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Sharing, "_protocol", fail)
    app = Starlette()
    server = Sharing(uvicorn.Config(app, log_level="critical"), app, ALONE)
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()),
        pytest.raises(ZeroDivisionError),
    ):
        server.run([listening])


def test_nobody_answers_before_the_first_process_listens_for_everything() -> None:
    loads = [2**32 - 1, 0]  # as while the first is on its way
    app = Starlette()
    config = uvicorn.Config(app, log_config=None, lifespan="off")
    server = Sharing(config, app, Member(1, [], loads))
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    serving = threading.Thread(target=server.run, args=([listening],))
    serving.start()
    with closing(HTTPConnection("127.0.0.1", port, timeout=0.3)) as early, pytest.raises(TimeoutError):
        ask(early, "/")
    loads[0] = 0
    with closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)) as later:
        later.request("GET", "/")
        assert later.getresponse().status == 404
    server.should_exit = True
    serving.join(PATIENCE_SECONDS)
