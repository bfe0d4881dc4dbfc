"""Two stored photos compared: once computed, kept under the patient's key, never across patients."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import Connection, func, select

from adapter.access import SYSTEM, Actor
from adapter.bridge import Bridge
from adapter.capture.receive import Upload, receive
from adapter.compare import alignment, changes, comparing
from adapter.compare.comparing import ENGINE, PICTURES, compare, open_picture, place_landmarks, take_back_landmarks
from adapter.db.tables import audit_event, binary, blob, comparison, landmarks
from adapter.errors import BadInput, Forbidden, NotFound, Unprocessable
from adapter.identity import merge_patients
from adapter.records import create, find_where, get, new_id, update_resource
from adapter.records.comparisons import Comparison, forget_comparisons, keep_comparison
from adapter.records.landmarks import Pair
from mappings.terms import CONFIDENTIALITY, coding

pytestmark = pytest.mark.long

SKIN = Path(__file__).parents[1] / "data" / "skin"
MOLE, OTHER = (SKIN / name for name in ("ISIC_0009995.jpg", "ISIC_0010459.jpg"))

CLINICIAN = Actor(
    "person", "Practitioner/o", "Dr. R. Okafor", "clinician", frozenset({"user/Media.rus"}), patient_id="asa"
)


def _turned(file: Path) -> bytes:
    out = io.BytesIO()
    with Image.open(file) as image:
        image.convert("RGB").rotate(6, Image.Resampling.BICUBIC, fillcolor=(180, 140, 120)).save(out, "JPEG")
    return out.getvalue()


def _photo(bridge: Bridge, data: bytes, patient: str) -> str:
    return receive(bridge, SYSTEM, Upload(data, {"patient": f"Patient/{patient}"})).id


@pytest.fixture
def patients(bridge: Bridge) -> Bridge:
    with bridge.db.transaction() as tx:
        for patient in ("asa", "bo"):
            create(tx, {"resourceType": "Patient", "id": patient, "active": True}, at=bridge.now())
    return bridge


def _count(bridge: Bridge, table: Any) -> int:
    with bridge.db.snapshot() as tx:
        return tx.execute(select(func.count()).select_from(table)).scalar_one()


def test_the_engine_named_is_the_engine_used() -> None:
    assert f"{alignment.VERSION}.{changes.VERSION}" == ENGINE


def test_the_same_skin_is_aligned_once_and_shown_to_its_own_session_only(patients: Bridge) -> None:
    left, right = (_photo(patients, data, "asa") for data in (MOLE.read_bytes(), _turned(MOLE)))
    found = compare(patients, SYSTEM, left, right)
    assert found.result["verdict"] == "aligned", found.result["reasons"]
    assert compare(patients, SYSTEM, left, right) == found
    assert _count(patients, comparison) == 1
    stranger = Actor("person", "Practitioner/x", "X", "clinician", frozenset({"user/Media.rs"}), patient_id="bo")
    for name in PICTURES:
        picture = Image.open(io.BytesIO(open_picture(patients, SYSTEM, found.id, name).read()))
        assert max(picture.size) <= 1000
        with pytest.raises(NotFound):
            open_picture(patients, stranger, found.id, name)
    with pytest.raises(NotFound):
        compare(patients, stranger, left, right)


def test_other_skin_is_not_aligned_and_says_why(patients: Bridge) -> None:
    left, right = (_photo(patients, file.read_bytes(), "asa") for file in (MOLE, OTHER))
    found = compare(patients, SYSTEM, left, right)
    assert found.result["verdict"] == "not-aligned"
    assert found.result["reasons"]
    with pytest.raises(NotFound, match="could not be aligned"):
        open_picture(patients, SYSTEM, found.id, "aligned")


def test_a_photo_too_sensitive_to_be_seen_is_not_compared(patients: Bridge) -> None:
    left, right = (_photo(patients, data, "asa") for data in (MOLE.read_bytes(), _turned(MOLE)))
    found = compare(patients, SYSTEM, left, right)
    with patients.db.transaction() as tx:
        media = get(tx, "Media", right).resource
        media["meta"]["security"] = [coding(CONFIDENTIALITY, "V")]
        update_resource(tx, media, at=patients.now())
    session = Actor("person", "Practitioner/x", "X", "clinician", frozenset({"user/Media.rs"}), patient_id="asa")
    with pytest.raises(Forbidden):
        compare(patients, session, left, right)
    with pytest.raises(Forbidden):
        open_picture(patients, session, found.id, "aligned")


def test_photos_of_two_patients_are_never_compared(patients: Bridge) -> None:
    left, right = _photo(patients, MOLE.read_bytes(), "asa"), _photo(patients, OTHER.read_bytes(), "bo")
    with pytest.raises(Unprocessable):
        compare(patients, SYSTEM, left, right)


# What the camera saw is turned by 6 degrees about the middle of the photo (`_turned`), so these are the same spots.
def _spots(file: Path) -> tuple[Pair, ...]:
    with Image.open(file) as image:
        middle = np.array([image.width - 1, image.height - 1]) / 2
    angle = np.radians(6)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    ours = middle + np.array([[-200, -100], [150, -120], [60, 140]])
    theirs = middle + (ours - middle) @ turn.T
    return tuple(((x, y), (u, v)) for (x, y), (u, v) in zip(ours.tolist(), theirs.tolist(), strict=True))


def _told(bridge: Bridge, event: str) -> list[str]:
    with bridge.db.snapshot() as tx:
        events = find_where(tx, "AuditEvent", audit_event.c.subtype.like(f"{event}|%"))
    told = [detail for one in events for entity in one.resource["entity"] for detail in entity.get("detail", [])]
    return [str(one["valueString"]) for one in told]


def test_points_placed_by_hand_are_remembered_with_who_placed_them_until_they_are_taken_back(patients: Bridge) -> None:
    left, right = (_photo(patients, data, "asa") for data in (MOLE.read_bytes(), _turned(MOLE)))
    engine = compare(patients, SYSTEM, left, right)
    placed = place_landmarks(patients, CLINICIAN, left, right, _spots(MOLE))
    assert placed.result["verdict"] == "aligned", placed.result["reasons"]
    assert placed.result["by_hand"]["by"] == "Dr. R. Okafor"
    assert compare(patients, SYSTEM, left, right) == placed
    reverse = compare(patients, SYSTEM, right, left)
    assert reverse.result["by_hand"]["points"] == [
        [theirs, ours] for ours, theirs in placed.result["by_hand"]["points"]
    ]
    take_back_landmarks(patients, CLINICIAN, left, right)
    assert compare(patients, SYSTEM, left, right) == engine
    with pytest.raises(NotFound):
        take_back_landmarks(patients, CLINICIAN, left, right)
    with patients.db.snapshot() as tx:
        row = tx.execute(select(landmarks)).one()
    assert (row.placed_by, row.removed_by) == (CLINICIAN.id, CLINICIAN.id)
    assert _told(patients, "photo-aligned") == ["3 points placed", "points taken back"]


def test_points_on_skin_that_cannot_be_followed_make_it_approximate_and_never_aligned(patients: Bridge) -> None:
    left, right = (_photo(patients, file.read_bytes(), "asa") for file in (MOLE, OTHER))
    points = tuple((spot, spot) for spot in ((100.0, 100.0), (400.0, 120.0), (250.0, 330.0)))
    placed = place_landmarks(patients, CLINICIAN, left, right, points)
    assert placed.result["verdict"] == "approximate"
    assert "by hand" in placed.result["reasons"][0]


@pytest.mark.parametrize(
    "points",
    [
        [((10, 10), (10, 10)), ((90, 90), (90, 90))],
        [((10, 10), (10, 10)), ((90, 90), (90, 90)), ((170, 170), (170, 170))],
        [((10, 10), (10, 10)), ((90, 10), (90, 10)), ((10, 90000), (10, 90))],
        [((10, 10), (90, 10)), ((90, 10), (10, 10)), ((50, 90), (50, 90))],
        [((10 * n, n * n), (10 * n, n * n)) for n in range(1, 8)],
    ],
    ids=["two", "on a line", "outside", "mirrored", "seven"],
)
def test_points_that_say_nothing_are_refused_and_nothing_is_kept(patients: Bridge, points: Any) -> None:
    left, right = (_photo(patients, data, "asa") for data in (MOLE.read_bytes(), _turned(MOLE)))
    with pytest.raises(BadInput):
        place_landmarks(patients, CLINICIAN, left, right, tuple(points))
    assert _count(patients, landmarks) == _count(patients, comparison) == 0


def test_who_may_only_look_places_no_points(patients: Bridge) -> None:
    left, right = (_photo(patients, data, "asa") for data in (MOLE.read_bytes(), _turned(MOLE)))
    reader = replace(CLINICIAN, scopes=frozenset({"user/Media.rs"}))
    with pytest.raises(Forbidden):
        place_landmarks(patients, reader, left, right, _spots(MOLE))
    with pytest.raises(NotFound):
        place_landmarks(patients, replace(CLINICIAN, patient_id="bo"), left, right, _spots(MOLE))


def test_points_placed_by_hand_outlive_a_merge(patients: Bridge) -> None:
    left, right = (_photo(patients, data, "bo") for data in (MOLE.read_bytes(), _turned(MOLE)))
    before = place_landmarks(patients, SYSTEM, left, right, _spots(MOLE))
    with patients.db.transaction() as tx:
        merge_patients(tx, patients, SYSTEM, "bo", "asa")
    after = compare(patients, SYSTEM, left, right)
    assert after.id != before.id
    assert after.result["by_hand"] == before.result["by_hand"]


def test_the_lattice_says_where_the_skin_is_in_the_other_photo_and_back(patients: Bridge) -> None:
    left, right = (_photo(patients, data, "asa") for data in (MOLE.read_bytes(), _turned(MOLE)))
    lattice = compare(patients, SYSTEM, left, right).result["lattice"]
    width, height = lattice["left"]
    middle = (lattice["rows"] // 2) * lattice["columns"] + lattice["columns"] // 2
    for way in ("left_in_right", "right_in_left"):
        assert len(lattice[way]) == lattice["columns"] * lattice["rows"]
        assert lattice[way][middle] == pytest.approx([0.5, 0.5 * height / width], abs=0.002)
    (x0, y0), (x1, y1) = lattice["left_in_right"][middle], lattice["left_in_right"][middle + 1]
    assert np.degrees(np.arctan2(y1 - y0, x1 - x0)) == pytest.approx(-6, abs=0.3)


def test_who_was_overtaken_by_one_whose_comparison_was_forgotten_at_once_gets_pictures_that_are_there(
    patients: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = (_photo(patients, data, "bo") for data in (MOLE.read_bytes(), _turned(MOLE)))
    ask, find, overtaken = comparing._ask, comparing.find_comparison, list[Comparison]()

    def ask_slowly(*asked: Any) -> Any:
        made = ask(*asked)
        if not overtaken:
            overtaken.append(replace(made[0], id=new_id()))
            with patients.db.transaction() as tx:
                keep_comparison(tx, overtaken[0], at=patients.now())
        return made

    def find_late(tx: Connection, *pair: str) -> Comparison | None:
        if overtaken:
            with patients.db.transaction() as writing:
                forget_comparisons(writing, [left])
        with patients.db.snapshot() as later:
            return find(later, *pair)

    monkeypatch.setattr(comparing, "_ask", ask_slowly)
    monkeypatch.setattr(comparing, "find_comparison", find_late)
    found = compare(patients, SYSTEM, left, right)
    assert overtaken and open_picture(patients, SYSTEM, found.id, "aligned").read()


def test_a_photo_that_changes_its_patient_takes_its_comparisons_and_their_keys_away(patients: Bridge) -> None:
    left, right = (_photo(patients, data, "bo") for data in (MOLE.read_bytes(), _turned(MOLE)))
    found = compare(patients, SYSTEM, left, right)
    blobs = _count(patients, blob)
    with patients.db.transaction() as tx:
        merge_patients(tx, patients, SYSTEM, "bo", "asa")
    assert _count(patients, comparison) == 0
    assert _count(patients, blob) == blobs - len(PICTURES)
    with patients.db.snapshot() as tx:
        of_it = select(func.count()).where(binary.c.security_context == found.security_context)
        assert tx.execute(of_it).scalar_one() == 0
    again = compare(patients, SYSTEM, left, right)
    assert again.id != found.id
    assert again.result == found.result
