"""How fast photos go to destinations, and whether a dead one slows the others.

    python -m benchmarks.deliveries [--photos 1500] [--large 40] [--rounds 1] [--only TEXT] [--json]

Photos with their deliveries are put into a new installation, then a `dermbridge worker` process of its own sends them
to a stub on the loopback interface (benchmarks/delivery_stub.py): found first, created, read back, compared, confirmed.
The last rows give half of the photos to a second destination that refuses, never answers or takes 2 s for each answer;
only the healthy one is timed. Targets: 30 photos/s of 4 MB, 300 small deliveries/s, and no more than a tenth lost to a
dead neighbour; exit 1 when one is missed. "ms" is processor time of the worker alone for each delivery, the figure to
compare on a machine with other work. One to two minutes where little else runs.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

from sqlalchemy import func, select

from adapter.bridge import Bridge, open_bridge
from adapter.db.tables import delivery
from adapter.delivery import deliver_media
from adapter.records import create
from adapter.records.binaries import create_binary, whole_blob
from adapter.records.vault import SealedBlob
from adapter.settings import Settings, load_settings
from benchmarks.served import DERMBRIDGE, MRN_SYSTEM, cpu_seconds, prepare, report
from mappings.terms import IDENTITY_STATE, URI

SMALL, LARGE = 20_000, 4_000_000
PATIENTS = [f"p{n}" for n in range(50)]
SETTLED = ("confirmed", "accepted")
WANTED = {"small": 300.0, "4 MB": 30.0}
RESENDS = {"mllp": "never", "mllp-knowing": "same-control-id"}
SHARE = 0.9  # of its own pace, beside a dead neighbour


def photo(size: int) -> bytes:
    """Different bytes each time, which is all a destination without transform can tell."""
    return b"\xff\xd8\xff\xfe\x00\x12" + os.urandom(16) + bytes(size - 24) + b"\xff\xd9"


def capture(bridge: Bridge, size: int, to: Iterable[str]) -> None:
    """Photos of known patients, each in line for one destination: sealed at once, all in one transaction."""
    at, names = bridge.now(), list(to)
    with ThreadPoolExecutor(8) as threads:  # each waits for its disk
        sealed = list(threads.map(lambda _: _sealed(bridge, size), names))
    with bridge.db.transaction() as tx:
        for number, (name, (blob, sha1)) in enumerate(zip(names, sealed, strict=True)):
            media = _media(PATIENTS[number % len(PATIENTS)], size, sha1, at)
            patient_id, of = media["subject"]["reference"].partition("/")[2], f"Media/{media['id']}"
            bridge.vault.keep(tx, blob, content_type="image/jpeg", patient_id=patient_id, at=at)
            row = whole_blob(blob, binary_id=media["id"], content_type="image/jpeg", security_context=of, at=at)
            create_binary(tx, row)
            deliver_media(tx, bridge, create(tx, media, at=at), only=name)


def _sealed(bridge: Bridge, size: int) -> tuple[SealedBlob, bytes]:
    content = photo(size)
    return bridge.vault.seal(content), hashlib.sha1(content, usedforsecurity=False).digest()


def _media(patient: str, size: int, sha1: bytes, at: datetime) -> dict[str, Any]:
    name = str(uuid.uuid4())
    attachment = {"contentType": "image/jpeg", "url": f"Binary/{name}", "size": size}
    return {
        "resourceType": "Media",
        "id": name,
        "meta": {"tag": [{"system": IDENTITY_STATE, "code": "bound"}]},
        "identifier": [{"system": URI, "value": f"urn:uuid:{name}"}],
        "status": "completed",
        "subject": {"reference": f"Patient/{patient}"},
        "createdDateTime": at.isoformat(),
        "content": attachment | {"hash": base64.b64encode(sha1).decode()},
    }


@contextmanager
def stub(kind: str) -> Iterator[int]:
    """The port of a destination that behaves so; a port nobody listens on for `refuses`."""
    if kind == "refuses":
        yield 9  # discard
        return
    command = [sys.executable, "-m", "benchmarks.delivery_stub", "mllp" if kind in RESENDS else kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        yield int(process.stdout.readline())
        process.stdin.close()


def destination(name: str, kind: str, port: int) -> str:
    """Its entry in the settings."""
    if kind in RESENDS:
        told = f'based_on = "hl7v2"\nhost = "127.0.0.1"\nport = {port}\nauthorities = {{ "{MRN_SYSTEM}" = "HOSP" }}\n'
        told += f'resend = "{RESENDS[kind]}"\n'
    else:
        told = f'based_on = "hapi"\nbase_url = "http://127.0.0.1:{port}/fhir"\n'
    return f'[[destinations]]\nname = "{name}"\n{told}'


@contextmanager
def worker(settings: Settings) -> Iterator[int]:
    """The process id of a running `dermbridge worker`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DERMBRIDGE_")} | {
        "DERMBRIDGE_CONFIG": str(settings.data_dir.parent / "dermbridge.toml"),
        "DERMBRIDGE_DATA_DIR": str(settings.data_dir),
    }
    with subprocess.Popen([*DERMBRIDGE, "worker"], env=environment, stdout=DEVNULL, stderr=DEVNULL) as process:
        try:
            yield process.pid
        finally:
            process.kill()  # one that waits for an answer would finish that first


