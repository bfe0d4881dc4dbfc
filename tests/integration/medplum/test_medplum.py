"""The `medplum` profile against Medplum's own router, search and validation (see server.mjs), over HTTP.

Needs Node.js 20 or later and `npm ci` in this folder; without them the tests are skipped with that sentence.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from connectors.contract import AsksTogether, Connector, DeliveryError, Parcel, Receipt, Retry
from connectors.photos_found import NotThisPatient, PhotoSource, open_photo_sources
from connectors.profile import build_profile
from connectors.registry import open_connector
from mappings.terms import URI

pytestmark = pytest.mark.real

HERE = Path(__file__).parent
MRN = "urn:oid:2.16.840.1.113883.19.5"
VISIT = "urn:oid:2.16.840.1.113883.19.5.1"
PHOTO = random.Random(7).randbytes(1_500_000)  # as JSON, longer than Medplum takes
NUMBERS = count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    node = shutil.which("node")
    if node is None or not (HERE / "node_modules").is_dir():
        reason = f"no Medplum here: install Node.js 20 or later and run npm ci in {HERE}"
        (pytest.fail if os.environ.get("DERMBRIDGE_REQUIRE_REAL") else pytest.skip)(reason)
    pipe = subprocess.PIPE
    with subprocess.Popen([node, "server.mjs"], cwd=HERE, stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()


class Medplum:
    """A client of our own, to arrange things and to look behind the connector's back."""

    def __init__(self, server: dict[str, str]) -> None:
        self.server = server
        self.http = httpx.Client(timeout=10)
        answer = self.http.post(server["tokenUrl"], auth=("dermbridge", "a-secret")).json()
        self.http.headers["Authorization"] = f"Bearer {answer['access_token']}"

    def create(self, resource: dict[str, Any]) -> dict[str, Any]:
        answer = self.http.post(f"{self.server['base']}/{resource['resourceType']}", json=resource)
        assert answer.status_code == 201, answer.text
        created: dict[str, Any] = answer.json()
        return created

    def of(self, parcel: Parcel, kind: str = "Media") -> list[dict[str, Any]]:
        token = f"{URI}|{parcel.media['identifier'][0]['value']}"
        answer = self.http.get(f"{self.server['base']}/{kind}", params={"identifier": token}).json()
        return [entry["resource"] for entry in answer.get("entry", [])]

    def control(self, **wanted: Any) -> int:
        return int(self.http.post(f"{self.server['origin']}/control", json=wanted).json()["writes"])


@pytest.fixture
def medplum(server: dict[str, str]) -> Iterator[Medplum]:
    opened = Medplum(server)
    yield opened
    opened.http.close()


Open = Callable[..., Connector]


@pytest.fixture
def open_medplum(server: dict[str, str]) -> Iterator[Open]:
    """Opens the shipped profile with changes, and closes what it opened."""
    opened: list[Connector] = []

    def open_it(secret: str = "a-secret", **changes: Any) -> Connector:
        table: dict[str, Any] = {
            "name": "medplum",
            "based_on": "medplum",
            "base_url": server["base"],
            "attachment_hosts": ["localhost"],
            "auth": {"client_id": "dermbridge", "token_url": server["tokenUrl"]},
            "timeouts": {"attempts": 1, "read": 10.0},
        }
        opened.append(open_connector(build_profile(table | changes, source="test"), lambda _: secret))
        return opened[-1]

    yield open_it
    for connector in opened:
        connector.close()


@pytest.fixture
def connector(open_medplum: Open) -> Connector:
    return open_medplum()


def person(number: int) -> dict[str, Any]:
    identifier = [{"system": MRN, "value": f"A-{number}"}]
    return {"resourceType": "Patient", "identifier": identifier, "birthDate": "1970-01-01"}


def visit(number: int, subject: str) -> dict[str, Any]:
    return {
        "resourceType": "Encounter",
        "status": "in-progress",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
        "identifier": [{"system": VISIT, "value": f"V-{number}"}],
        "subject": {"reference": subject},
    }


