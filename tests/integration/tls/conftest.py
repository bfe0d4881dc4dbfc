"""The service behind nginx as docs/docker.md has it: docker/nginx.conf, and the environment of the snippet there."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from adapter.access.tokens import issue_token
from adapter.bridge import Bridge
from adapter.settings import load_settings
from tests.identity.test_mllp_tls import certificate
from tests.sandbox.conftest import free_port
from tests.servers.dermbridge import dermbridge
from tests.web.conftest import patient, visit

ROOT = Path(__file__).parents[3]
BEYOND = "127.0.0.9"  # where the proxy connects from: as in containers, not an address that is trusted by itself


@pytest.fixture(scope="package")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificate and key in one file."""
    return certificate(tmp_path_factory.mktemp("ours"), "photos.hospital.example")


class Proxy(NamedTuple):
    port: int
    said: Path
    token: str
    bridge: Bridge


@pytest.fixture(scope="package")
def documented() -> dict[str, Any]:
    """The services of the snippet in docs/docker.md."""
    text = (ROOT / "docs" / "docker.md").read_text(encoding="utf-8")
    found = re.search(r"```yaml\n(# docker-compose.override.yml\n.*?)```", text, re.DOTALL)
    assert found is not None
    services: dict[str, Any] = yaml.safe_load(found[1])["services"]
    return services


@pytest.fixture
def nginx(ours: Path, documented: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Only addresses and files are this test's."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        reason = "no nginx here: apt-get install nginx-light"
        (pytest.fail if os.environ.get("DERMBRIDGE_REQUIRE_REAL") else pytest.skip)(reason)
    for name, value in documented["service"]["environment"].items():
        monkeypatch.setenv(name, value)
    mounted = {inside: here for here, inside, *_ in (one.split(":") for one in documented["proxy"]["volumes"])}
    certificate_file, key_file = (f"/run/secrets/tls_{name}" for name in ("certificate", "key"))
    assert {certificate_file, key_file} < mounted.keys()
    port, http_port = free_port(), free_port()
    public_url = f"https://127.0.0.1:{port}"
    settings = load_settings(environment={}, data_dir=tmp_path / "data", http_port=http_port, public_url=public_url)
    text = (ROOT / mounted["/etc/nginx/nginx.conf"]).read_text(encoding="utf-8")
    ((outside, inside),) = (one.split(":") for one in documented["proxy"]["ports"])
    assert outside == "443"
    for told, here in {
        **{f"{folder}/": f"{tmp_path}/" for folder in documented["proxy"]["tmpfs"]},
        f"listen {inside} ": f"listen 127.0.0.1:{port} ",
        "server service:8000": f"server 127.0.0.1:{http_port}",
        "proxy_pass http": f"proxy_bind {BEYOND}; proxy_pass http",
        certificate_file: str(ours),
        key_file: str(ours),
    }.items():
        assert told in text
        text = text.replace(told, here)
    file = tmp_path / "nginx.conf"
    file.write_text(text, encoding="utf-8")
    command = [program, "-e", "stderr", "-c", str(file), "-g", "daemon off;"]
    said, known = tmp_path / "said", [patient("p1", "MRN-1", "LINDQVIST"), visit("e1", "p1")]
    with (
        dermbridge(settings, known) as bridge,
        said.open("wb") as stderr,
        subprocess.Popen(command, stderr=stderr) as running,
    ):
        with bridge.db.transaction() as tx:
            _, token = issue_token(tx, name="camera", scope="system/Media.cr", at=bridge.now())
        try:
            _wait_for(port, running)
            yield Proxy(port, said, token, bridge)
        finally:
            running.terminate()


def _wait_for(port: int, running: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert running.poll() is None, "nginx did not start"
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("nginx does not answer")
