"""What is seen only later: people deleted meanwhile, numbers somebody had before, messages that fail for good."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import select, update

from adapter.access import SYSTEM
from adapter.batch import undo_job
from adapter.bridge import Bridge
from adapter.db.tables import work
from adapter.errors import Conflict
from adapter.identity import (
    apply_message,
    dismiss,
    feed_patient,
    merge_patients,
    receive_messages,
    refile,
    replay_all,
    undo_change,
    unmerge_patients,
    whose,
)
from adapter.identity.correction import Refiling
from adapter.identity.matching import owns
from adapter.identity.moves import changes
from adapter.records import find_by_identifier, find_where, update_resource
from adapter.work import Lane, WorkLoop
from mappings.wrong_patient import state_of
from tests.conftest import Clock
from tests.identity.conftest import MRN
from tests.identity.test_correction import move, person, take
from tests.identity.world import World, admitted, message, mr, mrg, pid, pv1, segment

ROE = {"f5": "Roe^Rick"}
LATER = "20261123110000+0000"


@pytest.fixture
def world(site: Bridge, apply_all: Callable[[], int]) -> World:
    return admitted(site, apply_all)


def reference_of(world: World, number: str) -> str:
    with world.site.db.snapshot() as tx:
        carriers = find_by_identifier(tx, "Patient", MRN, number)
    return next(one.reference for one in carriers if owns(one.resource, (MRN, number)))


def refiled(world: World, number: str, to: str) -> str:
    """The photo given to another patient by a person; the id of the job, to undo it."""
    target = reference_of(world, to).removeprefix("Patient/")
    return move(world.site, person(), world.photos[number], patient=target)


@pytest.mark.parametrize(
    "meanwhile",
    [
        (message("A29", "1", pid("100")),),  # whose it was is deleted
        (message("A23", "1", pid("100"), pv1("V1")),),  # the visit it was of is deleted
        (message("A45", "1", pid("300"), mrg(f1=mr("100"), f5="V1^^^HOSP^VN"), pv1("V1")),),  # … is another patient's
    ],
)
def test_a_move_is_not_undone_into_a_chart_that_is_no_longer_what_it_was(
    world: World, meanwhile: tuple[bytes, ...]
) -> None:
    job_id = refiled(world, "100", "200")
    world.receive(*meanwhile)
    before = world.photo("100")
    assert undo_job(world.site, person(), job_id) == {"undone": 0, "kept": 1}
    assert world.photo("100") == before


def test_a_photo_for_the_open_chart_of_a_deleted_person_is_in_doubt(world: World) -> None:
    chart = reference_of(world, "100")
    world.receive(message("A29", "1", pid("100")))
    with world.site.db.snapshot() as tx:
        found = whose(tx, chart)
    assert (found.state, found.doubt) == ("quarantined", "person-deleted")


def test_a_photo_settled_after_its_visit_was_deleted_is_not_filed_in_that_visit(world: World) -> None:
    world.receive(message("A23", "1", pid("100"), pv1("V1")))
    refiled(world, "100", "100")
    assert state_of(world.photo("100")) == "bound"
    assert "encounter" not in world.photo("100")


def test_a_merge_of_a_number_that_somebody_else_had_before_waits(world: World) -> None:
    world.receive(message("A47", "1", pid("101"), mrg(f1=mr("100"))), message("A28", "2", pid("300")))
    world.receive(message("A40", "3", pid("300"), mrg(f1=mr("100")), at=LATER))
    (reason,) = world.reasons()
    assert "former number" in reason
    assert world.owner("100") == "101"


def test_a_moved_identifier_goes_back_although_an_update_came_since(world: World) -> None:
    mistaken = pid("x", f3=f"{mr('100')}~77^^^HOSP^PI")
    world.receive(message("A31", "1", mistaken), message("A28", "2", pid("x", f3="88^^^HOSP^PI")))
    world.receive(message("A43", "3", pid("100", f2="88^^^HOSP^PI"), mrg(f1=mr("100"), f4="77^^^HOSP^PI"), at=LATER))
    assert world.reasons() == []
    world.receive(message("A31", "4", pid("x", f3=f"88^^^HOSP^PI~{mr('100')}"), at="20261123120000+0000"))
    with world.site.db.transaction() as tx:
        (move_of_100,) = [one for one in changes(tx) if one.source != one.target]
        undo_change(tx, world.site, SYSTEM, move_of_100.id)
    assert reference_of(world, "100") == reference_of(world, "77") != reference_of(world, "88")
    with world.site.db.snapshot() as tx:
        assert len(find_by_identifier(tx, "Patient", MRN, "100")) == 1
    assert world.photo("100")["subject"]["reference"] == reference_of(world, "77")


def test_a_note_of_a_photo_moved_away_does_not_keep_an_identifier_from_moving(world: World) -> None:
    world.receive(message("A31", "1", pid("x", f3=f"{mr('100')}~77^^^HOSP^PI")))
    refiled(world, "100", "200")
    world.receive(message("A43", "2", pid("100", f2="88^^^HOSP^PI"), mrg(f1=mr("100"), f4="77^^^HOSP^PI"), at=LATER))
    assert world.reasons() == []
    assert world.visit("V1")["subject"]["reference"] == reference_of(world, "88")
    with world.site.db.snapshot() as tx:
        (stub,) = [one.resource for one in find_where(tx, "Media") if one.resource["status"] == "entered-in-error"]
    assert stub["subject"]["reference"] == reference_of(world, "77")


def test_a_message_that_fails_again_and_again_can_be_dismissed_and_those_behind_it_go_on(world: World) -> None:
    receive_messages(world.site, [message("A31", "1", pid("100", f5="Doe^One"))], "test")
    receive_messages(world.site, [message("A31", "2", pid("100", f5="Doe^Two"))], "test")
    first, _ = queue_of(world)
    with world.site.db.transaction() as tx:  # as the work loop leaves it after its last attempt
        failed = {"state": "dead", "reason": "internal error (KeyError)", "remedy": "look into the log"}
        tx.execute(update(work).where(work.c.idempotency_key == f"adt:{first}").values(**failed))
    assert world.apply_all() == 0
    with world.site.db.transaction() as tx:
        dismiss(tx, world.site, SYSTEM, first, because="settled by hand")
    assert world.apply_all() == 1
    assert world.patient("100")["name"][0]["given"] == ["Two"]


def test_a_refused_message_that_is_corrected_may_keep_its_control_id(world: World) -> None:
    wrong, right = (
        message("A31", "1", segment("PID", f1="1", f5="Doe^New")),
        message("A31", "1", pid("100", f5="Doe^New")),
    )
    for burst in ((wrong,), (wrong, right), (right,)):
        acks = receive_messages(world.site, burst, "test")
    assert b"MSA|AA|1" in acks[0]
    assert b"ERR||MSH^1^10|207" in receive_messages(world.site, [wrong], "test")[0]
    assert world.apply_all() == 1
    assert world.patient("100")["name"][0]["given"] == ["New"]


def test_what_a_setting_refused_is_taken_when_it_comes_again_after_the_setting_is_mended(world: World) -> None:
    only = world.site.settings.model_copy(update={"mllp_senders": {"feed": ("OTHER|HOSP",)}})
    moved = message("A31", "1", pid("100", f5="Doe^New"))
    peer = "127.0.0.1:1/feed"
    assert b"MSA|AR|1" in receive_messages(replace(world.site, settings=only), [moved], peer)[0]
    assert b"MSA|AA|1" in receive_messages(world.site, [moved], peer)[0]
    assert world.apply_all() == 1
    assert world.reasons() == []


def test_a_message_in_line_is_not_dismissed(world: World) -> None:
    receive_messages(world.site, [message("A31", "1", pid("100"))], "test")
    (only,) = queue_of(world)
    with world.site.db.transaction() as tx, pytest.raises(Conflict):
        dismiss(tx, world.site, SYSTEM, only, because="impatience")
    assert world.apply_all() == 1


def queue_of(world: World) -> list[str]:
    """Ids of the messages in line, oldest first."""
    with world.site.db.snapshot() as tx:
        keys = tx.execute(select(work.c.idempotency_key).order_by(work.c.id)).scalars()
        return [key.removeprefix("adt:") for key in keys if key.startswith("adt:")]


def test_a_clock_that_was_far_ahead_does_not_make_every_later_message_old(world: World) -> None:
    ahead, now = "20621123100000+0000", "20261123120000+0000"
    world.receive(message("A31", "1", pid("100", f5="Doe^Ahead", f33=ahead), at=ahead))
    world.receive(message("A31", "2", pid("100", f5="Doe^Now", f33=now), at=now))
    assert world.patient("100")["name"][0]["given"] == ["Now"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("20261025025000", "20261025021000"),  # summer time ends at three: ten past two comes a second time
        ("20261123100030", "202611231000"),  # the second says no more than the minute
        ("20261123100030", "20261123"),
    ],
)
def test_a_time_that_may_be_later_is_not_old(world: World, first: str, second: str) -> None:
    settings = world.site.settings.model_copy(update={"time_zone": "Europe/Berlin"})
    local = replace(world.site, settings=settings)
    lanes = {"apply-adt": Lane(partial(apply_message, local), dead_blocks=True)}
    for control_id, at, given in (("1", first, "First"), ("2", second, "Second")):
        receive_messages(local, [message("A31", control_id, pid("300", f5=f"Doe^{given}"), at=at)], "test")
        WorkLoop(local.db, lanes, now=local.now).run_until_idle()
    assert world.patient("300")["name"][0]["given"] == ["Second"]


MERGED = message("A40", "m1", pid("200", **ROE), mrg(f1=mr("100")))
BACK = message("A40", "m2", pid("100"), mrg(f1=mr("200")), at=LATER)
VISITS_MERGED = (
    message("A01", "m1", pid("100"), pv1("V3")),
    message("A42", "m2", pid("100"), mrg(f1=mr("100"), f5="V1^^^HOSP^VN"), pv1("V3")),
)


def test_deleting_who_was_merged_away_leaves_the_survivor_alone(world: World) -> None:
    world.receive(MERGED, message("A29", "m2", pid("100"), at=LATER))
    assert world.patient("200")["active"] is True
    assert [world.state("100"), world.state("200")] == ["bound", "bound"]
    assert "merged into another" in world.notes()[-1]


def test_a_merge_turned_round_waits_until_the_first_is_undone(world: World) -> None:
    first, second = (reference_of(world, number).removeprefix("Patient/") for number in ("100", "200"))
    world.receive(MERGED, BACK)
    (reason,) = world.reasons()
    assert "former number" in reason
    with world.site.db.transaction() as tx:
        unmerge_patients(tx, world.site, SYSTEM, first, second)
        replay_all(tx, world.site)
    world.apply_all()
    assert (world.owner("100"), world.owner("200")) == ("100", "100")


def test_a_merge_of_two_numbers_of_one_patient_makes_one_of_them_a_former_number(world: World) -> None:
    world.receive(message("A31", "1", pid("x", f3=f"{mr('100')}~{mr('101')}")))
    world.receive(message("A40", "2", pid("100"), mrg(f1=mr("101")), at=LATER))
    assert world.patient("101") == world.patient("100")
    assert [one.get("use") for one in world.patient("100")["identifier"]] == [None, "old"]
    assert "no patient of its own" in world.notes()[-1]


def test_deleting_a_visit_that_was_merged_away_leaves_the_other_alone(world: World) -> None:
    world.receive(*VISITS_MERGED, message("A23", "m3", pid("100"), pv1("V1"), at=LATER))
    assert world.visit("V3")["status"] == "in-progress"
    assert world.state("100") == "bound"


def test_an_identifier_that_was_merged_away_moves_only_after_that_merge_is_undone(world: World) -> None:
    world.receive(MERGED, message("A43", "m2", pid("100", f2="88^^^HOSP^PI"), mrg(f1=mr("100")), at=LATER))
    (reason,) = world.reasons()
    assert "merged into another" in reason
    assert world.owner("100") == "200"


# --- at the same moment ---------------------------------------------------------------------------------------------


def meanwhile(what: Callable[[], object]) -> threading.Thread:
    """`what` is begun beside the transaction that is open, and comes as far as that lets it."""
    thread = threading.Thread(target=what)
    thread.start()
    thread.join(1)
    return thread


def test_a_message_overtaken_by_somebody_else_is_tried_again(world: World, clock: Clock) -> None:
    receive_messages(world.site, [message("A31", "1", pid("100", f5="Doe^New"), at=LATER)], "test")
    with world.site.db.transaction() as tx:
        (patient,) = find_by_identifier(tx, "Patient", MRN, "100")
        update_resource(tx, {**patient.resource, "gender": "female"}, at=world.site.now())
        thread = meanwhile(world.apply_all)
    thread.join()
    clock.advance(hours=1)
    world.apply_all()
    assert world.reasons() == []
    assert world.patient("100")["name"][0]["given"] == ["New"]
    assert world.patient("100")["gender"] == "female"


def test_a_photo_that_comes_while_its_patient_is_announced_does_not_wait_for_ever(world: World) -> None:
    taken: list[str] = []
    announced = {"resourceType": "Patient", "active": True, "identifier": [{"system": MRN, "value": "300"}]}
    with world.site.db.transaction() as tx:
        feed_patient(tx, world.site, SYSTEM, (MRN, "300"), announced)
        given = {"system": MRN, "value": "300"}
        thread = meanwhile(lambda: taken.append(take(world.site, given)))
    thread.join()
    assert state_of(world.by_id(f"Media/{taken[0]}")) == "bound"


def test_a_photo_given_to_a_patient_who_is_just_merged_goes_to_the_survivor(world: World) -> None:
    world.receive(message("A28", "1", pid("300")), MERGED, message("A28", "2", pid("400")))
    named, into, last = (reference_of(world, one).removeprefix("Patient/") for one in ("100", "200", "400"))
    taken = take(world.site, {"system": MRN, "value": "300"})

    def give() -> None:
        with world.site.db.transaction() as tx:
            refile(tx, world.site, person(), taken, Refiling(patient_id=named, reason="hers"))

    with world.site.db.transaction() as tx:
        merge_patients(tx, world.site, SYSTEM, into, last)
        thread = meanwhile(give)
    thread.join()
    assert world.by_id(f"Media/{taken}")["subject"]["reference"] == f"Patient/{last}"
