"""The facts on disk become exactly the resources on disk, and all of them pass our own gate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mappings.fhir_check import check_resource
from tests.mappings.emitted import build, every_audit_event, every_provenance, every_resource, golden_pairs


@pytest.mark.parametrize("path", golden_pairs(), ids=lambda path: path.stem)
def test_the_facts_become_the_expected_resource(path: Path) -> None:
    assert build(path) == json.loads(path.read_text("utf-8"))["expected"]


def test_everything_we_write_passes_the_gate_and_survives_json() -> None:
    for resource in every_resource():
        check_resource(json.loads(json.dumps(resource)))


def test_the_examples_cover_every_event_and_case() -> None:
    from mappings.audit_event import EVENTS
    from mappings.provenance import CASES

    assert {event["id"].rpartition("-")[0] for event in every_audit_event()} == EVENTS
    assert {one["id"] for one in every_provenance()} == CASES
