"""What a durable capture costs over HTTP, beside the bare floor of the same machine in the same minutes.

    python -m benchmarks.captures [--seconds 5] [--rounds 3] [--photos 300] [--json]

The floor does for each photo what no honest service can leave out: SHA-256, AES-256-GCM, write, fsync of file and
folder, one SQLite commit with synchronous=FULL; one photo after the other, and by four threads. The service is a
`dermbridge serve` of its own, reached over four kept-alive connections, every photo different; "with work" makes
renditions beside it, "--web-only" leaves them to a worker. "floor behind HTTP" is the same server whose application
does nothing but the floor with each body: what HTTP and the sender leave of it. Rounds alternate, so that a slow minute
hits all; ratios are taken within a round, then their median. Targets: 60 % of the floor for 3.6 MB, and p50 under 10 ms
for one 2.2 MB photo at a time.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import os
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import orjson
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapter import serve
from adapter.bridge import Bridge
from adapter.cli import cli
from benchmarks.served import DERMBRIDGE, Service, prepare, report, serving

BARE = (sys.executable, "-m", "benchmarks.captures", "--bare")
CONNECTIONS = 4
LARGE, SMALL = 3_600_000, 2_200_000
RATIO_TARGET, P50_TARGET_MS = 0.6, 10.0
PATIENTS = [f"p{n}" for n in range(50)]

Store: TypeAlias = Callable[[bytes | bytearray], None]
"""Keeps one photo; returns when it is durable."""


def photo(size: int) -> bytes:
    """A JPEG of 12 megapixels and about `size` bytes, with a little EXIF as cameras write it."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Bench", "Camera"
    exif.get_ifd(0x8825).update({1: "N", 2: (47.0, 22.0, 0.0), 3: "E", 4: (8.0, 32.0, 0.0)})
    image = Image.effect_noise((4000, 3000), 24).convert("RGB")
    best = b""
    for quality in range(10, 96, 5):
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality, exif=exif)
        if abs(out.tell() - size) > abs(len(best) - size):
            break
        best = out.getvalue()
    return best


def another(jpeg: bytes) -> bytes:
    """The same picture as another file: a comment of its own (COM, ISO/IEC 10918-1 B.2.4.5) right after SOI."""
    comment = uuid.uuid4().bytes
    return jpeg[:2] + b"\xff\xfe" + (2 + len(comment)).to_bytes(2, "big") + comment + jpeg[2:]


class Camera:
    """One picture as ever other files, made in place: that must cost neither side anything."""

    def __init__(self, jpeg: bytes) -> None:
        self._file = bytearray(another(jpeg))

    def shoot(self) -> bytearray:
        self._file[6:22] = uuid.uuid4().bytes
        return self._file


# --- the two ways to keep a photo -----------------------------------------------------------------------------------


class Floor:
    """The bare cost of durability: nothing is validated, described, audited or ever read again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._database = sqlite3.connect(
            folder / "floor.sqlite3", timeout=60, isolation_level=None, check_same_thread=False
        )
        table = "CREATE TABLE IF NOT EXISTS kept (id, sha256, key)"
        for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", table):
            self._database.execute(statement)
        self._one_writer = threading.Lock()

    def client(self) -> AbstractContextManager[Store]:
        return _always(self.keep)

    def keep(self, data: bytes | bytearray) -> None:
        name, key, nonce = str(uuid.uuid4()), AESGCM.generate_key(256), os.urandom(12)
        digest = hashlib.sha256(data).hexdigest()
        descriptor = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        rest = memoryview(AESGCM(key).encrypt(nonce, data, None))
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
        os.close(descriptor)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)
        with self._one_writer:
            self._database.execute("INSERT INTO kept VALUES (?, ?, ?)", (name, digest, key))

    def close(self) -> None:
        self._database.close()


class OverHttp:
    """`POST /captures` as a camera does it: raw body, metadata, idempotency key."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @contextmanager
    def client(self) -> Iterator[Store]:
        connection = self._service.connect()

        def keep(data: bytes | bytearray) -> None:
            metadata = {"patient": f"Patient/{PATIENTS[data[6] % len(PATIENTS)]}", "body_site": "70559009"}
            headers = {
                "Authorization": f"Bearer {self._service.secret}",
                "Content-Type": "image/jpeg",
                "Idempotency-Key": str(uuid.uuid4()),
                "DermBridge-Metadata": base64.urlsafe_b64encode(orjson.dumps(metadata)).decode(),
            }
            connection.request("POST", "/captures", data, headers)
            response = connection.getresponse()
            answer = response.read()
            if response.status != 201:
                raise SystemExit(f"a capture was answered {response.status}: {answer[:300]!r}")

        try:
            yield keep
        finally:
            connection.close()


@contextmanager
def _always(store: Store) -> Iterator[Store]:
    yield store


@contextmanager
def floor() -> Iterator[Floor]:
    with tempfile.TemporaryDirectory() as folder:
        kept = Floor(Path(folder))
        yield kept
        kept.close()


