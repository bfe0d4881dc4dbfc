"""Search over HTTP: links, POST, summaries, lenient handling and what is audited."""

from __future__ import annotations

from typing import Any

import pytest
from httpx import Client

from adapter.bridge import Bridge
from adapter.records import create_all
from mappings.fhir_check import check_resource
from tests.fhir_api.conftest import BASE, AuditTrail

Json = dict[str, Any]


def photo(number: int, patient_id: str = "p1") -> Json:
    return {
        "resourceType": "Media",
        "id": f"m{number}",
        "status": "completed",
        "identifier": [{"system": "urn:a", "value": str(number)}],
        "subject": {"reference": f"Patient/{patient_id}"},
        "createdDateTime": f"2026-11-{number:02}",
        "note": [{"text": "dictated"}],
        "content": {"contentType": "image/jpeg", "url": "Binary/b1"},
    }


@pytest.fixture(autouse=True)
def photos(bridge: Bridge) -> None:
    patients: list[Json] = [{"resourceType": "Patient", "id": one, "active": True} for one in ("p1", "p2")]
    with bridge.db.transaction() as tx:
        create_all(tx, [*patients, *(photo(n) for n in range(1, 6)), photo(6, "p2")], at=bridge.now())


def ids(bundle: Json, mode: str = "match") -> list[str]:
    return [one["resource"]["id"] for one in bundle.get("entry", []) if one["search"]["mode"] == mode]


def links(bundle: Json) -> dict[str, str]:
    return {one["relation"]: one["url"] for one in bundle["link"]}


def test_a_search_is_a_valid_bundle_whose_links_lead_on_and_back(client: Client) -> None:
    first = client.get("/fhir/Media", params={"patient": "p1", "_count": "2", "_include": "Media:patient"}).json()
    check_resource(first)
    assert (ids(first), ids(first, "include")) == (["m5", "m4"], ["p1"])
    assert first["entry"][0]["fullUrl"] == f"{BASE}/Media/m5"
    assert links(first)["self"] == f"{BASE}/Media?patient=p1&_count=2&_include=Media%3Apatient"
    assert "previous" not in links(first)
    second = client.get(links(first)["next"]).json()
    third = client.get(links(second)["next"]).json()
    assert (ids(second), ids(third), "next" in links(third)) == (["m3", "m2"], ["m1"], False)
    assert ids(client.get(links(third)["previous"]).json()) == ["m3", "m2"]
    assert ids(client.get(links(third)["self"]).json()) == ["m5", "m4"]


def test_an_empty_result_has_no_entry(client: Client) -> None:
    empty = client.get("/fhir/Media", params={"patient": "p9"}).json()
    check_resource(empty)
    assert "entry" not in empty


def test_what_is_posted_never_shows_in_a_link(client: Client, trail: AuditTrail) -> None:
    found = client.post("/fhir/Media/_search", data={"identifier": "urn:a|3", "_total": "accurate"}).json()
    assert (ids(found), found["total"]) == (["m3"], 1)
    assert not any("urn" in url for url in links(found).values())
    assert ids(client.get(links(found)["self"]).json()) == ["m3"]
    wrong = client.post("/fhir/Media/_search", content=b"{}", headers={"Content-Type": "application/json"})
    assert wrong.status_code == 415
    assert client.post("/fhir/Media/_search?identifier=urn:a|2").json()["entry"][0]["resource"]["id"] == "m2"


def test_a_page_link_shows_each_caller_only_their_own(client: Client) -> None:
    onward = links(client.get("/fhir/Media", params={"_count": "1", "_sort": "created"}).json())["next"]
    assert ids(client.get(onward.replace("_count", "x")).json()) == ["m2"]
    client.headers["As"] = "of-p1"
    assert "m6" not in ids(client.get("/fhir/Media").json())
    assert client.get(onward, headers={"As": "nobody"}).status_code == 401
    assert client.get(onward, headers={"As": "reader"}).status_code == 403
    assert client.get(onward + "x").status_code == 400


def test_summary_and_elements_shorten_and_say_so(client: Client) -> None:
    whole = client.get("/fhir/Media", params={"_id": "m1"}).json()["entry"][0]["resource"]
    summary = client.get("/fhir/Media", params={"_id": "m1", "_summary": "true"}).json()["entry"][0]["resource"]
    check_resource(summary)
    assert whole.keys() - summary.keys() == {"note"}
    assert summary["meta"]["tag"][0]["code"] == "SUBSETTED"
    some = client.get("/fhir/Media/m1", params={"_elements": "note"}).json()
    assert some.keys() == {"resourceType", "id", "meta", "note", "status", "content"}
    counted = client.get("/fhir/Media", params={"_summary": "count"}).json()
    check_resource(counted)
    assert (counted["total"], "entry" in counted) == (6, False)


def test_unknown_parameters_are_refused_or_named_as_left_out(client: Client) -> None:
    assert client.get("/fhir/Media", params={"colour": "red"}).status_code == 400
    lenient = client.get("/fhir/Media", params={"colour": "red", "_id": "m1"}, headers={"Prefer": "handling=lenient"})
    check_resource(lenient.json())
    outcome = lenient.json()["entry"][-1]
    assert outcome["search"]["mode"] == "outcome"
    assert "colour" in outcome["resource"]["issue"][0]["details"]["text"]
    assert "colour" not in links(lenient.json())["self"]


def test_a_query_is_audited_once_for_each_patient_found(client: Client, trail: AuditTrail) -> None:
    client.get("/fhir/Media", params={"status": "completed"})
    client.get("/fhir/Media", params={"patient": "p9"})
    assert [(one["event"], one["patient_id"], one["query"]) for one in trail] == [
        ("query", "p1", "Media?status=completed"),
        ("query", "p2", "Media?status=completed"),
        ("query", None, "Media?patient=p9"),
    ]


def test_includes_need_the_right_to_read_their_type(client: Client) -> None:
    client.headers["As"] = "searcher"
    found = client.get("/fhir/Media", params={"_id": "m1", "_include": "Media:patient"}).json()
    assert (ids(found), ids(found, "include")) == (["m1"], [])


def test_more_parameters_than_anybody_needs_are_refused(client: Client) -> None:
    many = "&".join(["status=completed"] * 201)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    json = {"Content-Type": "application/fhir+json"}
    entry = {"request": {"method": "GET", "url": f"Media?{many}"}}
    for answer in (
        client.get(f"/fhir/Media?{many}"),
        client.post("/fhir/Media/_search", content=many, headers=form),
        client.post("/fhir/Media", json=photo(9), headers=json | {"If-None-Exist": many}),
        client.post("/fhir", json={"resourceType": "Bundle", "type": "batch", "entry": [entry]}, headers=json),
    ):
        assert (answer.status_code, "200 parameters" in answer.text) == (400, True), answer.text
