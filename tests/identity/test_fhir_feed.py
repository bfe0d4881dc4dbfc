"""Patients announced in FHIR: created, changed, merged and bound as by ADT, by message or one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from adapter.access import SYSTEM
from adapter.access.tokens import issue_token
from adapter.app import build_app
from adapter.bridge import Bridge
from adapter.capture.receive import Upload, receive
from adapter.identity import find_patient
from adapter.records import find_by_identifier, get
from tests.fhir_api.conftest import InProcess
from tests.identity.conftest import MRN

PHOTO = next(iter(sorted((Path(__file__).parents[1] / "data" / "skin").glob("*.jpg")))).read_bytes()


def patient(number: str, family: str = "Lindqvist", **more: Any) -> dict[str, Any]:
    identifier = [{"system": MRN, "value": number}]
    name = [{"family": family, "given": ["Åsa"]}]
    return {"resourceType": "Patient", "identifier": identifier, "name": name, "birthDate": "1961-03-12"} | more


def merged_into(number: str) -> dict[str, Any]:
    other = {"identifier": {"system": MRN, "value": number}}
    return {"active": False, "link": [{"type": "replaced-by", "other": other}]}


class Feed:
    """A sender of patients over HTTP."""

    def __init__(self, site: Bridge, scope: str) -> None:
        with site.db.transaction() as tx:
            _, secret = issue_token(tx, name="feed", scope=scope, at=site.now())
        headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/fhir+json"}
        transport = InProcess(build_app(site))
        self.http = httpx.Client(transport=transport, base_url="http://testserver", headers=headers)

    def put(self, number: str, resource: dict[str, Any]) -> httpx.Response:
        return self.http.put("/fhir/Patient", params={"identifier": f"{MRN}|{number}"}, json=resource)

    def send(self, *patients: dict[str, Any], event: str = "urn:ihe:iti:pmir:2019:patient-feed") -> httpx.Response:
        entry = [{"resource": one, "request": {"method": "PUT", "url": "Patient"}} for one in patients]
        history = {"resourceType": "Bundle", "type": "history", "entry": entry}
        header = {"resourceType": "MessageHeader", "id": "m1", "eventUri": event, "source": {"endpoint": "urn:x"}}
        message = {"resourceType": "Bundle", "type": "message", "entry": [{"resource": header}, {"resource": history}]}
        return self.http.post("/fhir/$process-message", json=message)


@pytest.fixture
def feed(site: Bridge) -> Feed:
    return Feed(site, "system/Patient.crus")


def test_a_patient_is_created_then_changed_and_waiting_photos_are_bound(site: Bridge, feed: Feed) -> None:
    waiting = receive(
        site, SYSTEM, Upload(PHOTO, {"patient": {"system": MRN, "value": "7", "birthDate": "1961-03-12"}})
    )
    assert waiting.body["identity"] == "awaiting-patient"
    assert feed.put("7", patient("7")).status_code == 201
    changed = feed.put("7", patient("7", "Ek"))
    assert (changed.status_code, changed.json()["name"][0]["family"]) == (200, "Ek")
    with site.db.snapshot() as tx:
        (known,) = find_by_identifier(tx, "Patient", MRN, "7")
        assert get(tx, "Media", waiting.id).resource["subject"]["reference"] == known.reference


def test_a_patient_replaced_by_another_is_merged_into_it_once(site: Bridge, feed: Feed) -> None:
    for number in ("1", "2"):
        feed.put(number, patient(number))
    photo = receive(site, SYSTEM, Upload(PHOTO, {"patient": {"system": MRN, "value": "1"}}))
    for _ in range(2):
        assert feed.put("1", patient("1", **merged_into("2"))).status_code == 200
    with site.db.snapshot() as tx:
        survivor = find_patient(tx, MRN, "2")
        assert survivor is not None
        assert get(tx, "Media", photo.id).resource["subject"]["reference"] == survivor.reference


def test_putting_a_merged_patient_out_of_use_leaves_the_survivor_in_use(site: Bridge, feed: Feed) -> None:
    feed.put("1", patient("1"))
    feed.put("2", patient("2"))
    feed.put("1", patient("1", **merged_into("2")))
    assert feed.put("1", patient("1", active=False)).status_code == 409
    with site.db.snapshot() as tx:
        assert find_patient(tx, MRN, "2")


def test_a_message_is_applied_whole_or_not_at_all(site: Bridge, feed: Feed) -> None:
    refused = feed.send(patient("3"), patient("4", **merged_into("unknown")))
    assert refused.status_code == 422
    with site.db.snapshot() as tx:
        assert find_patient(tx, MRN, "3") is None
    accepted = feed.send(patient("3"), patient("4"), patient("4", **merged_into("3")))
    assert accepted.status_code == 200, accepted.text
    (entry,) = accepted.json()["entry"]
    assert entry["resource"]["response"] == {"identifier": "m1", "code": "ok"}
    with site.db.snapshot() as tx:
        assert find_patient(tx, MRN, "3") == find_patient(tx, MRN, "4")


@pytest.mark.parametrize(
    ("number", "resource", "status"),
    [
        ("5", patient("6"), 422),  # named by another identifier than it holds
        ("5", patient("5", identifier=[{"system": "urn:other", "value": "5"}]), 422),
        ("5", patient("5", active=True, link=merged_into("6")["link"]), 422),
        ("5", {"resourceType": "Media"}, 400),
    ],
)
def test_what_a_feed_must_not_say_is_refused_and_changes_nothing(
    site: Bridge, feed: Feed, number: str, resource: dict[str, Any], status: int
) -> None:
    assert feed.put(number, resource).status_code == status
    with site.db.snapshot() as tx:
        assert find_by_identifier(tx, "Patient", MRN, number) == []


def test_other_messages_other_scopes_and_other_addresses_are_refused(site: Bridge, feed: Feed) -> None:
    assert feed.send(patient("1"), event="urn:other").status_code == 422
    assert Feed(site, "system/Patient.rs").put("1", patient("1")).status_code == 403
    assert Feed(site, "system/Patient.rs").send(patient("1")).status_code == 403
    assert feed.http.put("/fhir/Patient?family=Ek", json=patient("1")).status_code == 400
    statement = feed.http.get("/fhir/metadata").json()["rest"][0]
    (told,) = [one for one in statement["resource"] if one["type"] == "Patient"]
    assert told["conditionalUpdate"] is True
    assert "process-message" in [one["name"] for one in statement["operation"]]


def test_a_mother_told_beside_a_patient_is_no_patient(site: Bridge, feed: Feed) -> None:
    mother = {
        "resourceType": "RelatedPerson",
        "identifier": [{"system": MRN, "value": "2"}],
        "patient": {"display": "x"},
    }
    assert feed.send(patient("1"), mother).status_code == 200
    assert feed.send({"resourceType": "Practitioner", "identifier": patient("2")["identifier"]}).status_code == 422
    with site.db.snapshot() as tx:
        assert find_patient(tx, MRN, "1")
        assert find_by_identifier(tx, "Patient", MRN, "2") == []


HEADER = {"resource": {"resourceType": "MessageHeader", "eventUri": "urn:ihe:iti:pmir:2019:patient-feed"}}


@pytest.mark.parametrize(
    "entry",
    [
        {},
        ["MessageHeader"],
        [HEADER, 1],
        [HEADER, {"resource": {"type": "history", "entry": [1]}}],
        [HEADER, {"resource": {"type": "history", "entry": [{"resource": {}, "request": "PUT"}]}}],
        [HEADER, {"resource": {"type": "history", "entry": [{"resource": "x", "request": {"method": "PUT"}}]}}],
        [HEADER, {"resource": {"type": "history", "entry": [{"resource": {**patient("1"), "identifier": [1]}}]}}],
    ],
)
def test_a_message_out_of_shape_is_refused_with_a_reason(feed: Feed, entry: Any) -> None:
    message = {"resourceType": "Bundle", "type": "message", "entry": entry}
    answer = feed.http.post("/fhir/$process-message", json=message)
    assert answer.status_code == 422
    assert answer.json()["issue"][0]["details"]["text"]