@contextmanager
def service(*options: str, program: tuple[str, ...] = DERMBRIDGE) -> Iterator[OverHttp]:
    with tempfile.TemporaryDirectory() as folder:
        settings, secret = prepare(Path(folder), PATIENTS)
        with serving(settings, secret, *options, program=program) as running:
            yield OverHttp(running)


def serve_barely(arguments: list[str]) -> None:
    """`dermbridge serve` whose application does the floor with each body, and nothing else."""

    def bare(bridge: Bridge, **_lifespan: Any) -> Starlette:
        kept = Floor(bridge.settings.data_dir)

        async def keep(request: Request) -> Response:
            await run_in_threadpool(kept.keep, await request.body())
            return Response(status_code=201)

        ready = Route("/readyz", lambda _request: Response())
        return Starlette(routes=[ready, Route("/captures", keep, methods=["POST"])])

    setattr(serve, "build_app", bare)  # noqa: B010 - mypy knows that it is another's
    cli(arguments)


# --- measuring ------------------------------------------------------------------------------------------------------


def per_second(target: Floor | OverHttp, jpeg: bytes, *, threads: int, seconds: float) -> float:
    """Photos kept per second by `threads` clients; the first photo of each is not counted."""
    stored = [0] * threads
    ready = threading.Barrier(threads + 1)

    def work(number: int) -> None:
        camera = Camera(jpeg)
        with target.client() as keep:
            keep(camera.shoot())
            ready.wait()
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                keep(camera.shoot())
                stored[number] += 1

    clients = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for client in clients:
        client.start()
    ready.wait(60)
    began = time.perf_counter()
    for client in clients:
        client.join()
    return sum(stored) / (time.perf_counter() - began)


def milliseconds(target: Floor | OverHttp, jpeg: bytes, times: int) -> list[float]:
    """One photo after the other on one connection, after ten to warm up."""
    spent, camera = [], Camera(jpeg)
    with target.client() as keep:
        for _ in range(times + 10):
            data = camera.shoot()
            began = time.perf_counter()
            keep(data)
            spent.append((time.perf_counter() - began) * 1000)
    return spent[10:]


def throughput(jpeg: bytes, rounds: int, seconds: float) -> list[dict[str, Any]]:
    ways: dict[str, tuple[Callable[[], AbstractContextManager[Floor | OverHttp]], int]] = {
        "floor, serial": (floor, 1),
        "floor, 4 threads": (floor, CONNECTIONS),
        "floor behind HTTP": (lambda: service("--web-only", program=BARE), CONNECTIONS),
        "POST /captures, --web-only": (lambda: service("--web-only"), CONNECTIONS),
        "POST /captures, with work": (service, CONNECTIONS),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (opened, threads) in ways.items():
            with opened() as target:
                rates[name].append(per_second(target, jpeg, threads=threads, seconds=seconds))
    serial, floors = rates["floor, serial"], rates["floor, 4 threads"]
    return [
        {
            f"{len(jpeg) / 1e6:.1f} MB photos": name,
            "photos/s": statistics.median(values),
            "MB/s": statistics.median(values) * len(jpeg) / 1e6,
            "of serial": statistics.median(value / bare for value, bare in zip(values, serial, strict=True)),
            "of floor": statistics.median(value / bare for value, bare in zip(values, floors, strict=True)),
            "target": RATIO_TARGET if name.startswith("POST") else None,
        }
        for name, values in rates.items()
    ]


def latency(jpeg: bytes, times: int) -> list[dict[str, Any]]:
    rows = []
    ways: dict[str, Callable[[], AbstractContextManager[Floor | OverHttp]]] = {
        "floor": floor,
        "floor behind HTTP": lambda: service("--web-only", program=BARE),
        "--web-only": lambda: service("--web-only"),
        "with work": service,
    }
    for name, opened in ways.items():
        with opened() as target:
            spent = milliseconds(target, jpeg, times)
        rows.append(
            {
                f"one {len(jpeg) / 1e6:.1f} MB photo at a time": name,
                "p50 ms": statistics.median(spent),
                "p95 ms": statistics.quantiles(spent, n=20)[-1],
                "target p50": None if name.startswith("floor") else P50_TARGET_MS,
            }
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5, help="how long each rate is measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--photos", type=int, default=300, help="photos for the latencies")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rates = throughput(photo(LARGE), options.rounds, options.seconds)
    times = latency(photo(SMALL), options.photos)
    if options.json:
        report("", [*rates, *times], as_json=True)
    else:
        report(f"{CONNECTIONS} connections, median of {options.rounds} rounds", rates, as_json=False)
        report("\nlatency", times, as_json=False)
    met = all(row["of floor"] >= RATIO_TARGET for row in rates[3:]) and all(
        row["p50 ms"] < P50_TARGET_MS for row in times[2:]
    )
    return 0 if met else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--bare"]:
        serve_barely(sys.argv[2:])
    raise SystemExit(main())
