"""The SMART team's `fhirclient` (npm) against our FHIR server with a backend token, over HTTP.

Needs Node.js 20 or later and `npm ci` in this folder; without them the test is skipped with that sentence.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapter.settings import load_settings
from tests.access.conftest import RECORDS
from tests.access.machines import Machine
from tests.sandbox.conftest import free_port
from tests.servers.dermbridge import dermbridge
from tests.web.conftest import picture

pytestmark = pytest.mark.real

HERE = Path(__file__).parent
SCOPE = "system/Media.crs?patient=Patient/p1 system/Patient.rs?_id=p1 system/Binary.r"


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if found is None or not (HERE / "node_modules").is_dir():
        reason = f"no fhirclient here: install Node.js 20 or later and run npm ci in {HERE}"
        (pytest.fail if os.environ.get("DERMBRIDGE_REQUIRE_REAL") else pytest.skip)(reason)
    return str(found)


@pytest.fixture
def asked(tmp_path: Path, node: str) -> dict[str, Any]:
    machine, port = Machine(scope=SCOPE), free_port()
    registered = [machine.registration.model_dump()]
    settings = load_settings(environment={}, data_dir=tmp_path, http_port=port, clients=registered)
    with dermbridge(settings, RECORDS) as bridge, httpx.Client(base_url=settings.base_url) as client:
        token_url = client.get("/fhir/.well-known/smart-configuration").json()["token_endpoint"]
        assertion = machine.assertion(bridge, aud=token_url)
        token = machine.ask(client, bridge, assertion).json()["access_token"]
        shown = base64.b64encode(picture()).decode()
        arguments = [node, "ask.mjs", f"{settings.base_url}/fhir", token, "p1", "m1", shown]
        told = subprocess.run(arguments, cwd=HERE, capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 0, told.stderr
    answer: dict[str, Any] = json.loads(told.stdout)
    return answer


def test_the_smart_teams_client_reads_searches_creates_and_is_held_to_its_scopes(asked: dict[str, Any]) -> None:
    assert asked["read"] == "m1"
    assert asked["found"] == ["m1", "overview"]  # page by page; nothing very restricted, nothing of p2
    assert asked["included"] == ["Media", "Patient"]
    assert (asked["created"], asked["shown"]) == ("Patient/p1", "image/jpeg")
    assert (asked["refusedType"], asked["refusedPatient"], asked["elsewhere"]) == (403, 404, 403)
