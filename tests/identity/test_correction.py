"""Photos of nobody, of somebody else, and in doubt: how they come there, what is shown for them, how they get out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from adapter.access import SYSTEM, Actor
from adapter.access.policy import grants_of
from adapter.batch import confirm_job, job_status, prepare_job, run_job, start_job, undo_job
from adapter.batch.export import export_zip
from adapter.bridge import Bridge
from adapter.capture.receive import Upload, capture_status, receive
from adapter.db.tables import blob, capture, patient_key
from adapter.delivery import Destinations, deliver, deliver_media, deliveries_of
from adapter.errors import BadInput, Conflict, Forbidden, Gone, NotFound, Unprocessable
from adapter.governance import audit
from adapter.identity import bind_waiting, find_candidates
from adapter.records import Resource, create, create_all, find_where, get, update_resource
from adapter.sandbox.views import draw_view
from adapter.settings import Suspicion
from adapter.work import Lane, WorkLoop
from connectors.contract import DeliveryError, Parcel, Receipt, Retry
from connectors.directory import Directory
from connectors.routes import ROUTES
from mappings.fhir_check import check_resource
from mappings.wrong_patient import doubt_of, state_of
from tests.conftest import Clock

MRN = "urn:oid:2.16.840.1.113883.19.5"
PENIS = "35900000"


def patient(patient_id: str, number: str, **more: Any) -> Resource:
    names = [{"family": more.pop("family", "Lindqvist"), "given": ["Åsa"]}]
    identifier = [{"system": MRN, "value": number}]
    known = {"resourceType": "Patient", "id": patient_id, "active": True, "identifier": identifier, "name": names}
    return known | {"birthDate": "1961-03-12", "gender": "female"} | more


def visit(visit_id: str, patient_id: str, start: str, end: str | None = None) -> Resource:
    return {
        "resourceType": "Encounter",
        "id": visit_id,
        "status": "in-progress",
        "class": {"code": "AMB"},
        "subject": {"reference": f"Patient/{patient_id}"},
        "period": {"start": start} | ({"end": end} if end else {}),
    }


@pytest.fixture
def ward(bridge: Bridge) -> Bridge:
    """Two patients; `asa` has been here this morning until ten."""
    known = [
        patient("asa", "4711081"),
        patient("bo", "5200302", family="Okafor", gender="male", birthDate="1980-01-02"),
    ]
    morning = visit("morning", "asa", "2026-11-23T08:00:00Z", "2026-11-23T10:00:00Z")
    with bridge.db.transaction() as tx:
        create_all(tx, [*known, morning], at=bridge.now())
    return bridge


def person(role: str = "photographer", name: str = "p", chart: str | None = None) -> Actor:
    scopes, rights = grants_of(role)
    return Actor("person", f"Practitioner/{name}", name, role, scopes, rights, patient_id=chart)


def take(bridge: Bridge, given: Any, *, seed: int = 1, actor: Actor = SYSTEM, **metadata: Any) -> str:
    photo = draw_view(seed, taken_at=datetime(2026, 11, 23, 9, 15, tzinfo=UTC), size=(120, 90))
    said = {"patient": given, "taken_at": "2026-11-23T09:15:00Z"} | metadata
    return receive(bridge, actor, Upload(photo, {k: v for k, v in said.items() if v is not None})).id


def media_of(bridge: Bridge, media_id: str) -> Resource:
    with bridge.db.snapshot() as tx:
        return get(tx, "Media", media_id).resource


def doubt(bridge: Bridge, media_id: str) -> tuple[str | None, str | None]:
    resource = media_of(bridge, media_id)
    return state_of(resource), doubt_of(resource)


def move(bridge: Bridge, actor: Actor, *media: str, run: bool = True, **parameters: str) -> str:
    parameters.setdefault("reason", "named by the ward")
    with bridge.db.transaction() as tx:
        job_id = prepare_job(tx, bridge, actor, "refile", patient_id=None, targets=media, parameters=parameters)
        start_job(tx, bridge, actor, job_id)
    if run:
        work(bridge)
    return job_id


def work(bridge: Bridge, destinations: Destinations | None = None) -> None:
    lanes = {"job": Lane(partial(run_job, bridge))}
    if destinations:
        lanes["deliver"] = Lane(partial(deliver, bridge, destinations))
    WorkLoop(bridge.db, lanes, now=bridge.now).run_until_idle()


def status(bridge: Bridge, job_id: str) -> dict[str, Any]:
    with bridge.db.snapshot() as tx:
        return job_status(tx, job_id)


def key_owners(bridge: Bridge, media_id: str) -> set[str | None]:
    with bridge.db.snapshot() as tx:
        owners = (
            select(patient_key.c.patient)
            .join(blob, blob.c.patient_key_id == patient_key.c.id)
            .join(capture, capture.c.blob_id == blob.c.id)
            .where(capture.c.id == media_id)
        )
        return set(tx.execute(owners).scalars())


# --- suspicion ------------------------------------------------------------------------------------------------------


def test_a_photo_without_contradiction_is_bound(ward: Bridge) -> None:
    assert doubt(ward, take(ward, "Patient/asa")) == ("bound", None)


def test_the_same_picture_under_another_patient_is_doubted(ward: Bridge) -> None:
    take(ward, "Patient/asa")
    again = take(ward, "Patient/bo", taken_at=None)
    assert doubt(ward, again) == ("quarantined", "same-content")
    check_resource(media_of(ward, again))


@pytest.mark.parametrize(
    "said",
    [{"body_site": PENIS}, {"taken_at": "1950-01-01T09:00:00Z"}],
)
def test_what_contradicts_the_record_is_doubted(ward: Bridge, said: dict[str, Any]) -> None:
    assert doubt(ward, take(ward, "Patient/asa", **said)) == ("quarantined", "contradicts-record")


def test_a_site_that_fits_the_record_is_not_doubted(ward: Bridge) -> None:
    assert doubt(ward, take(ward, "Patient/bo", body_site=PENIS)) == ("bound", None)


def test_a_photo_outside_every_known_visit_is_doubted(ward: Bridge, clock: Clock) -> None:
    clock.advance(days=3)
    late = take(ward, "Patient/asa", taken_at="2026-11-25T09:00:00Z")
    assert doubt(ward, late) == ("quarantined", "outside-visit")
    soon_after = take(ward, "Patient/asa", seed=2, taken_at="2026-11-23T15:00:00Z")
    named = take(ward, "Patient/asa", seed=3, taken_at="2026-11-25T09:00:00Z", encounter="Encounter/morning")
    never_here = take(ward, "Patient/bo", seed=4, taken_at="2026-11-25T09:00:00Z")
    assert {doubt(ward, one) for one in (soon_after, named, never_here)} == {("bound", None)}


def opened(bridge: Bridge, actor: Actor, patient_id: str) -> None:
    with bridge.db.transaction() as tx:
        audit(tx, bridge, "login", actor, patient_id=patient_id)


def test_another_chart_opened_between_two_frames_is_doubted(ward: Bridge, clock: Clock) -> None:
    user = person("clinician", "c", chart="asa")
    opened(ward, user, "asa")
    assert doubt(ward, take(ward, None, actor=user)) == ("bound", None)
    clock.advance(minutes=2)
    opened(ward, user, "bo")
    clock.advance(minutes=1)
    assert doubt(ward, take(ward, None, seed=2, actor=user)) == ("quarantined", "other-chart")
    opened(ward, user, "asa")
    assert doubt(ward, take(ward, None, seed=3, actor=user)) == ("bound", None)
    opened(ward, user, "bo")
    clock.advance(hours=2)
    assert doubt(ward, take(ward, None, seed=4, actor=user)) == ("bound", None)


def test_a_rule_that_is_switched_off_doubts_nothing(ward: Bridge) -> None:
    calm = Suspicion(same_content=False, contradicts_record=False, other_chart=False, outside_visit=False)
    bridge = dataclasses.replace(ward, settings=ward.settings.model_copy(update={"suspicion": calm}))
    take(bridge, "Patient/asa")
    assert doubt(bridge, take(bridge, "Patient/bo", taken_at="1900-01-01T09:00:00Z")) == ("bound", None)


def test_a_photo_that_waited_is_doubted_when_its_patient_arrives(ward: Bridge) -> None:
    take(ward, "Patient/asa")
    waiting = take(ward, {"system": MRN, "value": "777"}, taken_at=None)
    fine = take(ward, {"system": MRN, "value": "777"}, seed=2, taken_at=None)
    with ward.db.transaction() as tx:
        arrived = create(tx, patient("new", "777"), at=ward.now())
        assert bind_waiting(tx, ward, arrived) == [fine]
        assert "already filed" in capture_status(tx, waiting)["reason"]
    assert doubt(ward, waiting) == ("quarantined", "same-content")


@pytest.mark.parametrize(("given", "state"), [({}, "quarantined"), ({"family": "Lindqvist"}, "bound")])
def test_a_site_may_ask_for_a_second_demographic(ward: Bridge, given: dict[str, str], state: str) -> None:
    strict = ward.settings.model_copy(update={"second_demographic": "required"})
    bridge = dataclasses.replace(ward, settings=strict)
    waiting = take(bridge, {"system": MRN, "value": "777"} | given)
    with bridge.db.transaction() as tx:
        bind_waiting(tx, bridge, create(tx, patient("new", "777"), at=bridge.now()))
    assert doubt(bridge, waiting)[0] == state


def test_a_doubted_photo_is_neither_delivered_nor_exported(ward: Bridge) -> None:
    doubted = take(ward, "Patient/asa", body_site=PENIS)
    with ward.db.transaction() as tx:
        assert deliver_media(tx, ward, get(tx, "Media", doubted)) == []
    with pytest.raises(Unprocessable, match="settled first"):
        export_zip(ward, SYSTEM, [doubted])


# --- candidates -----------------------------------------------------------------------------------------------------


def candidates(bridge: Bridge, media_id: str) -> list[tuple[str, list[str]]]:
    with bridge.db.snapshot() as tx:
        found = find_candidates(tx, get(tx, "Media", media_id))
    return [(one.patient.id, [finding.words for finding in one.score.findings]) for one in found]


def test_candidates_come_with_why(ward: Bridge) -> None:
    typed = {"system": MRN, "value": "4711018", "family": "Lindkvist", "birthDate": "1961-12-03", "gender": "female"}
    ((first, why),) = candidates(ward, take(ward, typed))
    assert first == "asa"
    assert why == [
        "identifier differs by one keystroke",
        "birth date has day and month swapped",
        "visit was going on when the photo was taken",
        "family name is written much alike",
        "sex agrees",
    ]


def test_a_photo_without_anything_finds_whom_the_same_person_photographed_beside(ward: Bridge) -> None:
    user = person()
    take(ward, "Patient/bo", actor=user)
    alone = take(ward, None, seed=2, actor=user, taken_at="2026-11-23T09:20:00Z")
    assert [one for one, _ in candidates(ward, alone)] == ["bo"]
    much_later = take(ward, None, seed=3, actor=user, taken_at="2026-11-23T12:20:00Z")
    assert candidates(ward, much_later) == []


def test_the_patient_a_doubted_photo_was_taken_for_is_the_first_candidate(ward: Bridge) -> None:
    doubted = take(ward, "Patient/asa", body_site=PENIS)
    assert candidates(ward, doubted)[0][0] == "asa"


def test_a_merged_patient_is_shown_as_its_survivor(ward: Bridge) -> None:
    with ward.db.transaction() as tx:
        create(tx, patient("survivor", "999", birthDate="1961-03-13"), at=ward.now())
        merged = get(tx, "Patient", "asa").resource | {"active": False}
        merged["link"] = [{"other": {"reference": "Patient/survivor"}, "type": "replaced-by"}]
        update_resource(tx, merged, at=ward.now())
    waiting = take(ward, {"system": "urn:other", "value": "1", "birthDate": "1961-03-12"})
    assert [one for one, _ in candidates(ward, waiting)] == ["survivor"]


# --- given to a patient ---------------------------------------------------------------------------------------------


def test_an_unidentified_photo_is_given_to_a_patient_and_taken_back(ward: Bridge) -> None:
    alone = take(ward, None)
    assert key_owners(ward, alone) == {None}
    job_id = move(ward, person(), alone, patient="asa")
    filed = media_of(ward, alone)
    assert filed["subject"] == {"reference": "Patient/asa"}
    assert filed["encounter"] == {"reference": "Encounter/morning"}
    assert state_of(filed) == "bound"
    assert key_owners(ward, alone) == {"asa"}
    assert undo_job(ward, person(), job_id) == {"undone": 1, "kept": 0}
    assert doubt(ward, alone) == ("unidentified", None)
    assert "subject" not in media_of(ward, alone)
    assert key_owners(ward, alone) == {None}


def test_a_quarantined_photo_is_released_to_the_patient_it_was_taken_for(ward: Bridge) -> None:
    doubted = take(ward, "Patient/asa", body_site=PENIS)
    with ward.db.transaction() as tx:
        assert deliver_media(tx, ward, get(tx, "Media", doubted)) == []
    move(ward, person(), doubted, patient="asa")
    released = media_of(ward, doubted)
    assert (state_of(released), doubt_of(released)) == ("bound", None)
    with ward.db.snapshot() as tx:
        assert find_where(tx, "Media") == [get(tx, "Media", doubted)]
        assert "reason" not in capture_status(tx, doubted)


# --- the wrong patient ----------------------------------------------------------------------------------------------


@pytest.fixture
def chart(ward: Bridge, tmp_path: Path) -> Bridge:
    """The ward with a destination."""
    there = ({"name": "ehr", "kind": "directory", "folder": str(tmp_path / "ehr")},)
    return dataclasses.replace(ward, settings=ward.settings.model_copy(update={"destinations": there}))


@pytest.fixture
def delivered(chart: Bridge) -> Callable[[], None]:
    return lambda: work(chart, Destinations(chart))


def states(bridge: Bridge, media_id: str) -> dict[int, tuple[str, str]]:
    with bridge.db.snapshot() as tx:
        return {row.media_version: (row.patient, row.state) for row in deliveries_of(tx, media_id)}


def test_a_photo_moves_with_its_key_leaves_a_stub_and_is_taken_back_where_it_was(
    chart: Bridge, delivered: Callable[[], None]
) -> None:
    wrong = take(chart, "Patient/asa")
    delivered()
    assert states(chart, wrong) == {1: ("asa", "confirmed")}
    job_id = move(chart, person(), wrong, run=False, patient="bo", reason="bracelet of the next bed")
    assert "taken back from ehr" in status(chart, job_id)["items"][0]["result"]
    delivered()
    assert states(chart, wrong) == {1: ("asa", "retracted"), 2: ("bo", "confirmed")}
    moved = media_of(chart, wrong)
    assert moved["subject"]["reference"] == "Patient/bo"
    assert "encounter" not in moved
    assert key_owners(chart, wrong) == {"bo"}
    with chart.db.snapshot() as tx:
        (stub,) = [one.resource for one in find_where(tx, "Media") if one.id != wrong]
        told = [one.resource for one in find_where(tx, "Provenance")]
        audited = [one.resource for one in find_where(tx, "AuditEvent")]
    check_resource(stub)
    assert (stub["status"], stub["subject"]["reference"]) == ("entered-in-error", "Patient/asa")
    assert "url" not in stub["content"]
    ours = [one for one in told if any(e["role"] == "removal" for e in one.get("entity", []))]
    assert len(ours) == 2
    assert "Patient/" not in str([one["entity"] for one in ours])
    reasons = [one for one in audited if "bracelet of the next bed" in str(one)]
    assert {str("Patient/asa" in str(one)) + str("Patient/bo" in str(one)) for one in reasons} == {
        "TrueFalse",
        "FalseTrue",
    }


class Stubborn(Directory):
    """A destination that takes nothing back."""

    def retract(self, parcel: Parcel, receipt: Receipt, reason: str) -> Receipt:
        raise DeliveryError("Nothing is taken back here.", remedy="Ask them.", retry=Retry.NEVER)


def test_a_copy_that_cannot_be_taken_back_does_not_keep_the_photo_from_the_right_chart(
    chart: Bridge, delivered: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ROUTES, "directory", dataclasses.replace(ROUTES["directory"], connector=f"{__name__}:Stubborn"))
    wrong = take(chart, "Patient/asa")
    delivered()
    move(chart, person(), wrong, run=False, patient="bo")
    delivered()
    assert states(chart, wrong) == {1: ("asa", "retracting"), 2: ("bo", "confirmed")}


def test_undoing_a_move_puts_everything_back(chart: Bridge, delivered: Callable[[], None]) -> None:
    wrong = take(chart, "Patient/asa")
    delivered()
    before = media_of(chart, wrong)
    job_id = move(chart, person(), wrong, run=False, patient="bo")
    delivered()
    assert undo_job(chart, person(), job_id) == {"undone": 1, "kept": 0}
    delivered()
    after = media_of(chart, wrong)
    assert {k: v for k, v in after.items() if k != "meta"} == {k: v for k, v in before.items() if k != "meta"}
    assert after["meta"]["tag"] == before["meta"]["tag"]
    assert key_owners(chart, wrong) == {"asa"}
    assert states(chart, wrong)[2] == ("bo", "retracted")
    assert states(chart, wrong)[3] == ("asa", "confirmed")
    with chart.db.snapshot() as tx:
        assert [one.id for one in find_where(tx, "Media")] == [wrong]


def test_a_photo_of_nobody_known_leaves_the_chart_at_once(chart: Bridge, delivered: Callable[[], None]) -> None:
    wrong = take(chart, "Patient/asa")
    delivered()
    move(chart, person("clinician", "c", chart="asa"), wrong, reason="not hers")
    delivered()
    assert doubt(chart, wrong) == ("quarantined", "reported")
    assert "subject" not in media_of(chart, wrong)
    assert states(chart, wrong) == {1: ("asa", "retracted")}
    assert key_owners(chart, wrong) == {None}


def test_who_said_not_this_patient_may_take_it_back(ward: Bridge) -> None:
    clinician, wrong = person("clinician", "c", chart="asa"), take(ward, "Patient/asa")
    job_id = move(ward, clinician, wrong, reason="not hers")
    assert undo_job(ward, clinician, job_id) == {"undone": 1, "kept": 0}
    assert media_of(ward, wrong)["subject"]["reference"] == "Patient/asa"
    given = take(ward, None, seed=2)
    with pytest.raises(Unprocessable):
        move(ward, clinician, given, patient="asa")


def test_what_was_on_its_way_is_not_left_with_the_wrong_patient(chart: Bridge, delivered: Callable[[], None]) -> None:
    wrong = take(chart, "Patient/asa")
    move(chart, person("clinician", "c", chart="asa"), wrong, reason="not hers")
    delivered()
    assert states(chart, wrong) == {1: ("asa", "superseded")}


def test_a_move_is_undone_only_while_nobody_touched_the_photo(ward: Bridge) -> None:
    wrong = take(ward, "Patient/asa")
    first = move(ward, person(), wrong, patient="bo")
    move(ward, person(), wrong, patient="asa")
    assert undo_job(ward, person(), first) == {"undone": 0, "kept": 1}


def test_a_session_of_one_chart_moves_nothing_to_another(ward: Bridge) -> None:
    wrong = take(ward, "Patient/asa")
    confined = person("clinician", "c", chart="asa")
    with pytest.raises(Unprocessable), ward.db.transaction() as tx:
        job_id = prepare_job(
            tx, ward, confined, "refile", patient_id="asa", targets=[wrong], parameters={"patient": "bo", "reason": "x"}
        )
        assert "there is no such record" in job_status(tx, job_id)["items"][0]["result"]
        start_job(tx, ward, confined, job_id)
    assert media_of(ward, wrong)["subject"]["reference"] == "Patient/asa"


def test_a_move_is_refused_without_reason_or_to_a_visit_of_somebody_else(ward: Bridge) -> None:
    wrong = take(ward, "Patient/asa")
    with pytest.raises(BadInput):
        move(ward, person(), wrong, patient="bo", reason=" ")
    with pytest.raises(Unprocessable):
        move(ward, person(), wrong, patient="bo", encounter="morning")
    with pytest.raises(Unprocessable):
        move(ward, person(), wrong, patient="nobody")


def test_a_stub_is_never_moved_nor_shown(ward: Bridge) -> None:
    wrong = take(ward, "Patient/asa")
    move(ward, person(), wrong, patient="bo")
    with ward.db.snapshot() as tx:
        (stub,) = [one.id for one in find_where(tx, "Media") if one.id != wrong]
    with pytest.raises(Unprocessable):
        move(ward, person(), stub, patient="bo")


# --- the second person ----------------------------------------------------------------------------------------------


@pytest.fixture
def careful(ward: Bridge) -> Bridge:
    return dataclasses.replace(ward, settings=ward.settings.model_copy(update={"second_person": True}))


def test_where_the_site_asks_a_second_person_confirms_the_move(careful: Bridge) -> None:
    wrong = take(careful, "Patient/asa")
    job_id = move(careful, person(), wrong, patient="bo")
    assert status(careful, job_id)["state"] == "to-confirm"
    assert media_of(careful, wrong)["subject"]["reference"] == "Patient/asa"
    with pytest.raises(Forbidden), careful.db.transaction() as tx:
        confirm_job(tx, careful, person(), job_id)
    with pytest.raises(Forbidden), careful.db.transaction() as tx:
        confirm_job(tx, careful, person("clinician", "c"), job_id)
    with careful.db.transaction() as tx:
        confirm_job(tx, careful, person(name="q"), job_id)
    with pytest.raises(Conflict), careful.db.transaction() as tx:
        confirm_job(tx, careful, person(name="q"), job_id)
    work(careful)
    assert media_of(careful, wrong)["subject"]["reference"] == "Patient/bo"
    with careful.db.snapshot() as tx:
        told = [one.resource for one in find_where(tx, "Provenance")]
    moved = next(one for one in told if any(e["role"] == "removal" for e in one.get("entity", [])))
    assert [one["who"]["reference"] for one in moved["agent"]] == ["Practitioner/p", "Practitioner/q"]


def test_a_photo_of_nobody_needs_no_second_person(careful: Bridge) -> None:
    alone = take(careful, None)
    move(careful, person(), alone, patient="asa")
    assert state_of(media_of(careful, alone)) == "bound"


def test_nobody_confirms_what_does_not_exist(careful: Bridge) -> None:
    with pytest.raises((NotFound, Gone)), careful.db.transaction() as tx:
        confirm_job(tx, careful, person(), "nothing")
