"""What leaves: no reference, id or address of ours that means nothing elsewhere."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from connectors.outward import localised, of_type, without
from mappings.terms import URI


def test_known_references_become_theirs_and_unknown_ones_keep_only_who_was_meant() -> None:
    media = {
        "resourceType": "Media",
        "id": "m1",
        "meta": {"versionId": "3", "profile": ["x"], "tag": [{"code": "y"}], "security": [{"code": "R"}]},
        "subject": {"reference": "Patient/1", "display": "kept"},
        "operator": {"reference": "Practitioner/9", "identifier": {"value": "npi"}},
        "device": {"reference": "Device/2"},
        "partOf": [{"reference": "Procedure/3"}, {"reference": "https://elsewhere/fhir/Procedure/4"}],
        "basedOn": [{"reference": "ServiceRequest/5"}],
        "contained": [{"resourceType": "Device", "id": "d"}],
        "content": {"url": "Binary/7", "contentType": "image/jpeg"},
    }
    assert localised(media, {"Patient/1": "Patient/their-1"}) == {
        "resourceType": "Media",
        "meta": {"security": [{"code": "R"}]},
        "subject": {"reference": "Patient/their-1", "display": "kept"},
        "operator": {"type": "Practitioner", "identifier": {"value": "npi"}},
        "partOf": [
            {"type": "Procedure", "identifier": {"system": URI, "value": "https://elsewhere/fhir/Procedure/4"}},
        ],
        "contained": [{"resourceType": "Device", "id": "d"}],
        "content": {"contentType": "image/jpeg"},
    }


def test_an_extension_whose_value_vanished_vanishes_too() -> None:
    lesion = {"url": "http://hl7.org/x", "valueReference": {"reference": "BodyStructure/1"}}
    site = {"text": "arm", "extension": [lesion]}
    assert localised({"bodySite": site}, {}) == {"bodySite": {"text": "arm"}}


def test_omitted_elements_go_with_the_parents_they_leave_empty() -> None:
    resource = {"a": {"b": {"c": 1}}, "d": [{"e": 1, "f": 2}, {"e": 3}], "g": 4}
    assert without(resource, ["a.b.c", "d.e", "x.y"]) == {"d": [{"f": 2}, {}], "g": 4}


values = st.recursive(
    st.text(max_size=5) | st.integers() | st.booleans() | st.sampled_from(["Patient/1", "Patient/2", "Binary/9"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["reference", "url", "display", "text", "extension"]), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["subject", "content", "extension", "note"]), values, max_size=4))
def test_no_reference_of_ours_survives_wherever_it_hides(resource: dict[str, Any]) -> None:
    def references(value: Any) -> list[str]:
        if isinstance(value, list):
            return [found for each in value for found in references(each)]
        if not isinstance(value, dict):
            return []
        own = [item for name, item in value.items() if name in {"reference", "url"} and isinstance(item, str)]
        return own + [found for item in value.values() for found in references(item)]

    outward = localised(resource, {"Patient/1": "urn:theirs"})
    assert not {"Patient/1", "Patient/2", "Binary/9"} & set(references(outward))


def test_a_path_with_a_types_name_holds_for_that_type_alone() -> None:
    paths = ("meta", "Media.extension", "DocumentReference.context.event")
    assert of_type(paths, "Media") == {"meta": "meta", "extension": "Media.extension"}
    assert list(of_type(paths, "DocumentReference")) == ["meta", "context.event"]
