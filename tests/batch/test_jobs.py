"""A job: each photo on its own, resumed after a crash, taken back where nobody touched it since."""

from functools import partial

import pytest

from adapter.access import SYSTEM, Actor
from adapter.batch import job_status, operations, run_job, start_job, undo_job
from adapter.bridge import Bridge
from adapter.errors import BadInput, Conflict, Forbidden, Unprocessable
from adapter.records import Resource, get, history, update_resource
from adapter.work import Lane, WorkLoop
from tests.conftest import Clock

FOREARM = "70559009"


def _start(bridge: Bridge, photos: list[str], **parameters: str) -> str:
    with bridge.db.transaction() as tx:
        return start_job(tx, bridge, SYSTEM, "assign", patient_id="asa", targets=photos, parameters=dict(parameters))


def _run(bridge: Bridge) -> None:
    WorkLoop(bridge.db, {"job": Lane(partial(run_job, bridge))}, now=bridge.now).run_until_idle()


def _media(bridge: Bridge, media_id: str) -> Resource:
    with bridge.db.snapshot() as tx:
        return get(tx, "Media", media_id).resource


def _status(bridge: Bridge, job_id: str) -> dict[str, object]:
    with bridge.db.snapshot() as tx:
        return job_status(tx, job_id)


def test_every_photo_is_assigned_and_told(bridge: Bridge, photos: list[str]) -> None:
    job_id = _start(bridge, photos, body_site=FOREARM, encounter="Encounter/visit")
    assert _status(bridge, job_id)["finished"] is False
    _run(bridge)
    status = _status(bridge, job_id)
    assert (status["done"], status["failed"], status["total"], status["finished"]) == (4, 0, 4, True)
    for media_id in photos:
        media = _media(bridge, media_id)
        assert media["bodySite"]["coding"][0]["code"] == FOREARM
        assert media["encounter"]["reference"] == "Encounter/visit"


def test_one_bad_photo_does_not_stop_the_others(bridge: Bridge, photos: list[str]) -> None:
    job_id = _start(bridge, [photos[0], "nowhere", photos[1]], view="regional")
    _run(bridge)
    status = _status(bridge, job_id)
    assert (status["done"], status["failed"]) == (2, 1)


def test_after_a_crash_the_job_goes_on_and_nothing_is_done_twice(
    bridge: Bridge, photos: list[str], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = _start(bridge, photos, view="regional")
    original = operations.OPERATIONS["assign"].apply

    def crash(*given: object) -> operations.Change:
        if given[3] == photos[2]:
            raise SystemExit("killed")
        return original(*given)  # type: ignore[arg-type]

    crashing = operations.Operation("u", operations.OPERATIONS["assign"].check, crash, can_undo=True)  # type: ignore[arg-type]
    monkeypatch.setitem(operations.OPERATIONS, "assign", crashing)
    with pytest.raises(SystemExit):
        _run(bridge)
    assert _status(bridge, job_id)["done"] == 2
    monkeypatch.undo()
    clock.advance(minutes=5)
    _run(bridge)
    assert _status(bridge, job_id)["done"] == 4
    with bridge.db.snapshot() as tx:
        assert [len(history(tx, "Media", media_id)) for media_id in photos] == [2, 2, 2, 2]


def test_undo_puts_back_what_nobody_changed_since(bridge: Bridge, photos: list[str]) -> None:
    job_id = _start(bridge, photos[:2], view="regional")
    _run(bridge)
    with bridge.db.transaction() as tx:
        changed = get(tx, "Media", photos[1]).resource | {"deviceName": "another"}
        update_resource(tx, changed, at=bridge.now())
    assert undo_job(bridge, SYSTEM, job_id) == {"undone": 1, "kept": 1}
    assert "view" not in _media(bridge, photos[0])
    assert _media(bridge, photos[1])["deviceName"] == "another"
    with pytest.raises(Conflict):
        undo_job(bridge, SYSTEM, job_id)


def test_a_job_is_refused_before_anything_is_done(bridge: Bridge, photos: list[str]) -> None:
    with pytest.raises(Unprocessable):
        _start(bridge, photos, body_site="118878009")
    with pytest.raises(BadInput):
        _start(bridge, photos, colour="blue")
    reader = Actor("machine", "Device/x", "x", "machine", frozenset({"system/Media.r"}))
    with pytest.raises(Forbidden), bridge.db.transaction() as tx:
        start_job(tx, bridge, reader, "assign", patient_id=None, targets=photos, parameters={"view": "regional"})


def test_a_visit_of_another_patient_fails_the_item(bridge: Bridge, photos: list[str]) -> None:
    job_id = _start(bridge, photos[:1], encounter="Encounter/other")
    _run(bridge)
    assert _status(bridge, job_id)["failed"] == 1