def measured(kind: str, photos: int, size: int, neighbour: str = "") -> dict[str, float]:
    """Deliveries per second to the destination `a`, and milliseconds of the worker's processor time for each."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        settings, _ = prepare(Path(folder), PATIENTS)
        file = Path(folder) / "dermbridge.toml"
        entries = destination("a", kind, stack.enter_context(stub(kind)))
        if neighbour:
            entries += destination("b", neighbour, stack.enter_context(stub(neighbour)))
        file.write_text(file.read_text() + entries)
        bridge = open_bridge(load_settings(file, environment={}, data_dir=settings.data_dir))
        stack.callback(bridge.close)
        capture(bridge, size, ("ab" if neighbour else "a") * photos)
        pid = stack.enter_context(worker(settings))
        warm = photos // 10
        begun = when(bridge, warm)
        spent = cpu_seconds(pid)
        ended = when(bridge, photos)
        done = photos - warm
        return {"per_second": done / (ended - begun), "ms": (cpu_seconds(pid) - spent) * 1000 / done}


def when(bridge: Bridge, wanted: int) -> float:
    """The moment at which so many deliveries to `a` are settled."""
    settled = select(func.count()).where(delivery.c.destination == "a", delivery.c.state.in_(SETTLED))
    while True:
        with bridge.db.snapshot() as tx:
            if tx.execute(settled).scalar_one() >= wanted:
                return time.perf_counter()
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=1500, help="small photos for each row")
    parser.add_argument("--large", type=int, default=40, help="photos of 4 MB")
    parser.add_argument("--rounds", type=int, default=1, help="the median of so many is told")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    cases: dict[str, tuple[Any, ...]] = {
        "FHIR, 4 MB": ("fhir", given.large, LARGE),
        "FHIR, small": ("fhir", given.photos, SMALL),
        "HL7 v2, small": ("mllp", given.photos, SMALL),
        "HL7 v2 to one that knows duplicates, small": ("mllp-knowing", given.photos, SMALL),
        **{
            f"FHIR, small, beside one that {what}": ("fhir", given.photos, SMALL, kind)
            for what, kind in (("refuses", "refuses"), ("never answers", "silent"), ("is slow", "slow"))
        },
    }
    rows = []
    for name, case in cases.items():
        if given.only in name:
            runs = [measured(*case) for _ in range(given.rounds)]
            row = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            rows.append({"what": name, **row})
    report("Deliveries", rows, as_json=given.json)
    if not met(rows):
        sys.exit(1)


def met(rows: list[dict[str, Any]]) -> bool:
    """Whether every target that was measured is met."""
    pace = {row["what"]: row["per_second"] for row in rows}
    alone = pace.get("FHIR, small")
    fast = all(rate >= wanted for what, rate in pace.items() for size, wanted in WANTED.items() if what.endswith(size))
    beside = [rate for what, rate in pace.items() if "beside" in what]
    return fast and (alone is None or all(rate >= alone * SHARE for rate in beside))


if __name__ == "__main__":
    main()
