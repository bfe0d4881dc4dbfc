"""Every kind of connector held to the obligations of `connectors.contract.Connector`; which, says `STANDS`."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from connectors.contract import Connector, DeliveryError, Parcel, Receipt, Retry
from connectors.profile import ProfileError, build_profile
from mappings.terms import URI
from tests.connectors.stands import STANDS, open_fhir
from tests.servers.fhir_ehr import Ehr, running

MRN = "urn:oid:2.16.840.1.113883.19.5"
VISIT = "urn:oid:2.16.840.1.113883.19.5.1"
PHOTO = b"\xff\xd8 a photo, as far as a destination can tell \xff\xd9"


def patient(number: str = "1", mrn: str = "A-1", born: str = "1970-01-01") -> dict[str, Any]:
    identifier = [{"system": MRN, "value": mrn}]
    return {"resourceType": "Patient", "id": f"p{number}", "identifier": identifier, "birthDate": born}


def encounter(number: str = "1") -> dict[str, Any]:
    subject = {"reference": f"Patient/p{number}"}
    identifier = [{"system": VISIT, "value": f"V-{number}"}]
    return {"resourceType": "Encounter", "id": f"e{number}", "identifier": identifier, "subject": subject}


def parcel(number: str = "1", version: int = 1, content: bytes = PHOTO, **changes: Any) -> Parcel:
    sha1 = base64.b64encode(hashlib.sha1(content).digest()).decode()
    media = {
        "resourceType": "Media",
        "id": "m1",
        "identifier": [{"system": URI, "value": "urn:uuid:0d6c4f4e-7f0e-4f4e-9f0e-3f1f2a3b4c5d"}],
        "status": "completed",
        "subject": {"reference": f"Patient/p{number}"},
        "encounter": {"reference": f"Encounter/e{number}"},
        "createdDateTime": "2026-11-23T09:00:00Z",
        "content": {"contentType": "image/jpeg", "url": "Binary/b1", "size": len(content), "hash": sha1},
    }
    made = Parcel(
        delivery_id=f"d{number}-{version}",
        idempotency_key=f"m1/{version}-{number}/x",
        media=media,
        patient=patient(number, f"A-{number}"),
        encounter=encounter(number),
        content=lambda: content,
        content_type="image/jpeg",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        sha1_b64=sha1,
        filename="m1.jpg",
    )
    return replace(made, **changes)


@pytest.fixture
def ehr() -> Iterator[Ehr]:
    with running(Ehr()) as opened:
        for number in ("1", "2"):
            theirs = opened.put(patient(number, f"A-{number}") | {"id": f"their-{number}"})
            visit = encounter(number) | {"id": f"visit-{number}", "subject": {"reference": f"Patient/{theirs['id']}"}}
            opened.put(visit)
        yield opened


@pytest.fixture(params=STANDS)
def connector(request: pytest.FixtureRequest, ehr: Ehr, tmp_path: Path) -> Iterator[Connector]:
    opened = STANDS[request.param](ehr, tmp_path)
    yield opened
    opened.close()
    opened.close()


def test_a_sent_photo_is_read_back_the_same(connector: Connector) -> None:
    assert connector.find(parcel()) is None
    receipt = connector.send(parcel())
    evidence = connector.read_back(parcel(), receipt)
    assert evidence.matches, evidence.differences
    assert evidence.sha256 == hashlib.sha256(PHOTO).hexdigest()
    assert Receipt.from_json(receipt.to_json()) == receipt


def test_a_document_goes_byte_for_byte_like_a_photo_and_can_be_taken_back(connector: Connector) -> None:
    sent = parcel(content=b"%PDF-1.3 a visit %%EOF", content_type="application/pdf", filename="s1.pdf")
    receipt = connector.send(sent)
    evidence = connector.read_back(sent, receipt)
    assert evidence.matches and evidence.sha256 == sent.sha256, evidence.differences
    assert connector.find(sent).ids == receipt.ids
    assert not connector.retract(sent, receipt, "a photo of another visit").duplicate
    assert connector.find(sent) is None


def test_sending_again_has_no_second_effect_and_find_gives_the_same_receipt(connector: Connector, ehr: Ehr) -> None:
    first = connector.send(parcel())
    held = len(ehr.resources)
    again, found = connector.send(parcel()), connector.find(parcel())
    assert again.duplicate and found is not None and found.duplicate
    assert first.ids == again.ids == found.ids
    assert len(ehr.resources) == held


def test_a_new_version_takes_the_place_of_the_old_one(connector: Connector, ehr: Ehr) -> None:
    first = connector.send(parcel())
    newer = parcel(version=2, content=b"a better photo", previous=first)
    assert connector.find(newer) is None
    second = connector.send(newer)
    assert not second.duplicate
    assert connector.read_back(newer, second).matches
    assert connector.read_back(parcel(), first).differences
    assert len(ehr.of_type("Media")) + len(ehr.of_type("DocumentReference")) <= 1


def test_another_patients_copy_is_left_alone_until_it_is_retracted(connector: Connector) -> None:
    wrong = connector.send(parcel("1"))
    right = connector.send(parcel("2", version=2, previous=wrong))
    assert right.ids["Patient"] != wrong.ids["Patient"]
    assert connector.read_back(parcel("1"), wrong).matches
    assert not connector.retract(parcel("1"), wrong, "wrong patient").duplicate
    assert connector.retract(parcel("1"), wrong, "wrong patient").duplicate
    assert connector.find(parcel("1")) is None
    assert not connector.read_back(parcel("1"), wrong).matches
    assert connector.read_back(parcel("2", version=2), right).matches


def test_a_parcel_about_two_patients_is_refused(connector: Connector) -> None:
    with pytest.raises(DeliveryError) as refused:
        connector.send(parcel("1", patient=patient("2", "A-2")))
    assert refused.value.retry is Retry.NEVER


def test_bytes_that_are_not_the_recorded_ones_are_not_sent(connector: Connector, ehr: Ehr) -> None:
    with pytest.raises(DeliveryError) as refused:
        connector.send(parcel(content=PHOTO, sha256="0" * 64))
    assert refused.value.retry is Retry.NEVER
    assert not ehr.bytes


def test_check_finds_nothing_wrong_and_leaves_nothing(connector: Connector, ehr: Ehr, tmp_path: Path) -> None:
    held = len(ehr.resources)
    assert "error" not in {finding.verdict for finding in connector.check()}
    assert len(ehr.resources) == held
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("lost", ["lost-before", "lost-after"])
def test_a_lost_answer_is_unknown_and_looking_tells(ehr: Ehr, lost: str) -> None:
    connector = open_fhir(ehr)
    ehr.faults = [("POST", "Media", lost)]
    with pytest.raises(DeliveryError) as error:
        connector.send(parcel())
    assert error.value.retry is Retry.UNKNOWN
    assert (connector.find(parcel()) is not None) == (lost == "lost-after")
    connector.send(parcel())
    assert len(ehr.of_type("Media")) == 1


@pytest.mark.parametrize(
    ("status", "retry"),
    [("429", Retry.LATER), ("503", Retry.LATER), ("500", Retry.UNKNOWN), ("403", Retry.NEVER), ("422", Retry.NEVER)],
)
def test_a_refusal_says_whether_and_when_to_try_again(ehr: Ehr, status: str, retry: Retry) -> None:
    connector = open_fhir(ehr)
    ehr.faults = [("POST", "Media", status)]
    with pytest.raises(DeliveryError) as error:
        connector.send(parcel())
    assert (error.value.retry, error.value.retry_after) == (retry, 7.0)


def test_content_corrupted_at_the_destination_is_seen_and_sending_again_mends_it(ehr: Ehr) -> None:
    connector = open_fhir(ehr)
    receipt = connector.send(parcel())
    binary_id = receipt.ids["Binary"]
    ehr.bytes[binary_id] = ("image/jpeg", PHOTO[:-1] + b"!")
    evidence = connector.read_back(parcel(), receipt)
    assert [difference.split(":")[0] for difference in evidence.differences] == ["sha256"]
    mended = connector.send(parcel(previous=receipt))
    assert connector.read_back(parcel(), mended).matches
    assert len(ehr.of_type("Media")) == 1


def test_a_copy_moved_to_another_patient_is_seen(ehr: Ehr) -> None:
    connector = open_fhir(ehr)
    receipt = connector.send(parcel())
    ehr.put(ehr.resources["Media", receipt.ids["Media"]] | {"subject": {"reference": "Patient/their-2"}})
    assert connector.read_back(parcel(), receipt).differences[0].startswith("patient")


@pytest.mark.parametrize(
    ("theirs", "retry", "reason"),
    [
        ([], Retry.LATER, "No patient"),
        ([patient("8"), patient("9")], Retry.NEVER, "2 patients"),
        ([patient("8", born="1980-02-02")], Retry.NEVER, "another birth date"),
        ([patient("8") | {"active": False}], Retry.NEVER, "not active"),
        ([patient("8") | {"link": [{"type": "replaced-by"}]}], Retry.NEVER, "merged away"),
    ],
)
def test_nothing_is_written_unless_exactly_one_fitting_patient_is_there(
    ehr: Ehr, theirs: list[dict[str, Any]], retry: Retry, reason: str
) -> None:
    del ehr.resources["Patient", "their-1"]
    for each in theirs:
        ehr.put(each)
    with pytest.raises(DeliveryError, match=reason) as error:
        open_fhir(ehr).send(parcel())
    assert error.value.retry is retry
    assert not ehr.bytes and not ehr.of_type("Media")


def test_a_visit_that_is_another_patients_there_is_refused(ehr: Ehr) -> None:
    ehr.put(ehr.resources["Encounter", "visit-1"] | {"subject": {"reference": "Patient/their-2"}})
    with pytest.raises(DeliveryError, match="under another patient") as error:
        open_fhir(ehr).send(parcel())
    assert error.value.retry is Retry.NEVER
    assert not ehr.bytes


@pytest.mark.parametrize("policy", ["required", "optional", "omit"])
def test_the_profile_says_what_a_missing_visit_means(ehr: Ehr, policy: str) -> None:
    del ehr.resources["Encounter", "visit-1"]
    connector = open_fhir(ehr, encounter={"policy": policy})
    if policy == "required":
        with pytest.raises(DeliveryError, match="under a visit") as error:
            connector.send(parcel())
        assert error.value.retry is Retry.LATER
    else:
        assert connector.read_back(parcel(), connector.send(parcel())).matches


def test_a_missing_patient_is_created_once_where_the_profile_allows_it(ehr: Ehr) -> None:
    del ehr.resources["Patient", "their-1"]
    connector = open_fhir(ehr, patient={"create_missing": True}, encounter={"policy": "omit"})
    ehr.faults = [("POST", "Patient", "lost-before")]
    with pytest.raises(DeliveryError) as error:
        connector.send(parcel())
    assert error.value.retry is Retry.UNKNOWN
    assert connector.find(parcel()) is None  # or the delivery would wait for ever
    receipt = connector.send(parcel())
    connector.send(parcel())
    assert [each["id"] for each in ehr.of_type("Patient")].count(receipt.ids["Patient"]) == 1
    assert len(ehr.of_type("Patient")) == 2


def test_a_changed_consent_is_brought_up_to_date(ehr: Ehr) -> None:
    consent = {"resourceType": "Consent", "id": "c1", "status": "active", "patient": {"reference": "Patient/p1"}}
    denied = consent | {"provision": {"type": "deny"}}
    connector = open_fhir(ehr, consent_strategy="resource")
    connector.send(parcel(consents=(consent,)))
    connector.send(parcel(version=2, consents=(denied,)))
    assert [filed["provision"] for filed in ehr.of_type("Consent")] == [{"type": "deny"}]


def test_an_empty_201_still_gives_the_id_by_its_location(ehr: Ehr) -> None:
    ehr.faults = [("POST", "Media", "empty")]
    connector = open_fhir(ehr)
    receipt = connector.send(parcel())
    assert receipt.ids["Media"] == ehr.of_type("Media")[0]["id"]
    assert connector.read_back(parcel(), receipt).matches


def test_raw_bytes_that_are_refused_name_the_setting(ehr: Ehr) -> None:
    ehr.strict_binary = True
    with pytest.raises(DeliveryError) as error:
        open_fhir(ehr).send(parcel())
    assert "binary_upload" in error.value.remedy
    assert open_fhir(ehr, binary_upload="json").send(parcel()).ids["Binary"]


def test_a_consent_is_filed_once_under_their_patient(ehr: Ehr) -> None:
    consent = {"resourceType": "Consent", "id": "c1", "status": "active", "patient": {"reference": "Patient/p1"}}
    connector = open_fhir(ehr, consent_strategy="resource")
    connector.send(parcel(consents=(consent,)))
    connector.send(parcel(version=2, consents=(consent,)))
    assert [filed["patient"]["reference"] for filed in ehr.of_type("Consent")] == ["Patient/their-1"]


def test_no_reference_or_tag_of_ours_reaches_the_destination(ehr: Ehr) -> None:
    open_fhir(ehr).send(parcel())
    text = str(ehr.of_type("Media"))
    assert "Patient/p1" not in text and "Encounter/e1" not in text and "Binary/b1" not in text


def test_an_unknown_key_is_refused_with_its_name() -> None:
    with pytest.raises(ProfileError, match="binary_upload"):
        build_profile({"name": "x", "based_on": "hapi", "binary_uplod": "raw"}, source="test")
