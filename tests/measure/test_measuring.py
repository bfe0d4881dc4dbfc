"""A stored photo measured and kept: by its patient's own session only, withdrawn with a reason, never left behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from adapter.access import SYSTEM, Actor
from adapter.batch.operations import replace_media
from adapter.bridge import Bridge
from adapter.capture.receive import Upload, receive
from adapter.db.tables import audit_event, provenance
from adapter.errors import BadInput, Conflict, Forbidden, Gone, NotFound, Unprocessable
from adapter.identity import Refiling, merge_patients, refile
from adapter.measure.measuring import (
    Drawn,
    find_outline,
    keep,
    look,
    measure,
    measurements_of,
    measurements_of_lesion,
    normalised,
    withdraw,
)
from adapter.records import create, get, update_resource
from adapter.settings import FieldOfView
from mappings.capture_to_media import assign
from mappings.fhir_check import check_resource
from mappings.measurement_to_observation import observation_to_measurement, wording
from mappings.terms import CONFIDENTIALITY, coding
from tests.measure.scenes import Photo, scene

CLINICIAN = Actor(
    "person",
    "Practitioner/x",
    "Dr X",
    "clinician",
    frozenset({"user/Media.rs", "user/Observation.crus"}),
    patient_id="asa",
)

POINTS = {"source": "points", "millimetres": 50.0, "sigma": 2.0}


@pytest.fixture
def patients(bridge: Bridge) -> Bridge:
    with bridge.db.transaction() as tx:
        for patient in ("asa", "bo"):
            create(tx, {"resourceType": "Patient", "id": patient, "active": True}, at=bridge.now())
        lesion = {"resourceType": "BodyStructure", "id": "mole", "patient": {"reference": "Patient/asa"}}
        create(tx, lesion, at=bridge.now())
    return bridge


@pytest.fixture
def photo() -> Photo:
    return scene("card")


@pytest.fixture
def media(patients: Bridge, photo: Photo) -> Iterator[str]:
    told = {"patient": "Patient/asa", "lesion": "BodyStructure/mole", "taken_at": "2026-11-23T09:00:00Z"}
    yield receive(patients, SYSTEM, Upload(photo.jpeg, told)).id


def outlined(photo: Photo, **more: Any) -> Drawn:
    """The true outline, as somebody might draw it with a card beside it."""
    points = tuple((float(x), float(y)) for x, y in photo.seen_curve[::20])
    return replace(Drawn("outline", points, 1.0, 1.0, {"source": "card"}, "Drawn by hand", 1), **more)


def test_an_outline_is_kept_as_an_observation_of_the_photo_with_what_it_takes_to_check_it(
    patients: Bridge, photo: Photo, media: str
) -> None:
    kept = keep(patients, CLINICIAN, media, outlined(photo)).resource
    check_resource(kept)
    assert kept["code"]["coding"][0] == {"system": "http://snomed.info/sct", "code": "42798000"}
    assert kept["valueQuantity"]["code"] == "mm2"
    assert kept["valueQuantity"]["value"] == pytest.approx(photo.area, rel=0.03)
    assert kept["derivedFrom"] == [{"reference": f"Media/{media}/_history/1"}]
    assert kept["subject"] == {"reference": "Patient/asa"}
    assert kept["effectiveDateTime"] == "2026-11-23T09:00:00Z"
    shown = observation_to_measurement(kept)
    assert shown["scale"]["source"] == "card"
    assert shown["points"][0] == pytest.approx(outlined(photo).points[0], abs=0.1)
    assert {one["name"]: one["unit"] for one in shown["measures"]}["long-axis"] == "mm"
    assert wording(shown["measures"][0]).endswith(" mm²")
    with patients.db.snapshot() as tx:
        assert [one.id for one in measurements_of(tx, CLINICIAN, media)] == [kept["id"]]
        assert [one.id for one in measurements_of_lesion(tx, CLINICIAN, "mole")] == [kept["id"]]
        assert any(
            f"Observation/{kept['id']}/_history/1" in body for body in tx.execute(select(provenance.c.body)).scalars()
        )
        assert any(
            f"Observation/{kept['id']}/_history/1" in body for body in tx.execute(select(audit_event.c.body)).scalars()
        )


def test_without_a_scale_a_length_is_in_pixels_and_has_no_ucum_unit(patients: Bridge, media: str) -> None:
    drawn = Drawn("length", ((10.0, 10.0), (310.0, 410.0)), 1.0, 0.0, {"source": "none"}, "Drawn by hand", 1)
    quantity = keep(patients, CLINICIAN, media, drawn).resource["valueQuantity"]
    assert (quantity["value"], quantity["unit"]) == (500.0, "pixels")
    assert "code" not in quantity
    assert "system" not in quantity


def test_a_scale_the_photo_does_not_offer_is_refused(patients: Bridge, photo: Photo, media: str) -> None:
    with pytest.raises(Unprocessable, match="does not offer"):
        measure(patients, CLINICIAN, media, outlined(photo, scale={"source": "field-of-view"}))


def test_a_scale_marked_beside_the_photo_is_refused(patients: Bridge, photo: Photo, media: str) -> None:
    ends = ((10.0, 10.0), (60_000.0, 10.0))
    with pytest.raises(Unprocessable, match="outside the photo"):
        measure(patients, CLINICIAN, media, outlined(photo, scale=POINTS | {"points": ends}))


def test_the_photo_offers_its_card_and_the_outline_of_what_is_pointed_at(
    patients: Bridge, photo: Photo, media: str
) -> None:
    offered = look(patients, CLINICIAN, media)
    assert [one["source"] for one in offered["scales"]] == ["card"]
    assert offered["colour"]["calibrated"]
    found = find_outline(patients, CLINICIAN, media, photo.middle)
    area = measure(patients, CLINICIAN, media, outlined(photo, points=tuple(map(tuple, found["points"]))))
    assert area["measures"][0]["value"] == pytest.approx(photo.area, rel=0.06)
    assert normalised(patients, CLINICIAN, media).startswith(b"\xff\xd8\xff")


def test_a_dermatoscope_that_the_site_describes_gives_its_photos_a_scale(patients: Bridge, photo: Photo) -> None:
    field = FieldOfView(device="DermLite DL5", millimetres=130.0)
    object.__setattr__(patients, "settings", patients.settings.model_copy(update={"fields_of_view": (field,)}))
    content = scene("no card").jpeg
    told = {"patient": "Patient/asa", "device": "DermLite DL5"}
    media = receive(patients, SYSTEM, Upload(content, told)).id
    [offered] = look(patients, CLINICIAN, media)["scales"]
    assert offered["source"] == "field-of-view"
    assert offered["mm_per_pixel"] == pytest.approx(130 / 1400, rel=0.01)


def test_a_version_that_was_not_seen_is_not_measured(patients: Bridge, photo: Photo, media: str) -> None:
    with pytest.raises(Conflict):
        keep(patients, CLINICIAN, media, outlined(photo, version=2))


def test_only_the_patients_own_session_measures_lists_and_withdraws(patients: Bridge, photo: Photo, media: str) -> None:
    kept = keep(patients, CLINICIAN, media, outlined(photo))
    stranger = replace(CLINICIAN, patient_id="bo")
    for refused in (
        lambda: keep(patients, stranger, media, outlined(photo)),
        lambda: look(patients, stranger, media),
        lambda: withdraw(patients, stranger, kept.id, media_id=media, why="not mine"),
    ):
        with pytest.raises(NotFound):
            refused()
    reader = replace(CLINICIAN, scopes=frozenset({"user/Media.rs", "user/Observation.rs"}))
    for refused in (
        lambda: keep(patients, reader, media, outlined(photo)),
        lambda: withdraw(patients, reader, kept.id, media_id=media, why="may not"),
    ):
        with pytest.raises(Forbidden):
            refused()


def test_the_very_same_measurement_is_kept_once(patients: Bridge, photo: Photo, media: str) -> None:
    first, again = (keep(patients, CLINICIAN, media, outlined(photo)).id for _ in range(2))
    assert first == again
    assert keep(patients, CLINICIAN, media, outlined(photo, sigma=2.0)).id != first


def test_who_may_read_photos_only_reads_no_measurements(patients: Bridge, photo: Photo, media: str) -> None:
    keep(patients, CLINICIAN, media, outlined(photo))
    looking = replace(CLINICIAN, scopes=frozenset({"user/Media.rs"}))
    with patients.db.snapshot() as tx:
        assert measurements_of(tx, looking, media) == measurements_of_lesion(tx, looking, "mole") == []


def test_a_measurement_is_withdrawn_with_its_reason_and_only_once(patients: Bridge, photo: Photo, media: str) -> None:
    kept = keep(patients, CLINICIAN, media, outlined(photo))
    with pytest.raises(BadInput):
        withdraw(patients, CLINICIAN, kept.id, media_id=media, why=" ")
    gone = withdraw(patients, CLINICIAN, kept.id, media_id=media, why="outlined the wrong mole").resource
    check_resource(gone)
    assert gone["status"] == "entered-in-error"
    assert gone["note"][-1]["text"].endswith("outlined the wrong mole")
    with pytest.raises(Gone):
        withdraw(patients, CLINICIAN, kept.id, media_id=media, why="again")
    with patients.db.snapshot() as tx:
        assert measurements_of(tx, CLINICIAN, media) == []


def test_a_very_restricted_photo_keeps_its_measurements_from_those_it_is_kept_from(
    patients: Bridge, photo: Photo, media: str
) -> None:
    with patients.db.transaction() as tx:
        labelled = get(tx, "Media", media).resource
        labelled["meta"]["security"] = [coding(CONFIDENTIALITY, "V")]
        update_resource(tx, labelled, at=patients.now())
    kept = keep(patients, SYSTEM, media, outlined(photo, version=2))
    assert kept.resource["meta"]["security"] == [coding(CONFIDENTIALITY, "V")]
    with patients.db.snapshot() as tx:
        assert measurements_of_lesion(tx, CLINICIAN, "mole") == []
    with pytest.raises(Forbidden):
        withdraw(patients, CLINICIAN, kept.id, media_id=media, why="seen by chance")


def test_a_merge_takes_measurements_along(patients: Bridge, photo: Photo, media: str) -> None:
    kept = keep(patients, CLINICIAN, media, outlined(photo))
    with patients.db.transaction() as tx:
        merge_patients(tx, patients, SYSTEM, "asa", "bo")
        now = get(tx, "Observation", kept.id).resource
    assert now["subject"] == {"reference": "Patient/bo"}
    assert now["status"] == "final"


def test_a_photo_filed_elsewhere_leaves_no_measurement_standing_at_its_former_patient(
    patients: Bridge, photo: Photo, media: str
) -> None:
    kept = keep(patients, CLINICIAN, media, outlined(photo))
    with patients.db.transaction() as tx:
        refile(tx, patients, SYSTEM, media, Refiling("bo", "taken of somebody else"))
        left = get(tx, "Observation", kept.id).resource
    assert left["status"] == "entered-in-error"
    assert left["subject"] == {"reference": "Patient/asa"}


def test_a_correction_of_the_photos_site_corrects_its_measurements(patients: Bridge, photo: Photo, media: str) -> None:
    kept = keep(patients, CLINICIAN, media, outlined(photo))
    with patients.db.transaction() as tx:
        was = get(tx, "Media", media)
        replace_media(tx, patients, SYSTEM, was, assign(was.resource, body_site="70559009"), "corrected")
        now = get(tx, "Observation", kept.id).resource
    assert now["bodySite"]["coding"][0]["code"] == "70559009"
    assert now["valueQuantity"] == kept.resource["valueQuantity"]
