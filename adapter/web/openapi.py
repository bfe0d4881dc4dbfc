"""/openapi.json (OpenAPI 3.1): every endpoint outside /fhir. Pages are told by the route table and their handlers' own
words, what programs call by `openapi.toml`."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Callable, Iterable
from importlib.metadata import version
from importlib.resources import files
from typing import Any, Final

from adapter.bridge import Bridge
from adapter.capture.metadata import Metadata

Endpoint = tuple[str, str, Callable[..., Any]]  # (method, path, handler)
_TOLD: Final[dict[str, Any]] = tomllib.loads((files("adapter.web") / "openapi.toml").read_text("utf-8"))
_FORM = {"application/x-www-form-urlencoded": {"schema": {"type": "object"}}}
_REFUSED = {"$ref": "#/components/responses/Refused"}
_DONE: Final[dict[str, dict[str, Any]]] = {
    "get": {"200": {"description": "The page", "content": {"text/html": {}, "*/*": {}}}},
    "post": {"303": {"description": "Done"}},
}


def openapi(bridge: Bridge, endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """The document; `endpoints` in the order they are to be listed, then what stands in `openapi.toml` alone."""
    paths: dict[str, dict[str, Any]] = {}
    for method, path, handler in endpoints:
        paths.setdefault(path, {})[method.lower()] = _page(method.lower(), path, handler)
    for path, item in _TOLD["paths"].items():
        for method, told in item.items():
            operation = paths.setdefault(path, {}).get(method) or _named(method, path)
            paths[path][method] = operation | told | {"responses": {"default": _REFUSED} | told["responses"]}
    for path, item in paths.items():
        for operation in item.values():
            operation["parameters"] = [*_in_path(path), *operation.get("parameters", [])]
    components: dict[str, Any] = _TOLD["components"]
    app = {
        "type": "openIdConnect",
        "openIdConnectUrl": f"{bridge.settings.base_url}/.well-known/openid-configuration",
        "description": "an app that a person has launched (docs/smart.md)",
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "DermBridge",
            "version": version("dermbridge"),
            "description": "Endpoints outside /fhir; what /fhir offers is told by /fhir/metadata.",
        },
        "servers": [{"url": bridge.settings.base_url}],
        "security": [{"bearer": []}, {"session": []}],
        "paths": paths,
        "components": components
        | {
            "schemas": {**components["schemas"], "CaptureMetadata": _metadata()},
            "securitySchemes": {**components["securitySchemes"], "app": app},
        },
    }


def _page(method: str, path: str, handler: Callable[..., Any]) -> dict[str, Any]:
    first, _, rest = (inspect.getdoc(handler) or "").partition("\n\n")
    found = _named(method, path) | {
        "summary": " ".join(first.split()) or handler.__name__.replace("_", " "),
        "responses": _DONE[method] | {"default": _REFUSED},
    }
    found |= {"description": " ".join(rest.split())} if rest else {}
    return found | ({"requestBody": {"content": _FORM}} if method == "post" else {})


def _named(method: str, path: str) -> dict[str, Any]:
    return {"operationId": f"{method}_{'_'.join(re.findall(r'[A-Za-z0-9]+', path)) or 'home'}"}


def _in_path(path: str) -> list[dict[str, Any]]:
    names = re.findall(r"\{(\w+)\}", path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _metadata() -> dict[str, Any]:
    return Metadata.model_json_schema(ref_template="#/components/schemas/CaptureMetadata/$defs/{model}")
