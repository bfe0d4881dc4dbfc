"""What contradicts what we know waits in the queue with its reason; nothing of it takes effect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from adapter.bridge import Bridge
from adapter.identity import apply_message, queue, receive_messages
from adapter.records import find_where, get, update_resource
from adapter.work import Lane, WorkLoop
from tests.identity.test_merges import content
from tests.identity.world import World, admitted, message, mr, mrg, pid, pv1

ROE = {"f5": "Roe^Rick"}


@pytest.fixture
def world(site: Bridge, apply_all: Callable[[], int]) -> World:
    return admitted(site, apply_all)


@pytest.mark.parametrize(
    ("event", "segments", "reason"),
    [
        ("A40", (pid("200", **ROE), mrg(f1="100")), "MRG-1 does not say whose number it is"),
        ("A40", (pid("200", **ROE), mrg(f1="100^^^ELSEWHERE^MR")), "authority 'ELSEWHERE'"),
        ("A40", (pid("200", **ROE), mrg(f1="100^^^HOSP^PI")), "no identifier of the authority and type"),
        ("A40", (pid("200", **ROE), mrg(f1=mr("200"))), "same identifier"),
        ("A40", (pid("200", f31="Y", **ROE), mrg(f1=mr("100"))), "not certain"),
        ("A40", (pid("200", **ROE), mrg(f1=mr("100"), f7="Somebody^Else")), "MRG-7 names somebody else"),
        ("A41", (pid("200", f18="A2^^^HOSP^AN", **ROE), mrg(f1=mr("200"), f3="A1^^^HOSP^AN")), "another patient's"),
        ("A42", (pid("200", **ROE), mrg(f1=mr("200"), f5="V1^^^HOSP^VN"), pv1("V2")), "MRG-5 is another patient's"),
        ("A43", (pid("100"), mrg(f1=mr("100"))), "new owner is not known"),
        ("A43", (pid("100", f2=mr("200")), mrg(f1=mr("100"), f4=mr("200"))), "not that of the patient of MRG-4"),
        ("A44", (pid("300"), mrg(f1=mr("200"), f3="A1^^^HOSP^AN")), "neither the patient of MRG-1 nor"),
        ("A45", (pid("300"), mrg(f5="V1^^^HOSP^VN"), pv1("V1")), "MRG-1 does not name that patient"),
        ("A45", (pid("300"), mrg(f1="100", f5="V1^^^HOSP^VN"), pv1("V1")), "MRG-1 does not say whose number"),
        ("A47", (pid("200", **ROE), mrg(f1=mr("100"))), "the new identifier is another patient's"),
        ("A49", (pid("100", f18="A2^^^HOSP^AN"), mrg(f1=mr("100"), f3="A1^^^HOSP^AN")), "is another patient's"),
        ("A50", (pid("100"), mrg(f1=mr("100"), f5="V1^^^HOSP^VN"), pv1("V2")), "is another patient's"),
        ("A24", (pid("100"), pid("100")), "two patients that are distinct"),
        ("A37", (pid("100"), pid("999")), "no patient"),
        ("A23", (pid("100"), pv1("V2")), "another patient's"),
        ("A29", (pid("999"),), "no patient"),
        ("A08", (pid("200", **ROE), pv1("V1")), "belongs to another patient"),
        ("A08", (pid("x", f3=f"{mr('100')}~{mr('200')}"), pv1("V1")), "2 different patients"),
    ],
)
def test_it_waits_with_its_reason_and_changes_nothing(
    world: World, event: str, segments: tuple[str, ...], reason: str
) -> None:
    before = _everything(world)
    receive_messages(world.site, [message(event, "m", *segments)], "test")
    world.apply_all()
    with world.site.db.snapshot() as tx:
        (row,) = queue(tx)
    assert reason in row.reason
    assert row.remedy
    assert _everything(world) == before


def _everything(world: World) -> dict[str, object]:
    with world.site.db.snapshot() as tx:
        kept = [one for kind in ("Patient", "Encounter", "Media") for one in find_where(tx, kind)]
    return {one.reference: content(one.resource) for one in kept}


def test_where_nobody_names_an_authority_the_default_one_is_meant(world: World) -> None:
    named = world.site.settings.model_copy(update={"default_authority": "HOSP"})
    site = replace(world.site, settings=named)
    bare = [message("A40", "m", pid("x", f3="200", **ROE), mrg(f1="100"))]
    receive_messages(site, bare, "test")
    WorkLoop(site.db, {"apply-adt": Lane(partial(apply_message, site))}, now=site.now).run_until_idle()
    assert world.owner("100") == "200"


def test_a_late_discharge_still_ends_the_visit_but_undoes_no_newer_name(world: World) -> None:
    newer = message("A08", "1", pid("100", f5="New^Jane"), pv1("V1", f3="ICU"), at="20261123120000+0000")
    late = message("A03", "2", pid("100"), pv1("V1", f45="20261123110000+0000"), at="20261123110000+0000")
    world.receive(newer, late)
    assert world.visit("V1")["status"] == "finished"
    assert world.visit("V1")["period"]["end"].startswith("2026-11-23T11")
    assert world.locations("V1") == ["ICU"]
    assert world.patient("100")["name"][0]["family"] == "New"


def test_an_admission_that_comes_after_the_discharge_does_not_reopen_the_visit(world: World) -> None:
    discharge = message("A03", "1", pid("100"), pv1("V1"), at="20261123120000+0000")
    late = message("A01", "2", pid("100"), pv1("V1"), at="20261123110000+0000")
    world.receive(discharge, late)
    assert world.visit("V1")["status"] == "finished"


@pytest.mark.parametrize(("newer", "family"), [("20261123090000", "Late"), ("20261123110000", "Doe")])
def test_pid_33_decides_before_evn_2(world: World, newer: str, family: str) -> None:
    first = message("A31", "1", pid("100", f33="20261123100000+0000"), at="20261123120000+0000")
    turned = "20261123110000" if newer == "20261123090000" else "20261123090000"
    second = message("A31", "2", pid("100", f5="Late^Jane", f33=f"{turned}+0000"), at="20261123130000+0000")
    world.receive(first, second)
    assert world.patient("100")["name"][0]["family"] == family


def test_a_message_under_a_former_number_leaves_the_survivor_its_own(world: World) -> None:
    world.receive(message("A40", "1", pid("200", **ROE), mrg(f1=mr("100"))))
    world.receive(message("A08", "2", pid("100"), pv1("V1"), at="20261123110000+0000"))
    assert world.owner("100") == "200"
    assert world.patient("200")["id"] == world.patient("100")["id"]


def test_a_changed_number_may_be_changed_back(world: World) -> None:
    world.receive(message("A47", "1", pid("101"), mrg(f1=mr("100"))))
    world.receive(message("A47", "2", pid("100"), mrg(f1=mr("101"))))
    assert world.owner("100") == "100"
    assert world.patient("101")["id"] == world.patient("100")["id"]


def test_a_deleted_person_comes_back_only_as_the_same_one(world: World) -> None:
    world.receive(message("A29", "1", pid("100")))
    world.receive(message("A28", "2", pid("100", f7="19990101"), at="20261123110000+0000"))
    assert "born on another day" in world.reasons()[0]
    assert world.patient("100") == {}


def test_a_deleted_person_who_comes_back_unchanged_is_active_again(world: World) -> None:
    world.receive(message("A29", "1", pid("100")), message("A28", "2", pid("100"), at="20261123110000+0000"))
    assert world.patient("100")["active"] is True
    assert world.state("100") == "quarantined"


def test_moving_an_identifier_waits_while_photos_cannot_be_told_apart(world: World) -> None:
    world.receive(message("A31", "1", pid("100", f3=f"{mr('100')}~77^^^HOSP^PI"), at="20261123095000+0000"))
    with world.site.db.transaction() as tx:
        without = get(tx, "Media", world.photos["100"]).resource
        without.pop("encounter")
        update_resource(tx, without, at=world.site.now())
    world.receive(message("A43", "2", pid("100", f2=mr("200"), **ROE), mrg(f1=mr("100"))))
    assert "which of them move is not known" in world.reasons()[0]
    assert world.owner("100") == "100"


def test_moving_an_identifier_takes_the_visits_announced_under_it_and_no_others(world: World) -> None:
    world.site.settings.identifier_systems["MPI"] = "urn:oid:1.2.9"
    source = world.patient("100")["id"]
    world.receive(message("A31", "1", pid("100", f3=f"{mr('100')}~77^^^MPI^PI"), at="20261123095000+0000"))
    world.receive(message("A01", "2", pid("77", f3="77^^^MPI^PI"), pv1("V8"), at="20261123095500+0000"))
    world.receive(message("A43", "3", pid("100", f2=mr("200"), **ROE), mrg(f1=mr("100"))))
    assert world.reasons() == []
    assert world.owner("100") == "200"
    assert world.visit("V8")["subject"]["reference"] == f"Patient/{source}"
    assert [one["value"] for one in world.by_id(f"Patient/{source}")["identifier"]] == ["77"]
