"""The resources under our own canonical base, built from `tables/code_systems.toml` and served at `/fhir`:
a CodeSystem and a ValueSet per local system, a StructureDefinition per extension, our SearchParameters and
OperationDefinitions."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any, Final

from mappings.terms import CANON, Json

_TABLE: Final[dict[str, dict[str, Any]]] = tomllib.loads(
    (files("mappings") / "tables" / "code_systems.toml").read_text("utf-8")
)
VERSION: Final = "1.0.0"
DATE: Final = "2026-11-01"


def codes_of(system: str) -> dict[str, str]:
    """Code -> our wording, of one local system named as in its URL (`photo-view`); KeyError if there is none."""
    return dict(_TABLE["systems"][system]["codes"])


def canonical_resources() -> list[Json]:
    """All local definitions as R4 resources, each with `id`, `url`, `version`, ready to be served."""
    return [
        *(_code_system(key, row) for key, row in _TABLE["systems"].items()),
        *(_value_set(key, row) for key, row in _TABLE["systems"].items()),
        *(_extension_definition(key, row) for key, row in _TABLE["extensions"].items()),
        *(_search_parameter(key, row) for key, row in _TABLE["search"].items()),
        *(_operation_definition(key, row) for key, row in _TABLE["operations"].items()),
    ]


def _canonical(resource_type: str, key: str, name: str) -> Json:
    return {
        "resourceType": resource_type,
        "id": key,
        "url": f"{CANON}/{resource_type}/{key}",
        "version": VERSION,
        "name": name,
        "status": "active",
        "experimental": False,
        "date": DATE,
        "publisher": "DermBridge",
    }


def _name(key: str) -> str:
    return "".join(part.capitalize() for part in key.split("-"))


def _code_system(key: str, row: dict[str, Any]) -> Json:
    concepts = [{"code": code, "display": wording} for code, wording in row["codes"].items()]
    return _canonical("CodeSystem", key, _name(key)) | {
        "title": row["title"],
        "description": row["description"],
        "caseSensitive": True,
        "valueSet": f"{CANON}/ValueSet/{key}",
        "content": "complete",
        "count": len(concepts),
        "concept": concepts,
    }


def _value_set(key: str, row: dict[str, Any]) -> Json:
    return _canonical("ValueSet", key, f"{_name(key)}Codes") | {
        "title": row["title"],
        "description": row["description"],
        "compose": {"include": [{"system": f"{CANON}/CodeSystem/{key}"}]},
    }


def _extension_definition(key: str, row: dict[str, Any]) -> Json:
    url = f"{CANON}/StructureDefinition/{key}"
    return _canonical("StructureDefinition", key, _name(key)) | {
        "title": row["title"],
        "description": row["description"],
        "fhirVersion": "4.0.1",
        "kind": "complex-type",
        "abstract": False,
        "context": [{"type": "element", "expression": path} for path in row["context"]],
        "type": "Extension",
        "baseDefinition": "http://hl7.org/fhir/StructureDefinition/Extension",
        "derivation": "constraint",
        "differential": {
            "element": [
                {"id": "Extension", "path": "Extension", "short": row["title"], "definition": row["description"]},
                *(_parts(row["parts"]) if "parts" in row else [_element("Extension.extension", max="0")]),
                _element("Extension.url", fixedUri=url),
                _element("Extension.value[x]", max="0")
                if "parts" in row
                else _element("Extension.value[x]", min=1, type=[{"code": row["value"]}]),
            ]
        },
    }


def _element(path: str, slice_name: str = "", **constraint: Any) -> Json:
    return {"id": path.replace("extension", f"extension:{slice_name}", 1) if slice_name else path} | (
        {"path": path}
        | ({"sliceName": slice_name} if slice_name and path == "Extension.extension" else {})
        | constraint
    )


def _parts(parts: dict[str, str]) -> list[Json]:
    """A slice of `Extension.extension` for each part, by its url."""
    slicing = {"discriminator": [{"type": "value", "path": "url"}], "rules": "closed"}
    found = [_element("Extension.extension", slicing=slicing)]
    for name, kind in parts.items():
        found += [
            _element("Extension.extension", name, max="1"),
            _element("Extension.extension.extension", name, max="0"),
            _element("Extension.extension.url", name, fixedUri=name),
            _element("Extension.extension.value[x]", name, min=1, type=[{"code": kind}]),
        ]
    return found


def _search_parameter(key: str, row: dict[str, Any]) -> Json:
    return _canonical("SearchParameter", key, key) | {
        "description": row["description"],
        "code": key,
        "base": row["base"],
        "type": row["type"],
        "expression": row["expression"],
        **({"target": row["target"]} if "target" in row else {}),
    }


def _operation_definition(key: str, row: dict[str, Any]) -> Json:
    parameters = [_parameter(name, use, most, kind) for use in ("in", "out") for name, (most, kind) in row[use].items()]
    return _canonical("OperationDefinition", key, _name(key)) | {
        "title": row["title"],
        "kind": "operation",
        "description": row["description"],
        "affectsState": row["affectsState"],
        "code": row["code"],
        "resource": row["resource"],
        "system": False,
        "type": True,
        "instance": False,
        "parameter": parameters,
    }


def _parameter(name: str, use: str, most: str, kind: str | dict[str, str]) -> Json:
    """`most` is a cardinality such as `2..8`, without its first half `0..`; `kind` a FHIR type, or the types of the
    parts by their names."""
    least, _, most = most.rpartition("..")
    parameter = {"name": name, "use": use, "min": int(least or 0), "max": most}
    if isinstance(kind, str):
        return parameter | {"type": kind}
    return parameter | {"part": [_parameter(part, use, "1", type_) for part, type_ in kind.items()]}
