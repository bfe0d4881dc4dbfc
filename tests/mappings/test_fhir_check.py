"""The gate for FHIR resources: one fault at a time, put into a good resource, must be found at its place."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappings.error_to_outcome import error_to_outcome
from mappings.fhir_check import InvalidResource, check_resource
from mappings.fhir_primitives import PRIMITIVES, find_narrative_fault, is_mime_type
from tests.mappings.emitted import GOLDEN, every_resource

Json = dict[str, Any]
DIV = '<div xmlns="http://www.w3.org/1999/xhtml">{}</div>'


def golden(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))["expected"]


def media() -> Json:
    found: Json = golden("media-bound-cheek")
    return found


def faults(resource: Json) -> list[tuple[str, str]]:
    try:
        check_resource(resource)
    except InvalidResource as error:
        return [(issue.code, issue.expression) for issue in error.issues]
    return []


def put(path: str, value: Any) -> Callable[[Json], None]:
    """Sets a dotted path; numbers are list positions."""

    def change(resource: Json) -> None:
        *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
        node: Any = resource
        for part in parents:
            node = node[part]
        node[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "code", "expression"),
    [
        ("status", "bogus", "code-invalid", "Media.status"),
        ("status", None, "structure", "Media.status"),
        ("id", "under_score", "value", "Media.id"),
        ("id", "x" * 65, "value", "Media.id"),
        ("id", "", "structure", "Media.id"),
        ("subject", {"reference": "Encounter/e1"}, "value", "Media.subject"),
        ("subject", {"reference": "https://ehr.example/fhir/Observation/1"}, "value", "Media.subject"),
        ("subject", {"reference": "just text"}, "value", "Media.subject"),
        ("subject", {"type": "Patient"}, "invariant", "Media.subject"),
        ("subject", {"reference": "#gone"}, "not-found", "Media"),
        ("operator", {}, "structure", "Media.operator"),
        ("height", "12", "value", "Media.height"),
        ("height", 0, "value", "Media.height"),
        ("height", True, "value", "Media.height"),
        ("width", 12.0, "value", "Media.width"),
        ("width", 2**31, "value", "Media.width"),
        ("content.size", -1, "value", "Media.content.size"),
        ("content.hash", "not base64!", "value", "Media.content.hash"),
        ("content.hash", "YWJj=", "value", "Media.content.hash"),
        ("content.contentType", "image jpeg", "code-invalid", "Media.content.contentType"),
        ("content.contentType", "image/jpeg\r\nX-Evil: 1", "code-invalid", "Media.content.contentType"),
        ("content.url", "Binary/ b1", "value", "Media.content.url"),
        ("issued", "2026-11-20", "value", "Media.issued"),
        ("createdDateTime", "2026-11-20T10:00", "value", "Media.createdDateTime"),
        ("createdDateTime", "2026-13-01", "value", "Media.createdDateTime"),
        ("createdPeriod", {"start": "2026"}, "structure", "Media"),
        ("note", [], "structure", "Media.note"),
        ("note.0.text", "", "structure", "Media.note.text"),
        ("note.0.text", " \n ", "value", "Media.note.text"),
        ("note.0.text", "bell\u0007", "value", "Media.note.text"),
        ("bodySite.coding.0", {}, "structure", "Media.bodySite.coding"),
        ("bodySite.coding.0.code", " 36141000", "value", "Media.bodySite.coding.code"),
        ("bodySite.extension.0", {"url": "urn:x"}, "invariant", "Media.bodySite.extension"),
        ("subject", '{"reference": "Patient/p1"}', "structure", "Media.subject"),
        ("_status", "0", "structure", "Media.status"),
        ("_status", {"valueCode": "x"}, "structure", "Media.status"),
        ("_foo", {"id": "x"}, "structure", "Media._foo"),
        ("content.resourceType", "Attachment", "structure", "Media.content.resourceType"),
        ("view", [{"text": "list for one"}], "structure", "Media.view"),
        ("identifier", {"value": "one for list"}, "structure", "Media.identifier"),
        ("fhir_comments", ["x"], "structure", "Media"),
        ("deviceNmae", "x", "structure", "Media.deviceNmae"),
        ("text", {"status": "odd", "div": DIV.format("x")}, "code-invalid", "Media.text.status"),
        ("text", {"status": "generated", "div": DIV.format("<script>x</script>")}, "invariant", "Media.text"),
        ("contained", [{"resourceType": "Patient", "id": "p"}], "invariant", "Media.contained"),
        ("contained", [{"resourceType": "Basic", "id": "p"}], "not-supported", "Media.contained"),
        ("meta.versionId", "a b", "value", "Media.meta.versionId"),
        ("meta.lastUpdated", "yesterday", "value", "Media.meta.lastUpdated"),
    ],
)  # fmt: skip
def test_a_fault_in_a_media_is_found_at_its_place(path: str, value: Any, code: str, expression: str) -> None:
    resource = media()
    put(path, value)(resource)
    assert (code, expression) in faults(resource)


@pytest.mark.parametrize(
    ("name", "path", "value", "code", "expression"),
    [
        ("consent-patient-signs", "status", "signed", "code-invalid", "Consent.status"),
        ("consent-patient-signs", "provision.type", "allow", "code-invalid", "Consent.provision.type"),
        ("consent-patient-signs", "provision.period", {"start": "2027", "end": "2026"}, "invariant",
         "Consent.provision.period"),
        ("consent-patient-signs", "provision.provision", [{"type": "allow"}], "code-invalid",
         "Consent.provision.provision.type"),
        ("consent-patient-signs", "sourceAttachment", {"data": "QUJD"}, "invariant", "Consent.sourceAttachment"),
        ("consent-patient-signs", "patient", {"reference": "Group/g1"}, "value", "Consent.patient"),
        ("audit-read", "action", "X", "code-invalid", "AuditEvent.action"),
        ("audit-read", "outcome", "1", "code-invalid", "AuditEvent.outcome"),
        ("audit-read", "agent.0.requestor", "true", "value", "AuditEvent.agent.requestor"),
        ("audit-query", "entity.0.name", "n", "invariant", "AuditEvent.entity"),
        ("audit-query", "entity.0.query", "a", "value", "AuditEvent.entity.query"),
        ("provenance-merge", "entity.0.role", "origin", "code-invalid", "Provenance.entity.role"),
        ("outcome-two-issues", "issue.0.severity", "bad", "code-invalid", "OperationOutcome.issue.severity"),
        ("outcome-two-issues", "issue.0.code", "bad", "code-invalid", "OperationOutcome.issue.code"),
    ],
)  # fmt: skip
def test_a_fault_in_other_types_is_found_at_its_place(
    name: str, path: str, value: Any, code: str, expression: str
) -> None:
    built = golden(name)
    resource = built[0] if isinstance(built, list) else built
    put(path, value)(resource)
    assert (code, expression) in faults(resource)


@pytest.mark.parametrize(("path", "missing"), [("content", "Media.content"), ("status", "Media.status")])
def test_a_missing_required_element_is_named(path: str, missing: str) -> None:
    resource = media()
    del resource[path]
    assert ("required", missing) in faults(resource)


def test_a_consent_without_a_policy_breaks_ppc_1() -> None:
    consent = golden("consent-patient-signs")[0]
    del consent["policy"]
    assert faults(consent) == [("invariant", "Consent")]
    check_resource(consent | {"policyRule": {"text": "Hospital rules"}})


@pytest.mark.parametrize("resource", [{}, {"resourceType": "Basic"}, {"resourceType": ["Media"]}, {"resourceType": 7}])
def test_a_type_that_is_not_served_is_refused_as_such(resource: Json) -> None:
    assert faults(resource) == [("not-supported", "resourceType")]


def test_all_faults_come_at_once_and_fit_an_operation_outcome() -> None:
    resource = media() | {"status": "bogus", "id": "a_b", "height": "1"}
    with pytest.raises(InvalidResource, match="2 more") as caught:
        check_resource(resource)
    outcome = error_to_outcome(caught.value.issues)
    check_resource(outcome)
    assert {issue["expression"][0] for issue in outcome["issue"]} == {"Media.status", "Media.id", "Media.height"}


def test_an_outcome_needs_an_issue() -> None:
    with pytest.raises(ValueError, match="at least one issue"):
        error_to_outcome([])


def test_what_is_contained_and_used_may_stay() -> None:
    resource = media() | {
        "contained": [{"resourceType": "Device", "id": "scope", "deviceName": [{"name": "D", "type": "model-name"}]}],
        "device": {"reference": "#scope"},
    }
    check_resource(resource)
    resource["contained"][0]["meta"] = {"versionId": "1"}
    assert ("invariant", "Media.contained") in faults(resource)


def test_entries_of_a_bundle_are_checked_each_with_its_own_contained() -> None:
    inner = media() | {"device": {"reference": "#scope"}}
    bundle: Json = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": inner}]}
    bundle["entry"].append({"resource": media() | {"contained": [{"resourceType": "Device", "id": "scope"}]}})
    assert faults(bundle) == [
        ("not-found", "Bundle.entry.resource"),
        ("invariant", "Bundle.entry.resource.contained"),
    ]


def test_extensions_of_primitives_are_walked_too() -> None:
    good = golden("media-unidentified-dermoscopy")
    check_resource(good)
    good["_createdDateTime"]["extension"][0]["valueCode"] = " unknown"
    assert ("value", "Media.createdDateTime.extension.valueCode") in faults(good)


def test_nesting_cannot_exhaust_the_stack() -> None:
    nested: Json = {"url": "urn:x", "valueString": "x"}
    for _ in range(500):
        nested = {"url": "urn:x", "extension": [nested]}
    assert "too-costly" in {code for code, _ in faults(media() | {"extension": [nested]})}
    assert "too-costly" in {code for code, _ in faults(media() | {"_status": {"extension": [nested]}})}
    bundle: Json = {"resourceType": "Bundle", "type": "collection"}
    for _ in range(500):
        bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": bundle}]}
    assert "too-costly" in {code for code, _ in faults(bundle)}


def test_checking_changes_nothing() -> None:
    for resource in every_resource():
        before = copy.deepcopy(resource)
        check_resource(resource)
        assert resource == before


def test_real_resources_of_another_maker_pass() -> None:
    resources = [
        json.loads(line) for line in (GOLDEN.parent / "synthea/resources.ndjson").read_text("utf-8").splitlines()
    ]
    assert {r["resourceType"] for r in resources} >= {"Patient", "Encounter", "Practitioner", "Organization"}
    assert [faults(resource) for resource in resources if faults(resource)] == []


@pytest.mark.parametrize(
    "div",
    [
        "<div>no namespace</div>",
        DIV.format("<iframe src='x'/>"),
        DIV.format('<p onclick="x()">y</p>'),
        DIV.format('<a href=" JaVaScript:x()">y</a>'),
        DIV.format('<img src="data:text/html,x"/>'),
        DIV.format('<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>'),
        '<!DOCTYPE div [<!ENTITY a "b">]><div xmlns="http://www.w3.org/1999/xhtml">&a;</div>',
        "<div",
    ],
)
def test_a_narrative_with_active_content_is_refused(div: str) -> None:
    assert find_narrative_fault(div)


def test_a_plain_narrative_passes() -> None:
    assert find_narrative_fault(DIV.format('<p style="x">a <b>b</b><br/><!-- c --><img src="#i"/></p>')) is None


@given(st.binary(max_size=60))
def test_every_base64_of_the_standard_library_passes_and_no_cut_one(content: bytes) -> None:
    text = base64.b64encode(content).decode()
    assert PRIMITIVES["base64Binary"](text)
    if text:
        assert not PRIMITIVES["base64Binary"](text[:-1])
        assert PRIMITIVES["base64Binary"](text[:4] + "\n" + text[4:])


@pytest.mark.parametrize(
    "text", ["image/jpeg", "application/fhir+json; fhirVersion=4.0", 'text/plain; charset="utf-8"', "json"]
)
def test_mime_types_with_parameters_pass(text: str) -> None:
    assert is_mime_type(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(set(media()) - {"resourceType"})), json_values)
def test_any_json_anywhere_is_passed_or_refused_and_never_crashes(name: str, value: Any) -> None:
    faults(media() | {name: value})
    faults(media() | {"content": {"contentType": "image/png", name: value}})
    faults(media() | {f"_{name}": value})
