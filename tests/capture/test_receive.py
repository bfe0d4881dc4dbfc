"""A photo arrives: stored once, under the right patient, or refused in words; nothing in between."""

import base64
import hashlib
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from adapter.access import SYSTEM, Actor
from adapter.access.policy import can_see, grants_of
from adapter.bridge import Bridge
from adapter.capture.receive import CaptureAnswer, Upload, capture_status, original_blob_id, receive
from adapter.db.tables import blob, capture, delivery, work
from adapter.errors import (
    BadInput,
    Conflict,
    DermBridgeError,
    Forbidden,
    NotFound,
    TooLarge,
    Unavailable,
    Unprocessable,
)
from adapter.identity import bind_waiting, merge_patients
from adapter.records import TABLES, Stored, create, find_by_index, find_where, get, update_resource
from adapter.records.binaries import get_binary, open_binary
from mappings.fhir_check import check_resource
from mappings.terms import URI

PHOTOS = Path(__file__).parents[1] / "data" / "photos"
MRN = "urn:oid:2.16.840.1.113883.19.5"
PHOTO = next(path for path in sorted(PHOTOS.rglob("*.jpg")) if b"Exif" in path.read_bytes()[:64]).read_bytes()


def _patient(bridge: Bridge, patient_id: str = "asa", **more: Any) -> None:
    resource = {
        "resourceType": "Patient",
        "id": patient_id,
        "active": True,
        "identifier": [{"system": MRN, "value": f"mrn-{patient_id}"}],
        "name": [{"family": "Lindström"}],
        "birthDate": "1968-04-17",
    }
    with bridge.db.transaction() as tx:
        create(tx, resource | more, at=bridge.now())


def _send(
    bridge: Bridge, data: bytes = PHOTO, key: str | None = None, actor: Actor = SYSTEM, **metadata: Any
) -> CaptureAnswer:
    return receive(bridge, actor, Upload(data, metadata, idempotency_key=key))


def _count(bridge: Bridge, table: Any) -> int:
    with bridge.db.snapshot() as tx:
        return tx.execute(select(func.count()).select_from(table)).scalar_one()


def test_a_stored_photo_is_whole_clean_described_and_in_line(bridge: Bridge) -> None:
    _patient(bridge)
    answer = _send(bridge, patient="Patient/asa", body_site="70559009", laterality="left", view="regional")
    assert (answer.status, answer.body["identity"]) == (201, "bound")
    with bridge.db.snapshot() as tx:
        media = get(tx, "Media", answer.id).resource
        check_resource(media)
        assert media["subject"]["reference"] == "Patient/asa"
        original = bridge.vault.open(tx, original_blob_id(tx, answer.id)).read(0, 10**9)
        binary = get_binary(tx, media["content"]["url"].removeprefix("Binary/"))
        clean = open_binary(tx, bridge.vault, binary).read()
        statements = find_by_index(tx, "Provenance", "target", f"Media/{answer.id}")
        events = find_by_index(tx, "AuditEvent", "entity", f"Media/{answer.id}")
    assert original == PHOTO
    assert base64.b64decode(media["content"]["hash"]) == hashlib.sha1(clean).digest()
    assert (media["content"]["size"], binary.sha256) == (len(clean), hashlib.sha256(clean).hexdigest())
    assert len(statements) == 1 and len(events) == 1
    check_resource(statements[0].resource)
    check_resource(events[0].resource)
    with bridge.db.snapshot() as tx:
        assert tx.execute(select(work.c.kind)).scalars().all() == ["render"]


def test_the_same_key_or_the_same_content_is_the_same_photo(bridge: Bridge) -> None:
    _patient(bridge)
    first = _send(bridge, key="k1", patient="Patient/asa")
    again = _send(bridge, key="k1", patient="Patient/asa")
    other_key = _send(bridge, key="k2", patient="Patient/asa")
    assert (again.status, again.id, other_key.id) == (200, first.id, first.id)
    assert _count(bridge, capture) == 1


