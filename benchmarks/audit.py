"""What the audit log costs, and how fast a large one is sealed, verified and asked.

    python -m benchmarks.audit [--events 1000000] [--url postgresql://user@host/empty]
        [--keep DIR] [--processes 2] [--seconds 1] [--rounds 9]

Cost: captures and reads per second of two servers, one as shipped (audit, sealing and all), one whose `audit` does
nothing; both run all the time, each act is measured at one right after the other, the ratios are taken within such a
pair, then their median. Target: 90 %. The ratio of the processor time of the two servers for each request is the one to
trust on a shared machine.
Look: what one AuditEvent costs in one process, step by step; `--seconds 0` measures nothing else of the cost.
Log: `--events` AuditEvents of the real shape, put into the tables directly; then sealed, verified, and asked who saw
one photo. Targets: 10 million verified in 10 minutes, an answer in 50 ms.
"""

from __future__ import annotations

import argparse
import gc
import io
import math
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from PIL import Image

from adapter import governance
from adapter.access import Actor
from adapter.bridge import Bridge, open_bridge
from adapter.cli import cli
from adapter.db.engine import batches
from adapter.db.schema import prepare as prepare_schema
from adapter.governance.log import Question, find_events
from adapter.governance.looks import write_looks
from adapter.governance.seal import seal_all
from adapter.governance.verification import verify
from adapter.records import New, insert_all
from adapter.settings import load_settings
from benchmarks.captures import PATIENTS, OverHttp, another
from benchmarks.served import DERMBRIDGE, Service, prepare, report, serving

SILENT = (sys.executable, "-m", "benchmarks.audit", "--silent")
CONNECTIONS, COST_TARGET, VERIFIED_TARGET, ANSWER_TARGET_MS = 24, 0.9, 10_000_000 / 600, 50.0
PHOTOS_SEEN = 5_000
FILLED_AT_ONCE = 20_000
LOOKS, AT_ONCE = 1_000, 12


def processor_seconds() -> float:
    """Spent so far by this process and by those it started and saw end."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


def bytes_read() -> int:
    """By this process so far, out of the page cache or from disk (Linux; see proc_pid_io(5))."""
    return int(Path("/proc/self/io").read_text().split()[1])


def timed(act: Callable[[], Any]) -> tuple[Any, float, float]:
    """(what it gave, seconds, processor seconds)."""
    began, spent = time.perf_counter(), processor_seconds()
    given = act()
    return given, time.perf_counter() - began, processor_seconds() - spent


# --- what it costs --------------------------------------------------------------------------------------------------


def serve_silently(arguments: list[str]) -> None:
    """`dermbridge` with an audit log that nothing is written to."""
    for name in ("audit", "audit_look", "fhir_audit"):
        setattr(governance, name, lambda *_given, **_more: lambda *_given, **_more: None)
    cli(arguments)


def jpeg() -> bytes:
    """About 300 kB, as cropped and compressed for a referral."""
    out = io.BytesIO()
    Image.effect_noise((1000, 800), 40).convert("RGB").save(out, "JPEG", quality=80)
    return out.getvalue()


def measure(service: Service, seconds: float, make: Callable[[Service], Callable[[], None]]) -> tuple[float, float]:
    """(requests per second, CPU milliseconds of the server for each)."""
    done = [0] * CONNECTIONS
    ready = threading.Barrier(CONNECTIONS + 1)

    def work(number: int) -> None:
        act = make(service)
        act()
        ready.wait()
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            act()
            done[number] += 1

    clients = [threading.Thread(target=work, args=(number,)) for number in range(CONNECTIONS)]
    for client in clients:
        client.start()
    ready.wait(60)
    began, spent = time.perf_counter(), service.cpu_seconds()
    for client in clients:
        client.join()
    return sum(done) / (time.perf_counter() - began), (service.cpu_seconds() - spent) * 1000 / sum(done)


def reader(path: str) -> Callable[[Service], Callable[[], None]]:
    def make(service: Service) -> Callable[[], None]:
        connection = service.connect()

        def read() -> None:
            connection.request("GET", path, headers={"Authorization": f"Bearer {service.secret}"})
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                raise SystemExit(f"a read was answered {response.status}")

        return read

    return make


def capturer(photo: bytes) -> Callable[[Service], Callable[[], None]]:
    def make(service: Service) -> Callable[[], None]:
        keep = OverHttp(service).client().__enter__()
        return lambda: keep(another(photo))

    return make


@contextmanager
def running(program: tuple[str, ...]) -> Iterator[tuple[Service, str]]:
    """A server and the id of a photo it keeps."""
    with tempfile.TemporaryDirectory() as folder:
        settings, secret = prepare(Path(folder), PATIENTS)
        with serving(settings, secret, program=program) as service:
            capturer(jpeg())(service)()
            connection = service.connect()
            connection.request("GET", "/fhir/Media", headers={"Authorization": f"Bearer {secret}"})
            bundle = orjson.loads(connection.getresponse().read())
            time.sleep(1)  # its renditions
            yield service, bundle["entry"][0]["resource"]["id"]


def cost(rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Each act at both servers right after each other: what else the machine does then weighs on both alike."""
    seen: dict[str, list[tuple[tuple[float, float], tuple[float, float]]]] = {}
    photo = jpeg()
    with running(DERMBRIDGE) as audited, running(SILENT) as silent:
        acts: dict[str, Callable[[str], Callable[[Service], Callable[[], None]]]] = {
            "read a thumbnail": lambda media: reader(f"/captures/{media}/thumbnail"),
            "read the photo": lambda media: reader(f"/captures/{media}/display"),
            "read Media over FHIR": lambda media: reader(f"/fhir/Media/{media}"),
            "capture 0.3 MB": lambda _media: capturer(photo),
        }
        for _ in range(rounds):
            for act, make in acts.items():
                both = [measure(service, seconds, make(media)) for service, media in (audited, silent)]
                seen.setdefault(act, []).append((both[0], both[1]))
    return [
        {
            "": act,
            "per s": statistics.median(one[0] for one, _ in found),
            "without audit": statistics.median(other[0] for _, other in found),
            "ratio": statistics.median(one[0] / other[0] for one, other in found),
            "CPU ms": statistics.median(one[1] for one, _ in found),
            "CPU ms without": statistics.median(other[1] for _, other in found),
            "ratio of CPU": statistics.median(other[1] / one[1] for one, other in found),
            "target": COST_TARGET,
        }
        for act, found in seen.items()
    ]


