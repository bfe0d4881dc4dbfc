"""/auth/token, /auth/revoke, /auth/introspect and the discovery documents: the doors for programs.

Answers are those of OAuth (RFC 6749 section 5), not OperationOutcomes. People meet /auth/authorize: web/authorize.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from adapter import governance
from adapter.access import Actor
from adapter.access.attempts import attempt
from adapter.access.clients import ALGORITHMS, METHODS, Asking, OAuthError
from adapter.access.granting import check_clients
from adapter.access.id_tokens import ALGORITHM
from adapter.access.jwks import PublishedKeys
from adapter.access.token_endpoint import TokenEndpoint
from adapter.bridge import Bridge
from adapter.errors import BadInput, DermBridgeError, Throttled
from adapter.web.bodies import content_type_of, parse_form, read_body

MOST_BYTES = 64 * 1024
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_OPEN = {"Access-Control-Allow-Origin": "*", "Cache-Control": "public, max-age=300"}
_KINDS = ("Media", "Patient", "Encounter", "Consent", "Observation", "Binary", "Provenance")
CAPABILITIES = (
    "launch-ehr launch-standalone client-public client-confidential-symmetric client-confidential-asymmetric "
    "sso-openid-connect context-banner context-ehr-patient context-ehr-encounter context-standalone-patient "
    "permission-offline permission-online permission-patient permission-user permission-v1 permission-v2"
)
Door = Callable[[Asking], dict[str, Any] | None]


def auth_routes(bridge: Bridge, http: httpx.Client) -> list[Route]:
    """Raises Misconfigured when a client is registered for what it may not have."""
    check_clients(bridge.settings.clients)

    def tell(tx: Connection, event: str, who: Actor, detail: str | None) -> None:
        governance.audit(tx, bridge, event, who, patient_id=who.patient_id or None, detail=detail)

    endpoint = TokenEndpoint(bridge, PublishedKeys(http), tell)
    configuration = smart_configuration(endpoint)
    doors: dict[str, Door] = {
        "/auth/token": endpoint.issue,
        "/auth/revoke": endpoint.revoke,
        "/auth/introspect": endpoint.introspect,
    }
    documents = ("/fhir/.well-known/smart-configuration", "/.well-known/openid-configuration")

    async def discovery(_request: Request) -> Response:
        return JSONResponse(configuration, headers=_OPEN)

    return [
        *(Route(path, discovery, methods=["GET"]) for path in documents),
        *(Route(path, _door(bridge, answer), methods=["POST"]) for path, answer in doors.items()),
    ]


def smart_configuration(endpoint: TokenEndpoint) -> dict[str, Any]:
    """https://hl7.org/fhir/smart-app-launch/conformance.html, and as much of OpenID Connect Discovery as it shares."""
    base = endpoint.bridge.settings.base_url
    return {
        "issuer": base,
        "jwks_uri": f"{base}/.well-known/jwks.json",
        "authorization_endpoint": f"{base}/auth/authorize",
        "token_endpoint": endpoint.url,
        "revocation_endpoint": f"{base}/auth/revoke",
        "introspection_endpoint": f"{base}/auth/introspect",
        "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
        "authorization_response_iss_parameter_supported": True,
        "token_endpoint_auth_methods_supported": METHODS,
        "token_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
        "code_challenge_methods_supported": ["S256"],
        "scopes_supported": ["openid", "fhirUser", "launch", "launch/patient", "online_access", "offline_access"]
        + [f"{level}/{kind}.rs" for level in ("patient", "user", "system") for kind in _KINDS]
        + [f"{level}/Media.c" for level in ("patient", "user", "system")]
        + ["system/*.rs"],
        "capabilities": CAPABILITIES.split(),
    }


def _door(bridge: Bridge, answer: Door) -> Any:
    async def handle(request: Request) -> Response:
        address = request.client.host if request.client else ""
        try:
            asking = Asking(await _form(request), request.headers.get("authorization", ""), address)
            told = await run_in_threadpool(_counted, bridge, answer, asking)
        except OAuthError as error:
            return _refusal(error.code, str(error), 401 if error.code == "invalid_client" else 400)
        except DermBridgeError as error:
            code = "temporarily_unavailable" if error.http_status >= Throttled.http_status else "invalid_request"
            retry = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
            return _refusal(code, str(error), error.http_status, retry)
        return Response(headers=_NO_STORE) if told is None else JSONResponse(told, headers=_NO_STORE)

    return handle


def _refusal(code: str, message: str, status: int, more: dict[str, str] | None = None) -> Response:
    headers = _NO_STORE | ({"WWW-Authenticate": "Basic"} if code == "invalid_client" else {}) | (more or {})
    return JSONResponse({"error": code, "error_description": message}, status, headers)


async def _form(request: Request) -> dict[str, str]:
    """Each parameter once, and none without a value (RFC 6749 section 3.2). Raises OAuthError, TooLarge."""
    if content_type_of(request) != "application/x-www-form-urlencoded":
        raise OAuthError("invalid_request", "send application/x-www-form-urlencoded")
    try:
        fields = parse_form("application/x-www-form-urlencoded", await read_body(request, MOST_BYTES)).fields
    except BadInput as error:
        raise OAuthError("invalid_request", str(error)) from None
    if len({name for name, _ in fields}) < len(fields):
        raise OAuthError("invalid_request", "a parameter was given twice")
    return {name: value for name, value in fields if value}


def _counted(bridge: Bridge, answer: Door, asking: Asking) -> dict[str, Any] | None:
    # A whole hospital's browsers may come from one address for one app, and codes and tokens cannot be guessed.
    kind = "app" if asking.form.get("grant_type") in ("authorization_code", "refresh_token") else "token"
    with attempt(bridge, kind, asking.address, asking.claimed):
        try:
            return answer(asking)
        except OAuthError as error:
            if error.code == "invalid_client":
                unknown = Actor("machine", asking.claimed, "unknown", "machine", address=asking.address)
                with bridge.db.transaction() as tx:
                    governance.audit(tx, bridge, "node-authentication-failed", unknown, outcome="4", detail=str(error))
            raise
