"""Killed at any moment and started again, the service loses nothing it acknowledged and does nothing twice.

`dermbridge serve` is a process of its own here and dies by SIGKILL at seeded moments of the traffic.
DERMBRIDGE_CRASH_SCALE=full sends 500 captures and 2,000 messages through 20 kills; DERMBRIDGE_CRASH_SEED varies them.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from sqlalchemy import create_engine, func, make_url, select, text

from adapter.access import SYSTEM as DERMBRIDGE
from adapter.access import expiry
from adapter.access.tokens import issue_token
from adapter.bridge import Bridge, open_bridge
from adapter.capture.receive import Upload, receive
from adapter.db.tables import adt_message, binary, capture, media, patient, work
from adapter.errors import Unavailable
from adapter.identity import receive_messages
from adapter.identity.mllp_client import send
from adapter.records import get
from adapter.serve import open_prepared
from adapter.settings import load_settings

PROGRAM = Path(__file__).with_name("short_leases.py")
SYSTEM = "urn:oid:2.16.840.1.113883.19.5"
FULL = os.environ.get("DERMBRIDGE_CRASH_SCALE") == "full"
SEED = int(os.environ.get("DERMBRIDGE_CRASH_SEED", "20261123"))
CAPTURES, MESSAGES, KILLS = (500, 2000, 20) if FULL else (40, 120, 4)
PATIENTS = MESSAGES // 12
BATCH = 5  # messages pipelined before their answers are awaited
PATIENCE_SECONDS = 1800 if FULL else 120
LEASE_SECONDS = "3"


def mrn(number: int) -> str:
    return f"C{number:05d}"


def survivor(number: int) -> int:
    """Every fourth patient is merged into the one before."""
    return number - 1 if number % 4 == 1 else number


def photo(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 48), (number % 256, number // 256, 99)).save(out, "JPEG", comment=f"photo {number}")
    return out.getvalue()


def adt(number: int) -> bytes:
    """Message `number` of the feed: A04 for all, then A08 in turns, in the sixth turn the merges."""
    turn, who = divmod(number, PATIENTS)
    at = datetime(2026, 11, 23, 6, tzinfo=UTC) + timedelta(seconds=number)
    merges = turn == 5 and survivor(who) != who
    event = "A04" if turn == 0 else "A40" if merges else "A08"
    named = survivor(who) if turn >= 5 else who
    segments = [
        rf"MSH|^~\&|ADT|HOSP|DERMBRIDGE|HOSP|{at:%Y%m%d%H%M%S}+0000||ADT^{event}|M{number}|P|2.5.1",
        f"EVN|{event}|{at:%Y%m%d%H%M%S}+0000",
        f"PID|1||{mrn(named)}^^^HOSP^MR||Crash^Turn{turn}||19800101|F",
        f"MRG|{mrn(who)}^^^HOSP^MR" if merges else "PV1|1|O",
    ]
    return "\r".join(segments).encode() + b"\r"


@dataclass
class Service:
    """`dermbridge` in a process of its own, with its settings in `env`."""

    env: dict[str, str]
    log: Path
    word: str = "serve"
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), self.word], env=self.env, stdout=log, stderr=log
            )

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def kill_one_process(self, dice: random.Random) -> bool:
        """One of those that serve dies; the service replaces it. False where they cannot be told (without /proc)."""
        assert self.process is not None
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        members = listed.read_text().split() if listed.exists() else []
        if members:
            os.kill(int(dice.choice(members)), signal.SIGKILL)
        return bool(members)

    def check_alive(self) -> None:
        if self.process is not None and self.process.poll() is not None:
            pytest.fail(f"the service ended by itself:\n{self.log.read_text()[-3000:]}")


@dataclass
class Traffic:
    """What the senders have been promised. `captured`: ids answered for each photo, `acknowledged`: MSA-1 of each."""

    http_port: int
    mllp_port: int
    token: str
    captured: dict[int, set[str]] = field(default_factory=dict)
    acknowledged: dict[int, bytes] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @property
    def done(self) -> float:
        """0 … 1, the slower of the two feeds."""
        return min(len(self.captured) / CAPTURES, len(self.acknowledged) / MESSAGES)

    def start(self) -> list[threading.Thread]:
        targets: list[Callable[[], None]] = [self._send_adt, *(lambda n=n: self._send_photos(n) for n in range(2))]
        threads = [threading.Thread(target=target, daemon=True) for target in targets]
        for thread in threads:
            thread.start()
        return threads

    def _send_photos(self, first: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{self.http_port}", timeout=20) as http:
            for number in range(first, CAPTURES, 2):
                while self.done + 0.1 < number / CAPTURES:
                    time.sleep(0.002)
                while number not in self.captured:
                    self._send_photo(http, number)

    def _send_photo(self, http: httpx.Client, number: int) -> None:
        data = photo(number)
        described = json.dumps({"patient": {"system": SYSTEM, "value": mrn(number % PATIENTS)}}).encode()
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "image/jpeg",
            "DermBridge-Metadata": base64.urlsafe_b64encode(described).rstrip(b"=").decode(),
            "Idempotency-Key": f"capture-{number}",
        }
        try:
            answer = http.post("/captures", content=data, headers=headers)
        except httpx.TransportError:
            time.sleep(0.02)
            return
        if answer.status_code not in (200, 201, 202):
            self.errors.append(f"photo {number}: {answer.status_code} {answer.text[:200]}")
            time.sleep(0.1)
            return
        self.captured.setdefault(number, set()).add(answer.json()["id"])

    def _send_adt(self) -> None:
        for first in range(0, MESSAGES, BATCH):
            numbers = range(first, min(first + BATCH, MESSAGES))
            while self.done + 0.1 < first / MESSAGES:
                time.sleep(0.002)
            while first not in self.acknowledged:
                try:
                    answers = send("127.0.0.1", self.mllp_port, [adt(n) for n in numbers], pipelined=BATCH)
                except Unavailable:
                    time.sleep(0.02)
                    continue
                codes = (answer.split(b"\rMSA|")[1][:2] for answer in answers)
                self.acknowledged.update(zip(numbers, codes, strict=True))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "dermbridge.toml"
    file.write_text(
        f'default_authority = "HOSP"\nidentifier_systems = {{ HOSP = "{SYSTEM}" }}\n'
        f'[[destinations]]\nname = "archive"\nbased_on = "directory"\nfolder = "{tmp_path / "archive"}"\n'
    )
    return file


@pytest.fixture
def environment(tmp_path: Path, config: Path) -> dict[str, str]:
    own = {
        "DERMBRIDGE_CONFIG": str(config),
        "DERMBRIDGE_DATA_DIR": str(tmp_path / "data"),
        "DERMBRIDGE_HTTP_PORT": str(_free_port()),
        "DERMBRIDGE_MLLP_PORT": str(_free_port()),
        "DERMBRIDGE_PROCESSES": "2",
        "DERMBRIDGE_TEST_LEASE": LEASE_SECONDS,
    }
    others = {key: value for key, value in os.environ.items() if not key.startswith("DERMBRIDGE_")}
    return others | {"PYTHONPATH": str(Path(__file__).parents[2])} | own


@pytest.fixture
def service(environment: dict[str, str], tmp_path: Path) -> Iterator[Service]:
    running = Service(environment, tmp_path / "service.log")
    yield running
    running.kill()


@pytest.mark.long
def test_what_was_acknowledged_survives_kill_9_exactly_once(
    environment: dict[str, str], service: Service, tmp_path: Path
) -> None:
    settings = load_settings(environment=environment)
    prepared = open_prepared(settings)
    with prepared.db.transaction() as tx:
        _, token = issue_token(tx, name="crash", scope="system/Media.cruds", at=prepared.now())
    prepared.close()

    traffic = Traffic(settings.http_port, settings.mllp_port, token)
    senders = traffic.start()
    _kill_in_traffic(service, traffic)
    for sender in senders:
        sender.join(PATIENCE_SECONDS)
    assert not traffic.errors
    assert traffic.done == 1

    bridge = open_bridge(settings)
    _wait_until_idle(bridge, service)
    service.kill()
    _check_captures(bridge, traffic)
    _check_messages(bridge, traffic)
    _check_folder(bridge, tmp_path / "archive", traffic)
    bridge.close()


@pytest.fixture
def own_database(postgresql_url: str) -> Iterator[str]:
    """An empty PostgreSQL database without tables: the service sets it up."""
    name = f"dermbridge_crash_{os.getpid()}"
    engine = create_engine(postgresql_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        yield make_url(postgresql_url).set(database=name).render_as_string(hide_password=False)
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.mark.real
def test_a_worker_killed_for_good_leaves_its_work_to_the_other(
    environment: dict[str, str], own_database: str, tmp_path: Path
) -> None:
    environment["DERMBRIDGE_DATABASE_URL"] = own_database
    bridge = open_prepared(load_settings(environment=environment))
    traffic = Traffic(0, 0, "")
    workers = [Service(environment, tmp_path / f"worker-{n}.log", "worker") for n in range(2)]
    try:
        for worker in workers:
            worker.start()
        _wait_until(lambda: all(b"worker.start" in one.log.read_bytes() for one in workers), "start of both workers")
        _put_in_directly(bridge, traffic)
        _wait_until(lambda: _holds_work(bridge), "work under way")
        workers[0].kill()
        _wait_until_idle(bridge, workers[1])
    finally:
        for worker in workers:
            worker.kill()
    _check_captures(bridge, traffic)
    _check_messages(bridge, traffic)
    _check_folder(bridge, tmp_path / "archive", traffic)
    bridge.close()


def _put_in_directly(bridge: Bridge, traffic: Traffic) -> None:
    answers = receive_messages(bridge, [adt(number) for number in range(MESSAGES)], "crash")
    traffic.acknowledged = {number: answer.split(b"\rMSA|")[1][:2] for number, answer in enumerate(answers)}
    for number in range(CAPTURES):
        described = {"patient": {"system": SYSTEM, "value": mrn(number % PATIENTS)}}
        traffic.captured[number] = {receive(bridge, DERMBRIDGE, Upload(photo(number), described)).id}


def _holds_work(bridge: Bridge) -> bool:
    """More than one claim is in hand."""
    with bridge.db.snapshot() as tx:
        tokens = tx.execute(select(work.c.lease_token).where(work.c.state == "leased")).scalars().all()
    return len(set(tokens)) > 1


def _wait_until(look: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not look():
        assert time.monotonic() < until, f"no {what}"
        time.sleep(0.002)


def _kill_in_traffic(service: Service, traffic: Traffic) -> None:
    """One kill in each equal part of the traffic, the last when all is acknowledged and the work is under way: of the
    whole service, or of one of its processes."""
    dice = random.Random(SEED)
    moments = [(part + dice.random()) / KILLS for part in range(KILLS - 1)] + [1.0]
    service.start()
    until = time.monotonic() + PATIENCE_SECONDS
    for moment in moments:
        while traffic.done < moment:
            service.check_alive()
            assert time.monotonic() < until, f"no progress beyond {traffic.done:.0%}: {service.log.read_text()[-2000:]}"
            time.sleep(0.001)
        time.sleep(dice.uniform(0, 0.03))
        if dice.random() < 0.5 or not service.kill_one_process(dice):
            service.kill()
            service.start()


def _wait_until_idle(bridge: Bridge, service: Service) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        with bridge.db.snapshot() as tx:
            undone = work.c.state != "dead", work.c.kind != expiry.KIND  # that is never done
            left = tx.execute(select(work.c.kind, work.c.reason).where(*undone)).all()
        if not left:
            return
        service.check_alive()
        assert time.monotonic() < until, left[:10]
        time.sleep(0.05)


def _check_captures(bridge: Bridge, traffic: Traffic) -> None:
    assert all(len(ids) == 1 for ids in traffic.captured.values())
    answered = {number: next(iter(ids)) for number, ids in traffic.captured.items()}
    with bridge.db.snapshot() as tx:
        rows = {row.id: row for row in tx.execute(select(capture))}
        assert len(rows) == CAPTURES
        assert set(rows) == set(answered.values())
        assert set(tx.execute(select(media.c.id)).scalars()) == set(rows)
        kinds = Counter(tx.execute(select(binary.c.rendition)).scalars())
        assert kinds == dict.fromkeys((None, "display", "thumbnail"), CAPTURES)
        for number, media_id in answered.items():
            opened = bridge.vault.open(tx, rows[media_id].blob_id)
            assert opened.read(0, opened.size) == photo(number)


def _check_messages(bridge: Bridge, traffic: Traffic) -> None:
    assert set(traffic.acknowledged.values()) == {b"AA"}
    with bridge.db.snapshot() as tx:
        rows = tx.execute(select(adt_message.c.control_id, adt_message.c.state, adt_message.c.reason)).all()
        alive = tx.execute(select(func.count()).where(patient.c.active, patient.c.replaced_by.is_(None))).scalar_one()
        total = tx.execute(select(func.count()).select_from(patient)).scalar_one()
    assert sorted(row.control_id for row in rows) == sorted(f"M{number}" for number in range(MESSAGES))
    assert [row for row in rows if row.state != "applied"] == []
    assert total == PATIENTS
    assert alive == len({survivor(number) for number in range(PATIENTS)})


def _check_folder(bridge: Bridge, folder: Path, traffic: Traffic) -> None:
    """Each photo once, whole, under the patient who owns it now; nothing half-written is left."""
    photos = sorted(file for file in folder.rglob("photo*") if file.is_file())
    assert sorted(file.parent.name for file in photos) == sorted(str(*ids) for ids in traffic.captured.values())
    owners = _owners(bridge)
    number_of = {str(*ids): number for number, ids in traffic.captured.items()}
    with bridge.db.snapshot() as tx:
        for file in photos:
            media_id, patient_id = file.parent.name, file.parent.parent.name
            assert patient_id == owners[mrn(survivor(number_of[media_id] % PATIENTS))]
            assert get(tx, "Media", media_id).resource["subject"]["reference"] == f"Patient/{patient_id}"
            kept = select(binary.c.sha256).where(
                binary.c.security_context == f"Media/{media_id}", binary.c.rendition.is_(None)
            )
            assert hashlib.sha256(file.read_bytes()).hexdigest() == tx.execute(kept).scalar_one()


def _owners(bridge: Bridge) -> dict[str, str]:
    """Surviving patient's id for each MRN that one of them has as its own."""
    with bridge.db.snapshot() as tx:
        ids = tx.execute(select(patient.c.id).where(patient.c.replaced_by.is_(None))).scalars().all()
        found: dict[str, str] = {}
        for patient_id in ids:
            resource: dict[str, Any] = get(tx, "Patient", patient_id).resource
            for identifier in resource["identifier"]:
                found[identifier["value"]] = patient_id
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
