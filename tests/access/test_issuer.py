"""Who may vouch for people of an EHR: its stated issuer, the registered one, and the same where there are both."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from adapter.access.outbound import outbound_client
from adapter.access.smart import begin_launch
from adapter.bridge import Bridge
from adapter.errors import Forbidden
from adapter.settings import Ehr

SMART, OPENID = "/fhir/.well-known/smart-configuration", "/issuer/.well-known/openid-configuration"


@pytest.fixture
def published() -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """(origin, path -> JSON document) of an EHR that publishes these."""
    documents: dict[str, dict[str, Any]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path in documents else 404)
            self.end_headers()
            self.wfile.write(json.dumps(documents.get(self.path, {})).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", documents
    server.shutdown()
    server.server_close()


@pytest.fixture
def begun(bridge: Bridge, published: tuple[str, dict[str, dict[str, Any]]]) -> Callable[..., str]:
    """Where a launch sends the browser; `stated` and `openid` complete the EHR's two documents."""
    origin, documents = published

    def begin(stated: dict[str, Any], openid: dict[str, Any] | None = None, **registered: Any) -> str:
        documents[SMART] = {
            "authorization_endpoint": f"{origin}/authorize",
            "token_endpoint": f"{origin}/token",
            "code_challenge_methods_supported": ["S256"],
        } | stated
        documents[OPENID] = {"jwks_uri": f"{origin}/jwks"} | (openid or {})
        ehr = {"name": "North", "iss": f"{origin}/fhir", "client_id": "x"} | registered
        settings = bridge.settings.model_copy(update={"ehrs": (Ehr.model_validate(ehr),)})
        with outbound_client(settings) as http:
            iss = f"{origin}/fhir"
            return begin_launch(replace(bridge, settings=settings), http, iss=iss, launch_token="x").url

    return begin


def test_the_issuer_may_be_stated_or_registered_or_both(begun: Callable[..., str], published: Any) -> None:
    origin, _ = published
    keys = {"jwks_uri": f"{origin}/jwks"}
    assert begun(keys | {"issuer": f"{origin}/issuer"}).startswith(f"{origin}/authorize?")
    assert begun(keys, issuer="urn:north")
    assert begun(keys | {"issuer": "urn:north"}, issuer="urn:north")


def test_an_ehr_whose_issuer_is_nowhere_said_is_not_launched_from(begun: Callable[..., str], published: Any) -> None:
    with pytest.raises(Forbidden, match=r"name the iss of its id_tokens as issuer in \[\[ehrs\]\]"):
        begun({"jwks_uri": f"{published[0]}/jwks"})


def test_another_issuer_than_the_registered_one_is_refused(begun: Callable[..., str], published: Any) -> None:
    with pytest.raises(Forbidden, match="another issuer than the one in"):
        begun({"issuer": f"{published[0]}/issuer"}, issuer="urn:north")


def test_keys_are_taken_from_the_issuers_own_document_alone(begun: Callable[..., str], published: Any) -> None:
    issuer = f"{published[0]}/issuer"
    assert begun({"issuer": issuer}, {"issuer": issuer})
    with pytest.raises(Forbidden, match="another issuer's"):
        begun({"issuer": issuer}, {"issuer": f"{issuer}/"})
