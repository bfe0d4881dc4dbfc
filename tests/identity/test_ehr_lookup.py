"""Photos whose patient nobody announced, asked about at a running EHR: the sandbox, over HTTP."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select

from adapter.access import SYSTEM
from adapter.db.tables import patient_answer
from adapter.errors import NotFound
from adapter.identity import bind_waiting, register_candidate
from adapter.identity.launched import PROVISIONAL
from adapter.records import create, find_where
from adapter.sandbox.ehr import MRN_SYSTEM, VISIT_SYSTEM
from adapter.work import Work, enqueue
from tests.conftest import Clock
from tests.identity.asked_ehr import ASTRID, OTHER, Site, ehr, open_site, served, site
from tests.sandbox.conftest import free_port

__all__ = ["ehr", "open_site", "served", "site"]


def test_one_patient_with_the_identifier_and_the_birth_date_is_registered_and_the_photo_bound(site: Site) -> None:
    photo = site.store(ASTRID | {"birthDate": "1961-03-12"})
    assert site.state(photo) == "awaiting-patient"
    site.run()
    assert site.state(photo) == "bound"
    (known,) = site.patients()
    assert site.media(photo)["subject"]["reference"] == f"Patient/{known['id']}"
    assert PROVISIONAL in known["meta"]["tag"]
    assert [one["value"] for one in known["identifier"]] == ["4711-0815"]  # it is trusted for this system only
    assert site.in_line() == []


def test_the_visit_that_covers_the_photo_comes_with_the_patient(site: Site) -> None:
    photo = site.store(ASTRID | {"family": "Lindqvist"})
    site.run()
    with site.bridge.db.snapshot() as tx:
        (visit,) = find_where(tx, "Encounter")
    assert site.media(photo)["encounter"]["reference"] == visit.reference
    assert visit.resource["identifier"] == [{"system": VISIT_SYSTEM, "value": "V-2210"}]


def test_what_was_asked_is_in_the_audit_log_and_the_ehr_is_its_destination(site: Site) -> None:
    site.store(ASTRID | {"family": "Lindqvist"})
    site.run()
    assert len(site.queries()) == 2  # the patient, the visit
    for told in site.queries():
        (asked,) = [one for one in told["agent"] if one["type"]["coding"][0]["code"] == "110152"]
        assert (asked["network"]["address"], asked["requestor"]) == ("larkfield", False)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "not certainly enough"),
        ({"birthDate": "1961-03-13"}, "not certainly enough"),
        ({"birthDate": "1961-03-12", "family": "Nobody"}, "not certainly enough"),
    ],
)
def test_without_a_second_demographic_that_agrees_there_is_only_a_candidate(
    site: Site, given: dict[str, str], reason: str
) -> None:
    photo = site.store(ASTRID | given)
    site.run()
    assert (site.state(photo), site.patients()) == ("awaiting-patient", [])
    answer = site.answer(photo)
    assert reason in answer.reason
    assert [one.patient["id"] for one in answer.candidates] == ["astrid"]


def test_name_and_birth_date_alone_are_never_enough(site: Site) -> None:
    lindqvist = {"system": MRN_SYSTEM, "value": "no-such", "family": "Lindqvist", "birthDate": "1961-03-12"}
    photo = site.store(lindqvist | {"given": "Åsa", "gender": "female"})
    site.run()
    assert site.state(photo) == "awaiting-patient"
    assert [(one.way, one.patient["id"]) for one in site.answer(photo).candidates] == [("demographics", "astrid")]


def test_a_match_by_score_is_never_enough(open_site: Callable[..., Site]) -> None:
    site = open_site(patient_lookup={"ways": ["match"]})
    photo = site.store(ASTRID | {"family": "Lindqvist", "birthDate": "1961-03-12"})
    site.run()
    assert (site.state(photo), site.patients()) == ("awaiting-patient", [])
    (one,) = site.answer(photo).candidates
    assert (one.way, one.grade, one.patient["id"]) == ("match", "certain", "astrid")


def test_a_cross_reference_is_never_enough(open_site: Callable[..., Site]) -> None:
    site = open_site(patient_lookup={"ways": ["cross-reference"]})
    photo = site.store({"system": OTHER, "value": "E-1", "birthDate": "1961-03-12"})
    site.run()
    assert (site.state(photo), site.patients()) == ("awaiting-patient", [])
    assert [one.patient["id"] for one in site.answer(photo).candidates] == ["astrid"]


def test_several_who_fit_are_all_candidates(site: Site) -> None:
    photo = site.store({"system": MRN_SYSTEM, "value": "9", "family": "Twin", "birthDate": "2001-01-01"})
    site.run()
    assert site.state(photo) == "awaiting-patient"
    assert {one.patient["id"] for one in site.answer(photo).candidates} == {"1", "2"}


def test_nobody_there_is_said_and_the_photo_goes_on_waiting(site: Site) -> None:
    photo = site.store({"system": MRN_SYSTEM, "value": "nobody"})
    site.run()
    assert site.state(photo) == "awaiting-patient"
    assert site.answer(photo).reason.startswith("nobody there fits")
    assert site.in_line() == []


def test_all_photos_of_an_unknown_patient_are_bound_by_one_question(site: Site) -> None:
    photos = [site.store(ASTRID | {"family": "Lindqvist"}) for _ in range(3)]
    site.run()
    assert {site.state(one) for one in photos} == {"bound"}
    assert len(site.queries()) == 2


def test_while_the_ehr_is_away_the_question_waits(open_site: Callable[..., Site], served: str, clock: Clock) -> None:
    away = open_site(f"http://127.0.0.1:{free_port()}")
    photo = away.store(ASTRID | {"family": "Lindqvist"})
    for _ in range(20):
        away.run()
        clock.advance(hours=8)
    (row,) = away.in_line()
    assert (row.state, row.attempts) == ("waiting", 20)
    back = open_site(served)
    back.run()
    assert back.state(photo) == "bound"


def test_where_no_profile_offers_it_nothing_is_asked(open_site: Callable[..., Site]) -> None:
    site = open_site(patient_lookup={"ways": []})
    site.store(ASTRID)
    assert site.in_line() == []


def test_a_destination_that_is_not_asked_any_more_ends_the_question(open_site: Callable[..., Site]) -> None:
    photo = open_site().store(ASTRID)
    site = open_site(patient_lookup={"ways": []})
    site.run()
    assert (site.in_line(), site.state(photo)) == ([], "awaiting-patient")


def test_a_question_repeated_after_a_crash_changes_nothing_more(site: Site) -> None:
    photo = site.store(ASTRID | {"family": "Lindqvist"})
    site.run()
    version = site.media(photo)["meta"]["versionId"]
    again = Work("look-up-patient", "again", {"media": photo, "destination": "larkfield"})
    with site.bridge.db.transaction() as tx:
        enqueue(tx, again, at=site.bridge.now())
    site.run()
    assert site.media(photo)["meta"]["versionId"] == version
    assert len(site.patients()) == 1


@pytest.mark.parametrize(("born", "reason"), [("1961-03-12", "a person must say"), ("1999-09-09", "birth date")])
def test_a_patient_of_ours_under_another_identifier_is_neither_changed_nor_doubled(
    open_site: Callable[..., Site], born: str, reason: str
) -> None:
    site = open_site(patient={"identifier_systems": []})
    ours = {
        "resourceType": "Patient",
        "id": "ours",
        "identifier": [{"system": OTHER, "value": "E-1"}],
        "birthDate": born,
    }
    with site.bridge.db.transaction() as tx:
        create(tx, ours, at=site.bridge.now())
    photo = site.store(ASTRID | {"birthDate": "1961-03-12"})
    site.run()
    assert site.state(photo) == "awaiting-patient"
    (known,) = site.patients()
    assert known["identifier"] == ours["identifier"]
    assert reason in site.answer(photo).reason
    assert len(site.queries()) == 2


def test_a_person_may_ask_for_a_photo_in_quarantine_and_it_stays_there(site: Site) -> None:
    photo = site.store(ASTRID | {"family": "Nobody"})
    with site.bridge.db.transaction() as tx:
        known = {"resourceType": "Patient", "id": "ours", "identifier": [ASTRID], "name": [{"family": "Lindqvist"}]}
        bind_waiting(tx, site.bridge, create(tx, known, at=site.bridge.now()))
    assert site.state(photo) == "quarantined"
    site.ask(photo)
    assert site.state(photo) == "quarantined"
    assert [one.patient["id"] for one in site.answer(photo).candidates] == ["astrid"]


def test_a_person_is_told_that_the_ehr_does_not_answer(open_site: Callable[..., Site]) -> None:
    site = open_site(f"http://127.0.0.1:{free_port()}")
    photo = site.store(ASTRID)
    site.ask(photo)
    assert "could not be reached" in site.answer(photo).reason


def test_a_chosen_candidate_is_registered_with_the_visit_and_the_answers_are_forgotten(site: Site) -> None:
    photo = site.store(ASTRID)
    site.run()
    with site.bridge.db.transaction() as tx:
        ids = register_candidate(tx, site.bridge, SYSTEM, photo, "larkfield", "astrid")
    assert site.state(photo) == "bound"
    media = site.media(photo)
    assert (media["subject"]["reference"], media["encounter"]["reference"]) == (
        f"Patient/{ids[0]}",
        f"Encounter/{ids[1]}",
    )
    with site.bridge.db.transaction() as tx:
        assert tx.execute(select(patient_answer)).all() == []
        with pytest.raises(NotFound):
            register_candidate(tx, site.bridge, SYSTEM, photo, "larkfield", "astrid")
