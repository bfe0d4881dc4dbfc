"""`dermbridge sandbox ehr` with what an engineer gets wrong, and with a vendor of one's own."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from adapter.cli import cli
from adapter.delivery.rehearsal import grey_photo, invented_parcel
from adapter.errors import BadInput, Conflict, DermBridgeError, Misconfigured, NotFound
from adapter.sandbox.vendors import Fault, Vendor, running_vendor
from adapter.sandbox.vendors.behaviour import Refusal
from adapter.sandbox.vendors.catalogue import get_behaviour, read_fault
from adapter.sandbox.vendors.engine import Kind
from connectors.contract import AlreadyThere, Connector, DeliveryError, Parcel, Retry
from connectors.preview import preview
from connectors.profile import build_profile
from connectors.registry import open_connector

HALDEN = Path(__file__).parent / "data" / "halden"


def refused(*words: str) -> DermBridgeError:
    error = CliRunner().invoke(cli, ["sandbox", "ehr", *words]).exception
    assert isinstance(error, DermBridgeError), error
    return error


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        (["--like", "nobody"], NotFound, "or a .toml file"),
        (["--like", "openemr", "--fault", "weather"], BadInput, "use one of none, lost-before"),
        (["--like", "openemr", "--fault", "refuse:often"], BadInput, "refuse:409:CODE"),
        (["--like", "openemr", "--fault", "busy:429"], BadInput, "only a refusal says more"),
        (["--like", "openemr", "--patient", "4711:31.1.1970"], BadInput, "NUMBER:1970-01-31"),
        (["--like", "openemr", "--profile", __file__], Misconfigured, "is not shipped"),
    ],
)
def test_wrong_words_are_told_before_anything_is_played(words: list[str], kind: type, told: str) -> None:
    error = refused(*words)
    assert type(error) is kind and told in str(error)


def test_a_port_that_is_taken_is_told_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        error = refused("--like", "openemr", "--port", str(taken.getsockname()[1]))
    assert isinstance(error, Conflict) and "choose another" in str(error)


@pytest.mark.parametrize(("text", "told"), [("x = ", "not TOML"), ("x = 1", "profile: Field required")])
def test_a_file_that_describes_no_vendor_is_told_with_its_key(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(text)
    error = refused("--like", str(file))
    assert str(file) in str(error) and told in str(error)


def test_a_fault_strikes_a_write_with_the_vendors_own_words() -> None:
    plain, own = get_behaviour("openemr"), '{"outcome": "HC-5101"}'
    assert read_fault("refuse:409:4107", plain) == Fault("refuse", "POST", refusal=Refusal(status=409, code="4107"))
    assert read_fault(f"refuse:200:{own}", plain) == Fault("refuse", "POST", refusal=Refusal(status=200, body=own))
    assert read_fault("lost-after", get_behaviour("hl7v2")).method == ""


# --- an EHR that nobody described: a profile and a behaviour, no code ----------------------------------------------


Halden = tuple[Vendor, Connector, Parcel]


@pytest.fixture
def halden() -> Iterator[Halden]:
    """The vendor, played; what speaks to it; a photo of a patient it knows."""
    at_noon = datetime(2026, 11, 24, 12, 0, 20, tzinfo=UTC)
    with running_vendor(str(HALDEN / "behaviour.toml")) as running:
        entry = running.destination("halden", based_on=str(HALDEN / "halden.toml"), tenant={"practice": "7"})
        running.vendor.admit("4711", "1970-01-01")
        connector = open_connector(build_profile(entry, source="test"), lambda _: "x", lambda: at_noon)
        with closing(connector):
            yield running.vendor, connector, invented_parcel("halden", grey_photo(), ["urn:x"])


def test_an_ehr_that_nobody_described_takes_photos_by_a_profile_alone(halden: Halden) -> None:
    vendor, connector, parcel = halden
    assert [each.verdict for each in connector.check()] == ["ok", "ok"]
    receipt = connector.send(parcel)
    evidence = connector.read_back(parcel, receipt)
    assert evidence is not None and evidence.matches and connector.send(parcel).duplicate
    assert connector.retract(parcel, connector.retract(parcel, receipt, "an error"), "an error").duplicate
    assert vendor.filed() == []


def test_checking_a_vendors_interface_really_asks_it(halden: Halden) -> None:
    vendor, connector, _ = halden
    vendor.faults = [Fault("refuse", "GET", refusal=Refusal(status=403))]
    assert {each.subject: each.verdict for each in connector.check()}["searching patients by number"] == "error"


@pytest.mark.parametrize(
    ("answer", "retry", "after", "at_most"),
    [
        ('200:{"outcome": "HC-422"}', Retry.NEVER, None, None),
        ('200:{"outcome": "HC-5101"}', Retry.LATER, None, 3),
        ("429", Retry.LATER, 41.0, None),
        ('409:{"outcome": "HC-409"}', Retry.UNKNOWN, None, None),
    ],
)
def test_its_own_codes_mean_what_its_profile_says(
    halden: Halden, answer: str, retry: Retry, after: float | None, at_most: int | None
) -> None:
    vendor, connector, parcel = halden
    vendor.faults = [read_fault(f"refuse:{answer}", vendor.behaviour)]
    with pytest.raises(DeliveryError) as refusal:
        connector.send(parcel)
    found = refusal.value
    assert (found.retry, found.retry_after, found.at_most) == (retry, after, at_most)
    assert isinstance(found, AlreadyThere) == ("HC-409" in answer)


@pytest.mark.parametrize("kind", ["refuse", "lost-before", "lost-after"])
def test_the_former_version_goes_even_if_taking_it_away_failed_at_first(halden: Halden, kind: Kind) -> None:
    vendor, connector, first = halden
    receipt = connector.send(first)
    second = replace(first, delivery_id="second", idempotency_key="example/2/halden", previous=receipt)
    vendor.faults = [Fault(kind, "DELETE", refusal=Refusal(status=503))]
    with pytest.raises(DeliveryError) as interrupted:
        connector.send(second)
    assert interrupted.value.retry is Retry.LATER and vendor.faults == []
    assert connector.send(second).duplicate
    assert len(vendor.filed()) == 1


@pytest.mark.parametrize("path", ["/persons", "/attachments"])
def test_a_login_page_in_the_vendors_stead_is_no_answer(halden: Halden, path: str) -> None:
    vendor, connector, parcel = halden
    connector.send(parcel)
    vendor.faults = [Fault("refuse", "GET", path, refusal=Refusal(status=200, body="<html>Sign in</html>"))]
    with pytest.raises(DeliveryError, match="neither lists anything") as error:
        connector.send(parcel)
    assert error.value.retry is Retry.LATER and len(vendor.filed()) == 1


def test_a_photo_travels_as_base64_within_json_and_its_number_comes_in_a_header(tmp_path: Path) -> None:
    own = tmp_path / "plain.toml"
    own.write_text((HALDEN / "behaviour.toml").read_text().replace('file = "image"', 'file = "image.data"'))
    step: dict[str, Any] = {"path": "persons/{patient}/attachments", "body": "json"}
    step |= {"fields": {"externalRef": "{delivery}", "takenOn": "-", "category": "-", "image": {"data": "{base64}"}}}
    changes = {"tenant": {"practice": "7"}, "steps": [step | {"saves": {"document": "header:Content-Type"}}]}
    with running_vendor(str(own)) as running:
        running.vendor.admit("4711", "1970-01-01")
        table = running.destination("halden", based_on=str(HALDEN / "halden.toml"), **changes)
        profile = build_profile(table, source="test")
        with closing(open_connector(profile, lambda _: "x")) as connector:
            parcel = invented_parcel("halden", grey_photo(), ["urn:x"])
            assert "bytes>" in preview(parcel, profile)[0].what
            assert connector.send(parcel).ids["Document"] == "application/json"
            assert running.vendor.filed()[0].content == grey_photo()
            receipt = connector.find(parcel)
            evidence = connector.read_back(parcel, receipt) if receipt else None
            assert evidence is not None and evidence.matches
