"""Golden messages -> Patient and Encounter, on disk and valid."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fhir.resources.R4B import get_fhir_model_class

from tests.mappings.hl7v2.golden import DATA, MESSAGES, golden_path, resources_of


@pytest.mark.parametrize("message", MESSAGES, ids=lambda path: path.stem)
def test_the_resources_are_the_golden_ones(message: Path) -> None:
    made = resources_of(message)
    golden = {name: golden_path(message, name) for name in ("patient", "encounter")}
    assert made == {name: json.loads(path.read_text("utf-8")) for name, path in golden.items() if path.exists()}


@pytest.mark.parametrize("path", sorted((DATA / "golden").glob("*.json")), ids=lambda path: path.name)
def test_every_golden_resource_is_valid_r4(path: Path) -> None:
    resource = json.loads(path.read_text("utf-8"))
    get_fhir_model_class(resource["resourceType"]).model_validate_json(path.read_text("utf-8"))


def test_no_quotes_of_a_null_are_ever_stored() -> None:
    assert all('\\"\\"' not in path.read_text("utf-8") for path in (DATA / "golden").glob("*.json"))
