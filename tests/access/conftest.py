"""The whole service with two patients, a photo of each and a machine registered with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapter.app import build_app
from adapter.bridge import Bridge, open_bridge
from adapter.records import create_all
from adapter.settings import load_settings
from tests.access.machines import Machine
from tests.conftest import Clock
from tests.fhir_api.conftest import InProcess
from tests.web.conftest import patient, visit

CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"


def photo(photo_id: str, patient_id: str, *, level: str = "N", view: str = "close-up", **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Media",
        "id": photo_id,
        "meta": {"security": [{"system": CONFIDENTIALITY, "code": level}]},
        "status": "completed",
        "subject": {"reference": f"Patient/{patient_id}"},
        "view": {"coding": [{"system": "https://dermbridge.org/fhir/CodeSystem/photo-view", "code": view}]},
        "createdDateTime": "2026-11-23T09:10:00Z",
        "content": {"contentType": "image/jpeg"},
    } | more


RECORDS = [
    patient("p1", "1001", "Lindqvist"),
    patient("p2", "1002", "Okafor"),
    visit("e1", "p1"),
    visit("e2", "p2"),
    photo("m1", "p1"),
    photo("m2", "p2"),
    photo("secret", "p1", level="V"),
    photo("overview", "p1", view="overview"),
]

Serve = Callable[..., tuple[Bridge, httpx.Client]]


@pytest.fixture
def serve(db_url: str, tmp_path: Path, clock: Clock) -> Iterator[Serve]:
    """(bridge, client) of a service with these settings; once per test."""
    opened: list[Bridge] = []

    def start(**settings: Any) -> tuple[Bridge, httpx.Client]:
        told = load_settings(environment={}, data_dir=tmp_path / "data", database_url=db_url, **settings)
        bridge = open_bridge(told, now=clock)
        opened.append(bridge)
        with bridge.db.transaction() as tx:
            create_all(tx, RECORDS, at=bridge.now())
        return bridge, httpx.Client(transport=InProcess(build_app(bridge)), base_url="http://testserver")

    yield start
    for bridge in opened:
        bridge.close()


@pytest.fixture
def machine() -> Machine:
    return Machine()
