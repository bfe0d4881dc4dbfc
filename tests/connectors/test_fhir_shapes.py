"""Answers that are not what was asked for: never "nothing is there", never anything but a DeliveryError."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from connectors.answers import Answer, find_id
from connectors.contract import DeliveryError, Receipt, Retry
from connectors.fhir_copies import Copy
from connectors.fhir_r4 import FhirR4
from tests.connectors.test_contract import parcel
from tests.connectors.test_fhir_server import as_json, open_server

LOGIN_PAGE = httpx.Response(200, text="<html>Please sign in</html>", headers={"Content-Type": "text/html"})
GARBAGE = [
    LOGIN_PAGE,
    httpx.Response(200),
    as_json([]),
    as_json({}),
    as_json({"entry": [None]}),
    as_json({"resourceType": "Bundle", "entry": [None]}),
    as_json({"resourceType": "Bundle", "entry": None}),
    as_json({"resourceType": "Bundle", "entry": [{"resource": None}]}),
    as_json({"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "Media", "subject": []}}]}),
    as_json({"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "Media", "id": "../Patient/1"}}]}),
    as_json({"resourceType": "OperationOutcome"}),
    as_json({"resourceType": "Media", "content": [], "identifier": [None]}),
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda answer: answer.text[:60] or "nothing")
def test_what_is_no_fhir_is_not_taken_for_nothing_being_there(garbage: httpx.Response) -> None:
    server = open_server(lambda _: garbage)
    for ask in (lambda: server.search("Media", {"identifier": "a|b"}), lambda: server.find("Media", "1")):
        with pytest.raises(DeliveryError, match="brought no") as failed:
            ask()
        assert failed.value.retry is Retry.LATER


@pytest.mark.parametrize("empty", [{}, {"entry": []}])
def test_a_bundle_without_entries_says_that_nothing_is_there(empty: dict[str, Any]) -> None:
    assert open_server(lambda _: as_json({"resourceType": "Bundle"} | empty)).search("Media", {}) == []


@pytest.mark.parametrize("write_by", ["create", "transaction"])
def test_a_write_answered_by_a_login_page_may_have_been_done_or_not(write_by: str) -> None:
    server = open_server(lambda _: LOGIN_PAGE, write_by=write_by)
    with pytest.raises(DeliveryError) as failed:
        server.create({"resourceType": "Media"})
    assert failed.value.retry is Retry.UNKNOWN


def test_a_wrong_copy_does_not_count_as_taken_back_because_a_login_page_answers() -> None:
    connector: Any = FhirR4.__new__(FhirR4)
    connector._server = open_server(lambda _: LOGIN_PAGE)
    receipt = Receipt(route="fhir-media", ids={"Media": "1"}, location=None, version=None, received_at=None)
    with pytest.raises(DeliveryError, match="brought no Media"):
        connector.retract(parcel(), receipt, "wrong patient")


def test_an_id_or_version_that_is_none_is_no_id() -> None:
    said = Answer(201, {}, b'{"resourceType": "Media", "id": "7", "meta": []}')
    assert find_id(said, "Media") == ("7", None)
    assert find_id(Answer(201, {}, b'{"resourceType": "Media", "id": "../7"}'), "Media") == (None, None)


def test_a_copy_without_content_or_visit_has_none() -> None:
    copy = Copy("fhir-documentreference", {"content": [], "context": {"encounter": []}})
    assert (copy.attachment, copy.encounter) == ({}, None)
