"""Looks that go in one batch: the same answers as one by one, and nobody answered by what was meant for another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from adapter.sandbox.vendors import Fault, RunningVendor
from adapter.sandbox.vendors.behaviour import Refusal
from connectors.contract import AsksTogether, Connector, DeliveryError, Parcel, Retry
from connectors.fhir_batch import Ahead, Look
from connectors.in_order import InOrder
from connectors.kinds import EhrProfile
from connectors.profile import build_profile
from mappings.terms import URI
from tests.connectors.test_contract import parcel
from tests.connectors.vendor_site import Open, Played

PHOTOS = (1, 2)  # the first round of a destination
ROUND = [("POST", "/fhir/"), *[("POST", "/fhir/Media")] * 2, ("POST", "/fhir/")]


def photo(number: int, patient: str = "1") -> Parcel:
    """Another one for each number, of patient A-1 and no visit."""
    made = parcel(patient)
    who = {**made.patient, "identifier": [{"system": "urn:mrn", "value": f"A-{patient}"}]}
    media = {**made.media, "identifier": [{"system": URI, "value": f"urn:uuid:{number:032}"}]}
    return replace(made, media=media, patient=who, encounter=None, idempotency_key=f"m{number}/1/x")


@pytest.fixture
def here(played: Played) -> tuple[RunningVendor, Connector]:
    return played("hapi")


def ahead(connector: Connector, parcels: Sequence[Parcel]) -> Any:
    assert isinstance(connector, AsksTogether)
    return connector.asked_together([(each, None) for each in parcels])


def behaves(running: RunningVendor, **changes: Any) -> None:
    behaviour = running.vendor.behaviour
    assert behaviour.fhir is not None
    fhir = behaviour.fhir.model_copy(update=changes)
    running.vendor.behaviour = behaviour.model_copy(update={"fhir": fhir})


def refusals(connector: Connector, parcels: Sequence[Parcel]) -> list[DeliveryError]:
    found = []
    with ahead(connector, parcels):
        for each in parcels:
            with pytest.raises(DeliveryError) as refused:
                connector.send(each)
            found.append(refused.value)
    return found


def without_bytes(requests: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(method, path) for method, path in requests if "/Binary" not in path]


def test_all_looks_of_a_round_are_one_request_and_so_is_the_reading_back(opened: Open) -> None:
    site = opened("hapi")
    for number in PHOTOS:
        site.capture(number)
    site.run()
    assert [site.rows(number)[0].state for number in PHOTOS] == ["confirmed"] * 2
    assert without_bytes(site.vendor.requests) == ROUND


def test_a_route_among_several_asks_for_a_round_at_once(here: tuple[RunningVendor, Connector]) -> None:
    running, _ = here
    alone = build_profile(running.destination("x"), source="x")
    connector = InOrder(EhrProfile.model_construct(routes=(alone,)), str)
    photos = [photo(number) for number in PHOTOS]
    with ahead(connector, photos):
        receipts = [connector.send(each) for each in photos]
    with connector.asked_together(list(zip(photos, receipts, strict=True))):
        seen = [connector.read_back(*each) for each in zip(photos, receipts, strict=True)]
    connector.close()
    assert all(each and each.matches for each in seen)
    assert without_bytes(running.vendor.requests) == ROUND


@pytest.mark.parametrize("lie", ["fewer", "more", "reversed"])
def test_other_answers_than_were_asked_for_answer_nobody_and_then_each_is_asked_by_itself(
    opened: Open, lie: str
) -> None:
    site = opened("hapi")
    fhir = site.vendor.behaviour.fhir
    assert fhir is not None
    lying = fhir.model_copy(update={"batch_lies": lie})
    site.vendor.behaviour = site.vendor.behaviour.model_copy(update={"fhir": lying})
    for number in PHOTOS:
        site.capture(number)
    site.run()
    assert site.filed() == [] and all("not those to what was asked" in site.rows(n)[0].reason for n in PHOTOS)
    site.later(minutes=1)
    assert [site.rows(number)[0].state for number in PHOTOS] == ["confirmed"] * 2
    assert len(site.filed()) == 2


def test_what_is_there_already_is_found_and_not_filed_again(here: tuple[RunningVendor, Connector]) -> None:
    running, connector = here
    connector.send(photo(1))
    with ahead(connector, [photo(1), photo(2)]):
        assert [connector.send(photo(1)).duplicate, connector.send(photo(2)).duplicate] == [True, False]
    assert len(running.vendor.filed()) == 2


def test_a_look_is_answered_once_from_a_batch_and_then_asked_anew(here: tuple[RunningVendor, Connector]) -> None:
    _, connector = here
    with ahead(connector, [photo(1), photo(2)]):
        assert connector.send(photo(1)).duplicate is False
        assert connector.send(photo(1)).duplicate is True


def test_one_whose_patient_is_unknown_waits_and_the_other_is_filed(here: tuple[RunningVendor, Connector]) -> None:
    running, connector = here
    with ahead(connector, [photo(1), photo(2, "7")]):
        connector.send(photo(1))
        with pytest.raises(DeliveryError, match="No patient") as refused:
            connector.send(photo(2, "7"))
    assert refused.value.retry is Retry.LATER and len(running.vendor.filed()) == 1


def test_an_entry_that_was_refused_is_that_photos_refusal_as_a_request_of_its_own_would_be(
    here: tuple[RunningVendor, Connector],
) -> None:
    running, connector = here
    running.vendor.merge("A-1", "A-2")
    [alone] = refusals(connector, [photo(1)])
    together = refusals(connector, [photo(1), photo(2)])
    assert {(str(one), one.retry, one.remedy) for one in together} == {(str(alone), alone.retry, alone.remedy)}


@pytest.mark.parametrize(("status", "outage"), [(503, True), (500, False)])
def test_a_batch_that_failed_fails_each_photo_as_a_single_request_would(
    here: tuple[RunningVendor, Connector], status: int, outage: bool
) -> None:
    running, connector = here
    running.vendor.faults = [Fault("refuse", "POST", "/fhir", Refusal(status=status))]
    found = refusals(connector, [photo(1), photo(2)])
    assert [(one.retry, one.outage) for one in found] == [(Retry.LATER, outage)] * 2
    assert running.vendor.filed() == []


def test_a_server_that_takes_no_batch_is_asked_one_by_one_next_time(here: tuple[RunningVendor, Connector]) -> None:
    running, connector = here
    behaves(running, batch=False)
    found = refusals(connector, [photo(1), photo(2)])
    assert all(one.retry is Retry.LATER and "batch_reads = false" in one.remedy for one in found)
    assert connector.send(photo(1)).duplicate is False
    assert [each.verdict for each in connector.check() if each.subject == "batch"] == ["error"]


def test_check_proves_that_a_batch_is_answered(here: tuple[RunningVendor, Connector]) -> None:
    running, connector = here
    assert [each.verdict for each in connector.check() if each.subject == "batch"] == ["ok"]
    behaves(running, batch_lies="reversed")
    assert [each.verdict for each in connector.check() if each.subject == "batch"] == ["error"]


ONE, TWO = (Look("Media", "", "urn:s", value) for value in ("1", "2"))
Bundle = dict[str, Any]


def searchset(*found: Bundle) -> Bundle:
    return {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": each} for each in found]}


def media(value: str) -> Bundle:
    return {"resourceType": "Media", "id": value, "identifier": [{"system": "urn:s", "value": value}]}


@pytest.mark.parametrize(
    ("look", "found", "fits"),
    [
        (ONE, searchset(), True),
        (ONE, searchset(media("1")), True),
        (ONE, searchset(media("2"), media("1")), True),
        (ONE, searchset({"resourceType": "OperationOutcome"}), True),
        (ONE, searchset(media("2")), False),
        (ONE, searchset({"resourceType": "Patient", "id": "p"}), False),
        (ONE, media("1"), False),
        (Look("Media", "1"), media("1"), True),
        (Look("Media", "1"), media("2"), False),
        (Look("Media", "1"), searchset(), False),
    ],
)
def test_what_may_answer_a_look(look: Look, found: Bundle, fits: bool) -> None:
    assert look.may_be(found) is fits


def test_the_same_look_of_several_is_asked_once() -> None:
    assert len(Ahead([ONE, TWO, ONE])) == 2


def test_photos_within_their_resources_are_read_back_one_by_one(opened: Open) -> None:
    site = opened("hapi", binary_upload="inline")
    for number in PHOTOS:
        site.capture(number)
    site.run()
    assert [site.rows(number)[0].state for number in PHOTOS] == ["confirmed"] * 2
    assert [path for _, path in site.vendor.requests].count("/fhir/") == 1
