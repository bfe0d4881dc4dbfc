"""Media -> DocumentReference -> Media, by example and by property."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from fhir.resources.R4B.documentreference import DocumentReference
from hypothesis import given, settings
from hypothesis import strategies as st

from mappings.document_reference_to_media import document_reference_to_media
from mappings.media_to_document_reference import media_to_document_reference
from mappings.terms import CANON

DCM = "http://dicom.nema.org/resources/ontology/DCM"
SCT = "http://snomed.info/sct"
CAPTURE = {"system": "urn:ietf:rfc:3986", "value": "urn:uuid:5e57a286-d7b6-4b0d-9f6e-000000000001"}
MEDIA: dict[str, Any] = {
    "resourceType": "Media",
    "id": "m1",
    "meta": {
        "versionId": "2",
        "security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}],
    },
    "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:2.25.7"}, CAPTURE],
    "basedOn": [{"reference": "ServiceRequest/s1"}],
    "partOf": [{"reference": "Procedure/p1"}],
    "status": "completed",
    "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/media-type", "code": "image"}]},
    "modality": {"coding": [{"system": DCM, "code": "XC"}]},
    "view": {"coding": [{"system": f"{CANON}/CodeSystem/photo-view", "code": "close-up"}]},
    "subject": {"reference": "Patient/1"},
    "encounter": {"reference": "Encounter/7"},
    "createdDateTime": "2026-11-02T09:30:00+01:00",
    "issued": "2026-11-02T08:31:00Z",
    "operator": {"reference": "Practitioner/9"},
    "reasonCode": [{"coding": [{"system": SCT, "code": "9014002"}]}, {"text": "follow-up"}],
    "bodySite": {
        "coding": [{"system": SCT, "code": "14975008"}],
        "extension": [
            {
                "url": "http://hl7.org/fhir/StructureDefinition/bodySite",
                "valueReference": {"reference": "BodyStructure/b1"},
            }
        ],
    },
    "deviceName": "Phone",
    "device": {"reference": "Device/d1"},
    "height": 3024,
    "width": 4032,
    "note": [{"text": "itching", "time": "2026-11-02"}, {"text": "bled once"}],
    "content": {
        "contentType": "image/jpeg",
        "url": "Binary/b9",
        "size": 1234,
        "hash": "2jmj7l5rSw0yVb/vlWAYkK/YBwk=",
        "creation": "2026-11-02T09:30:00+01:00",
        "extension": [{"url": f"{CANON}/StructureDefinition/content-sha256", "valueString": "ab" * 32}],
    },
}


def test_every_element_of_a_full_media_survives_the_way_there_and_back() -> None:
    assert document_reference_to_media(media_to_document_reference(MEDIA)) == MEDIA


def test_the_document_is_valid_r4_and_says_who_when_where_and_what() -> None:
    document = media_to_document_reference(MEDIA)

    DocumentReference.model_validate(document)
    assert (document["status"], document["docStatus"]) == ("current", "final")
    assert document["masterIdentifier"] == CAPTURE
    assert document["type"]["coding"][0]["code"] == "72170-4"
    assert document["subject"] == {"reference": "Patient/1"}
    assert document["date"] == "2026-11-02T08:31:00Z"
    assert [author["reference"] for author in document["author"]] == ["Practitioner/9", "Device/d1"]
    assert document["context"]["encounter"] == [{"reference": "Encounter/7"}]
    assert document["context"]["period"]["end"] == "2026-11-02T09:30:00+01:00"
    assert {"reference": "BodyStructure/b1"} in document["context"]["related"]
    assert document["securityLabel"] == [{"coding": MEDIA["meta"]["security"]}]
    assert document["description"] == "itching\nbled once"
    assert document["content"][0]["attachment"]["url"] == "Binary/b9"


def test_the_source_is_left_untouched() -> None:
    before = copy.deepcopy(MEDIA)
    media_to_document_reference(MEDIA)["content"][0]["attachment"]["url"] = "elsewhere"
    assert before == MEDIA


def test_the_site_chooses_the_document_type() -> None:
    document = media_to_document_reference(MEDIA, type_coding={"system": "urn:x", "code": "PHOTO"})
    assert document["type"] == {"coding": [{"system": "urn:x", "code": "PHOTO"}]}


def test_a_retracted_photo_is_a_document_entered_in_error() -> None:
    document = media_to_document_reference(MEDIA | {"status": "entered-in-error"})
    assert (document["status"], document["docStatus"]) == ("entered-in-error", "entered-in-error")
    assert document_reference_to_media(document)["status"] == "entered-in-error"


@pytest.mark.parametrize("status", ["preparation", "in-progress", "not-done", "unknown", None])
def test_a_photo_that_is_not_finished_is_refused(status: str | None) -> None:
    with pytest.raises(ValueError, match="completed photos only"):
        media_to_document_reference(MEDIA | {"status": status})


@pytest.mark.parametrize("element", ["subject", "content"])
def test_a_photo_without_patient_or_bytes_is_refused(element: str) -> None:
    with pytest.raises(ValueError, match=element):
        media_to_document_reference({name: value for name, value in MEDIA.items() if name != element})


def test_a_team_that_r4_does_not_allow_as_author_is_kept_out_of_author_and_still_comes_back() -> None:
    media = MEDIA | {"operator": {"reference": "CareTeam/t1"}}
    document = media_to_document_reference(media)
    assert [author["reference"] for author in document["author"]] == ["Device/d1"]
    assert document_reference_to_media(document) == media


def test_a_document_of_somebody_else_gives_a_media_without_guesses() -> None:
    foreign = {
        "resourceType": "DocumentReference",
        "status": "current",
        "subject": {"reference": "Patient/1"},
        "author": [{"reference": "Practitioner/2"}],
        "context": {"event": [{"text": "consultation"}]},
        "content": [{"attachment": {"contentType": "image/png", "url": "Binary/2"}}],
    }
    assert document_reference_to_media(foreign) == {
        "resourceType": "Media",
        "status": "completed",
        "subject": {"reference": "Patient/1"},
        "content": {"contentType": "image/png", "url": "Binary/2"},
    }


def test_a_document_of_several_files_is_not_one_photo() -> None:
    document = media_to_document_reference(MEDIA)
    document["content"] *= 2
    with pytest.raises(ValueError, match="2 attachments"):
        document_reference_to_media(document)


words = st.text(min_size=1, max_size=8)
concepts = st.fixed_dictionaries({"text": words})
times = st.datetimes().map(lambda moment: moment.replace(microsecond=0).isoformat() + "Z")
medias = st.fixed_dictionaries(
    {
        "resourceType": st.just("Media"),
        "status": st.sampled_from(["completed", "entered-in-error"]),
        "subject": st.fixed_dictionaries({"reference": words.map("Patient/".__add__)}),
        "createdDateTime": times,
        "content": st.fixed_dictionaries(
            {"creation": times}, optional={"url": words, "size": st.integers(0), "title": words}
        ),
    },
    optional={
        "type": concepts,
        "modality": concepts,
        "view": concepts,
        "bodySite": concepts,
        "reasonCode": st.lists(concepts, min_size=1, max_size=3),
        "basedOn": st.lists(st.fixed_dictionaries({"reference": words}), min_size=1, max_size=2),
        "partOf": st.lists(st.fixed_dictionaries({"display": words}), min_size=1, max_size=2),
        "operator": st.sampled_from(["Patient/1", "CareTeam/1", "http://x/Practitioner/3", "PractitionerRole/2"]).map(
            lambda target: {"reference": target}
        ),
        "device": st.sampled_from(["Device/1", "DeviceMetric/1"]).map(lambda target: {"reference": target}),
        "deviceName": words,
        "height": st.integers(1),
        "width": st.integers(1),
        "note": st.lists(concepts, min_size=1, max_size=3),
        "extension": st.lists(st.fixed_dictionaries({"url": words, "valueString": words}), min_size=1, max_size=2),
    },
)


@settings(max_examples=150)
@given(medias)
def test_any_media_comes_back_equal(media: dict[str, Any]) -> None:
    assert document_reference_to_media(media_to_document_reference(media)) == media