def consent(number: int) -> dict[str, Any]:
    scope = {"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "patient-privacy"}
    return {
        "resourceType": "Consent",
        "id": f"c{number}",
        "status": "active",
        "scope": {"coding": [scope]},
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
        "patient": {"reference": f"Patient/p{number}"},
        "policyRule": {"text": "Photography policy"},
        "performer": [{"reference": "RelatedPerson/r1"}],
    }


@pytest.fixture
def parcel(medplum: Medplum) -> Parcel:
    """A photo of a patient whom Medplum knows, with visit and consent."""
    return known(medplum, next(NUMBERS))


def known(medplum: Medplum, number: int) -> Parcel:
    theirs = medplum.create(person(number))
    medplum.create(visit(number, f"Patient/{theirs['id']}"))
    media = {
        "resourceType": "Media",
        "id": f"m{number}",
        "meta": {"versionId": "1", "profile": ["https://dermbridge.org/fhir/StructureDefinition/photo"]},
        "identifier": [{"system": URI, "value": f"urn:uuid:00000000-0000-4000-8000-{number:012}"}],
        "status": "completed",
        "subject": {"reference": f"Patient/p{number}"},
        "encounter": {"reference": f"Encounter/e{number}"},
        "operator": {"reference": "Practitioner/u1", "display": "Photographer"},
        "device": {"reference": "Device/d1"},
        "createdDateTime": "2026-11-23T09:00:00Z",
        "note": [{"text": "itching"}],
        "content": {"contentType": "image/jpeg", "url": "Binary/b1"},
    }
    return Parcel(
        delivery_id=f"d{number}",
        idempotency_key=f"m{number}/1/medplum",
        media=media,
        patient=person(number) | {"id": f"p{number}"},
        encounter=visit(number, f"Patient/p{number}") | {"id": f"e{number}"},
        consents=(consent(number),),
        content=lambda: PHOTO,
        content_type="image/jpeg",
        size=len(PHOTO),
        sha256=hashlib.sha256(PHOTO).hexdigest(),
        sha1_b64=base64.b64encode(hashlib.sha1(PHOTO).digest()).decode(),
        filename=f"m{number}.jpg",
    )


def second_version(parcel: Parcel, previous: Receipt | None) -> Parcel:
    media = {**parcel.media, "note": [{"text": "corrected"}]}
    return replace(parcel, idempotency_key=f"{media['id']}/2/medplum", media=media, previous=previous)


def test_looks_in_a_batch_are_answered_one_by_one(open_medplum: Open, medplum: Medplum) -> None:
    """Off in the shipped profile, where each entry counts against the quota as a request of its own would."""
    connector = open_medplum(batch_reads=True)
    assert {finding.verdict for finding in connector.check()} == {"ok"}
    assert isinstance(connector, AsksTogether)
    photos = [known(medplum, next(NUMBERS)), known(medplum, next(NUMBERS))]
    for expected in (False, True):
        with connector.asked_together([(sent, None) for sent in photos]):
            receipts = [connector.send(sent) for sent in photos]
        assert [receipt.duplicate for receipt in receipts] == [expected, expected]
    with connector.asked_together(list(zip(photos, receipts, strict=True))):
        seen = [connector.read_back(sent, receipt) for sent, receipt in zip(photos, receipts, strict=True)]
    assert all(evidence and evidence.matches for evidence in seen)
    assert [len(medplum.of(sent)) for sent in photos] == [1, 1]


def test_check_finds_nothing_to_change(connector: Connector) -> None:
    findings = connector.check()
    assert {finding.verdict for finding in findings} == {"ok"}, findings


def test_a_large_photo_arrives_with_patient_visit_and_consent_and_reads_back_identical(
    connector: Connector, parcel: Parcel, medplum: Medplum
) -> None:
    receipt = connector.send(parcel)
    evidence = connector.read_back(parcel, receipt)
    assert evidence.matches, evidence.differences
    assert evidence.size == 1_500_000
    [media] = medplum.of(parcel)
    assert media["id"] == receipt.ids["Media"]
    assert media["subject"]["reference"] == f"Patient/{receipt.ids['Patient']}"
    assert media["encounter"]["reference"] == f"Encounter/{receipt.ids['Encounter']}"
    assert media["operator"] == {"display": "Photographer", "type": "Practitioner"}
    assert "device" not in media  # our Device means nothing there
    consents = medplum.http.get(f"{medplum.server['base']}/Consent").json()["entry"]
    patients = [entry["resource"]["patient"]["reference"] for entry in consents]
    assert patients.count(f"Patient/{receipt.ids['Patient']}") == 1


def test_a_signed_address_is_neither_kept_nor_logged_nor_written_back(
    connector: Connector, parcel: Parcel, medplum: Medplum, caplog: pytest.LogCaptureFixture
) -> None:
    receipt = connector.send(parcel)
    assert "Signature" in medplum.of(parcel)[0]["content"]["url"]  # this is what Medplum says to every reader
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    evidence = connector.read_back(parcel, receipt)
    again = connector.send(parcel)
    retracted = connector.retract(parcel, receipt, "wrong patient")
    text = receipt.to_json() + again.to_json() + retracted.to_json() + repr(evidence) + caplog.text
    assert "Signature" not in text
    assert str(parcel.patient["identifier"][0]["value"]) not in caplog.text
    # Medplum signs `Binary/id` only: a stored signed address would come back unchanged on every read.
    assert medplum.of(parcel)[0]["content"]["url"] != medplum.of(parcel)[0]["content"]["url"]


def test_a_storage_host_that_the_profile_does_not_name_is_not_asked(open_medplum: Open, parcel: Parcel) -> None:
    connector = open_medplum(attachment_hosts=[])
    evidence = connector.read_back(parcel, connector.send(parcel))
    assert {difference.split(":")[0] for difference in evidence.differences} == {"size", "sha256"}


def test_a_replay_writes_nothing(connector: Connector, parcel: Parcel, medplum: Medplum) -> None:
    first = connector.send(parcel)
    writes = medplum.control()
    again, found = connector.send(parcel), connector.find(parcel)
    assert again.duplicate and found is not None
    assert first.ids["Media"] == again.ids["Media"] == found.ids["Media"]
    assert medplum.control() == writes


def test_a_new_version_updates_the_same_media_and_keeps_the_bytes(
    connector: Connector, parcel: Parcel, medplum: Medplum
) -> None:
    first = connector.send(parcel)
    newer = second_version(parcel, first)
    second = connector.send(newer)
    assert second.ids["Media"] == first.ids["Media"] and second.version != first.version
    assert second.ids["Binary"] == first.ids["Binary"]
    assert connector.read_back(newer, second).matches
    assert medplum.of(parcel)[0]["note"] == [{"text": "corrected"}]


def test_a_version_whose_receipt_was_lost_is_updated_and_not_joined_by_a_second(
    connector: Connector, parcel: Parcel, medplum: Medplum
) -> None:
    first = connector.send(parcel)
    second = connector.send(second_version(parcel, None))
    assert second.ids["Media"] == first.ids["Media"]
    assert len(medplum.of(parcel)) == 1


def test_a_photo_moves_to_another_patient_and_is_taken_back_from_the_first(
    connector: Connector, parcel: Parcel, medplum: Medplum
) -> None:
    wrong = connector.send(parcel)
    other = known(medplum, next(NUMBERS))
    media = {**other.media, "identifier": parcel.media["identifier"]}
    moved = replace(other, media=media, previous=wrong)
    right = connector.send(moved)
    assert right.ids["Media"] != wrong.ids["Media"]
    assert not connector.retract(parcel, wrong, "wrong patient").duplicate
    assert connector.retract(parcel, wrong, "wrong patient").duplicate
    assert connector.read_back(moved, right).matches
    by_id = {media["id"]: media for media in medplum.of(parcel)}
    assert by_id[right.ids["Media"]]["status"] == "completed"
    assert by_id[wrong.ids["Media"]]["status"] == "entered-in-error"
    assert by_id[wrong.ids["Media"]]["extension"][-1]["valueCodeableConcept"]["text"] == "wrong patient"


def test_the_document_route_passes_medplums_validation(open_medplum: Open, parcel: Parcel) -> None:
    connector = open_medplum(routes=["fhir-documentreference"])
    receipt = connector.send(parcel)
    evidence = connector.read_back(parcel, receipt)
    retracted = connector.retract(parcel, receipt, "wrong patient")
    assert receipt.route == "fhir-documentreference" and evidence.matches, evidence.differences
    assert not retracted.duplicate


@pytest.mark.parametrize("upload", ["inline", "json"])
def test_a_large_photo_as_json_is_refused_for_good(open_medplum: Open, parcel: Parcel, upload: str) -> None:
    connector = open_medplum(binary_upload=upload)
    with pytest.raises(DeliveryError, match="HTTP 400") as refused:
        connector.send(parcel)
    assert refused.value.retry is Retry.NEVER


def test_a_token_that_ended_is_renewed_within_the_attempt(
    connector: Connector, parcel: Parcel, medplum: Medplum
) -> None:
    connector.send(parcel)
    medplum.control(forgetTokens=True)
    assert connector.find(parcel) is not None


def test_a_refused_client_waits_for_its_setting(open_medplum: Open, parcel: Parcel) -> None:
    connector = open_medplum(secret="another-secret")
    with pytest.raises(DeliveryError, match="access token") as refused:
        connector.send(parcel)
    assert refused.value.retry is Retry.LATER


def test_an_exhausted_quota_says_when_to_come_back(connector: Connector, parcel: Parcel, medplum: Medplum) -> None:
    medplum.control(exhausted=1)
    with pytest.raises(DeliveryError, match="throttled") as refused:
        connector.send(parcel)
    assert (refused.value.retry, refused.value.retry_after) == (Retry.LATER, 60.0)
    with pytest.raises(DeliveryError, match="allowance") as waiting:  # and until then it is not even asked
        connector.send(parcel)
    assert waiting.value.retry_after is not None and 0 < waiting.value.retry_after <= 60


# --- photos there ---------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(server: dict[str, str]) -> Iterator[PhotoSource]:
    table = {
        "name": "medplum",
        "based_on": "medplum",
        "base_url": server["base"],
        "attachment_hosts": ["localhost"],
        "auth": {"client_id": "dermbridge", "token_url": server["tokenUrl"]},
        "timeouts": {"attempts": 1, "read": 10.0},
        "photos": {"searches": ["Media?patient=Patient/{patient}", "DocumentReference?patient=Patient/{patient}"]},
    }
    (source,) = open_photo_sources(build_profile(table, source="test"), lambda _: "a-secret")
    yield source
    source.close()


def filed(medplum: Medplum, subject: str, content: bytes, kind: str = "Media") -> str:
    """A photo that somebody else put there; its bytes as a raw Binary."""
    headers = {"Content-Type": "image/jpeg"}
    binary = medplum.http.post(f"{medplum.server['base']}/Binary", content=content, headers=headers).json()
    attachment = {"contentType": "image/jpeg", "url": f"Binary/{binary['id']}", "title": "Left cheek"}
    told: dict[str, Any] = {"resourceType": kind, "subject": {"reference": subject}}
    told |= (
        {"status": "completed", "createdDateTime": "2026-03-02", "content": attachment}
        if kind == "Media"
        else {"status": "current", "content": [{"attachment": attachment}]}
    )
    return f"{kind}/{medplum.create(told)['id']}"


def test_photos_of_others_are_listed_and_fetched_bit_for_bit(medplum: Medplum, photos: PhotoSource) -> None:
    whom, other = (person(next(NUMBERS)) for _ in range(2))
    subject, somebody = (f"Patient/{medplum.create(one)['id']}" for one in (whom, other))
    sent = {filed(medplum, subject, PHOTO, kind): PHOTO for kind in ("Media", "DocumentReference")}
    theirs = filed(medplum, somebody, PHOTO)
    found = photos.find_photos(whom)
    assert {one.id: one.obstacle for one in found.photos} == dict.fromkeys(sent, "")
    assert (found.refused, found.not_offered, found.more) == ((), (), False)
    for one in found.photos:
        assert photos.get_photo(whom, one.id) == one
        assert hashlib.sha256(photos.fetch_photo(whom, one.id).content).digest() == hashlib.sha256(PHOTO).digest()
    for ask in (photos.fetch_photo, photos.get_photo):
        with pytest.raises(NotThisPatient):
            ask(whom, theirs)


def test_what_we_delivered_is_among_them_with_our_identifier(
    medplum: Medplum, connector: Connector, parcel: Parcel, photos: PhotoSource
) -> None:
    receipt = connector.send(parcel)
    (found,) = photos.find_photos(dict(parcel.patient)).photos
    assert found.id == f"Media/{receipt.ids['Media']}"
    assert (URI, parcel.media["identifier"][0]["value"]) in found.identifiers
