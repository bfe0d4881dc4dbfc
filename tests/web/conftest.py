"""The whole application with two patients, a clinician's session confined to the first, and a photo of each."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from PIL import Image

from adapter.access import Actor
from adapter.access.policy import grants_of
from adapter.access.sessions import COOKIE, start_session
from adapter.app import build_app
from adapter.bridge import Bridge
from adapter.records import create_all
from tests.fhir_api.conftest import InProcess

SYSTEM = "urn:oid:2.16.840.1.113883.19.5"


def patient(patient_id: str, number: str, family: str) -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "id": patient_id,
        "identifier": [{"system": SYSTEM, "value": number}],
        "name": [{"family": family, "given": ["Åsa"]}],
        "birthDate": "1961-03-12",
        "gender": "female",
    }


def visit(visit_id: str, patient_id: str) -> dict[str, Any]:
    return {
        "resourceType": "Encounter",
        "id": visit_id,
        "status": "in-progress",
        "class": {"code": "AMB"},
        "subject": {"reference": f"Patient/{patient_id}"},
        "period": {"start": "2026-11-23T09:00:00Z"},
    }


def picture(width: int = 90) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, 48), (90, 80, 70)).save(out, "JPEG")
    return out.getvalue()


class Browser:
    """One signed-in user: `get` and `post` carry the cookie, `post` the CSRF token unless told otherwise."""

    def __init__(self, client: httpx.Client, csrf: str) -> None:
        self.client, self.csrf = client, csrf

    def get(self, path: str, **more: Any) -> Any:
        return self.client.get(path, headers={"Accept": "text/html"} | more.pop("headers", {}), **more)

    def post(self, path: str, fields: dict[str, Any] | None = None, **more: Any) -> Any:
        return self.client.post(path, data={"csrf_token": self.csrf} | (fields or {}), **more)

    def capture(self, content: bytes, **headers: str) -> Any:
        sent = {"Content-Type": "image/jpeg", "X-CSRF-Token": self.csrf} | headers
        return self.client.post("/captures", content=content, headers=sent)


@pytest.fixture
def app(bridge: Bridge) -> Any:
    with bridge.db.transaction() as tx:
        known = [patient("p1", "1001", "Lindqvist"), patient("p2", "1002", "Okafor"), visit("e1", "p1")]
        create_all(tx, [*known, visit("e2", "p2")], at=bridge.now())
    return build_app(bridge)


def sign_in(bridge: Bridge, app: Any, role: str, patient_id: str | None) -> Browser:
    scopes, rights = grants_of(role)
    actor = Actor("person", f"Practitioner/{role}", "Dr. R. Okafor", role, scopes, rights, patient_id=patient_id)
    with bridge.db.transaction() as tx:
        cookie, session = start_session(tx, actor, at=bridge.now(), lifetime=timedelta(hours=1))
    return Browser(
        httpx.Client(transport=InProcess(app), base_url="http://testserver", cookies={COOKIE: cookie}), session.csrf
    )


@pytest.fixture
def clinician(bridge: Bridge, app: Any) -> Iterator[Browser]:
    """In the chart of p1."""
    yield sign_in(bridge, app, "clinician", "p1")


@pytest.fixture
def colleague(bridge: Bridge, app: Any) -> Iterator[Browser]:
    """In the chart of p2."""
    yield sign_in(bridge, app, "clinician", "p2")


@pytest.fixture
def administrator(bridge: Bridge, app: Any) -> Iterator[Browser]:
    yield sign_in(bridge, app, "administrator", None)
