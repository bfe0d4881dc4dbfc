"""After a lost answer, only a destination that says that nothing is there is believed; a wrong address says nothing."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from adapter.sandbox.vendors import Fault
from adapter.sandbox.vendors.behaviour import Refusal
from connectors.answers import Answer
from connectors.contract import RouteRefused
from connectors.in_order import InOrder
from connectors.kinds import EhrProfile
from connectors.profile import build_profile
from connectors.rest import listed
from connectors.rest_knobs import Lookup
from tests.connectors.test_contract import parcel
from tests.connectors.vendor_site import Open, Played, fault, in_chart

PAGE = Refusal(status=404, body="<html><title>Not found</title></html>")
BY_NUMBER = {"path": "persons?mrn={identifier}", "id": "key"}
LOOKS = {
    "openemr": [("GET", "/document")],
    "modmed-ema": [("GET", "/DocumentReference")],
    "pacs": [("GET", "/instances")],
    "medplum": [("POST", "/Media/_search"), ("POST", "/DocumentReference/_search")],
}


@pytest.mark.parametrize("name", LOOKS)
def test_a_look_that_finds_no_such_page_is_no_absence(opened: Open, name: str) -> None:
    site = opened(name)
    site.capture()
    site.vendor.faults = [fault(name, "lost-after")]
    site.run()
    assert site.rows()[0].state == "unknown"
    site.vendor.faults = [Fault("refuse", *asked, refusal=PAGE) for asked in LOOKS[name]]
    site.later()
    assert site.vendor.faults == []
    assert site.rows()[0].state == "unknown"
    assert site.numbers() == ["1001"]
    site.again()
    assert (site.rows()[0].state, site.numbers()) == (in_chart(name), ["1001"])


def test_an_ehr_none_of_whose_routes_answers_is_asked_again(played: Played) -> None:
    running, _ = played("medplum")
    alone = build_profile(running.destination("x", timeouts={"attempts": 1}), source="x")
    with closing(InOrder(EhrProfile.model_construct(routes=(alone,)), str)) as connector:
        assert connector.find(parcel()) is None
        running.vendor.faults = [Fault("refuse", *asked, refusal=PAGE) for asked in LOOKS["medplum"]]
        with pytest.raises(RouteRefused):
            connector.find(parcel())


@pytest.mark.parametrize(
    ("status", "body", "wanted"),
    [
        (200, b'{"entries": []}', []),
        (200, b'{"entries": null}', []),
        (200, b'{"entries": [{"key": "1"}]}', [{"key": "1"}]),
        (200, b'{"resourceType": "Bundle", "total": 0}', []),  # FHIR leaves an empty list out
        (204, b"", []),
        (404, b"", []),
        (404, b"null", []),
        (404, b'{"error": "no such person"}', []),
        (404, b"<html>", None),
        (410, b"", None),
        (200, b"<html>", None),
        (200, b'{"error": "not now"}', None),
        (200, b"[]", None),
    ],
)
def test_what_counts_as_nothing_there(status: int, body: bytes, wanted: Any) -> None:
    lookup = Lookup.model_validate({**BY_NUMBER, "items": "entries", "none": [404]})
    assert listed(Answer(status, {}, body, "r"), lookup) == wanted


def test_without_a_word_of_the_profile_404_is_none_of_that() -> None:
    lookup = Lookup.model_validate(BY_NUMBER)
    assert listed(Answer(404, {}, b"", "r"), lookup) is None
    assert listed(Answer(200, {}, b"[]", "r"), lookup) == []
