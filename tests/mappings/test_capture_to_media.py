"""Captures as Media, and the edits a Media sees; the whole resources stand in the golden pairs."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from mappings.capture_to_media import Capture, Content, assign, bind_media, capture_to_media, with_identity_state
from mappings.fhir_time import Precision, fhir_date_time, fhir_instant, period_bounds
from mappings.terms import IDENTITY_STATE, has_code

AT = datetime(2026, 11, 20, 9, 30, 5, tzinfo=timezone(timedelta(hours=-5)))
CONTENT = Content(
    binary_id="b1",
    content_type="image/jpeg",
    size=10,
    sha1_b64="qUqP5cyxm6YcTAhz05Hph5gvu9M=",
    sha256_hex="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    width=4,
    height=3,
    created=AT,
)


def media_of(**given: Any) -> dict[str, Any]:
    facts = {"id": "0d5c5a3e-4d0b-4a5e-9a0e-5b1f3f0d2c11", "operator": "Practitioner/u1", "subject": "Patient/p1"}
    return capture_to_media(Capture(**{**facts, **given}), CONTENT, media_id="m1", issued_at=AT)


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("year", "2026"),
        ("month", "2026-11"),
        ("day", "2026-11-20"),
        ("second", "2026-11-20T09:30:05-05:00"),
    ],
)
def test_the_time_is_as_precise_as_it_was_known_and_in_the_cameras_zone(precision: Precision, expected: str) -> None:
    assert media_of(taken_at=AT, taken_precision=precision)["createdDateTime"] == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"subject": None}, "needs its subject"),
        ({"subject": ("s", "v")}, "needs its subject"),
        ({"identity_state": "awaiting-patient"}, "identifier it waits for"),
        ({"identity_state": "unidentified"}, "has no subject"),
        ({"view": "selfie"}, "View 'selfie' is unknown"),
        ({"laterality": "up"}, "Laterality 'up' is unknown"),
        ({"flags": ("x",)}, "No such label flag"),
    ],
)
def test_a_capture_that_contradicts_itself_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        media_of(**given)


def test_binding_names_the_patient_and_replaces_the_state_only() -> None:
    held = media_of(identity_state="awaiting-patient", subject=("urn:oid:1.2", "H1"), encounter="Encounter/e1")
    held["meta"]["tag"].append({"system": "urn:x", "code": "kept"})
    before = copy.deepcopy(held)
    bound = bind_media(held, "Patient/p9")
    assert bound["subject"] == {"reference": "Patient/p9"}
    assert [tag["code"] for tag in bound["meta"]["tag"]] == ["kept", "bound"]
    assert bound["encounter"] == {"reference": "Encounter/e1"}
    assert held == before


def test_a_state_can_be_changed_without_touching_the_subject() -> None:
    media = media_of()
    quarantined = with_identity_state(media, "quarantined")
    assert quarantined["subject"] == media["subject"]
    assert has_code(quarantined["meta"]["tag"], IDENTITY_STATE, "quarantined")
    assert not has_code(quarantined["meta"]["tag"], IDENTITY_STATE, "bound")


def test_assigning_one_thing_of_the_site_keeps_the_others() -> None:
    media = media_of(body_site="36141000", laterality="left", lesion="BodyStructure/l1")
    moved = assign(media, laterality="right")
    assert moved["bodySite"]["text"] == "Skin of cheek, right"
    assert assign(moved, laterality="left") == media
    bare = assign(assign(media, lesion=None), body_site=None, laterality=None)
    assert "bodySite" not in bare


def test_an_assignment_that_says_nothing_changes_nothing_even_in_a_site_we_did_not_write() -> None:
    media = media_of() | {"bodySite": {"text": "behind the knee", "coding": [{"system": "urn:x", "code": "1"}]}}
    assert assign(media) == media
    assert assign(media, view="overview")["bodySite"] == media["bodySite"]


def test_a_corrected_site_raises_labels_and_never_lowers_them() -> None:
    media = media_of(body_site="66643007", flags=("minor",))
    intimate = assign(media, body_site="7991003")
    assert {label["code"] for label in intimate["meta"]["security"]} == {"V", "SEX", "intimate", "minor", "HUAPRV"}
    back = assign(intimate, body_site="66643007")
    assert back["meta"]["security"] == intimate["meta"]["security"]


def test_the_view_carries_the_modality() -> None:
    media = media_of(view="close-up")
    assert assign(media, view="dermoscopic")["modality"]["coding"][0]["code"] == "DMS"
    assert assign(media, view=None)["modality"]["coding"][0]["code"] == "XC"


def test_times_without_a_zone_are_refused() -> None:
    for write in (fhir_instant, fhir_date_time):
        with pytest.raises(ValueError, match="zone"):
            write(datetime(2026, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("end", "last", "first_after"),
    [
        ("2031", datetime(2031, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2032, 1, 1, tzinfo=UTC)),
        ("2031-12", datetime(2031, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2032, 1, 1, tzinfo=UTC)),
        ("2031-02-28", datetime(2031, 2, 28, 23, 59, 59, tzinfo=UTC), datetime(2031, 3, 1, tzinfo=UTC)),
        ("9999-12-31", datetime(9999, 12, 31, 12, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("9999", datetime(9999, 12, 31, 12, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("2026-06-30T23:59:60Z", datetime(2026, 6, 30, 23, 59, 59, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)),
        (
            "2026-06-30T10:00:00.5Z",
            datetime(2026, 6, 30, 10, 0, 0, 500000, tzinfo=UTC),
            datetime(2026, 6, 30, 10, 0, 0, 500001, tzinfo=UTC),
        ),
        ("2031-02-28T10:00:00Z", datetime(2031, 2, 28, 10, tzinfo=UTC), datetime(2031, 2, 28, 10, 0, 1, tzinfo=UTC)),
    ],
)
def test_a_partial_end_lasts_to_its_end(end: str, last: datetime, first_after: datetime) -> None:
    _, bound = period_bounds({"end": end}, UTC)
    assert bound is not None
    assert last < bound
    assert first_after >= bound