def test_one_photo_sent_by_many_at_once_is_kept_once(bridge: Bridge) -> None:
    _patient(bridge)
    with ThreadPoolExecutor(6) as senders:
        answers = list(senders.map(lambda _: _send(bridge, key="k1", patient="Patient/asa"), range(6)))
    assert sorted(answer.status for answer in answers) == [200] * 5 + [201]
    assert len({answer.id for answer in answers}) == _count(bridge, capture) == _count(bridge, blob) == 1


def test_a_photo_that_is_kept_already_is_known_on_a_full_disk_and_a_new_one_is_not_kept(bridge: Bridge) -> None:
    _patient(bridge)
    kept, other = PHOTO + b"k" * 2**20, PHOTO + b"o" * 2**20  # what follows the end of a JPEG is let pass
    first = _send(bridge, kept, key="k1", patient="Patient/asa")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, hard))  # no file grows beyond, as on a disk that is full
    try:
        again = _send(bridge, kept, key="k1", patient="Patient/asa")
        with pytest.raises(Unavailable):
            _send(bridge, other, key="k2", patient="Patient/asa")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (again.status, again.id, _count(bridge, capture)) == (200, first.id, 1)


def test_a_used_key_with_other_content_is_refused(bridge: Bridge) -> None:
    _patient(bridge)
    _send(bridge, key="k1", patient="Patient/asa")
    with pytest.raises(Conflict, match="new key"):
        _send(bridge, PHOTO + b"tail", key="k1", patient="Patient/asa")


@pytest.mark.parametrize("key", ["k1", None])
def test_a_photo_sent_again_after_its_patient_was_announced_and_merged_is_the_same(
    bridge: Bridge, key: str | None
) -> None:
    named = {"system": MRN, "value": "mrn-old"}
    first = _send(bridge, key=key, patient=named)
    _patient(bridge, "old")
    with bridge.db.transaction() as tx:
        bind_waiting(tx, bridge, get(tx, "Patient", "old"))
    announced = _send(bridge, key=key, patient=named)
    _patient(bridge)
    with bridge.db.transaction() as tx:
        merge_patients(tx, bridge, SYSTEM, "old", "asa")
    merged = _send(bridge, key=key, patient=named)
    by_the_survivor = _send(bridge, key="k2", patient="Patient/asa")
    assert {first.id} == {announced.id, merged.id, by_the_survivor.id}
    assert announced.body["identity"] == merged.body["identity"] == "bound"


def test_a_photo_refiled_since_is_not_taken_in_again_for_the_patient_it_was_wrong_for(bridge: Bridge) -> None:
    _patient(bridge)
    _patient(bridge, "other")
    first = _send(bridge, patient="Patient/asa")
    with bridge.db.transaction() as tx:
        media = get(tx, "Media", first.id).resource
        update_resource(tx, media | {"subject": {"reference": "Patient/other"}}, at=bridge.now())
    for patient in ("Patient/asa", {"system": MRN, "value": "mrn-asa"}, "Patient/other"):
        assert _send(bridge, patient=patient).id == first.id


def test_the_same_photo_of_another_patient_is_another_photo(bridge: Bridge) -> None:
    _patient(bridge)
    _patient(bridge, "other")
    ids = {_send(bridge, patient=f"Patient/{name}").id for name in ("asa", "other", "asa")}
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"patient": "Patient/nobody"}, Unprocessable),
        ({"patient": "Patient/asa", "view": "sideways"}, BadInput),
        ({"patient": "Patient/asa", "body_site": "118878009"}, Unprocessable),
        ({"patient": "Patient/asa", "encounter": "Encounter/none"}, Unprocessable),
        ({"patient": "Patient/asa", "surprise": 1}, BadInput),
        ({"patient": "Patient/asa", "sensitivity": ["consent-pending"]}, BadInput),
        ({"patient": "Patient/asa", "note": "a\0b"}, BadInput),
        ({"patient": {"system": MRN, "value": "47\x0011"}}, BadInput),
        ({"patient": {"system": MRN, "value": " "}}, BadInput),
        ({"patient": {"system": MRN, "value": "mrn-asa", "birthDate": "1968-13-45"}}, BadInput),
        ({"patient": "Patient/asa", "taken_at": "20240131"}, BadInput),
        ({"patient": "Patient/asa", "taken_at": 5}, BadInput),
        ({"patient": "Patient/asa", "taken_at": "0001-01-01T00:00:00+14:00"}, BadInput),
        ({"patient": "Patient/asa", "taken_at": "9999-12-31T23:59:59-12:00"}, BadInput),
    ],
)
def test_wrong_metadata_is_refused_and_nothing_is_kept(
    bridge: Bridge, change: dict[str, Any], error: type[DermBridgeError]
) -> None:
    _patient(bridge)
    with pytest.raises(error):
        _send(bridge, **change)
    assert _count(bridge, capture) == 0


