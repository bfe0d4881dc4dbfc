"""A patient with a few photos, for everything done to many at once."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from adapter.access import SYSTEM
from adapter.bridge import Bridge
from adapter.capture.receive import Upload, receive
from adapter.records import create
from adapter.sandbox.views import draw_view


@pytest.fixture
def photos(bridge: Bridge) -> list[str]:
    """The ids of four photos of Patient/asa, who has the visit Encounter/visit."""
    patient = {
        "resourceType": "Patient",
        "id": "asa",
        "active": True,
        "identifier": [{"system": "urn:oid:1.2.3", "value": "4711"}],
    }
    visit = {
        "resourceType": "Encounter",
        "id": "visit",
        "status": "in-progress",
        "class": {"code": "AMB"},
        "subject": {"reference": "Patient/asa"},
    }
    with bridge.db.transaction() as tx:
        create(tx, patient, at=bridge.now())
        create(tx, visit, at=bridge.now())
    return [_store(bridge, bridge.now() - timedelta(days=day)) for day in range(1, 5)]


def _store(bridge: Bridge, taken_at: datetime) -> str:
    photo = draw_view(taken_at.day, taken_at=taken_at, size=(120, 90))
    return receive(bridge, SYSTEM, Upload(photo, {"patient": "Patient/asa"})).id


@pytest.fixture
def draw() -> Callable[[int, datetime], bytes]:
    return lambda seed, taken_at: draw_view(seed, taken_at=taken_at, size=(120, 90))
