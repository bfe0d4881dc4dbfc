"""What stands under our canonical base can be read and found at /fhir."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from adapter.access import Actor
from adapter.bridge import Bridge
from adapter.fhir_api import fhir_routes
from adapter.fhir_api.offered import fhir_server
from mappings.canonical_resources import canonical_resources
from mappings.fhir_check import check_resource
from mappings.terms import CANON
from tests.fhir_api.conftest import InProcess
from tests.mappings.emitted import every_resource

ROOT = Path(__file__).parents[2]
TYPES = "CodeSystem|ValueSet|StructureDefinition|SearchParameter|OperationDefinition"
READER = Actor("machine", "reader", "A reader", "machine", frozenset({"system/Media.r"}))


@pytest.fixture
def client(bridge: Bridge) -> Iterator[httpx.Client]:
    app = Starlette(routes=fhir_routes(fhir_server(bridge)))

    async def authenticated(scope: Any, receive: Any, send: Any) -> None:
        scope.setdefault("state", {})["actor"] = READER
        await app(scope, receive, send)

    with httpx.Client(transport=InProcess(authenticated), base_url="http://testserver/fhir") as opened:
        yield opened


def written_canonicals() -> set[str]:
    """Every canonical of ours in what the mappings emit, and in the source of whoever writes FHIR."""
    text = json.dumps([*every_resource()])
    found = set(re.findall(rf"{re.escape(CANON)}/((?:{TYPES})/[A-Za-z0-9-]+)", text))
    for room in ("mappings", "adapter", "connectors"):
        for path in (ROOT / room).rglob("*.py"):
            found |= set(re.findall(rf"\{{CANON\}}/((?:{TYPES})/[A-Za-z0-9-]+)", path.read_text()))
    return found


def test_every_canonical_that_we_write_is_served(client: httpx.Client) -> None:
    written = written_canonicals()
    assert {"CodeSystem/document-category", "StructureDefinition/media-note"} <= written
    for name in sorted(written):
        answer = client.get(name)
        assert answer.status_code == 200, f"{name} is written but not served"
        assert answer.json()["url"] == f"{CANON}/{name}"


def test_a_definition_is_found_by_its_url(client: httpx.Client) -> None:
    found = client.get("CodeSystem", params={"url": f"{CANON}/CodeSystem/photo-use"}).json()
    assert found["total"] == 1 and found["entry"][0]["resource"]["id"] == "photo-use"
    assert client.get("CodeSystem", params={"url": "http://example.org/x"}).json()["total"] == 0
    assert client.get("CodeSystem").json()["total"] > 5
    assert client.get("CodeSystem", params={"colour": "blue"}).status_code == 400
    assert client.get("CodeSystem/none").status_code == 404
    assert client.post("CodeSystem", json={"resourceType": "CodeSystem"}).status_code == 405


def test_the_capability_statement_names_our_search_parameters_by_what_is_served(client: httpx.Client) -> None:
    rest = client.get("metadata").json()["rest"][0]
    media = next(one for one in rest["resource"] if one["type"] == "Media")
    ours = {one["name"]: one["definition"] for one in media["searchParam"] if "definition" in one}
    assert set(ours) == {"lesion", "identity-state", "derivation", "derived-from", "origin"}
    for url in ours.values():
        assert client.get("SearchParameter", params={"url": url}).json()["total"] == 1
    assert "StructureDefinition" in {one["type"] for one in rest["resource"]}


@pytest.mark.parametrize("resource", canonical_resources(), ids=lambda one: f"{one['resourceType']}-{one['id']}")
def test_every_definition_is_valid(resource: Any) -> None:
    check_resource(resource)