def test_blanks_around_a_scanned_number_are_not_part_of_it(bridge: Bridge) -> None:
    _patient(bridge)
    assert _send(bridge, patient={"system": MRN, "value": " mrn-asa\n"}).body["identity"] == "bound"


def test_damage_on_the_way_and_too_much_are_refused(bridge: Bridge) -> None:
    with pytest.raises(BadInput, match="damaged"):
        receive(bridge, SYSTEM, Upload(PHOTO, {}, digest=b"0" * 32))
    small = bridge.settings.model_copy(update={"max_capture_bytes": 1024})
    with pytest.raises(TooLarge):
        _send(Bridge(small, bridge.db, bridge.vault, bridge.now))


def test_what_is_refused_or_was_here_before_leaves_nothing_on_the_disk(bridge: Bridge) -> None:
    _patient(bridge)
    with pytest.raises(BadInput):
        _send(bridge, b"no photo", patient="Patient/asa")
    with pytest.raises(Unprocessable):
        _send(bridge, patient="Patient/nobody")
    assert bridge.vault.store.list_ids() == []
    assert [_send(bridge, patient="Patient/asa").status for _ in range(2)] == [201, 200]
    assert len(bridge.vault.store.list_ids()) == 1


def _visit(bridge: Bridge, patient_id: str) -> None:
    visit = {"resourceType": "Encounter", "id": "v1", "status": "in-progress"}
    with bridge.db.transaction() as tx:
        create(tx, visit | {"subject": {"reference": f"Patient/{patient_id}"}}, at=bridge.now())


def test_an_intimate_photo_of_a_child_is_very_restricted_from_its_arrival_or_its_binding(bridge: Bridge) -> None:
    def level(media_id: str) -> str:
        with bridge.db.snapshot() as tx:
            return str(get(tx, "Media", media_id).resource["meta"]["security"][0]["code"])

    _patient(bridge, "ida", birthDate="2015-02-01")
    _patient(bridge, "asa")
    described = {"body_site": "81992007", "taken_at": "2026-11-20T10:00:00Z"}  # scrotum
    assert level(_send(bridge, patient="Patient/ida", **described).id) == "V"
    assert level(_send(bridge, patient="Patient/asa", **described).id) == "R"
    other = PHOTO[:2] + b"\xff\xfe\x00\x04by" + PHOTO[2:]  # with a comment: the same photo twice would be doubted
    waiting = _send(bridge, other, patient={"system": MRN, "value": "mrn-ole"}, **described).id
    assert level(waiting) == "R"
    _patient(bridge, "ole", birthDate="2015-02-01")
    with bridge.db.transaction() as tx:
        assert bind_waiting(tx, bridge, get(tx, "Patient", "ole")) == [waiting]
    assert level(waiting) == "V"


