"""A real `dermbridge serve` for the benchmarks: its own process, its own folder, free ports."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import orjson

from adapter.access.tokens import issue_token
from adapter.records import create
from adapter.serve import open_prepared
from adapter.settings import Settings, load_settings

AUTHORITY = "HOSP"
MRN_SYSTEM = "urn:oid:2.16.840.1.113883.19.5"
READY_SECONDS = 30
DERMBRIDGE = (str(Path(sys.executable).with_name("dermbridge")),)


@dataclass(frozen=True)
class Service:
    """A running service and a bearer secret that opens it."""

    settings: Settings
    secret: str
    started_seconds: float
    pid: int = 0

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.pid)

    def connect(self) -> HTTPConnection:
        return HTTPConnection(self.settings.http_host, self.settings.http_port, timeout=60)


def cpu_seconds(pid: int) -> float:
    """What a process and its living children have spent so far (Linux; see proc_pid_stat(5))."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    stats = [Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split() for one in (pid, *children)]
    return sum(int(one[11]) + int(one[12]) for one in stats) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def prepare(folder: Path, patients: Iterable[str] = ()) -> tuple[Settings, str]:
    """An installation in `folder` that knows `patients` by id, with a token that may do everything."""
    file = folder / "dermbridge.toml"
    file.write_text(f'default_authority = "{AUTHORITY}"\n[identifier_systems]\n{AUTHORITY} = "{MRN_SYSTEM}"\n')
    settings = load_settings(
        file, environment={}, data_dir=folder / "var", http_port=free_port(), mllp_port=free_port()
    )
    bridge = open_prepared(settings)
    at = bridge.now()
    with bridge.db.transaction() as tx:
        for patient_id in patients:
            identifier = {"system": MRN_SYSTEM, "value": patient_id.upper()}
            create(tx, {"resourceType": "Patient", "id": patient_id, "identifier": [identifier]}, at=at)
        _, secret = issue_token(tx, name="benchmark", scope="system/*.cruds", at=at)
    bridge.close()
    return settings, secret


@contextmanager
def serving(
    settings: Settings, secret: str = "", *options: str, program: Sequence[str] = DERMBRIDGE
) -> Iterator[Service]:
    """`dermbridge serve` with `options`, ready to answer; ended when the block is left."""
    ours = ("DERMBRIDGE_", "PYTHONDONTWRITEBYTECODE")  # a service finds its modules compiled, as after any first start
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {
        "DERMBRIDGE_CONFIG": str(settings.data_dir.parent / "dermbridge.toml"),
        "DERMBRIDGE_DATA_DIR": str(settings.data_dir),
        "DERMBRIDGE_HTTP_PORT": str(settings.http_port),
        "DERMBRIDGE_MLLP_PORT": str(settings.mllp_port),
    }
    command = [*program, "serve", *options]
    began = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            _wait_until_ready(process, settings)
            yield Service(settings, secret, time.perf_counter() - began, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_ready(process: subprocess.Popen[bytes], settings: Settings) -> None:
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until and process.poll() is None:
        connection = HTTPConnection(settings.http_host, settings.http_port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.005)
        finally:
            connection.close()
    raise SystemExit("dermbridge serve did not become ready; see its log above")


def report(title: str, rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """Rows with the same keys, as a table or as JSON."""
    if as_json:
        sys.stdout.write(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode() + "\n")
        return
    cells = [[*rows[0]], *([_text(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(title)
    for line in cells:
        first, *rest = (
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join((first, *rest)).rstrip())


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)
