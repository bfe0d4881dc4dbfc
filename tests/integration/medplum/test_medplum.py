"""The FHIR connector against Medplum's router: `npm ci` in this folder first, and Node.js 20 or later."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from connectors.contract import Connector
from connectors.profile import build_profile
from connectors.registry import open_connector
from tests.connectors.test_contract import encounter, parcel, patient

HERE = Path(__file__).parent
pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def medplum() -> Iterator[str]:
    """The base address of a server with two patients and one visit."""
    node = shutil.which("node")
    if node is None or not (HERE / "node_modules").is_dir():
        reason = f"Node.js or the packages of {HERE} are missing: run npm ci there"
        (pytest.fail if os.environ.get("DERMBRIDGE_REQUIRE_REAL") else pytest.skip)(reason)
    with subprocess.Popen([node, "server.mjs"], cwd=HERE, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            base = f"http://127.0.0.1:{server.stdout.readline().strip()}/fhir/R4"
            for number in ("1", "2"):
                theirs = create(base, patient(number, f"A-{number}"))
                visit = encounter(number) | {"subject": {"reference": f"Patient/{theirs['id']}"}}
                create(base, visit | {"status": "in-progress", "class": {"code": "AMB"}})
            yield base
        finally:
            server.terminate()


def create(base: str, resource: dict[str, Any]) -> dict[str, Any]:
    body = {name: value for name, value in resource.items() if name != "id"}
    answer = httpx.post(f"{base}/{resource['resourceType']}", json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


@pytest.fixture(params=["fhir-media", "fhir-documentreference"])
def connector(request: pytest.FixtureRequest, medplum: str) -> Iterator[Connector]:
    table = {"name": "medplum", "based_on": "medplum", "base_url": medplum, "auth": {"kind": "none"}}
    profile = build_profile(table | {"routes": [request.param]}, source="test")
    opened = open_connector(profile, lambda name: name)
    yield opened
    opened.close()


def test_a_photo_is_filed_once_replaced_moved_and_taken_back(connector: Connector) -> None:
    first = connector.send(parcel())
    assert connector.read_back(parcel(), first).matches
    assert connector.send(parcel()).ids == first.ids
    newer = parcel(version=2, content=b"a better photo", previous=first)
    second = connector.send(newer)
    assert not second.duplicate and connector.read_back(newer, second).differences == ()
    moved = parcel("2", version=3, previous=second)
    third = connector.send(moved)
    assert third.ids["Patient"] != second.ids["Patient"]
    assert connector.read_back(moved, third).matches
    assert not connector.retract(newer, second, "wrong patient").duplicate
    assert connector.retract(newer, second, "wrong patient").duplicate
    assert connector.retract(moved, third, "end of test").ids == third.ids
