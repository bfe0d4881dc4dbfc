"""A job: each photo on its own, resumed after a crash, taken back where nobody touched it since."""

from dataclasses import replace
from functools import partial

import pytest

from adapter.access import SYSTEM, Actor
from adapter.batch import (
    drop_preview,
    job_status,
    jobs_of,
    operations,
    prepare_job,
    run_job,
    start_job,
    tally,
    undo_job,
)
from adapter.batch.operation import Change
from adapter.bridge import Bridge
from adapter.errors import BadInput, Conflict, Forbidden, NotFound, Unprocessable
from adapter.records import Resource, delete, get, history, update_resource
from adapter.work import Lane, WorkLoop
from mappings.terms import CONFIDENTIALITY, coding
from tests.conftest import Clock

FOREARM = "70559009"


def _prepare(bridge: Bridge, photos: list[str], **parameters: str) -> str:
    with bridge.db.transaction() as tx:
        return prepare_job(tx, bridge, SYSTEM, "assign", patient_id="asa", targets=photos, parameters=dict(parameters))


def _start(bridge: Bridge, photos: list[str], **parameters: str) -> str:
    job_id = _prepare(bridge, photos, **parameters)
    with bridge.db.transaction() as tx:
        start_job(tx, bridge, SYSTEM, job_id)
    return job_id


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


def test_a_preview_says_what_will_be_done_and_what_not_and_changes_nothing(bridge: Bridge, photos: list[str]) -> None:
    done = _start(bridge, photos[:1], view="regional")
    _run(bridge)
    job_id = _prepare(bridge, [*photos, "nowhere"], view="regional")
    _run(bridge)
    with bridge.db.snapshot() as tx:
        lines = tally(tx, job_id)
        assert [one["id"] for one in jobs_of(tx, SYSTEM)[0]] == [job_id, done]
    assert lines[0] == ("waiting", "view becomes regional", 3)
    assert sorted(lines[1:]) == [("skipped", "already so", 1), ("skipped", "there is no Media/nowhere", 1)]
    assert "view" not in _media(bridge, photos[1])
    with bridge.db.transaction() as tx:
        start_job(tx, bridge, SYSTEM, job_id)
        start_job(tx, bridge, SYSTEM, job_id)
    _run(bridge)
    status = _status(bridge, job_id)
    assert (status["done"], status["failed"], status["skipped"], status["total"]) == (3, 0, 2, 3)


def test_a_preview_of_somebody_else_is_neither_started_nor_dropped(bridge: Bridge, photos: list[str]) -> None:
    job_id = _prepare(bridge, photos, view="regional")
    other = Actor("person", "Practitioner/x", "x", "clinician", frozenset({"user/Media.crus"}))
    with pytest.raises(NotFound), bridge.db.transaction() as tx:
        start_job(tx, bridge, other, job_id)
    with pytest.raises(NotFound), bridge.db.transaction() as tx:
        drop_preview(tx, other, job_id)
    with bridge.db.transaction() as tx:
        drop_preview(tx, SYSTEM, job_id)
    with pytest.raises(NotFound):
        _status(bridge, job_id)


def test_a_job_prepared_under_broken_glass_does_no_more_than_who_starts_it_may(
    bridge: Bridge, photos: list[str]
) -> None:
    with bridge.db.transaction() as tx:
        media = get(tx, "Media", photos[0]).resource
        update_resource(tx, media | {"meta": {"security": [coding(CONFIDENTIALITY, "V")]}}, at=bridge.now())
    mended = Actor("person", "Practitioner/x", "x", "clinician", frozenset({"user/Media.crus"}), patient_id="asa")
    broken = replace(mended, emergency="ETREAT")
    with bridge.db.transaction() as tx:
        job_id = prepare_job(
            tx, bridge, broken, "assign", patient_id="asa", targets=photos[:1], parameters={"view": "regional"}
        )
    with bridge.db.transaction() as tx:
        start_job(tx, bridge, mended, job_id)
    _run(bridge)
    status = _status(bridge, job_id)
    assert (status["done"], status["failed"]) == (0, 1)
    assert "view" not in _media(bridge, photos[0])


def test_a_preview_that_nobody_starts_is_forgotten(bridge: Bridge, photos: list[str], clock: Clock) -> None:
    forgotten = _prepare(bridge, photos, view="regional")
    clock.advance(hours=2)
    _prepare(bridge, photos, view="regional")
    with pytest.raises(NotFound):
        _status(bridge, forgotten)


def test_one_bad_photo_does_not_stop_the_others(bridge: Bridge, photos: list[str]) -> None:
    job_id = _start(bridge, photos[:3], view="regional")
    with bridge.db.transaction() as tx:
        delete(tx, "Media", photos[1], at=bridge.now())
    _run(bridge)
    status = _status(bridge, job_id)
    assert (status["done"], status["failed"]) == (2, 1)


def test_after_a_crash_the_job_goes_on_and_nothing_is_done_twice(
    bridge: Bridge, photos: list[str], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = _start(bridge, photos, view="regional")
    assign = operations.OPERATIONS["assign"]
    original = assign.apply

    def crash(*given: object) -> Change:
        if given[3] == photos[2]:
            raise SystemExit("killed")
        return original(*given)  # type: ignore[arg-type]

    monkeypatch.setitem(operations.OPERATIONS, "assign", replace(assign, apply=crash))
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
    with pytest.raises(Unprocessable):
        _start(bridge, photos, laterality="up")
    with pytest.raises(BadInput):
        _start(bridge, photos, colour="blue")
    reader = Actor("machine", "Device/x", "x", "machine", frozenset({"system/Media.r"}))
    with pytest.raises(Forbidden), bridge.db.transaction() as tx:
        prepare_job(tx, bridge, reader, "assign", patient_id=None, targets=photos, parameters={"view": "regional"})


def test_a_visit_of_another_patient_is_left_alone_and_such_a_job_cannot_start(
    bridge: Bridge, photos: list[str]
) -> None:
    job_id = _prepare(bridge, photos[:1], encounter="Encounter/other")
    assert _status(bridge, job_id)["skipped"] == 1
    with pytest.raises(Unprocessable), bridge.db.transaction() as tx:
        start_job(tx, bridge, SYSTEM, job_id)
