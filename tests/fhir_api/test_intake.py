"""Photos and consents created at /fhir go through the same rules as those of the pages."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import ExifTags, Image
from sqlalchemy import func, select
from starlette.applications import Starlette

from adapter.access import Actor
from adapter.access.policy import grants_of
from adapter.bridge import Bridge
from adapter.db.tables import audit_event, binary, blob, media
from adapter.fhir_api import fhir_routes
from adapter.fhir_api.offered import fhir_server
from adapter.records import create_all, find_where
from adapter.records.binaries import find_rendition
from mappings.terms import ACT_CODE, PHOTO_USE, PHOTO_VIEW, SNOMED
from tests.fhir_api.conftest import InProcess

SMART, RIGHTS = grants_of("clinician")
APP = Actor("person", "Practitioner/d1", "A doctor", "clinician", SMART, RIGHTS, patient_id="p1")
MACHINE = Actor("machine", "client", "A machine", "machine", frozenset({"system/*.crs"}))
READER = Actor("machine", "reader", "A reader", "machine", frozenset({"system/*.rs"}))
OF_CHARTS = Actor("machine", "charts", "Charts", "machine", frozenset({"system/Patient.r", "system/Binary.r"}))
OF_CONSENTS = Actor("machine", "consents", "Consents", "machine", frozenset({"system/Consent.r", "system/Binary.r"}))
ACTORS = {"app": APP, "machine": MACHINE, "reader": READER, "of-charts": OF_CHARTS, "of-consents": OF_CONSENTS}


def picture(width: int = 90) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    out = io.BytesIO()
    Image.new("RGB", (width, 48), (90, 80, 70)).save(out, "JPEG", exif=exif)
    return out.getvalue()


def media_of(patient: str = "p1", **more: Any) -> dict[str, Any]:
    resource = {
        "resourceType": "Media",
        "status": "completed",
        "subject": {"reference": f"Patient/{patient}"},
        "createdDateTime": "2026-11-23T09:00:00+01:00",
        "bodySite": {"coding": [{"system": SNOMED, "code": "113179006"}]},
        "view": {"coding": [{"system": PHOTO_VIEW, "code": "close-up"}]},
        "identifier": [{"system": "urn:app", "value": "shot-1"}],
        "note": [{"text": "after two weeks"}],
        "content": {"contentType": "image/jpeg", "data": base64.b64encode(picture()).decode()},
    }
    return {name: value for name, value in (resource | more).items() if value != []}


@pytest.fixture
def client(bridge: Bridge) -> Iterator[httpx.Client]:
    with bridge.db.transaction() as tx:
        create_all(tx, [{"resourceType": "Patient", "id": one} for one in ("p1", "p2")], at=bridge.now())
    app = Starlette(routes=fhir_routes(fhir_server(bridge)))

    async def authenticated(scope: Any, receive: Any, send: Any) -> None:
        asked = next((value.decode() for name, value in scope["headers"] if name == b"as"), "app")
        scope.setdefault("state", {})["actor"] = ACTORS[asked]
        await app(scope, receive, send)

    with httpx.Client(transport=InProcess(authenticated), base_url="http://testserver/fhir") as opened:
        yield opened


def post(client: httpx.Client, resource: dict[str, Any], **headers: str) -> httpx.Response:
    sent = {"Content-Type": "application/fhir+json", **{name.replace("_", "-"): text for name, text in headers.items()}}
    return client.post(resource["resourceType"], json=resource, headers=sent)


def count(bridge: Bridge, table: Any) -> int:
    with bridge.db.snapshot() as tx:
        return int(tx.execute(select(func.count()).select_from(table)).scalar_one())


def test_a_media_with_its_picture_becomes_a_capture(client: httpx.Client) -> None:
    answer = post(client, media_of())
    assert answer.status_code == 201, answer.text
    stored = answer.json()
    assert stored["note"][0]["text"] == "after two weeks" and stored["operator"]["reference"] == "Practitioner/d1"
    assert stored["width"] == 90 and "data" not in stored["content"]
    assert client.get(f"Media/{stored['id']}").json() == stored
    assert client.get("Media", params={"identifier": "urn:app|shot-1"}).json()["entry"][0]["resource"] == stored
    clean = client.get(stored["content"]["url"]).content
    assert Image.open(io.BytesIO(clean)).size == (90, 48) and b"Exif" not in clean


def test_the_labels_of_a_client_are_kept_and_one_that_would_be_lost_is_refused(client: httpx.Client) -> None:
    def labelled(*codes: str) -> httpx.Response:
        labels = [{"system": ACT_CODE, "code": code} for code in codes]
        return post(client, media_of(meta={"security": labels}))

    assert labelled("ETH").status_code == 422
    kept = labelled("HIV").json()["meta"]["security"]
    assert [one["code"] for one in kept] == ["R", "HIV", "full-face"]


def test_sent_twice_it_is_stored_once(bridge: Bridge, client: httpx.Client) -> None:
    first = post(client, media_of())
    again = post(client, media_of())
    assert (first.status_code, again.status_code) == (201, 200)
    asked = post(client, media_of(), If_None_Exist="identifier=urn:app|shot-1")
    assert asked.status_code == 200 and asked.json()["id"] == first.json()["id"]
    assert count(bridge, media) == 1
    other = base64.b64encode(picture(91)).decode()
    conflict = post(client, media_of(content={"contentType": "image/jpeg", "data": other}))
    assert conflict.status_code == 409


def test_a_picture_posted_as_binary_becomes_the_original_and_is_gone(bridge: Bridge, client: httpx.Client) -> None:
    posted = client.post("Binary", content=picture(), headers={"Content-Type": "image/jpeg"})
    assert posted.status_code == 201, posted.text
    reference = "Binary/" + posted.headers["location"].split("/Binary/")[1].split("/")[0]
    answer = post(client, media_of(content={"contentType": "image/jpeg", "url": reference}))
    assert answer.status_code == 201, answer.text
    assert client.get(reference).status_code == 404
    with bridge.db.snapshot() as tx:
        deletions = [one.body for one in find_where(tx, "AuditEvent", audit_event.c.action.startswith("D|"))]
    assert len(deletions) == 1 and reference in deletions[0]
    assert (count(bridge, binary), count(bridge, blob)) == (1, 1)
    gone = post(client, media_of(content={"contentType": "image/jpeg", "url": reference}, identifier=[]))
    assert gone.status_code == 422


def test_bytes_posted_beside_a_photo_never_stand_in_for_it(bridge: Bridge, client: httpx.Client) -> None:
    media_id = post(client, media_of()).json()["id"]
    beside = {"Content-Type": "image/jpeg", "X-Security-Context": f"Media/{media_id}", "as": "machine"}
    assert client.post("Binary", content=picture(7), headers=beside).status_code == 201
    with bridge.db.snapshot() as tx:
        clean = find_rendition(tx, f"Media/{media_id}", None)
        assert clean is not None and clean.clean_view is not None


def test_the_signed_form_of_a_consent_cannot_be_made_a_photo_and_stays(client: httpx.Client) -> None:
    form = post(client, consent_of(sourceAttachment=scanned())).json()["sourceAttachment"]["url"]
    answer = post(client, media_of(content={"contentType": "image/jpeg", "url": form}))
    assert answer.status_code == 422 and "another record" in answer.text
    assert client.get(form).status_code == 200


def test_the_picture_of_another_photo_cannot_be_taken(client: httpx.Client) -> None:
    url = post(client, media_of()).json()["content"]["url"]
    answer = post(client, media_of(content={"contentType": "image/jpeg", "url": url}, identifier=[]))
    assert answer.status_code == 422 and "another record" in answer.text


def test_the_launched_patient_and_the_scope_bound_what_is_created(client: httpx.Client) -> None:
    assert post(client, media_of("p2")).status_code in (403, 404)
    assert post(client, media_of("p2"), AS="machine").status_code == 201
    assert post(client, media_of(), AS="reader").status_code == 403
    assert client.post("Binary", content=b"%PDF-1.7", headers={"Content-Type": "application/pdf"}).status_code == 415


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"status": "preparation"}, 422),
        ({"basedOn": [{"reference": "ServiceRequest/1"}]}, 422),
        ({"content": {"contentType": "image/jpeg"}}, 422),
        ({"content": {"contentType": "image/jpeg", "data": base64.b64encode(b"no picture").decode()}}, 415),
        ({"bodySite": {"coding": [{"system": SNOMED, "code": "1"}]}}, 422),
    ],
)
def test_what_would_not_be_kept_is_refused(client: httpx.Client, more: dict[str, Any], status: int) -> None:
    assert post(client, media_of(**more)).status_code == status


def test_media_is_not_updated_and_not_part_of_a_transaction(client: httpx.Client) -> None:
    stored = post(client, media_of()).json()
    sent = {"Content-Type": "application/fhir+json", "If-Match": 'W/"1"'}
    assert client.put(f"Media/{stored['id']}", json=stored, headers=sent).status_code == 405
    entry = {"resource": media_of(), "request": {"method": "POST", "url": "Media"}}
    for kind, status in (("transaction", 405), ("batch", 200)):
        bundle = {"resourceType": "Bundle", "type": kind, "entry": [entry]}
        answer = client.post("", json=bundle, headers={"Content-Type": "application/fhir+json"})
        assert answer.status_code == status, answer.text


def consent_of(rule: str = "permit", **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Consent",
        "status": "active",
        "scope": {"coding": [{"code": "patient-privacy"}]},
        "category": [{"coding": [{"system": PHOTO_USE, "code": "teaching"}]}],
        "patient": {"reference": "Patient/p1"},
        "dateTime": "2026-11-23T09:00:00Z",
        "policy": [{"uri": "http://example.org/policy"}],
        "provision": {"type": rule},
    } | more


def scanned() -> dict[str, str]:
    return {"contentType": "image/jpeg", "data": base64.b64encode(picture()).decode()}


def test_a_consent_is_recorded_by_the_consent_room(client: httpx.Client) -> None:
    answer = post(client, consent_of())
    assert answer.status_code == 201, answer.text
    stored = answer.json()
    assert stored["provision"]["type"] == "permit" and stored["performer"] == [{"reference": "Patient/p1"}]
    provenances = client.get("Provenance", params={"target": f"Consent/{stored['id']}"}).json()
    assert len(provenances["entry"]) == 1
    form = post(client, consent_of("deny", sourceAttachment=scanned())).json()["sourceAttachment"]["url"]
    assert client.get(form, headers={"as": "of-consents"}).content == picture()
    assert client.get(form, headers={"as": "of-charts"}).status_code == 403
    assert post(client, consent_of(category=[{"text": "another"}])).status_code == 422
    assert post(client, consent_of("permit", status="inactive")).status_code == 422
    assert post(client, consent_of(patient={"reference": "Patient/p2"})).status_code in (403, 404)


def test_a_transaction_that_reads_the_audit_log_finds_who_looked_just_before(client: httpx.Client) -> None:
    media_id = post(client, media_of()).json()["id"]
    assert client.get(f"Media/{media_id}", headers={"as": "machine"}).status_code == 200
    entry = {"request": {"method": "GET", "url": f"AuditEvent?entity=Media/{media_id}&action=R"}}
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    answer = client.post("", json=bundle, headers={"Content-Type": "application/fhir+json", "as": "reader"}).json()
    (seen,) = answer["entry"][0]["resource"]["entry"]
    assert seen["resource"]["agent"][0]["who"]["identifier"]["value"] == "client"


def test_the_capability_statement_offers_what_works(client: httpx.Client) -> None:
    rest = client.get("metadata").json()["rest"][0]["resource"]
    offered = {one["type"]: {each["code"] for each in one["interaction"]} for one in rest}
    for resource_type in ("Media", "Consent", "Binary"):
        assert "create" in offered[resource_type] and "update" not in offered[resource_type]
