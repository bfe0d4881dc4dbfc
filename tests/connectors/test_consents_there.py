"""What was agreed, at the destination: as a document filed before the photo, or as a line beside it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from typing import Any

import pytest

from adapter.sandbox.vendors import Fault, RunningVendor
from connectors.contract import DeliveryError, Parcel
from connectors.profile import ProfileError, build_profile
from connectors.rendition import rendered
from mappings.consent_lines import consent_line
from mappings.consent_to_pdf import consent_to_pdf
from tests.connectors.test_contract import parcel
from tests.connectors.test_rendition import jpeg
from tests.connectors.vendor_site import Played
from tests.pdf_text import pdf_text

CONSENT: dict[str, Any] = {
    "resourceType": "Consent",
    "id": "c1",
    "status": "active",
    "dateTime": "2026-11-20T10:00:00Z",
    "patient": {"reference": "Patient/p1"},
    "provision": {"type": "permit", "purpose": [{"code": "TREAT", "display": "treatment"}]},
}


PHOTO = jpeg((64, 48))


def agreed(**changes: Any) -> Parcel:
    return parcel(content=PHOTO, consents=(CONSENT | changes,))


def documents(running: RunningVendor, code: str = "59284-0") -> list[dict[str, Any]]:
    held = [each for (kind, _), each in running.vendor.resources.items() if kind == "DocumentReference"]
    return [each for each in held if each["type"]["coding"][0]["code"] == code]


@pytest.mark.parametrize("name", ["hapi", "oracle-health"])
def test_a_consent_is_filed_as_a_document_once_and_before_the_photo(name: str, played: Played) -> None:
    running, connector = played(name, consent_strategy="document")
    running.vendor.faults = [Fault("lost-before", "POST", "/Media" if name == "hapi" else "/DocumentReference")]
    with pytest.raises(DeliveryError):
        connector.send(agreed())
    assert len(documents(running)) == (1 if name == "hapi" else 0)
    receipt = connector.send(agreed())
    other = replace(
        agreed(),
        media=agreed().media | {"id": "m2", "identifier": [{"system": "urn:ietf:rfc:3986", "value": "urn:uuid:2"}]},
    )
    connector.send(replace(other, idempotency_key="m2/1/x"))
    (document,) = documents(running)
    assert document["subject"]["reference"].endswith("pat-A-1")
    assert {each.content_type for each in running.vendor.filed()} <= {"application/pdf", "image/jpeg"}
    evidence = connector.read_back(agreed(), receipt)
    assert len(running.vendor.filed()) == 3 and evidence is not None and evidence.matches


def test_a_consent_that_changed_takes_the_place_of_the_document(played: Played) -> None:
    running, connector = played("hapi", consent_strategy="document")
    connector.send(agreed())
    (first,) = documents(running)
    connector.send(replace(agreed(provision={"type": "deny"}), idempotency_key="m1/2/x"))
    (second,) = documents(running)
    assert first["id"] == second["id"] and first["content"] != second["content"]


def test_a_vendors_own_interface_files_it_by_the_same_steps_with_its_own_fields(played: Played) -> None:
    running, connector = played("openemr", consent_strategy="document", consent_fields={"category": "Consents"})
    connector.send(agreed())
    connector.send(agreed())
    assert sorted(each.content_type for each in running.vendor.filed()) == ["application/pdf", "image/jpeg"]


def test_an_interface_that_cannot_be_asked_is_not_given_consents_as_documents() -> None:
    with pytest.raises(ProfileError, match="needs `look`"):
        build_profile({"name": "x", "based_on": "athenaone", "consent_strategy": "document"}, source="test")


def test_where_no_pdf_is_taken_the_consent_stops_the_photo_and_says_what_to_set(played: Played) -> None:
    running, connector = played("hapi", consent_strategy="document", accepts=["image/jpeg"])
    with pytest.raises(DeliveryError, match="The consent") as error:
        connector.send(agreed())
    assert "in-note" in error.value.remedy and not running.vendor.filed()


def test_a_line_beside_the_photo_says_what_was_agreed(played: Played) -> None:
    running, connector = played("hapi", consent_strategy="in-note")
    connector.send(agreed())
    (media,) = [each for (kind, _), each in running.vendor.resources.items() if kind == "Media"]
    assert media["note"][-1]["text"] == "Consent: permitted, 2026-11-20, for treatment"
    note = {"name": "x", "based_on": "hapi", "consent_strategy": "in-note", "transform": {"to": "note"}}
    assert b"Consent: permitted" in rendered(agreed(), build_profile(note, source="test")).content()


def test_no_name_and_no_words_of_others_stand_in_the_line() -> None:
    said = consent_line(CONSENT | {"performer": [{"display": "Jane Doe"}], "status": "inactive"}, UTC)
    assert said == "Consent: permitted, inactive, 2026-11-20, for treatment"


def test_the_page_is_the_same_each_time_and_names_the_patient() -> None:
    page = consent_to_pdf(CONSENT, heading="Doe, Jane | MRN 4711", zone=UTC)
    assert page == consent_to_pdf(CONSENT, heading="Doe, Jane | MRN 4711", zone=UTC)
    text = pdf_text(page)
    assert "MRN 4711" in text and "Decision: permitted" in text and "Purpose: treatment" in text
