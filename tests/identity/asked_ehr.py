"""The sandbox EHR served on a loopback socket, and a DermBridge that may ask it who a patient is."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import uvicorn
from sqlalchemy import select

from adapter.access import SYSTEM
from adapter.app import work_lanes
from adapter.bridge import Bridge
from adapter.capture.receive import Upload, receive
from adapter.db.tables import work
from adapter.delivery import Destinations, ask_destination
from adapter.identity import EhrAnswer, answers_of, ask_ehrs
from adapter.records import create, find_where, get, update_resource
from adapter.sandbox.app import build_sandbox
from adapter.sandbox.ehr import MRN_SYSTEM, SandboxEhr, SandboxSettings, new_patient, open_ehr
from adapter.work import WorkLoop
from mappings.wrong_patient import state_of
from tests.sandbox.conftest import free_port
from tests.web.conftest import picture

OTHER = "urn:oid:2.999.7"
ASTRID = {"system": MRN_SYSTEM, "value": "4711-0815"}


@pytest.fixture(scope="module")
def ehr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxEhr]:
    """Astrid and José with a visit each since nine; two of the name Twin born on one day; Astrid's record elsewhere."""
    settings = SandboxSettings(tmp_path_factory.mktemp("ehr"), http_port=free_port(), backend_secret="s3cret")
    opened = open_ehr(settings, now=lambda: datetime(2026, 11, 23, 9, 0, tzinfo=UTC))
    with opened.bridge.db.transaction() as tx:
        for number in ("1", "2"):
            twin = new_patient(number, number, family="Twin", given="A", birth_date="2001-01-01", gender="female")
            create(tx, twin, at=opened.bridge.now())
        astrid = get(tx, "Patient", "astrid").resource
        astrid["identifier"] += [{"system": OTHER, "value": "E-1"}]
        update_resource(tx, astrid, at=opened.bridge.now())
    yield opened
    opened.bridge.close()


@pytest.fixture(scope="module")
def served(ehr: SandboxEhr) -> Iterator[str]:
    config = uvicorn.Config(build_sandbox(ehr.settings, ehr), port=ehr.settings.http_port, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield ehr.settings.origin
    server.should_exit = True
    thread.join(10)


class Site:
    """A DermBridge that may ask the EHR; `run` does what is in line."""

    def __init__(self, bridge: Bridge, origin: str, **profile: Any) -> None:
        auth = {"kind": "client_secret_basic", "client_id": "dermbridge-backend", "secret": "sandbox"}
        auth |= {"token_url": f"{origin}/token", "scope": "system/*.crus"}
        entry = {"name": "larkfield", "based_on": "sandbox", "base_url": f"{origin}/fhir", "auth": auth}
        entry |= {"timeouts": {"attempts": 1}} | profile
        settings = bridge.settings.model_copy(update={"destinations": (entry,)})
        self.bridge = dataclasses.replace(bridge, settings=settings)
        secrets = bridge.settings.data_dir / "secrets"
        secrets.mkdir(exist_ok=True)
        (secrets / "sandbox").write_text("s3cret")
        self.destinations = Destinations(self.bridge)
        self._last = 0

    def store(self, patient: Any, **more: Any) -> str:
        self._last += 1
        said = {"taken_at": "2026-11-23T09:20:00Z"} | ({"patient": patient} if patient else {}) | more
        return receive(self.bridge, SYSTEM, Upload(picture(60 + self._last), said)).id

    def run(self) -> None:
        lanes = {name: work_lanes(self.bridge, self.destinations)[name] for name in ("look-up-patient", "apply-adt")}
        WorkLoop(self.bridge.db, lanes, now=self.bridge.now).run_until_idle()

    def media(self, media_id: str) -> dict[str, Any]:
        with self.bridge.db.snapshot() as tx:
            return get(tx, "Media", media_id).resource

    def state(self, media_id: str) -> str | None:
        return state_of(self.media(media_id))

    def answer(self, media_id: str) -> EhrAnswer:
        with self.bridge.db.snapshot() as tx:
            (found,) = answers_of(tx, media_id)
        return found

    def patients(self) -> list[dict[str, Any]]:
        with self.bridge.db.snapshot() as tx:
            return [one.resource for one in find_where(tx, "Patient")]

    def in_line(self) -> list[Any]:
        with self.bridge.db.snapshot() as tx:
            return list(tx.execute(select(work).where(work.c.kind == "look-up-patient")))

    def queries(self) -> list[dict[str, Any]]:
        """The AuditEvents of what was asked."""
        with self.bridge.db.snapshot() as tx:
            every = [one.resource for one in find_where(tx, "AuditEvent")]
        return [one for one in every if any("query" in each for each in one.get("entity", ()))]

    def ask(self, media_id: str) -> None:
        with self.bridge.db.snapshot() as tx:
            media = get(tx, "Media", media_id)
        ask_ehrs(self.bridge, partial(ask_destination, self.destinations), SYSTEM, media)


@pytest.fixture
def open_site(bridge: Bridge, served: str) -> Iterator[Callable[..., Site]]:
    opened: list[Site] = []

    def opening(origin: str = served, **profile: Any) -> Site:
        opened.append(Site(bridge, origin, **profile))
        return opened[-1]

    yield opening
    for one in opened:
        one.destinations.close()


@pytest.fixture
def site(open_site: Callable[..., Site]) -> Site:
    return open_site()
