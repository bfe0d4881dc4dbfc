"""/openapi.json (OpenAPI 3.1): every endpoint outside /fhir, made from the route table and the handlers' own words."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any

from adapter.bridge import Bridge
from adapter.capture.metadata import Metadata

Endpoint = tuple[str, str, Callable[..., Any]]  # (method, path, handler)
_FORM = {"application/x-www-form-urlencoded": {"schema": {"type": "object"}}}
_REFUSED = {"$ref": "#/components/responses/Refused"}
_BYTES = {"type": "string", "contentMediaType": "image/jpeg"}
_MACHINE: tuple[dict[str, list[str]], ...] = ({"bearer": []}, {"session": []})
_CAPTURE = {
    "security": [*_MACHINE, {"app": []}],
    "parameters": [
        {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 100}},
        {"name": "Repr-Digest", "in": "header", "schema": {"type": "string"}, "description": "RFC 9530, sha-256"},
        {
            "name": "DermBridge-Metadata",
            "in": "header",
            "description": "base64url of the JSON of CaptureMetadata; not with multipart",
            "schema": {"type": "string"},
        },
    ],
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": _BYTES},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": _BYTES, "metadata": {"$ref": "#/components/schemas/CaptureMetadata"}},
                }
            },
        },
    },
    "responses": {
        "200": {"description": "It was stored before"},
        "201": {"description": "Stored, and durable"},
        "202": {"description": "Stored and held; `reason` says why"},
        "default": _REFUSED,
    },
}
_SPECIAL: dict[tuple[str, str], dict[str, Any]] = {("post", "/captures"): _CAPTURE}


def openapi(bridge: Bridge, endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """The document; `endpoints` in the order they are to be listed."""
    paths: dict[str, dict[str, Any]] = {}
    for method, path, handler in endpoints:
        paths.setdefault(path, {})[method.lower()] = _operation(method.lower(), path, handler)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "DermBridge",
            "version": version("dermbridge"),
            "description": "Endpoints outside /fhir; what /fhir offers is told by /fhir/metadata.",
        },
        "servers": [{"url": bridge.settings.base_url}],
        "security": list(_MACHINE),
        "paths": paths,
        "components": {
            "schemas": {"CaptureMetadata": _schema()},
            "responses": {
                "Refused": {
                    "description": "An OperationOutcome; for browsers a page with the same sentence",
                    "content": {"application/fhir+json": {"schema": {"type": "object"}}},
                }
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "dermbridge token issue, or /auth/token"},
                "app": {
                    "type": "openIdConnect",
                    "openIdConnectUrl": f"{bridge.settings.base_url}/.well-known/openid-configuration",
                    "description": "an app that a person has launched (docs/smart.md)",
                },
                "session": {"type": "apiKey", "in": "cookie", "name": "dermbridge-session"},
            },
        },
    }


def _operation(method: str, path: str, handler: Callable[..., Any]) -> dict[str, Any]:
    said = inspect.getdoc(handler) or ""
    first, _, rest = said.partition("\n\n")
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]
    found: dict[str, Any] = {
        "operationId": f"{method}_{'_'.join(re.findall(r'[A-Za-z0-9]+', path)) or 'home'}",
        "summary": " ".join(first.split()) or handler.__name__.replace("_", " "),
        "parameters": parameters,
        "responses": {"200" if method == "get" else "303": {"description": "Done"}, "default": _REFUSED},
    }
    if rest:
        found["description"] = " ".join(rest.split())
    if method == "post":
        found["requestBody"] = {"content": _FORM}
    special = _SPECIAL.get((method, path), {})
    return found | special | {"parameters": [*parameters, *special.get("parameters", [])]}


def _schema() -> dict[str, Any]:
    schema = Metadata.model_json_schema(ref_template="#/components/schemas/CaptureMetadata/$defs/{model}")
    return dict(schema)
