"""A photo in doubt, moved, of nobody, and what stays where it was."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from mappings.capture_to_media import Capture, Content, capture_to_media
from mappings.fhir_check import check_resource
from mappings.wrong_patient import certain, doubt_of, quarantined, refiled, state_of, stub_of, unfiled

AT = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
CAPTURE = Capture(
    id="0d6c4f4e-7f0e-4f4e-9f0e-3f1f2a3b4c5d",
    operator="Practitioner/p",
    subject="Patient/a",
    encounter="Encounter/e",
    taken_at=AT,
    body_site="70559009",
    laterality="left",
    lesion="BodyStructure/b",
    note="Ms A, left arm",
)
CONTENT = Content(
    binary_id="b",
    content_type="image/jpeg",
    size=3,
    sha1_b64="A" * 27 + "=",
    sha256_hex="0" * 64,
    width=3,
    height=3,
    created=AT,
)


@pytest.fixture
def media() -> dict[str, Any]:
    return capture_to_media(CAPTURE, CONTENT, media_id="m", issued_at=AT)


def test_a_doubt_keeps_the_claim_and_is_replaced_by_the_next(media: dict[str, Any]) -> None:
    before = copy.deepcopy(media)
    doubted = quarantined(quarantined(media, "other-chart"), "same-content")
    assert (state_of(doubted), doubt_of(doubted)) == ("quarantined", "same-content")
    assert doubted["subject"] == {"reference": "Patient/a"}
    assert len(doubted["extension"]) == 1
    assert "extension" not in certain(doubted)
    assert media == before
    check_resource(doubted)
    with pytest.raises(ValueError, match="unknown"):
        quarantined(media, "bad-mood")


def test_a_moved_photo_leaves_lesion_and_visit_behind(media: dict[str, Any]) -> None:
    moved = refiled(quarantined(media, "reported"), "Patient/b", encounter=None)
    assert moved["subject"] == {"reference": "Patient/b"}
    assert (state_of(moved), doubt_of(moved)) == ("bound", None)
    assert "encounter" not in moved
    assert "BodyStructure/b" not in str(moved)
    assert moved["bodySite"]["text"] == media["bodySite"]["text"]
    released = refiled(quarantined(media, "outside-visit"), "Patient/a", encounter="Encounter/e")
    assert released == media


def test_a_photo_of_nobody_names_nobody(media: dict[str, Any]) -> None:
    nobody = unfiled(media)
    assert not {"subject", "encounter"} & set(nobody)
    assert (state_of(nobody), doubt_of(nobody)) == ("quarantined", "reported")
    check_resource(nobody)


def test_the_stub_tells_when_and_why_and_shows_nothing(media: dict[str, Any]) -> None:
    stub = stub_of(media, stub_id="s", issued_at=AT)
    check_resource(stub)
    assert (stub["id"], stub["status"], stub["subject"]) == ("s", "entered-in-error", {"reference": "Patient/a"})
    assert stub["createdDateTime"] == media["createdDateTime"]
    assert set(stub["content"]) == {"extension"}
    assert not {"note", "identifier", "bodySite", "operator"} & set(stub)
    assert state_of(stub) is None
