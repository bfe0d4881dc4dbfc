"""The JSON Schema of profiles, for editors (`#:schema ./schema.json` at the top of a .toml file).

Nothing is required in it, since `based_on` may have said it already; `connectors check` says what is missing.
"""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

from pydantic import TypeAdapter

from connectors import kinds, knobs, rest_knobs
from connectors.kinds import AnyRoute, EhrProfile
from connectors.knobs import Table
from connectors.meanings import meanings


def profile_schema() -> str:
    """The schema as JSON text, the same each time (JSON Schema 2020-12)."""
    adapter: TypeAdapter[Any] = TypeAdapter(AnyRoute | EhrProfile)
    schema = _relaxed(adapter.json_schema())
    models = {each.__name__: each for module in (kinds, knobs, rest_knobs) for each in _tables(module)}
    for name, table in schema["$defs"].items():
        for key, said in meanings(models[name]).items():
            table["properties"][key]["description"] = said
        if name.endswith("Profile"):
            table["properties"]["based_on"] = {
                "type": "string",
                "description": "A shipped profile, or a .toml file, that this one starts from.",
            }
    _widen(schema["$defs"])
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "DermBridge connector profile"}
    return json.dumps(head | schema, indent=1, ensure_ascii=False) + "\n"


def _widen(tables: dict[str, Any]) -> None:
    """An EHR's own table may say what its routes share, and a table of routes changes those it is based on by kind."""
    names = [name for name in tables if name.endswith("Profile") and name != "EhrProfile"]
    own = tables["EhrProfile"]["properties"]
    for name in names:
        shared = {key: value for key, value in tables[name]["properties"].items() if key not in own}
        own |= shared
    by_kind = {tables[name]["properties"]["kind"]["const"]: _or_false(name) for name in names}
    changed = {"type": "object", "properties": by_kind, "additionalProperties": False}
    own["routes"] = {"anyOf": [own["routes"], changed], "description": own["routes"].get("description", "")}


def _or_false(name: str) -> dict[str, Any]:
    return {"anyOf": [{"$ref": f"#/$defs/{name}"}, {"const": False, "description": "Leave this route out."}]}


def _tables(module: ModuleType) -> list[type[Table]]:
    return [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Table)]


def _relaxed(node: Any) -> Any:
    if isinstance(node, dict):
        kept = {name: _relaxed(value) for name, value in node.items() if name not in {"required", "discriminator"}}
        return {"anyOf" if name == "oneOf" else name: value for name, value in kept.items()}
    return [_relaxed(each) for each in node] if isinstance(node, list) else node