def test_what_the_sender_names_as_sensitive_decides_who_may_open_it_and_never_lowers_what_the_site_demands(
    bridge: Bridge,
) -> None:
    _patient(bridge)

    def sent(number: int, **described: Any) -> Stored:
        other = PHOTO[:2] + b"\xff\xfe\x00\x03" + bytes([number]) + PHOTO[2:]  # with a comment
        with bridge.db.snapshot() as tx:
            return get(tx, "Media", _send(bridge, other, patient="Patient/asa", **described).id)

    def codes(media: Stored) -> list[str]:
        return [label["code"] for label in media.resource["meta"]["security"]]

    hiv, abuse = sent(1, sensitivity=["hiv"]), sent(2, sensitivity=["suspected-abuse", "std"])
    assert codes(hiv) == ["R", "HIV"] and codes(abuse) == ["V", "STD", "SDV", "VIO"]
    assert codes(sent(3, body_site="81992007", sensitivity=["minor"])) == ["V", "minor", "SEX", "intimate", "HUAPRV"]
    opened = {}
    for role in ("clinician", "engineer", "privacy-officer"):
        actor = Actor("person", "Practitioner/7", "Eve", role, *grants_of(role))
        opened[role] = [can_see(actor, one.resource) for one in (hiv, abuse)]
    assert opened == {"clinician": [True, False], "engineer": [False, False], "privacy-officer": [True, True]}


def test_a_photo_cannot_be_sent_under_the_name_of_another(bridge: Bridge) -> None:
    _patient(bridge)
    first = _send(bridge, patient="Patient/asa").id
    named = [{"system": URI, "value": f"urn:uuid:{first.upper()}"}]
    with pytest.raises(Unprocessable, match="another photo"):
        _send(bridge, PHOTO + b"tail", patient="Patient/asa", identifiers=named)
    own = [{"system": URI, "value": "urn:uuid:0f8fad5b-d9cb-469f-a165-70867728950e"}]
    assert _send(bridge, PHOTO + b"tail", patient="Patient/asa", identifiers=own).status == 201


def test_a_visit_of_another_patient_is_refused(bridge: Bridge) -> None:
    _patient(bridge)
    _patient(bridge, "other")
    _visit(bridge, "other")
    with pytest.raises(Unprocessable, match="does not belong"):
        _send(bridge, patient="Patient/asa", encounter="Encounter/v1")


@pytest.mark.parametrize(("whose", "visit"), [("asa", "Encounter/v1"), ("other", None)])
def test_the_visit_a_session_was_launched_in_is_given_to_photos_of_its_patient_alone(
    whose: str, visit: str | None, bridge: Bridge
) -> None:
    _patient(bridge)
    _patient(bridge, "other")
    _visit(bridge, "asa")
    everybodys = Actor("person", "Practitioner/a", "A", "administrator", *grants_of("administrator"), encounter_id="v1")
    answer = _send(bridge, actor=everybodys, patient=f"Patient/{whose}")
    with bridge.db.snapshot() as tx:
        assert get(tx, "Media", answer.id).resource.get("encounter", {}).get("reference") == visit


def test_what_the_patient_said_is_recorded_as_consent_with_the_photo_once(bridge: Bridge) -> None:
    _patient(bridge)
    said = {"verbal": {"treatment-documentation": "permit", "teaching": "deny"}}
    answer = _send(bridge, patient="Patient/asa", consent=said)
    assert _send(bridge, patient="Patient/asa", consent=said).status == 200
    with bridge.db.snapshot() as tx:
        kept = [one.resource for one in find_where(tx, "Consent", TABLES["Consent"].c.patient == "asa")]
    assert sorted(one["provision"]["type"] for one in kept) == ["deny", "permit"]
    assert "Consent" in answer.body["consent"]["because"] or answer.body["consent"]["decision"] == "permit"


@pytest.mark.parametrize(
    ("patient", "said", "error"),
    [
        ("Patient/asa", {"selling": "permit"}, BadInput),
        ({"system": MRN, "value": "unknown"}, {"teaching": "permit"}, Unprocessable),
    ],
)
def test_a_spoken_consent_that_cannot_be_recorded_refuses_the_photo(
    bridge: Bridge, patient: Any, said: dict[str, str], error: type[DermBridgeError]
) -> None:
    _patient(bridge)
    with pytest.raises(error):
        _send(bridge, patient=patient, consent={"verbal": said})
    assert _count(bridge, TABLES["Consent"]) == _count(bridge, capture) == 0


