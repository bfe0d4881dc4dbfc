"""The FHIR server over HTTP, with an actor chosen per request and every audit call kept to be looked at."""

from __future__ import annotations

import atexit
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

import httpx
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from sqlalchemy import Connection
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from adapter.access import Actor
from adapter.bridge import Bridge
from adapter.fhir_api import Access, FhirServer, fhir_routes

BASE = "http://testserver/fhir"
ALL = frozenset({"read", "vread", "history-instance", "search-type", "create", "update", "delete"})
READ = frozenset({"read", "vread", "history-instance", "search-type"})
INTERACTIONS = {
    "Media": ALL - {"delete"},
    "Consent": ALL,
    "BodyStructure": ALL,
    "Patient": READ,
    "Encounter": READ,
    "Provenance": READ,
    "Practitioner": READ,
    "DocumentReference": ALL | {"update-create"},
    "Binary": frozenset({"read", "create"}),
}
ANYBODY = Actor("machine", "client", "A machine", "machine", frozenset({"system/*.cruds"}))
OF_P1 = Actor("person", "Practitioner/d1", "A doctor", "clinician", frozenset({"user/*.cruds"}), patient_id="p1")
READER = Actor("machine", "reader", "A reader", "machine", frozenset({"system/Media.r"}))
SEARCHER = Actor("machine", "searcher", "A searcher", "machine", frozenset({"system/Media.rs"}))
ACTORS: dict[str, Actor | None] = {
    "anybody": ANYBODY,
    "of-p1": OF_P1,
    "reader": READER,
    "searcher": SEARCHER,
    "nobody": None,
}


class AuditTrail(list[dict[str, Any]]):
    def __call__(self, tx: Connection | None, accesses: Sequence[Access], actor: Actor, *, request_id: str) -> None:
        assert tx is None or tx.in_transaction()
        self.extend({**asdict(one), "actor": actor.id, "request_id": request_id} for one in accesses)


@pytest.fixture
def trail() -> AuditTrail:
    return AuditTrail()


@pytest.fixture
def server(bridge: Bridge, trail: AuditTrail) -> FhirServer:
    return FhirServer(bridge, INTERACTIONS, trail, page_secret=b"a secret of the test", base_url=BASE)


@cache
def _beside() -> BlockingPortal:
    """An event loop in a thread, for as long as the tests run: one for each request costs more than the request."""
    portal = start_blocking_portal()
    atexit.register(portal.__exit__, None, None, None)
    return portal.__enter__()


class InProcess(httpx.BaseTransport):
    """Serves requests in one event loop beside the tests, without a socket."""

    def __init__(self, app: ASGIApp) -> None:
        self._inner = httpx.ASGITransport(app)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return _beside().call(self._serve, request)

    async def _serve(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        return httpx.Response(response.status_code, headers=response.headers, content=await response.aread())


@pytest.fixture
def client(server: FhirServer) -> Iterator[httpx.Client]:
    app = Starlette(routes=fhir_routes(server))

    async def authenticated(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope.setdefault("state", {})["actor"] = ACTORS[Headers(scope=scope).get("as", "anybody")]
        await app(scope, receive, send)

    accept = {"Accept": "application/fhir+json"}
    with httpx.Client(transport=InProcess(authenticated), base_url="http://testserver", headers=accept) as opened:
        yield opened