def one_look(rounds: int) -> list[dict[str, Any]]:
    """Processor microseconds of a look in this one process, the least of the rounds; without what threads add."""
    machine = Actor("machine", "viewer", "Viewer", "machine", address="10.0.0.7")
    least: dict[str, float] = {}

    def spend(what: str, act: Callable[[], Any]) -> Any:
        given, _, spent = timed(act)
        least[what] = min(spent / LOOKS * 1e6, least.get(what, math.inf))
        return given

    with tempfile.TemporaryDirectory() as folder:
        bridge = open_bridge(load_settings(environment={}, data_dir=Path(folder)))
        prepare_schema(bridge.db)

        def build() -> list[New]:
            named = ((f"p{n // 10}", [f"Media/m{n}/_history/1"]) for n in range(LOOKS))
            return [governance.audited(bridge, "read", machine, patient_id=p, references=m) for p, m in named]

        def keep(told: list[New]) -> None:
            for some in batches(told, AT_ONCE):
                write_looks(bridge, some)

        for _ in range(rounds):
            told = spend("built: text, columns, index", build)
            spend(f"kept, {AT_ONCE} together", partial(keep, told))
            spend("moved into the log", lambda: governance.settle(bridge))
            spend("sealed", lambda: seal_all(bridge))
        bridge.close()
    return [{"processor us for each look": what, "seen": value} for what, value in least.items()]


# --- a large log ----------------------------------------------------------------------------------------------------


def fill(bridge: Bridge, events: int) -> None:
    """A year of reads: 5,000 photos of 500 patients by 200 users, seen again and again."""
    start, each = datetime(2025, 11, 23, tzinfo=UTC), timedelta(days=365) / events
    users = [Actor("person", f"Practitioner/u{n}", f"User {n}", "clinician", address="10.0.0.7") for n in range(200)]
    for some in batches(range(events), FILLED_AT_ONCE):
        told = []
        for n in some:
            photo, then = n * 7919 % PHOTOS_SEEN, replace(bridge, now=partial(start.__add__, n * each))
            about = governance.audited(
                then,
                "read",
                users[n % 200],
                patient_id=f"p{photo // 10}",
                references=[f"Media/m{photo}/_history/1"],
                detail="display",
            )
            told.append(about)
        with bridge.db.transaction() as tx:
            insert_all(tx, told)


