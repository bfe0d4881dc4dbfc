"""/auth/token, /auth/revoke, /auth/introspect and SMART discovery: the door for machines.

Answers are those of OAuth (RFC 6749 section 5), not OperationOutcomes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from adapter import governance
from adapter.access import Actor
from adapter.access.attempts import attempt
from adapter.access.clients import ALGORITHMS, OAuthError, TokenEndpoint, check_clients
from adapter.access.jwks import PublishedKeys, claims_of
from adapter.bridge import Bridge
from adapter.errors import BadInput, DermBridgeError, Throttled
from adapter.settings import Client
from adapter.web.bodies import content_type_of, parse_form, read_body

MOST_BYTES = 64 * 1024
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_OPEN = {"Access-Control-Allow-Origin": "*", "Cache-Control": "public, max-age=300"}
CAPABILITIES = ["client-confidential-asymmetric", "permission-v1", "permission-v2"]


def auth_routes(bridge: Bridge, http: httpx.Client) -> list[Route]:
    """Raises Misconfigured when a client is registered for what no machine may have."""
    check_clients(bridge.settings.clients)
    endpoint = TokenEndpoint(bridge, PublishedKeys(http))
    configuration = smart_configuration(endpoint)
    doors: dict[str, Callable[[TokenEndpoint, dict[str, str], str], dict[str, Any] | None]] = {
        "/auth/token": _token,
        "/auth/revoke": _revoke,
        "/auth/introspect": _introspect,
    }

    async def discovery(_request: Request) -> Response:
        return JSONResponse(configuration, headers=_OPEN)

    return [
        Route("/fhir/.well-known/smart-configuration", discovery, methods=["GET"]),
        *(Route(path, _door(endpoint, answer), methods=["POST"]) for path, answer in doors.items()),
    ]


def smart_configuration(endpoint: TokenEndpoint) -> dict[str, Any]:
    """https://hl7.org/fhir/smart-app-launch/conformance.html; people are authorized by their EHR, so machines only."""
    base = endpoint.bridge.settings.base_url
    return {
        "token_endpoint": endpoint.url,
        "revocation_endpoint": f"{base}/auth/revoke",
        "introspection_endpoint": f"{base}/auth/introspect",
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
        "code_challenge_methods_supported": ["S256"],
        "scopes_supported": [f"system/{kind}.rs" for kind in ("Media", "Patient", "Encounter", "Consent", "Provenance")]
        + ["system/Media.c", "system/*.rs"],
        "capabilities": CAPABILITIES,
    }


def _door(endpoint: TokenEndpoint, answer: Callable[..., dict[str, Any] | None]) -> Any:
    async def handle(request: Request) -> Response:
        address = request.client.host if request.client else ""
        try:
            form = await _form(request)
            told = await run_in_threadpool(_counted, endpoint, answer, form, address)
        except OAuthError as error:
            return _refusal(error.code, str(error), 401 if error.code == "invalid_client" else 400)
        except Throttled as error:
            retry = {"Retry-After": str(error.retry_after or 60)}
            return _refusal("temporarily_unavailable", str(error), error.http_status, retry)
        except DermBridgeError as error:
            code = "temporarily_unavailable" if error.http_status >= 500 else "invalid_request"
            return _refusal(code, str(error), error.http_status)
        return Response(headers=_NO_STORE) if told is None else JSONResponse(told, headers=_NO_STORE)

    return handle


def _refusal(code: str, message: str, status: int, more: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": code, "error_description": message}, status, _NO_STORE | (more or {}))


async def _form(request: Request) -> dict[str, str]:
    """Each parameter once (RFC 6749 section 3.2). Raises OAuthError, TooLarge."""
    if content_type_of(request) != "application/x-www-form-urlencoded":
        raise OAuthError("invalid_request", "send application/x-www-form-urlencoded")
    try:
        fields = parse_form("application/x-www-form-urlencoded", await read_body(request, MOST_BYTES)).fields
    except BadInput as error:
        raise OAuthError("invalid_request", str(error)) from None
    if len({name for name, _ in fields}) < len(fields):
        raise OAuthError("invalid_request", "a parameter was given twice")
    return dict(fields)


def _counted(
    endpoint: TokenEndpoint,
    answer: Callable[[TokenEndpoint, dict[str, str], str], dict[str, Any] | None],
    form: dict[str, str],
    address: str,
) -> dict[str, Any] | None:
    claimed = str(claims_of(form.get("client_assertion", "")).get("iss"))[:200]
    with attempt(endpoint.bridge, "token", address, claimed):
        try:
            return answer(endpoint, form, address)
        except OAuthError as error:
            if error.code == "invalid_client":
                _tell(endpoint.bridge, "node-authentication-failed", "unknown", claimed, address, str(error))
            raise


def _token(endpoint: TokenEndpoint, form: dict[str, str], address: str) -> dict[str, Any]:
    client, told = endpoint.issue(form)
    _tell(endpoint.bridge, "login", client.name, client.client_id, address)
    return told


def _revoke(endpoint: TokenEndpoint, form: dict[str, str], address: str) -> None:
    client: Client = endpoint.revoke(form)
    _tell(endpoint.bridge, "logout", client.name, client.client_id, address)


def _introspect(endpoint: TokenEndpoint, form: dict[str, str], _address: str) -> dict[str, Any]:
    return endpoint.introspect(form)


def _tell(bridge: Bridge, event: str, name: str, client_id: str, address: str, problem: str | None = None) -> None:
    actor = Actor("machine", client_id, name, "machine", address=address)
    with bridge.db.transaction() as tx:
        governance.audit(tx, bridge, event, actor, outcome="4" if problem else "0", detail=problem)
