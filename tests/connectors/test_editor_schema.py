"""What editors say that read the schema of profiles (taplo, Even Better TOML), by an independent validator."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

import connectors
from connectors.profile import find_shipped_profiles
from connectors.schema import profile_schema

jsonschema_rs = pytest.importorskip("jsonschema_rs")
pytestmark = pytest.mark.real
FOLDER = Path(connectors.__file__).parent / "profiles"
SHIPPED = find_shipped_profiles()
SCHEMA = json.loads(profile_schema())


def underlined(table: dict[str, Any]) -> bool:
    """Whether an editor that knows the schema marks something in this profile."""
    return not jsonschema_rs.validator_for(SCHEMA).is_valid(table)


@pytest.mark.parametrize("name", SHIPPED)
def test_an_editor_finds_nothing_wrong_with_a_shipped_profile(name: str) -> None:
    text = (FOLDER / f"{name}.toml").read_text("utf-8")
    assert text.startswith("#:schema ./schema.json") and not underlined(tomllib.loads(text))


@pytest.mark.parametrize(
    "changes",
    [
        {"binary_uplod": "raw"},
        {"binary_upload": "multipart"},
        {"limits": {"per_minute": "many"}},
        {"signals": [{"code": "1", "means": "perhaps"}]},
        {"routes": ["fhir-observation"]},
    ],
)
def test_an_editor_underlines_a_mistake(changes: dict[str, Any]) -> None:
    table = {"name": "x", "kind": "fhir-r4", "base_url": "https://e.example/fhir"}
    assert not underlined(table) and underlined(table | changes)


def test_an_editor_knows_what_a_site_changes_of_an_ehr() -> None:
    table = {"based_on": "epic", "name": "x", "kind": "ehr", "encounter": {"policy": "optional"}}
    assert not underlined(table | {"routes": {"dicomweb": False, "hl7v2": {"host": "engine.example"}}})
    assert underlined(table | {"routes": {"hl7v3": {"host": "engine.example"}}})
