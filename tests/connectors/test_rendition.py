"""What a profile makes of a photo, and what of it reaches the resource, step by step."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from adapter.sandbox.vendors import Fault, RunningVendor, running_vendor
from adapter.sandbox.vendors.behaviour import Refusal
from connectors.contract import CannotLook, Connector, DeliveryError, Parcel, Retry, RouteRefused
from connectors.layers import merged
from connectors.outward import mark, put
from connectors.preview import preview
from connectors.profile import build_profile
from connectors.registry import open_connector
from connectors.rendition import rendered
from connectors.templates import filled, values
from mappings.photo_fit import read_jpeg
from tests.connectors.test_contract import parcel

DATA = Path(__file__).parents[1] / "data" / "photos"
MRN = "urn:oid:2.16.840.1.113883.19.5"


def jpeg(size: tuple[int, int] = (800, 600), quality: int = 95) -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(out, "JPEG", quality=quality)
    return out.getvalue()


PHOTO = jpeg()


def photo(content: bytes, content_type: str = "image/jpeg", **changes: Any) -> Parcel:
    return replace(parcel(content=content), content_type=content_type, **changes)


def profile(**keys: Any) -> Any:
    return build_profile({"name": "x", "kind": "fhir-r4", "base_url": "https://e.example/fhir"} | keys, source="test")


def test_a_photo_the_destination_takes_stays_the_very_parcel() -> None:
    given = photo(PHOTO)
    assert rendered(given, profile()) is given
    assert rendered(given, profile(accepts=["image/jpeg"])) is given


@pytest.mark.parametrize("to", ["pdf", "xhtml", "rtf", "note", "hl7v2"])
def test_a_rendition_is_the_same_each_time_and_described_by_its_own_bytes(to: str) -> None:
    chosen = profile(transform={"to": to, "link_base": "https://d.example"})
    first, again = rendered(photo(PHOTO), chosen), rendered(photo(PHOTO), chosen)
    content = first.content()
    assert (first.sha256, first.content_type) == (again.sha256, again.content_type)
    assert first.sha256 == hashlib.sha256(content).hexdigest() and first.size == len(content)
    assert first.media["content"]["hash"] == base64.b64encode(hashlib.sha1(content).digest()).decode()
    assert first.filename.startswith("m1.") and not first.filename.endswith(".jpg")
    if to in {"note", "hl7v2"}:
        assert b"https://d.example/photos/m1" in content


def test_a_type_that_is_not_taken_is_made_jpeg() -> None:
    out = io.BytesIO()
    Image.new("RGB", (300, 200), "red").save(out, "PNG")
    made = rendered(photo(out.getvalue(), "image/png"), profile(accepts=["image/jpeg"]))
    assert made.content_type == "image/jpeg" and read_jpeg(made.content()).width == 300


def test_a_heic_photo_is_made_jpeg_where_heic_is_not_taken() -> None:
    heic = sorted(DATA.rglob("*.[Hh][Ee][Ii][Cc]"))[0].read_bytes()
    made = rendered(photo(heic, "image/heic"), profile(accepts=["image/jpeg"]))
    assert read_jpeg(made.content()).orientation == 1
    assert (
        rendered(photo(heic, "image/heic"), profile(accepts=["image/heic", "image/jpeg"])).content_type == "image/heic"
    )


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"max_bytes": 1000}, "takes 1000"),
        ({"accepts": ["application/pdf"]}, "takes application/pdf"),
        ({"max_bytes": 12_000, "transform": {"downscale": True}}, "does not fit"),
    ],
)
def test_what_cannot_be_made_to_fit_is_left_to_the_next_route(keys: dict[str, Any], reason: str) -> None:
    with pytest.raises(RouteRefused, match=reason) as error:
        rendered(photo(PHOTO), profile(**keys))
    assert error.value.remedy


@pytest.mark.parametrize("to", ["none", "pdf", "xhtml", "rtf"])
def test_what_may_be_made_smaller_fits_whatever_becomes_of_it(to: str) -> None:
    made = rendered(photo(PHOTO), profile(max_bytes=400_000, transform={"to": to, "downscale": True}))
    assert made.size <= 400_000


def test_templates_know_the_photo_and_refuse_what_they_do_not_know() -> None:
    known = values(photo(PHOTO), profile())
    assert filled({"a": ["{taken_at:%m/%d/%Y}", 7], "b": {"c": "{filename}"}}, known) == {
        "a": ["11/23/2026", 7],
        "b": {"c": "m1.jpg"},
    }
    assert filled("x/{identifier}", {"identifier": "a/b?c"}, in_path=True) == "x/a%2Fb%3Fc"
    with pytest.raises(DeliveryError, match=r"names \{departement\}, not known here") as error:
        filled("{departement}", known)
    assert error.value.retry is Retry.NEVER and "filename" in error.value.remedy


def test_required_elements_are_put_where_the_profile_says() -> None:
    resource: dict[str, Any] = {"context": {"period": {"start": "a"}}, "content": [{"attachment": {}}]}
    put(resource, "context.period.end", "b")
    put(resource, "content.0.attachment.title", "t")
    put(resource, "author.1.display", "d")
    assert resource["context"]["period"] == {"start": "a", "end": "b"}
    assert resource["content"] == [{"attachment": {"title": "t"}}] and resource["author"][1] == {"display": "d"}


class Opened:
    """A played vendor and the connector that reaches it."""

    def __init__(self, running: RunningVendor, **changes: Any) -> None:
        running.vendor.admit("A-1", "1970-01-01", "V-1")
        self.vendor = running.vendor
        entry = merged(running.destination("x", timeouts={"attempts": 1, "read": 2.0}), changes)
        self.connector: Connector = open_connector(build_profile(entry, source="test"), {"simulator": "s"}.__getitem__)


@pytest.fixture
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    name, changes = request.param
    with running_vendor(name) as running:
        made = Opened(running, **changes)
        yield made
        made.connector.close()


def only(opened: Opened, kind: str) -> dict[str, Any]:
    (found,) = [each for (each_kind, _), each in opened.vendor.resources.items() if each_kind == kind]
    return found


@pytest.mark.parametrize("opened", [("oracle-health", {})], indirect=True)
def test_a_document_bears_our_mark_where_identifiers_are_not_kept(opened: Opened) -> None:
    given = photo(PHOTO)
    receipt = opened.connector.send(given)
    stored = only(opened, "DocumentReference")
    assert "identifier" not in stored and mark(given) in stored["description"]
    assert (stored["docStatus"], stored["context"]["period"]["end"]) == ("final", "2026-11-23T09:00:00Z")
    assert base64.b64decode(stored["content"][0]["attachment"]["data"]).startswith(b"%PDF")
    evidence = opened.connector.read_back(given, receipt)
    assert evidence is not None and evidence.matches, evidence


@pytest.mark.parametrize("opened", [("hapi", {"references": "absolute", "attachment_url": "absolute"})], indirect=True)
def test_references_are_absolute_where_the_profile_says_so(opened: Opened) -> None:
    opened.connector.send(photo(PHOTO))
    stored = only(opened, "Media")
    assert stored["subject"]["reference"] == f"{opened.vendor.address}/fhir/Patient/pat-A-1"
    assert stored["content"]["url"].startswith(f"{opened.vendor.address}/fhir/Binary/")


@pytest.mark.parametrize("opened", [("hapi", {"replaces": False, "routes": ["fhir-documentreference"]})], indirect=True)
def test_where_nothing_is_replaced_a_new_version_stands_beside_the_superseded_one(opened: Opened) -> None:
    first = opened.connector.send(photo(PHOTO))
    second = photo(jpeg(), idempotency_key="m1/2/x", previous=first)
    opened.connector.send(second)
    states = sorted(
        each["status"] for (kind, _), each in opened.vendor.resources.items() if kind == "DocumentReference"
    )
    assert states == ["current", "superseded"]
    assert opened.connector.send(second).duplicate


@pytest.mark.parametrize("opened", [("epic", {})], indirect=True)
def test_the_route_that_lost_the_answer_is_asked_and_after_a_restart_all_are(opened: Opened) -> None:
    given = photo(PHOTO)
    opened.vendor.faults = [Fault("lost-before", "POST", "/studies")]
    with pytest.raises(DeliveryError) as lost:
        opened.connector.send(given)
    assert lost.value.retry is Retry.UNKNOWN
    assert opened.connector.find(given) is None
    with pytest.raises(CannotLook):  # as after a restart: the answer may have been lost by the route that cannot look
        opened.connector.find(given)


@pytest.mark.parametrize("opened", [("epic", {"routes": {"hl7v2": False}})], indirect=True)
def test_every_route_refusing_says_what_the_last_one_said(opened: Opened) -> None:
    opened.vendor.faults = [
        Fault("refuse", "POST", "/studies", Refusal(status=405)),
        Fault("refuse", "POST", "/DocumentReference", Refusal(status=405)),
    ]
    with pytest.raises(RouteRefused, match="DocumentReference"):
        opened.connector.send(photo(PHOTO))


def test_a_preview_sends_nothing_and_names_each_step() -> None:
    steps = preview(photo(PHOTO), build_profile({"based_on": "modmed-ema"}, source="test"))
    assert [each.where.split()[0] for each in steps] == ["POST", "PUT", "POST"]
    assert steps[1].where == "PUT <upload_url>" and "<patient>" in steps[2].what
    document = json.loads(steps[2].what.removeprefix("json: "))
    assert document["identifier"][0]["value"].endswith(".pdf")


@pytest.mark.parametrize("opened", [("hapi", {})], indirect=True)
@pytest.mark.parametrize(
    ("resource", "kid", "verdict"),
    [({"keys": [{"kid": "k1"}]}, "k1", "ok"), ({"keys": [{"kid": "k1"}]}, "k2", "error"), ({}, "", "error")],
)
def test_our_published_keys_are_looked_at_as_the_ehr_will(
    opened: Opened, resource: dict[str, Any], kid: str, verdict: str
) -> None:
    opened.vendor.resources["Basic", "jwks"] = resource
    auth = {"jwks_url": f"{opened.vendor.address}/fhir/Basic/jwks", "key_id": kid}
    table = {"name": "x", "kind": "fhir-r4", "base_url": f"{opened.vendor.address}/fhir", "auth": auth}
    connector = open_connector(build_profile(table, source="test"), {}.__getitem__)
    found = {each.subject: each for each in connector.check()}
    connector.close()
    assert found["our public keys"].verdict == verdict


@pytest.mark.parametrize("name", ["hapi", "openemr", "pacs", "medplum", "epic", "hl7v2"])
def test_checking_a_played_vendor_finds_it_reachable_and_leaves_nothing_there(name: str) -> None:
    with running_vendor(name) as running:
        made = Opened(running)
        found = made.connector.check()
        made.connector.close()
    assert [each.verdict for each in found if each.subject.endswith("connection")] and not made.vendor.filed()
    assert all(each.verdict == "ok" for each in found if each.subject.endswith("connection")), found


def test_a_visits_pdf_that_is_too_large_is_told_what_makes_it_smaller() -> None:
    sheet = parcel(content=b"%PDF-1.3" + bytes(100), content_type="application/pdf")
    table = {"name": "x", "based_on": "hapi", "max_bytes": 20, "transform": {"downscale": True, "max_edge": 10}}
    with pytest.raises(RouteRefused, match="The PDF has 108 bytes, this destination takes 20") as refused:
        rendered(sheet, build_profile(table, source="test"))
    assert "contact-sheet" in refused.value.remedy
