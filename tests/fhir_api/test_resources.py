"""read, vread, history, create, update, delete over HTTP, and what the headers say."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from httpx import Client

from adapter.bridge import Bridge
from adapter.records import create_all
from mappings.fhir_check import check_resource
from tests.conftest import Clock
from tests.fhir_api.conftest import BASE, AuditTrail

Json = dict[str, Any]


def media(patient_id: str = "p1", **more: Any) -> Json:
    return {
        "resourceType": "Media",
        "status": "completed",
        "subject": {"reference": f"Patient/{patient_id}"},
        "createdDateTime": "2026-11-20T10:00:00Z",
        "content": {"contentType": "image/jpeg", "url": "Binary/b1"},
        **more,
    }


def outcome_of(response: Any) -> tuple[int, str]:
    body = response.json()
    assert body["resourceType"] == "OperationOutcome"
    check_resource(body)
    return response.status_code, body["issue"][0]["code"]


def test_a_created_resource_is_read_back_as_it_was_stored(client: Client, trail: AuditTrail) -> None:
    created = client.post("/fhir/Media", json=media(id="mine"))
    assert created.status_code == 201
    stored = created.json()
    assert stored["id"] != "mine"
    assert stored["meta"] == {"versionId": "1", "lastUpdated": "2026-11-23T09:30:00.000Z"}
    assert created.headers["Location"] == f"{BASE}/Media/{stored['id']}/_history/1"
    read = client.get(f"/fhir/Media/{stored['id']}")
    assert read.content == created.content
    assert read.headers["Content-Type"] == "application/fhir+json; fhirVersion=4.0"
    assert (read.headers["ETag"], read.headers["Last-Modified"]) == ('W/"1"', "Mon, 23 Nov 2026 09:30:00 GMT")
    assert [(one["event"], one["patient_id"]) for one in trail] == [("create", "p1"), ("read", "p1")]


def test_prefer_decides_how_much_comes_back(client: Client) -> None:
    minimal = client.post("/fhir/Media", json=media(), headers={"Prefer": "return=minimal"})
    assert (minimal.status_code, minimal.content) == (201, b"")
    told = client.post("/fhir/Media", json=media(), headers={"Prefer": "return=OperationOutcome"})
    assert outcome_of(told) == (201, "informational")


def test_what_the_caller_has_is_not_sent_again(client: Client) -> None:
    path = "/fhir/Media/" + client.post("/fhir/Media", json=media()).json()["id"]
    assert client.get(path, headers={"If-None-Match": 'W/"1"'}).status_code == 304
    assert client.get(path, headers={"If-None-Match": 'W/"2"'}).status_code == 200
    assert client.get(path, headers={"If-Modified-Since": "Mon, 23 Nov 2026 09:30:00 GMT"}).status_code == 304
    assert client.get(path, headers={"If-Modified-Since": "Mon, 23 Nov 2026 09:29:59 GMT"}).status_code == 200
    assert client.get(path, headers={"If-Modified-Since": "last week"}).status_code == 200
    head = client.head(path)
    assert (head.content, head.headers["ETag"]) == (b"", 'W/"1"')
    assert int(head.headers["Content-Length"]) == len(client.get(path).content)


def test_an_update_needs_the_version_it_is_based_on(client: Client, clock: Clock) -> None:
    stored = client.post("/fhir/Media", json=media()).json()
    path, changed = f"/fhir/Media/{stored['id']}", stored | {"status": "entered-in-error"}
    assert outcome_of(client.put(path, json=changed))[0] == 400
    assert outcome_of(client.put(path, json=changed, headers={"If-Match": "one"}))[0] == 400
    clock.advance(minutes=1)
    updated = client.put(path, json=changed, headers={"If-Match": 'W/"1"'})
    assert (updated.status_code, updated.headers["ETag"]) == (200, 'W/"2"')
    assert outcome_of(client.put(path, json=changed, headers={"If-Match": 'W/"1"'})) == (412, "conflict")
    assert client.get(f"{path}/_history/1").json()["status"] == "completed"
    assert client.get(f"{path}/_history/2").json()["status"] == "entered-in-error"
    for version in ("3", "x", "9" * 40):
        assert outcome_of(client.get(f"{path}/_history/{version}")) == (404, "not-found")


def test_the_history_tells_every_version_newest_first(client: Client, clock: Clock) -> None:
    structure = {"resourceType": "BodyStructure", "patient": {"reference": "Patient/p1"}, "active": True}
    stored = client.post("/fhir/BodyStructure", json=structure).json()
    path = f"/fhir/BodyStructure/{stored['id']}"
    clock.advance(minutes=1)
    client.put(path, json=stored | {"active": False})
    assert client.delete(path).status_code == 204
    assert client.delete(path).status_code == 204
    assert outcome_of(client.get(path)) == (410, "deleted")
    history = client.get(f"{path}/_history").json()
    check_resource(history)
    assert [one["request"]["method"] for one in history["entry"]] == ["DELETE", "PUT", "POST"]
    assert [one.get("resource", {}).get("active") for one in history["entry"]] == [None, False, True]
    since = client.get(f"{path}/_history", params={"_since": "2026-11-23T09:30:30Z", "_count": "1"}).json()
    assert (since["total"], len(since["entry"])) == (3, 1)


def test_a_conditional_create_stores_once(client: Client) -> None:
    identifier = {"system": "urn:a", "value": "1"}
    condition = {"If-None-Exist": "identifier=urn:a|1"}
    first = client.post("/fhir/Media", json=media(identifier=[identifier]), headers=condition)
    again = client.post("/fhir/Media", json=media(identifier=[identifier]), headers=condition)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.headers["Location"] == first.headers["Location"]
    client.post("/fhir/Media", json=media(identifier=[identifier]))
    several = client.post("/fhir/Media", json=media(identifier=[identifier]), headers=condition)
    assert outcome_of(several) == (412, "multiple-matches")
    for no_condition in ("identifier=", "_count=1", "_sort=created"):
        refused = client.post("/fhir/Media", json=media(), headers={"If-None-Exist": no_condition})
        assert (refused.status_code, "a condition needs" in refused.text) == (400, True)


def test_the_same_conditional_create_at_the_same_moment_stores_once(client: Client) -> None:
    body = media(identifier=[{"system": "urn:a", "value": "1"}])

    def send(_: int) -> int:
        return client.post("/fhir/Media", json=body, headers={"If-None-Exist": "identifier=urn:a|1"}).status_code

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(send, range(8))) == [200] * 7 + [201]


def test_only_where_allowed_may_a_client_choose_the_id(client: Client) -> None:
    body = media() | {"id": "mine"}
    refused = client.put("/fhir/Media/mine", json=body, headers={"If-Match": 'W/"1"'})
    assert outcome_of(refused) == (405, "not-supported")
    document = {"resourceType": "DocumentReference", "id": "mine", "status": "current", "content": [{"attachment": {}}]}
    document["content"] = [{"attachment": {"contentType": "image/jpeg", "url": "Binary/b1"}}]
    assert client.put("/fhir/DocumentReference/mine", json=document).status_code == 201
    assert client.put("/fhir/DocumentReference/mine", json=document).status_code == 200


@pytest.mark.parametrize(
    ("request_line", "body", "headers", "expected"),
    [
        ("POST Media", b"{", {}, (400, "structure")),
        ("POST Media", b"[]", {}, (400, "structure")),
        ("POST Media", b'{"resourceType":"Consent"}', {}, (400, "structure")),
        ("POST Media", b'{"resourceType":"Media","status":"completed"}', {}, (400, "required")),
        ("POST Media", b"<Media/>", {"Content-Type": "application/fhir+xml"}, (415, "not-supported")),
        ("PUT Media/a", b'{"resourceType":"Media","id":"b"}', {}, (400, "invalid")),
        ("POST Patient", b"{}", {}, (405, "not-supported")),
        ("DELETE Media/a", b"", {}, (405, "not-supported")),
        ("PATCH Media/a", b"", {}, (405, "not-supported")),
        ("GET Observation/a", b"", {}, (404, "not-supported")),
        ("GET Media/a/b/c/d", b"", {}, (404, "not-found")),
        ("GET Media/none", b"", {}, (404, "not-found")),
        ("GET Media/none/_history", b"", {}, (404, "not-found")),
        ("GET Media/a%00b", b"", {}, (400, "invalid")),
        ("GET Media?_format=xml", b"", {}, (406, "not-supported")),
        ("GET Media", b"", {"Accept": "application/fhir+xml"}, (406, "not-supported")),
        ("GET Media", b"", {"Accept": "application/fhir+json; fhirVersion=5.0"}, (406, "not-supported")),
        ("GET Media/$nothing", b"", {}, (404, "not-supported")),
        ("GET Media/a", b"", {"As": "nobody"}, (401, "login")),
        ("POST ", b"{}", {"As": "nobody"}, (401, "login")),
        ("GET Consent/a", b"", {"As": "reader"}, (403, "forbidden")),
        ("POST Media", b"{}", {"As": "reader"}, (403, "forbidden")),
        ("GET Media", b"", {"As": "reader"}, (403, "forbidden")),
    ],
)
@pytest.mark.parametrize("db_url", ["sqlite"], indirect=True)
def test_what_cannot_be_done_is_said_in_an_outcome(
    client: Client, request_line: str, body: bytes, headers: dict[str, str], expected: tuple[int, str]
) -> None:
    method, path = request_line.split(" ")
    sent = {"Content-Type": "application/fhir+json", **headers}
    response = client.request(method, f"/fhir/{path}".rstrip("/"), content=body, headers=sent)
    assert outcome_of(response) == expected
    assert ("WWW-Authenticate" in response.headers) == (expected[0] == 401)


def test_formats_that_mean_fhir_json_are_all_served(client: Client) -> None:
    client.post("/fhir/Media", json=media())
    for accept in ("*/*", "application/json", "text/html, application/fhir+json;q=0.9", "application/*"):
        assert client.get("/fhir/Media", headers={"Accept": accept}).status_code == 200
    for form in ("json", "application/fhir+json", "application/json"):
        assert client.get("/fhir/Media", params={"_format": form}, headers={"Accept": "text/xml"}).status_code == 200
    assert b"\n  " in client.get("/fhir/Media", params={"_pretty": "true"}).content


def test_the_request_id_comes_back_or_is_invented(client: Client, trail: AuditTrail) -> None:
    assert (
        client.post("/fhir/Media", json=media(), headers={"X-Request-Id": "abc-1"}).headers["X-Request-Id"] == "abc-1"
    )
    invented = client.get("/fhir/Media", headers={"X-Request-Id": "a\tb"}).headers["X-Request-Id"]
    assert [one["request_id"] for one in trail] == ["abc-1", invented]


def test_a_session_of_one_patient_cannot_tell_others_from_nothing(
    client: Client, bridge: Bridge, trail: AuditTrail
) -> None:
    mine, theirs = (client.post("/fhir/Media", json=media(one)).json() for one in ("p1", "p2"))
    nobodys = media()
    del nobodys["subject"]
    unknown = client.post("/fhir/Media", json=nobodys).json()
    trail.clear()
    client.headers["As"] = "of-p1"
    assert client.get(f"/fhir/Media/{mine['id']}").status_code == 200
    for hidden in (theirs["id"], unknown["id"], "none"):
        for path in (f"Media/{hidden}", f"Media/{hidden}/_history", f"Media/{hidden}/_history/1"):
            response = client.get(f"/fhir/{path}")
            assert outcome_of(response) == (404, "not-found")
            assert response.text.replace(hidden, "X") == client.get(f"/fhir/{path.replace(hidden, 'X')}").text
        changed = theirs | {"id": hidden}
        refused = client.put(f"/fhir/Media/{hidden}", json=changed, headers={"If-Match": 'W/"1"'})
        assert outcome_of(refused) == (405, "not-supported")
    assert outcome_of(client.post("/fhir/Media", json=media("p2"))) == (403, "forbidden")
    moved = client.put(
        f"/fhir/Media/{mine['id']}", json=mine | {"subject": {"reference": "Patient/p2"}}, headers={"If-Match": "*"}
    )
    assert outcome_of(moved) == (403, "forbidden")
    assert [one["event"] for one in trail] == ["read"]


def test_versions_filed_under_another_patient_stay_hidden(client: Client) -> None:
    stored = client.post("/fhir/Media", json=media("p2")).json()
    path = f"/fhir/Media/{stored['id']}"
    client.put(path, json=stored | {"subject": {"reference": "Patient/p1"}}, headers={"If-Match": 'W/"1"'})
    client.headers["As"] = "of-p1"
    assert client.get(path).status_code == 200
    assert client.get(f"{path}/_history/1").status_code == 404
    assert [one["response"]["etag"] for one in client.get(f"{path}/_history").json()["entry"]] == ['W/"2"']


def test_an_audit_that_fails_undoes_the_write_and_withholds_the_read(
    client: Client, bridge: Bridge, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bridge.db.transaction() as tx:
        create_all(tx, [media() | {"id": "m1"}], at=bridge.now())

    def refuse(*_args: Any, **_what: Any) -> None:
        raise OSError("the audit log cannot be written")

    object.__setattr__(server, "audit", refuse)
    with pytest.raises(OSError):
        client.post("/fhir/Media", json=media())
    with pytest.raises(OSError):
        client.get("/fhir/Media/m1")
    object.__setattr__(server, "audit", lambda *_args, **_what: None)
    assert client.get("/fhir/Media", params={"_summary": "count"}).json()["total"] == 1


def test_the_capability_statement_is_open_valid_and_says_what_is_offered(client: Client) -> None:
    response = client.get("/fhir/metadata", headers={"As": "nobody"})
    statement = response.json()
    check_resource(statement)
    offered = {one["type"]: one for one in statement["rest"][0]["resource"]}
    assert {one["code"] for one in offered["Patient"]["interaction"]} == {
        "read",
        "vread",
        "history-instance",
        "search-type",
    }
    names = [one["name"] for one in offered["Media"]["searchParam"]]
    assert {"patient", "created", "site", "lesion", "_lastUpdated"} <= set(names)
    assert len(names) == len(set(names))
    assert "searchParam" not in offered["Binary"]
    again = client.get("/fhir/metadata", headers={"If-None-Match": response.headers["ETag"]})
    assert again.status_code == 304
