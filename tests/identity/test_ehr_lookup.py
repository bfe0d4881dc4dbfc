"""Photos whose patient nobody announced, asked about at a running EHR: the sandbox, over HTTP."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import uvicorn
from sqlalchemy import select

from adapter import identity
from adapter.access import SYSTEM
from adapter.app import work_lanes
from adapter.bridge import Bridge
from adapter.capture.receive import Upload, receive
from adapter.db.tables import patient_answer, work
from adapter.delivery import Destinations, ask_destination
from adapter.errors import NotFound
from adapter.identity import answers_of, ask_ehrs, bind_waiting, register_candidate
from adapter.identity.launched import PROVISIONAL
from adapter.records import create, find_where, get, update_resource
from adapter.sandbox.app import build_sandbox
from adapter.sandbox.ehr import MRN_SYSTEM, VISIT_SYSTEM, SandboxEhr, SandboxSettings, new_patient, open_ehr
from adapter.work import Work, WorkLoop, enqueue
from mappings.wrong_patient import state_of
from tests.conftest import Clock
from tests.sandbox.conftest import free_port
from tests.web.conftest import picture

OTHER = "urn:oid:2.999.7"
ASTRID = {"system": MRN_SYSTEM, "value": "4711-0815"}


@pytest.fixture(scope="module")
def ehr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxEhr]:
    """Astrid and José with a visit each since nine; two of the name Twin born on one day; Astrid's record elsewhere."""
    settings = SandboxSettings(tmp_path_factory.mktemp("ehr"), http_port=free_port(), backend_secret="s3cret")
    opened = open_ehr(settings, now=lambda: datetime(2026, 11, 23, 9, 0, tzinfo=UTC))
    with opened.bridge.db.transaction() as tx:
        for number in ("1", "2"):
            twin = new_patient(number, number, family="Twin", given="A", birth_date="2001-01-01", gender="female")
            create(tx, twin, at=opened.bridge.now())
        astrid = get(tx, "Patient", "astrid").resource
        astrid["identifier"] += [{"system": OTHER, "value": "E-1"}]
        update_resource(tx, astrid, at=opened.bridge.now())
    yield opened
    opened.bridge.close()


@pytest.fixture(scope="module")
def served(ehr: SandboxEhr) -> Iterator[str]:
    config = uvicorn.Config(build_sandbox(ehr.settings, ehr), port=ehr.settings.http_port, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield ehr.settings.origin
    server.should_exit = True
    thread.join(10)


class Site:
    """A DermBridge that may ask the EHR; `run` does what is in line."""

    def __init__(self, bridge: Bridge, origin: str, **profile: Any) -> None:
        auth = {"kind": "client_secret_basic", "client_id": "dermbridge-backend", "secret": "sandbox"}
        auth |= {"token_url": f"{origin}/token", "scope": "system/*.crus"}
        entry = {"name": "larkfield", "profile": "sandbox", "base_url": f"{origin}/fhir", "auth": auth}
        entry |= {"timeouts": {"attempts": 1}} | profile
        settings = bridge.settings.model_copy(update={"destinations": (entry,)})
        self.bridge = dataclasses.replace(bridge, settings=settings)
        secrets = bridge.settings.data_dir / "secrets"
        secrets.mkdir(exist_ok=True)
        (secrets / "sandbox").write_text("s3cret")
        self.destinations = Destinations(self.bridge)
        self._last = 0

    def store(self, patient: Any, **more: Any) -> str:
        self._last += 1
        said = {"taken_at": "2026-11-23T09:20:00Z"} | ({"patient": patient} if patient else {}) | more
        return receive(self.bridge, SYSTEM, Upload(picture(60 + self._last), said)).id

    def run(self) -> None:
        lanes = {name: work_lanes(self.bridge, self.destinations)[name] for name in ("look-up-patient", "apply-adt")}
        WorkLoop(self.bridge.db, lanes, now=self.bridge.now).run_until_idle()

    def media(self, media_id: str) -> dict[str, Any]:
        with self.bridge.db.snapshot() as tx:
            return get(tx, "Media", media_id).resource

    def state(self, media_id: str) -> str | None:
        return state_of(self.media(media_id))

    def answer(self, media_id: str) -> identity.EhrAnswer:
        with self.bridge.db.snapshot() as tx:
            (found,) = answers_of(tx, media_id)
        return found

    def patients(self) -> list[dict[str, Any]]:
        with self.bridge.db.snapshot() as tx:
            return [one.resource for one in find_where(tx, "Patient")]

    def in_line(self) -> list[Any]:
        with self.bridge.db.snapshot() as tx:
            return list(tx.execute(select(work).where(work.c.kind == "look-up-patient")))

    def queries(self) -> list[dict[str, Any]]:
        """The AuditEvents of what was asked."""
        with self.bridge.db.snapshot() as tx:
            every = [one.resource for one in find_where(tx, "AuditEvent")]
        return [one for one in every if any("query" in each for each in one.get("entity", ()))]

    def ask(self, media_id: str) -> None:
        with self.bridge.db.snapshot() as tx:
            media = get(tx, "Media", media_id)
        ask_ehrs(self.bridge, partial(ask_destination, self.destinations), SYSTEM, media)


@pytest.fixture
def open_site(bridge: Bridge, served: str) -> Iterator[Callable[..., Site]]:
    opened: list[Site] = []

    def opening(origin: str = served, **profile: Any) -> Site:
        opened.append(Site(bridge, origin, **profile))
        return opened[-1]

    yield opening
    for one in opened:
        one.destinations.close()


@pytest.fixture
def site(open_site: Callable[..., Site]) -> Site:
    return open_site()


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