def test_a_session_opened_under_a_number_merged_since_captures_for_the_surviving_patient(bridge: Bridge) -> None:
    _patient(bridge)
    merged = [{"other": {"reference": "Patient/asa"}, "type": "replaced-by"}]
    _patient(bridge, "old", active=False, link=merged)
    session = Actor("person", "Practitioner/p", "P", "clinician", frozenset({"user/Media.crus"}), patient_id="old")
    answer = _send(bridge, actor=session)
    with bridge.db.snapshot() as tx:
        assert get(tx, "Media", answer.id).resource["subject"]["reference"] == "Patient/asa"


def test_an_actor_without_the_scope_or_outside_the_session_learns_nothing(bridge: Bridge) -> None:
    _patient(bridge)
    _patient(bridge, "other")
    nobody = Actor("machine", "Device/x", "x", "machine", frozenset({"system/Patient.r"}))
    with pytest.raises(Forbidden):
        _send(bridge, actor=nobody, patient="Patient/asa")
    confined = Actor("person", "Practitioner/x", "x", "clinician", frozenset({"user/Media.c"}), patient_id="asa")
    with pytest.raises(NotFound):
        _send(bridge, actor=confined, patient="Patient/other")
    assert _send(bridge, actor=confined).body["identity"] == "bound"


def test_required_consent_refuses_or_holds(bridge: Bridge) -> None:
    _patient(bridge)
    settings = bridge.settings.model_copy(
        update={"consent_mode": "required", "destinations": ({"name": "ehr", "based_on": "hapi"},)}
    )
    strict = Bridge(settings, bridge.db, bridge.vault, bridge.now)
    with pytest.raises(Unprocessable, match="consent"):
        _send(strict, patient="Patient/asa")
    assert bridge.vault.store.list_ids() == []
    held = _send(strict, patient="Patient/asa", consent={"pending": True})
    assert (held.status, held.body["consent"]["decision"]) == (202, "pending")
    assert _count(bridge, delivery) == 1


def test_a_photo_waits_for_its_patient_and_binds_when_she_is_announced(bridge: Bridge) -> None:
    answer = _send(bridge, patient={"system": MRN, "value": "mrn-asa", "birthDate": "1968-04-17"})
    assert (answer.status, answer.body["identity"]) == (202, "awaiting-patient")
    assert _count(bridge, delivery) == 0
    _patient(bridge)
    with bridge.db.transaction() as tx:
        assert bind_waiting(tx, bridge, get(tx, "Patient", "asa")) == [answer.id]
    with bridge.db.snapshot() as tx:
        assert capture_status(tx, answer.id)["identity"] == "bound"
        media = get(tx, "Media", answer.id)
        assert media.resource["subject"] == {"reference": "Patient/asa"}
        opened = bridge.vault.open(tx, original_blob_id(tx, answer.id))
    assert opened.read(0, 10**9) == PHOTO


def test_a_late_patient_with_another_birth_date_gets_nothing(bridge: Bridge) -> None:
    answer = _send(bridge, patient={"system": MRN, "value": "mrn-asa", "birthDate": "1999-01-01"})
    _patient(bridge)
    with bridge.db.transaction() as tx:
        assert bind_waiting(tx, bridge, get(tx, "Patient", "asa")) == []
    with bridge.db.snapshot() as tx:
        assert capture_status(tx, answer.id)["identity"] == "quarantined"
        assert find_where(tx, "Media", TABLES["Media"].c.patient == "asa") == []


def test_demographics_that_contradict_a_known_patient_quarantine_the_photo(bridge: Bridge) -> None:
    _patient(bridge)
    answer = _send(bridge, patient={"system": MRN, "value": "mrn-asa", "family": "Smith"})
    assert (answer.status, answer.body["identity"]) == (202, "quarantined")
