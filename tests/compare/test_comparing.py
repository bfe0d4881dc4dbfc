"""Two stored photos compared: once computed, kept under the patient's key, never across patients."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import func, select

from adapter.access import SYSTEM, Actor
from adapter.bridge import Bridge
from adapter.capture.receive import Upload, receive
from adapter.compare import alignment, changes
from adapter.compare.comparing import ENGINE, PICTURES, compare, open_picture
from adapter.db.tables import binary, blob, comparison
from adapter.errors import Forbidden, NotFound, Unprocessable
from adapter.identity import merge_patients
from adapter.records import create, get, update_resource
from mappings.terms import CONFIDENTIALITY, coding

SKIN = Path(__file__).parents[1] / "data" / "skin"
MOLE, OTHER = (SKIN / name for name in ("ISIC_0009995.jpg", "ISIC_0010459.jpg"))


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
