"""batch answers entry by entry; a transaction is all or nothing and knows its own references."""

from __future__ import annotations

from typing import Any

import pytest
from httpx import Client

from adapter.bridge import Bridge
from adapter.records import create_all
from mappings.fhir_check import check_resource
from tests.fhir_api.conftest import AuditTrail

Json = dict[str, Any]
LESION = "urn:uuid:0199aa00-0000-7000-8000-000000000001"
PHOTO = "urn:uuid:0199aa00-0000-7000-8000-000000000002"


@pytest.fixture(autouse=True)
def patient(bridge: Bridge) -> None:
    identifier = [{"system": "urn:mrn", "value": "7"}]
    with bridge.db.transaction() as tx:
        create_all(tx, [{"resourceType": "Patient", "id": "p1", "identifier": identifier}], at=bridge.now())


def entry(method: str, url: str, resource: Json | None = None, **more: Any) -> Json:
    request = {"method": method, "url": url, **more.pop("request", {})}
    return {"request": request, **({"resource": resource} if resource else {}), **more}


def send(client: Client, kind: str, *entries: Json, **headers: str) -> Any:
    body = {"resourceType": "Bundle", "type": kind, "entry": list(entries)}
    return client.post("/fhir", json=body, headers=headers)


def structure(subject: str = "Patient/p1") -> Json:
    return {"resourceType": "BodyStructure", "patient": {"reference": subject}}


def media(subject: str = "Patient/p1", **more: Any) -> Json:
    content = {"contentType": "image/jpeg", "url": "Binary/b1"}
    return {
        "resourceType": "Media",
        "status": "completed",
        "subject": {"reference": subject},
        "content": content,
        **more,
    }


def test_a_batch_does_what_it_can(client: Client) -> None:
    answer = send(client, "batch", entry("POST", "Media", media()), entry("GET", "Media/none"), entry("GET", "Media"))
    assert answer.status_code == 200
    check_resource(answer.json())
    assert answer.json()["type"] == "batch-response"
    created, missing, found = answer.json()["entry"]
    assert (created["response"]["status"], created["response"]["etag"]) == ("201 Created", 'W/"1"')
    assert missing["response"]["status"] == "404 Not Found"
    assert missing["response"]["outcome"]["issue"][0]["code"] == "not-found"
    assert len(found["resource"]["entry"]) == 1


def test_a_transaction_joins_its_entries_and_finds_the_patient(client: Client, trail: AuditTrail) -> None:
    lesion = "http://hl7.org/fhir/StructureDefinition/bodySite"
    site = {"extension": [{"url": lesion, "valueReference": {"reference": LESION}}]}
    answer = send(
        client,
        "transaction",
        entry("GET", "Media?patient=p1"),
        entry("POST", "Media", media("Patient?identifier=urn:mrn|7", bodySite=site), fullUrl=PHOTO),
        entry("POST", "BodyStructure", structure(), fullUrl=LESION),
        Prefer="return=representation",
    )
    assert answer.status_code == 200, answer.text
    check_resource(answer.json())
    found, photo, body_structure = answer.json()["entry"]
    assert photo["resource"]["subject"] == {"reference": "Patient/p1"}
    reference = photo["resource"]["bodySite"]["extension"][0]["valueReference"]["reference"]
    assert reference == f"BodyStructure/{body_structure['resource']['id']}"
    assert [one["resource"]["id"] for one in found["resource"]["entry"]] == [photo["resource"]["id"]]
    assert [one["event"] for one in trail] == ["create", "create", "query"]


def test_one_bad_entry_undoes_the_whole_transaction(client: Client) -> None:
    bad = [
        (entry("POST", "Media", {"resourceType": "Media"}), 400),
        (entry("POST", "Media", media("Patient?identifier=urn:mrn|8")), 412),
        (entry("POST", "Patient", {"resourceType": "Patient"}), 405),
        (entry("GET", "Media/none"), 404),
        (entry("POST", ""), 404),
    ]
    for wrong, status in bad:
        answer = send(client, "transaction", entry("POST", "Media", media()), wrong)
        assert answer.status_code == status, wrong
        assert answer.json()["issue"][0]["expression"][0].startswith("Bundle.entry[1]")
    assert client.get("/fhir/Media", params={"_summary": "count"}).json()["total"] == 0


def test_a_conditional_entry_refers_to_what_it_found(client: Client) -> None:
    known = client.post("/fhir/BodyStructure", json=structure() | {"identifier": [{"value": "L1"}]}).json()
    site = {
        "extension": [
            {"url": "http://hl7.org/fhir/StructureDefinition/bodySite", "valueReference": {"reference": LESION}}
        ]
    }
    condition = {"ifNoneExist": "identifier=L1"}
    answer = send(
        client,
        "transaction",
        entry("POST", "BodyStructure", structure(), fullUrl=LESION, request=condition),
        entry("POST", "Media", media(bodySite=site), fullUrl=PHOTO),
    )
    assert [one["response"]["status"] for one in answer.json()["entry"]] == ["200 OK", "201 Created"]
    found = client.get("/fhir/Media", params={"lesion": known["id"]}).json()
    assert len(found["entry"]) == 1


def test_entries_run_in_the_order_of_the_standard(client: Client) -> None:
    stored = client.post("/fhir/BodyStructure", json=structure()).json()
    path = f"BodyStructure/{stored['id']}"
    answer = send(
        client,
        "transaction",
        entry("GET", "BodyStructure?patient=p1"),
        entry("POST", "BodyStructure", structure(), fullUrl=LESION),
        entry("DELETE", path),
    )
    found, created, deleted = answer.json()["entry"]
    assert created["response"]["location"].split("/")[-3] == found["resource"]["entry"][0]["resource"]["id"]
    assert len(found["resource"]["entry"]) == 1
    assert deleted["response"]["status"] == "204 No Content"


def test_a_transaction_stores_bytes_with_the_record_that_points_to_them(client: Client) -> None:
    upload = {"resourceType": "Binary", "contentType": "image/jpeg", "data": "/9j/4A=="}
    pointing = media() | {"content": {"contentType": "image/jpeg", "url": PHOTO}}
    answer = send(
        client, "transaction", entry("POST", "Media", pointing), entry("POST", "Binary", upload, fullUrl=PHOTO)
    )
    assert answer.status_code == 200, answer.text
    url = client.get("/fhir/Media").json()["entry"][0]["resource"]["content"]["url"]
    assert client.get(f"/fhir/{url}", headers={"Accept": "*/*"}).content == b"\xff\xd8\xff\xe0"


@pytest.mark.parametrize("db_url", ["sqlite"], indirect=True)
def test_bundles_that_are_none_are_refused(client: Client) -> None:
    assert send(client, "history").status_code == 400
    assert send(client, "transaction", {"resource": media()}).status_code == 400
    assert send(client, "transaction", *[entry("GET", "Media/a")] * 501).status_code == 413
    twice = [entry("DELETE", "BodyStructure/a"), entry("DELETE", "BodyStructure/a")]
    assert send(client, "transaction", *twice).status_code == 400
    assert send(client, "batch", entry("GET", "Media/a"), As="nobody").status_code == 401
