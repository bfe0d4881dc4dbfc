"""The sandbox EHR served on a loopback socket, a DermBridge registered with it, and somebody who listens to its ADT."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from adapter.bridge import Bridge, open_bridge
from adapter.db.schema import prepare
from adapter.sandbox.app import build_sandbox
from adapter.sandbox.ehr import SandboxEhr, SandboxSettings, open_ehr
from adapter.sandbox.grants import Grants
from adapter.settings import Ehr, Settings


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


@pytest.fixture(scope="session")
def sandbox_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sandbox with its first patients and its keys, to be copied: making one costs more than a test."""
    folder = tmp_path_factory.mktemp("sandbox") / "ehr"
    made = open_ehr(SandboxSettings(folder, backend_secret="s3cret"))
    Grants(made.settings, made.bridge.now)
    made.bridge.close()
    return folder


@pytest.fixture
def ehr(tmp_path: Path, sandbox_template: Path) -> Iterator[SandboxEhr]:
    settings = SandboxSettings(tmp_path / "ehr", http_port=free_port(), mllp_port=free_port(), backend_secret="s3cret")
    shutil.copytree(sandbox_template, settings.data_dir)
    opened = open_ehr(settings)
    yield opened
    opened.bridge.close()


@pytest.fixture
def served(ehr: SandboxEhr) -> Iterator[str]:
    """The origin of the running sandbox."""
    settings = ehr.settings
    config = uvicorn.Config(build_sandbox(settings, ehr), port=settings.http_port, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield settings.origin
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def dermbridge(ehr: SandboxEhr, tmp_path: Path) -> Iterator[Bridge]:
    registered = Ehr(name="Larkfield", iss=ehr.settings.fhir_base, client_id="dermbridge")
    opened = open_bridge(Settings(data_dir=tmp_path / "dermbridge", ehrs=(registered,)))
    prepare(opened.db)
    yield opened
    opened.close()


@pytest.fixture
def browser(served: str) -> Iterator[httpx.Client]:
    """Signed on as the dermatologist."""
    with httpx.Client(base_url=served, verify=False) as opened:  # no CAs are read for http
        assert opened.post("/login", data={"user": "dr-rivera", "next": "/patients"}).status_code == 303
        yield opened
