"""Stands in for the HAPI FHIR image: our own FHIR API, open to all; clients create patients and file photos."""

from pathlib import Path

import uvicorn
from sqlalchemy import Connection
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from adapter.access import SYSTEM
from adapter.bridge import open_bridge
from adapter.db.schema import prepare
from adapter.fhir_api import FhirServer, fhir_routes
from adapter.settings import load_settings

EVERYTHING = frozenset({"read", "vread", "search-type", "create", "update"})
TYPES = ("Patient", "Encounter", "Media", "DocumentReference", "Consent")


class Open:
    """Everybody may do everything: this is a test EHR without patients."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope.setdefault("state", {}).update(actor=SYSTEM, session=None)
        await self._app(scope, receive, send)


def no_audit(tx: Connection, accesses: object, actor: object, *, request_id: str) -> None:
    """A stand-in keeps no audit log."""


if __name__ == "__main__":
    bridge = open_bridge(load_settings(environment={}, data_dir=Path("/tmp/ehr")))
    prepare(bridge.db)
    server = FhirServer(
        bridge,
        dict.fromkeys(TYPES, EVERYTHING) | {"Binary": frozenset({"read", "create"})},
        no_audit,
        page_secret=bridge.vault.derive_secret("pages"),
        base_url="http://ehr:8080/fhir",
    )
    app = Starlette(routes=fhir_routes(server))
    app.add_middleware(Open)
    uvicorn.run(app, host="0.0.0.0", port=8080, log_level="warning")
