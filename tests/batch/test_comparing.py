"""A visit compared with what was before: pairs proposed, carried out once each, the most changed shown first."""

from __future__ import annotations

from typing import Any

import pytest

from adapter.access import SYSTEM, Actor
from adapter.access.policy import grants_of
from adapter.batch import job_status, prepare_job, run_job, start_job, undo_job
from adapter.batch.comparing import changes_of, photos_of_visit, propose_priors
from adapter.bridge import Bridge
from adapter.capture.receive import Upload, receive
from adapter.compare import comparing
from adapter.errors import Conflict, NotFound
from adapter.identity import Refiling, refile
from adapter.records import create
from adapter.web.jobs import most_changed_first
from adapter.work import Lane, WorkLoop
from tests.compare.conftest import RESULT, compared, draw
from tests.conftest import Clock

CHEEK, HAND, BACK = "36141000", "33712006", "66643007"
EVE = Actor("person", "Practitioner/eve", "Eve", "clinician", *grants_of("clinician"), patient_id="asa")


def _result(verdict: str, difference: float) -> dict[str, Any]:
    region = {"box": [10, 10, 12, 9], "difference": difference, "lightness": -3, "certain": True}
    return RESULT | {"verdict": verdict, "change": RESULT["change"] | {"regions": [region]}}


@pytest.fixture
def visits(bridge: Bridge) -> dict[str, str]:
    """Two visits of Patient/asa: cheek and hand at both, the back at the later one only."""
    with bridge.db.transaction() as tx:
        for patient in ("asa", "bo"):
            create(tx, {"resourceType": "Patient", "id": patient, "active": True}, at=bridge.now())
        for visit in ("march", "june"):
            create(tx, _visit(visit), at=bridge.now())
    taken = {"march": "2026-03-03T09:00:00Z", "june": "2026-06-03T09:00:00Z"}
    wanted = [("march", "cheek", CHEEK), ("march", "hand", HAND)]
    wanted += [("june", "hand", HAND), ("june", "cheek", CHEEK), ("june", "back", BACK)]
    photos = {}
    for seed, (visit, name, site) in enumerate(wanted, 1):
        about = {"patient": "Patient/asa", "encounter": f"Encounter/{visit}", "body_site": site}
        upload = Upload(draw(seed), about | {"taken_at": taken[visit].replace(":00Z", f":0{seed}Z")})
        photos[f"{visit} {name}"] = receive(bridge, SYSTEM, upload).id
    compared(bridge, photos["march hand"], photos["june hand"], _result("aligned", 4))
    compared(bridge, photos["march cheek"], photos["june cheek"], _result("aligned", 40))
    return photos


def _visit(visit: str) -> dict[str, Any]:
    return {
        "resourceType": "Encounter",
        "id": visit,
        "status": "finished",
        "class": {"code": "AMB"},
        "subject": {"reference": "Patient/asa"},
    }


def _prepare(bridge: Bridge) -> str:
    with bridge.db.transaction() as tx:
        photos = photos_of_visit(tx, EVE, "asa", "june")
        parameters = {"priors": propose_priors(tx, EVE, photos)}
        return prepare_job(tx, bridge, EVE, "compare", patient_id="asa", targets=photos, parameters=parameters)


def _run(bridge: Bridge, clock: Clock) -> None:
    WorkLoop(bridge.db, {"job": Lane(lambda item: run_job(bridge, item))}, now=clock).run_until_idle()


def _status(bridge: Bridge, job_id: str) -> dict[str, Any]:
    with bridge.db.snapshot() as tx:
        return job_status(tx, job_id)


def test_the_preview_names_each_pair_and_the_photos_without_a_prior(bridge: Bridge, visits: dict[str, str]) -> None:
    told = {one["target"]: (one["state"], one["result"]) for one in _status(bridge, _prepare(bridge))["items"]}
    assert told[visits["june hand"]] == (
        "waiting",
        "with the photo of 2026-03-03: the same site, the same kind of camera",
    )
    assert told[visits["june back"]] == ("skipped", "no photo of another visit shows this lesion or site")
    assert visits["march hand"] not in told


def test_every_pair_gets_its_verdict_and_the_most_changed_comes_first(
    bridge: Bridge, visits: dict[str, str], clock: Clock
) -> None:
    job_id = _prepare(bridge)
    with bridge.db.transaction() as tx:
        start_job(tx, bridge, EVE, job_id)
    _run(bridge, clock)
    status = _status(bridge, job_id)
    assert (status["state"], status["done"], status["failed"], status["can_undo"]) == ("finished", 2, 0, False)
    with bridge.db.snapshot() as tx:
        shown = most_changed_first(tx, status)
    assert [one["target"] for one in shown] == [visits[f"june {name}"] for name in ("cheek", "hand", "back")]
    assert shown[0]["result"] == "aligned: 1 place differs"
    assert shown[0]["href"] == f"/compare?media={visits['march cheek']}&media={visits['june cheek']}"
    with pytest.raises(Conflict):
        undo_job(bridge, EVE, job_id)


def test_a_job_cut_off_in_the_middle_goes_on_with_the_pairs_that_are_left(
    bridge: Bridge, visits: dict[str, str], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    asked: list[str] = []
    engine = comparing.compare

    def crashing(bridge: Bridge, actor: Actor, left: str, right: str) -> Any:
        asked.append(right)
        if len(asked) == 2:
            raise Crash
        return engine(bridge, actor, left, right)

    monkeypatch.setattr("adapter.batch.comparing.compare", crashing)
    job_id = _prepare(bridge)
    with bridge.db.transaction() as tx:
        start_job(tx, bridge, EVE, job_id)
    with pytest.raises(Crash):
        _run(bridge, clock)
    assert _status(bridge, job_id)["done"] == 1
    clock.advance(minutes=5)  # the lease runs out
    _run(bridge, clock)
    assert _status(bridge, job_id)["done"] == 2
    assert len(asked) == 3


def test_a_photo_moved_meanwhile_fails_alone_and_another_chart_sees_nothing(
    bridge: Bridge, visits: dict[str, str], clock: Clock
) -> None:
    job_id = _prepare(bridge)
    with bridge.db.transaction() as tx:
        start_job(tx, bridge, EVE, job_id)
        refile(tx, bridge, SYSTEM, visits["march hand"], Refiling("bo", "the wrong chart was open"))
    _run(bridge, clock)
    states = {one["target"]: one["state"] for one in _status(bridge, job_id)["items"]}
    assert (states[visits["june hand"]], states[visits["june cheek"]]) == ("failed", "done")
    stranger = Actor("person", "Practitioner/x", "X", "clinician", *grants_of("clinician"), patient_id="bo")
    with bridge.db.snapshot() as tx, pytest.raises(NotFound):
        propose_priors(tx, stranger, [visits["june hand"]])


def test_pairs_that_could_not_be_aligned_come_after_those_that_changed(bridge: Bridge, visits: dict[str, str]) -> None:
    compared(bridge, visits["march hand"], visits["june back"], _result("not-aligned", 90))
    with bridge.db.snapshot() as tx:
        pairs = {visits["june back"]: visits["march hand"], visits["june hand"]: visits["march hand"]}
        assert [one.photo for one in changes_of(tx, pairs)] == [visits["june hand"], visits["june back"]]
