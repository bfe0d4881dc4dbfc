"""What is seen only later: people deleted meanwhile, numbers somebody had before, messages that fail for good."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select, update

from adapter.access import SYSTEM
from adapter.batch import undo_job
from adapter.bridge import Bridge
from adapter.db.tables import work
from adapter.errors import Conflict
from adapter.identity import dismiss, receive_messages, whose
from adapter.records import find_by_identifier, find_where
from mappings.wrong_patient import state_of
from tests.identity.conftest import MRN
from tests.identity.test_correction import move, person
from tests.identity.world import World, admitted, message, mr, mrg, pid, pv1

ROE = {"f5": "Roe^Rick"}
LATER = "20261123110000+0000"


@pytest.fixture
def world(site: Bridge, apply_all: Callable[[], int]) -> World:
    return admitted(site, apply_all)


def reference_of(world: World, number: str) -> str:
    with world.site.db.snapshot() as tx:
        (found,) = find_by_identifier(tx, "Patient", MRN, number)
    return found.reference


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