@contextmanager
def kept(folder: Path | None) -> Iterator[Path]:
    """Where the log lies: `folder`, which stays, or one that goes."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory() as passing:
        yield Path(passing)


def make(bridge: Bridge, events: int) -> list[dict[str, Any]]:
    prepare_schema(bridge.db)
    gc.disable()  # a third of the filling would go to looking for garbage among the events of a batch
    _, filling, filling_cpu = timed(lambda: fill(bridge, events))
    gc.enable()
    _, sealing, sealing_cpu = timed(lambda: seal_all(bridge))
    return [
        row(f"written {FILLED_AT_ONCE:,} at a time, events per s", events / filling),
        row("written, processor us each", filling_cpu / events * 1e6),
        row("sealed, events per s", events / sealing),
        row("sealed, processor us each", sealing_cpu / events * 1e6),
    ]


def large(events: int, url: str | None, processes: int, folder: Path | None) -> list[dict[str, Any]]:
    """A log that `folder` keeps already is not made again."""
    with kept(folder) as place:
        is_made = any(place.glob("*.sqlite3"))
        bridge = open_bridge(load_settings(environment={}, data_dir=place, database_url=url))
        seen = [] if is_made else make(bridge, events)
        verdict, verifying, verifying_cpu = timed(lambda: verify(bridge.db, processes=processes))
        if verdict.found or verdict.events != events:
            raise SystemExit(f"the log does not verify: {verdict}")
        memory = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        spent, read = [], []
        for n in range(40):
            bridge.db.engine.dispose()  # with nothing read before
            with bridge.db.snapshot() as tx:
                before = bytes_read()
                (entries, _), seconds, _ = timed(lambda n=n, tx=tx: find_events(tx, seen_by(n)))  # type: ignore[misc]
            spent.append(seconds * 1000)
            read.append(bytes_read() - before)
            if not entries:
                raise SystemExit("the photo was seen by nobody")
        bridge.close()
        size = sum(file.stat().st_size for file in place.glob("*.sqlite3*"))
    return [
        *seen,
        row(f"verified by {processes} processes, events per s", events / verifying, VERIFIED_TARGET),
        row("verified, processor us each", verifying_cpu / events * 1e6),
        row("most memory of one process, MB", memory / 1024),
        row("who saw this photo, p95 ms", statistics.quantiles(spent, n=20)[-1], ANSWER_TARGET_MS, at_most=True),
        row("pages of 4 KB read for it (SQLite)", statistics.median(read) / 4096),
        row("bytes on disk for each (SQLite)", size / events),
    ]


def row(what: str, seen: float, target: float | None = None, *, at_most: bool = False) -> dict[str, Any]:
    met = target is None or (seen <= target if at_most else seen >= target)
    return {"": what, "seen": seen, "target": target, "met": met}


def seen_by(n: int) -> Question:
    return Question(photo=f"m{n * 97 % PHOTOS_SEEN}")


def main() -> int:
    if sys.argv[1:2] == ["--silent"]:
        serve_silently(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000, help="0: only what it costs")
    parser.add_argument("--url", help="an empty PostgreSQL database for the large log")
    parser.add_argument("--keep", type=Path, help="folder of the large log; made the first time, measured every time")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="that read while verifying")
    parser.add_argument("--seconds", type=float, default=1, help="how long each rate is measured; 0: only the log")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    met = True
    if options.seconds:
        rows = cost(options.rounds, options.seconds)
        report(f"{CONNECTIONS} connections, median of {options.rounds} rounds", rows, as_json=options.json)
        met = all(row["ratio of CPU"] >= COST_TARGET for row in rows)
    report("", one_look(options.rounds), as_json=options.json)
    if options.events:
        rows = large(options.events, options.url, options.processes, options.keep)
        report(f"{options.events:,} events", rows, as_json=options.json)
        met &= all(row["met"] for row in rows)
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
