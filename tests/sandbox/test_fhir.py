"""Filing over FHIR with a back-end token, the chart that shows it, and a merge that moves it."""

from __future__ import annotations

import io
from typing import Any

import httpx
import pytest
from PIL import Image

from adapter.errors import Unavailable
from adapter.sandbox import adt
from adapter.sandbox.adt import Feed, adt_message, merge, register
from adapter.sandbox.ehr import MRN_SYSTEM, SandboxEhr
from mappings.hl7v2.er7 import Message


@pytest.fixture
def backend(served: str) -> Any:
    form = {"grant_type": "client_credentials", "scope": "system/*.crus"}
    token = httpx.post(f"{served}/token", data=form, auth=("dermbridge-backend", "s3cret")).json()["access_token"]
    with httpx.Client(base_url=f"{served}/fhir/", headers={"Authorization": f"Bearer {token}"}) as opened:
        yield opened


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 150, 120)).save(file, "JPEG")
    return file.getvalue()


def file_photo(backend: httpx.Client, patient: str = "Patient/jose") -> httpx.Response:
    headers = {"Content-Type": "image/jpeg", "X-Security-Context": patient}
    stored = backend.post("Binary", content=jpeg(), headers=headers)
    assert stored.status_code == 201
    binary = stored.headers["location"].partition("/_history")[0].rpartition("/")[2]
    media = {
        "resourceType": "Media",
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": "urn:uuid:0d7a3ae2-6f0a-4e30-8a50-6fd2c9f3f1aa"}],
        "status": "completed",
        "subject": {"reference": patient},
        "createdDateTime": "2026-11-23T09:00:00Z",
        "content": {"contentType": "image/jpeg", "url": f"Binary/{binary}", "title": "Left forearm"},
    }
    headers = {
        "Content-Type": "application/fhir+json",
        "If-None-Exist": "identifier=urn:ietf:rfc:3986|urn:uuid:0d7a3ae2-6f0a-4e30-8a50-6fd2c9f3f1aa",
    }
    return backend.post("Media", json=media, headers=headers)


def test_without_a_token_the_fhir_api_answers_401(served: str) -> None:
    for headers in ({}, {"Authorization": "Bearer invented"}):
        answer = httpx.get(f"{served}/fhir/Patient/astrid", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"


def test_a_narrow_token_does_no_more_than_it_says(served: str) -> None:
    form = {"grant_type": "client_credentials", "scope": "system/Patient.r"}
    granted = httpx.post(f"{served}/token", data=form, auth=("dermbridge-backend", "s3cret")).json()
    headers = {"Authorization": f"Bearer {granted['access_token']}"}
    assert granted["scope"] == "system/Patient.r"
    assert httpx.get(f"{served}/fhir/Patient/astrid", headers=headers).status_code == 200
    assert httpx.get(f"{served}/fhir/Encounter/visit-2210", headers=headers).status_code == 403


def test_a_patient_is_found_by_mrn(backend: httpx.Client) -> None:
    found = backend.get("Patient", params={"identifier": f"{MRN_SYSTEM}|4711-0816"}).json()
    assert [entry["resource"]["id"] for entry in found["entry"]] == ["jose"]


def test_a_photo_is_filed_once_and_seen_in_the_chart(backend: httpx.Client, browser: httpx.Client) -> None:
    first, again = file_photo(backend), file_photo(backend)
    assert (first.status_code, again.status_code) == (201, 200)
    media = first.json()
    page = browser.get("/patients/jose?tab=photos")
    assert page.status_code == 200 and "Left forearm" in page.text
    assert browser.get(f"/photos/Media/{media['id']}").content == jpeg()
    changed = media | {"status": "entered-in-error"}
    headers = {"Content-Type": "application/fhir+json", "If-Match": 'W/"1"'}
    assert backend.put(f"Media/{media['id']}", json=changed, headers=headers).status_code == 200
    assert "Left forearm" not in browser.get("/patients/jose?tab=photos").text


def test_pages_need_a_session_and_changes_its_csrf_token(served: str, browser: httpx.Client) -> None:
    assert httpx.get(f"{served}/patients").headers["location"].startswith("/login")
    assert httpx.get(f"{served}/photos/Media/x").headers["location"].startswith("/login")
    assert browser.post("/patients/jose/merge", data={"source": "4711-0815"}).status_code == 403
    for path in ("/patients", "/patients/jose", "/patients/jose?tab=dermbridge"):
        page = browser.get(path)
        assert page.status_code == 200
        assert "frame-src 'self' http://127.0.0.1:8000" in page.headers["content-security-policy"]


def test_a_merge_moves_what_is_filed_and_tells_it_by_a40(
    backend: httpx.Client, ehr: SandboxEhr, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bytes] = []

    def accept(_host: str, _port: int, messages: list[bytes], **_more: object) -> list[bytes]:
        told.extend(messages)
        return [b"MSH|^~\\&\rMSA|AA|1\r"] * len(messages)

    monkeypatch.setattr(adt, "send", accept)
    media = file_photo(backend).json()
    moved = merge(ehr, Feed("127.0.0.1", 1), "astrid", source_mrn="4711-0816")
    assert set(moved) == {"Encounter/visit-2211", f"Media/{media['id']}"}
    assert backend.get(f"Media/{media['id']}").json()["subject"] == {"reference": "Patient/astrid"}
    merged = backend.get("Patient/jose").json()
    assert not merged["active"] and merged["link"][0]["type"] == "replaced-by"
    message = Message.parse(told[0])
    pid, mrg = message.find("PID"), message.find("MRG")
    assert message.header.structure == "ADT_A39" and pid and mrg
    assert (pid.text(3), mrg.text(1), mrg.text(1, 4)) == ("4711-0815", "4711-0816", "HOSP")


def test_a_change_nobody_hears_of_holds_and_its_message_waits(ehr: SandboxEhr, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bytes] = []
    feed = Feed(ehr.settings.mllp_host, ehr.settings.mllp_port)
    names = {"given": "Zoë Ana", "birth_date": "1990-01-02", "sex": "F"}
    with pytest.raises(Unavailable):
        register(ehr, feed, names | {"family": "Łoś|^"})

    def accept(_host: str, _port: int, messages: list[bytes], **_more: object) -> list[bytes]:
        told.extend(messages)
        return [b"MSH|^~\\&\rMSA|AA|1\r"] * len(messages)

    monkeypatch.setattr(adt, "send", accept)
    register(ehr, feed, names | {"family": "Second"})
    families = [pid.text(5) for pid in (Message.parse(raw).find("PID") for raw in told) if pid]
    assert families == ["Łoś|^", "Second"]


def test_a_visit_message_says_when_it_began(ehr: SandboxEhr) -> None:
    with ehr.bridge.db.snapshot() as tx:
        visit, patient = adt.find_visit(tx, "astrid"), adt.get(tx, "Patient", "astrid").resource
    message = Message.parse(adt_message("A04", patient, visit, at=ehr.bridge.now(), control_id="c1"))
    pv1, pid = message.find("PV1"), message.find("PID")
    assert pv1 and pid and visit
    assert (pv1.text(2), pv1.text(19), pv1.text(19, 4)) == ("O", "V-2210", "HOSP")
    assert pv1.text(44).endswith("+0000") and pid.text(5, 2) == "Åsa" and pid.text(7) == "19610312"
