"""The CapabilityStatement, made from the tables that the server itself obeys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapter.fhir_api.definitions import capability
from adapter.records.search_filters import COMMON_PARAMETERS
from adapter.records.search_parameters import search_parameters
from adapter.records.search_query import REVINCLUDES
from mappings.canonical_resources import canonical_resources
from mappings.fhir_time import fhir_instant

if TYPE_CHECKING:
    from adapter.fhir_api.server import FhirServer

_CODES = ("read", "vread", "history-instance", "search-type", "create", "update", "delete")
_LOCAL = {
    (base, one["code"]): one["url"]
    for one in canonical_resources()
    if one["resourceType"] == "SearchParameter"
    for base in one["base"]
}
_SMART = {
    "system": "http://terminology.hl7.org/CodeSystem/restful-security-service",
    "code": "SMART-on-FHIR",
}


def capability_statement(server: FhirServer) -> dict[str, Any]:
    """R4 CapabilityStatement of kind `instance`."""
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": fhir_instant(server.bridge.now()),
        "kind": "instance",
        "software": {"name": "DermBridge"} | ({"version": server.version} if server.version else {}),
        "implementation": {"description": server.description, "url": server.base_url},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "rest": [
            {
                "mode": "server",
                "security": {
                    "cors": server.cors,
                    "service": [{"coding": [_SMART]}],
                    "description": "OAuth 2.0 bearer tokens with SMART v2 scopes; an EHR session sees its patient only",
                },
                "resource": [
                    *(_resource(server, name) for name in sorted(server.interactions)),
                    *(capability(name) for name in sorted(server.definitions)),
                ],
                "interaction": [{"code": "transaction"}, {"code": "batch"}],
                **_operations(server, None),
            }
        ],
    }


def _resource(server: FhirServer, resource_type: str) -> dict[str, Any]:
    allowed = server.interactions[resource_type]
    by_identifier = "update-by-identifier" in allowed
    told = allowed | {"update"} if by_identifier else allowed
    content: dict[str, Any] = {
        "type": resource_type,
        "interaction": [{"code": code} for code in _CODES if code in told],
        "versioning": "versioned-update" if "update" in allowed else "versioned",
        "readHistory": "vread" in allowed,
        "updateCreate": "update-create" in allowed,
        "conditionalCreate": "create" in allowed and "search-type" in allowed,
        "conditionalRead": "full-support",
        "conditionalUpdate": by_identifier,
        "conditionalDelete": "not-supported",
        **_operations(server, resource_type),
    }
    if "search-type" in allowed:
        references = [p.name for p in search_parameters(resource_type) if p.kind == "reference"]
        content["searchInclude"] = [f"{resource_type}:{name}" for name in references]
        content["searchRevInclude"] = [":".join(one) for one in REVINCLUDES if one[0] in server.interactions]
        content["searchParam"] = _search_params(resource_type)
    return {name: value for name, value in content.items() if value != []}


def _search_params(resource_type: str) -> list[dict[str, str]]:
    common = [{"name": "_id", "type": "token"}, {"name": "_lastUpdated", "type": "date"}]
    assert [one["name"] for one in common] == [p.name for p in COMMON_PARAMETERS]
    return common + [
        {"name": p.name, "type": p.kind} | ({"definition": url} if (url := _LOCAL.get((resource_type, p.name))) else {})
        for p in search_parameters(resource_type)
    ]


def _operations(server: FhirServer, resource_type: str | None) -> dict[str, Any]:
    offered = [
        {"name": name.removeprefix("$"), "definition": operation.definition}
        for (owner, name), operation in sorted(server.operations.items(), key=lambda item: item[0][1])
        if owner == resource_type
    ]
    return {"operation": offered} if offered else {}
