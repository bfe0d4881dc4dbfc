"""Every ADT event has the effect that docs/identity.md says, and leaves alone what it must."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapter.access import SYSTEM
from adapter.bridge import Bridge
from adapter.identity import find_patient, undo_change
from adapter.identity.moves import changes
from adapter.records import create, find_where, get, new_id, update_resource
from mappings.hl7v2.header import ADT_EVENTS
from tests.identity.conftest import MRN
from tests.identity.test_merges import content, photo
from tests.identity.world import World, admitted, message, mr, mrg, pid, pv1, segment

Apply = Callable[[], int]
DOCUMENT = Path(__file__).parents[2] / "docs" / "identity.md"


@pytest.fixture
def world(site: Bridge, apply_all: Apply) -> World:
    return admitted(site, apply_all)


@dataclass(frozen=True)
class Case:
    """Messages (segments) sent after the world is there; what must be so before the last of them, and after it."""

    event: str
    segments: tuple[str, ...]
    holds: Callable[[World], bool]
    before: tuple[tuple[str, ...], ...] = ()  # (event, segments …) of earlier messages


ONE = (pid("100"), pv1("V1"))
TWO = (pid("100"), pid("200", f5="Roe^Rick"))
MERGED = (pid("200", f5="Roe^Rick"), mrg(f1=mr("100")))


def status(expected: str) -> Callable[[World], bool]:
    return lambda w: w.visit("V1")["status"] == expected and w.owner("100") == "100"


def is_merged(w: World) -> bool:
    return w.owner("100") == "200" and w.patient("100")["id"] == w.patient("200")["id"]


def is_linked(w: World) -> list[str]:
    return [one["type"] for number in ("100", "200") for one in w.patient(number).get("link", ())]


def attending(w: World) -> str:
    people = w.visit("V1").get("participant", ())
    return str(next(one["individual"]["display"] for one in people if one["type"][0]["coding"][0]["code"] == "ATND"))


CASES = [
    Case("A01", (pid("300"), pv1("V3")), lambda w: w.visit("V3")["status"] == "in-progress"),
    Case(
        "A02",
        (pid("100"), pv1("V1", f3="ICU^9^9", f6="DERM^1^1")),
        lambda w: w.locations("V1") == ["ICU, 9, 9", "DERM, 1, 1"],
    ),
    Case(
        "A03",
        (pid("100"), pv1("V1", f45="20261123110000+0000")),
        lambda w: w.visit("V1")["period"]["end"][:13] == "2026-11-23T11" and status("finished")(w),
    ),
    Case("A04", (pid("300"), pv1("V3", f2="O", f44="")), lambda w: w.visit("V3")["status"] == "arrived"),
    Case("A05", (pid("300"), pv1("V3", f2="P", f44="")), lambda w: w.visit("V3")["status"] == "planned"),
    Case(
        "A06",
        (pid("100", f18="A9^^^HOSP^AN"), mrg(f1=mr("100"), f3="A1^^^HOSP^AN"), pv1("V1")),
        lambda w: w.visit("V1")["class"]["code"] == "IMP" and w.account("V1") == "A9",
    ),
    Case(
        "A07",
        (pid("100"), pv1("V1", f2="O")),
        lambda w: w.visit("V1")["class"]["code"] == "AMB" and w.account("V1") == "A1",
    ),
    Case(
        "A08",
        (pid("100", f5="New^Jane"), pv1("V1")),
        lambda w: w.patient("100")["name"][0]["family"] == "New" and status("in-progress")(w),
    ),
    Case("A09", (pid("100"), pv1("V1", f3="HALL")), lambda w: w.locations("V1") == ["HALL"]),
    Case("A10", (pid("100"), pv1("V1", f3="XRAY")), lambda w: w.locations("V1") == ["XRAY"]),
    Case("A11", ONE, lambda w: status("cancelled")(w) and w.state("100") == "bound"),
    Case(
        "A12",
        ONE,
        lambda w: w.locations("V1") == ["DERM, 1, 1"],
        before=(("A02", pid("100"), pv1("V1", f3="ICU", f6="DERM^1^1")),),
    ),
    Case(
        "A13", ONE, lambda w: "end" not in w.visit("V1")["period"] and status("in-progress")(w), before=(("A03", *ONE),)
    ),
    Case("A14", (pid("300"), pv1("V3", f2="P", f44="")), lambda w: w.visit("V3")["status"] == "planned"),
    Case("A15", (pid("100"), pv1("V1", f42="ICU^2")), lambda w: "ICU, 2" in w.locations("V1")),
    Case("A16", ONE, status("in-progress")),
    Case(
        "A17",
        (pid("100"), pv1("V1", f3="DERM^2^2"), pid("200", f5="Roe^Rick"), pv1("V2", f3="DERM^1^1")),
        lambda w: (
            (w.locations("V1"), w.locations("V2"), w.owner("100"), w.owner("200"))
            == (["DERM, 2, 2"], ["DERM, 1, 1"], "100", "200")
        ),
    ),
    Case("A18", MERGED, is_merged),
    Case("A20", (segment("NPU", f1="DERM^1^1"),), lambda w: "nothing in this event concerns photos" in w.notes()),
    Case("A21", ONE, status("onleave")),
    Case("A22", ONE, status("in-progress"), before=(("A21", *ONE),)),
    Case(
        "A23",
        ONE,
        lambda w: (
            w.state("100") == "quarantined"
            and "reference" not in w.photo("100")["subject"]
            and w.state("200") == "bound"
            and w.patient("100")["active"]
        ),
    ),
    Case("A24", TWO, lambda w: is_linked(w) == ["seealso", "seealso"] and w.owner("100") == "100"),
    Case("A25", ONE, status("in-progress"), before=(("A16", *ONE),)),
    Case(
        "A26", ONE, lambda w: w.locations("V1") == ["DERM, 1, 1"], before=(("A15", pid("100"), pv1("V1", f42="ICU")),)
    ),
    Case("A27", ONE, status("cancelled"), before=(("A14", *ONE),)),
    Case("A28", (pid("300"),), lambda w: w.patient("300")["active"] is True),
    Case(
        "A29",
        (pid("100"),),
        lambda w: w.patient("100") == {} and w.state("100") == "quarantined" and w.state("200") == "bound",
    ),
    Case("A30", MERGED, is_merged),
    Case("A31", (pid("100", f8="F"),), lambda w: w.patient("100")["gender"] == "female"),
    Case(
        "A32", ONE, lambda w: w.locations("V1") == ["DERM, 1, 1"], before=(("A10", pid("100"), pv1("V1", f11="XRAY")),)
    ),
    Case(
        "A33", ONE, lambda w: w.locations("V1") == ["DERM, 1, 1"], before=(("A09", pid("100"), pv1("V1", f11="HALL")),)
    ),
    Case("A34", MERGED, is_merged),
    Case(
        "A35",
        (pid("100", f18="A8^^^HOSP^AN"), mrg(f1=mr("100"), f3="A1^^^HOSP^AN")),
        lambda w: w.account("V1") == "A8" and w.account("V2") == "A2",
    ),
    Case(
        "A36",
        (pid("200", f18="A2^^^HOSP^AN", f5="Roe^Rick"), mrg(f1=mr("100"), f3="A1^^^HOSP^AN")),
        lambda w: is_merged(w) and w.account("V1") == "A2",
    ),
    Case("A37", TWO, lambda w: is_linked(w) == [], before=(("A24", *TWO),)),
    Case("A38", ONE, status("cancelled"), before=(("A05", *ONE),)),
    Case("A39", MERGED, is_merged),
    Case("A40", MERGED, is_merged),
    Case(
        "A41", (pid("100", f18="A8^^^HOSP^AN"), mrg(f1=mr("100"), f3="A1^^^HOSP^AN")), lambda w: w.account("V1") == "A8"
    ),
    Case(
        "A42",
        (pid("100"), mrg(f1=mr("100"), f5="V1^^^HOSP^VN"), pv1("V9")),
        lambda w: (
            w.photo("100")["encounter"]["reference"] == f"Encounter/{w.visit('V9')['id']}"
            and w.visit("V1")["id"] == w.visit("V9")["id"]
        ),
    ),
    Case(
        "A43",
        (pid("100", f2=mr("200"), f5="Roe^Rick"), mrg(f1=mr("100"))),
        lambda w: w.owner("100") == "200" and w.patient("100")["id"] == w.patient("200")["id"],
    ),
    Case(
        "A44",
        (pid("200", f18="A1^^^HOSP^AN", f5="Roe^Rick"), mrg(f1=mr("100"), f3="A1^^^HOSP^AN")),
        lambda w: (
            w.owner("100") == "200" and w.account("V1") == "A1" and w.patient("100")["id"] != w.patient("200")["id"]
        ),
    ),
    Case(
        "A45",
        (
            pid("200", f18="A2^^^HOSP^AN", f5="Roe^Rick"),
            mrg(f1=mr("100"), f3="A1^^^HOSP^AN", f5="V1^^^HOSP^VN"),
            pv1("V1"),
        ),
        lambda w: w.owner("100") == "200" and w.account("V1") == "A2",
    ),
    Case(
        "A46",
        (pid("100", f2="E2^^^HOSP^PI"), mrg(f1=mr("100"), f4="E1^^^HOSP^PI")),
        lambda w: w.patient("E2")["id"] == w.patient("100")["id"] == w.patient("E1")["id"],
        before=(("A31", pid("100", f2="E1^^^HOSP^PI")),),
    ),
    Case(
        "A47",
        (pid("101"), mrg(f1=mr("100"))),
        lambda w: w.owner("100") == "101" and w.patient("100")["id"] == w.patient("101")["id"],
    ),
    Case(
        "A48",
        (pid("100", f4="X2^^^HOSP^PI"), mrg(f1=mr("100"), f2="X1^^^HOSP^PI")),
        lambda w: w.patient("X2")["id"] == w.patient("100")["id"],
        before=(("A31", pid("100", f4="X1^^^HOSP^PI")),),
    ),
    Case(
        "A49", (pid("100", f18="A7^^^HOSP^AN"), mrg(f1=mr("100"), f3="A1^^^HOSP^AN")), lambda w: w.account("V1") == "A7"
    ),
    Case(
        "A50",
        (pid("100"), mrg(f1=mr("100"), f5="V1^^^HOSP^VN"), pv1("V7")),
        lambda w: (
            w.visit("V7")["id"] == w.visit("V1")["id"]
            and w.photo("100")["encounter"]["reference"].endswith(w.visit("V7")["id"])
        ),
    ),
    Case(
        "A51",
        (pid("100"), mrg(f1=mr("100"), f6="W1^^^HOSP"), pv1("V1", f50="W2^^^HOSP")),
        lambda w: w.visit("W2")["id"] == w.visit("V1")["id"],
        before=(("A08", pid("100"), pv1("V1", f50="W1^^^HOSP")),),
    ),
    Case("A52", ONE, status("in-progress"), before=(("A21", *ONE),)),
    Case("A53", ONE, status("onleave"), before=(("A21", *ONE), ("A22", *ONE))),
    Case("A54", (pid("100"), pv1("V1", f7="D2^New")), lambda w: attending(w) == "New"),
    Case(
        "A55",
        (pid("100"), pv1("V1", f7="D1^Attending")),
        lambda w: attending(w) == "Attending",
        before=(("A54", pid("100"), pv1("V1", f7="D2^New")),),
    ),
    Case("A60", (pid("100"),), lambda w: "nothing in this event concerns photos" in w.notes()),
    Case(
        "A61", (pid("100"), pv1("V1", f9="D3^Consulting")), lambda w: "Consulting" in str(w.visit("V1")["participant"])
    ),
    Case(
        "A62",
        (pid("100"), pv1("V1", f9='""')),
        lambda w: "Consulting" not in str(w.visit("V1")["participant"]),
        before=(("A61", pid("100"), pv1("V1", f9="D3^Consulting")),),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.event)
def test_the_event_is_carried_out(world: World, case: Case) -> None:
    for n, (event, *segments) in enumerate(case.before):
        world.receive(message(event, f"b{n}", *segments, at=f"202611230945{n:02}+0000"))
    assert case.event in ("A16", "A20", "A25", "A60") or not _already(world, case), "the case must be able to fail"
    world.receive(message(case.event, "m", *case.segments))
    assert world.reasons() == []
    assert case.holds(world)


def _already(world: World, case: Case) -> bool:
    try:
        return case.holds(world)
    except (KeyError, IndexError, StopIteration):
        return False


def test_every_event_of_the_table_is_tried_and_documented() -> None:
    carried_out = {event for event, row in ADT_EVENTS.items() if "does" in row}
    assert {case.event for case in CASES} == carried_out
    documented = set(re.findall(r"^\| (A\d\d) \|", DOCUMENT.read_text("utf-8"), re.MULTILINE))
    assert documented == ADT_EVENTS.keys()


def test_no_event_deletes_a_photo(world: World) -> None:
    world.receive(message("A23", "1", *ONE), message("A29", "2", pid("200")))
    with world.site.db.snapshot() as tx:
        assert len(find_where(tx, "Media")) == 2


@pytest.mark.parametrize("event", ["A23", "A29", "A42", "A43", "A44", "A45"])
def test_what_an_event_moved_or_quarantined_can_be_put_back(world: World, event: str) -> None:
    (case,) = [case for case in CASES if case.event == event]
    before = [world.photo(number) for number in ("100", "200")]
    own = [[one["value"] for one in world.patient(number)["identifier"]] for number in ("100", "200")]
    world.receive(message(event, "m", *case.segments))
    with world.site.db.transaction() as tx:
        assert changes(tx)
        for change in changes(tx):
            undo_change(tx, world.site, SYSTEM, change.id)
        assert changes(tx) == []
    assert world.patient("100")["id"] != world.patient("200")["id"]
    assert [content(world.photo(number)) for number in ("100", "200")] == [content(one) for one in before]
    assert [world.state(number) for number in ("100", "200")] == ["bound", "bound"]
    assert own == [[one["value"] for one in world.patient(number)["identifier"]] for number in ("100", "200")]


def test_a_lesion_moves_when_all_its_photos_do_and_is_let_go_otherwise(world: World) -> None:
    both, gone = _with_lesion(world, ["100"]), _with_lesion(world, ["100", "other"])
    (case,) = [case for case in CASES if case.event == "A45"]
    world.receive(message("A45", "m", *case.segments))
    target = f"Patient/{world.patient('200')['id']}"
    assert world.by_id(both)["patient"]["reference"] == target
    assert world.by_id(gone)["patient"]["reference"] != target
    kept = [one["valueReference"]["reference"] for one in world.photo("100")["bodySite"]["extension"]]
    assert kept == [both]


def _with_lesion(world: World, photos: list[str]) -> str:
    """A lesion of patient 100, shown by these of its photos."""
    url = "http://hl7.org/fhir/StructureDefinition/bodySite"
    with world.site.db.transaction() as tx:
        owner = find_patient(tx, MRN, "100")
        assert owner
        lesion = {"resourceType": "BodyStructure", "id": new_id(), "patient": {"reference": owner.reference}}
        made = create(tx, lesion, at=world.site.now())
        if "other" in photos and "other" not in world.photos:
            world.photos["other"] = photo(tx, world.site, owner.reference).id
        for number in photos:
            shown = get(tx, "Media", world.photos[number]).resource
            body_site = shown.setdefault("bodySite", {"text": "arm"})
            body_site.setdefault("extension", []).append({"url": url, "valueReference": {"reference": made.reference}})
            update_resource(tx, shown, at=world.site.now())
    return made.reference


def _examples() -> list[bytes]:
    """The messages shown in docs/identity.md, completed with a header where they have none."""
    blocks = re.findall(r"^```\n((?:MSH|EVN).*?)```", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    msh = "MSH|^~\\&|ADT|HOSP|DB|HOSP|20261123100000+0000||ADT^A37|0816|P|2.5.1\n"
    return [(block if block.startswith("MSH") else msh + block).replace("\n", "\r").encode() for block in blocks]


def test_the_moves_and_unlinks_of_the_documentation_do_what_it_says(world: World) -> None:
    move, unlink = _examples()
    known = [
        message("A28", "1", pid("x", f3="E77^^^HOSP^PI~1004^^^HOSP^MR")),
        message("A01", "2", pid("1004"), pv1("V9")),
        message("A28", "3", pid("x", f3="E12^^^HOSP^PI~2002^^^HOSP^MR", f5="Roe^Rick")),
        message("A28", "4", pid("1001")),
        message("A24", "5", pid("1001"), pid("1002")),
    ]
    world.receive(*known)
    before = world.visit("V9")["subject"]["reference"]
    assert before == f"Patient/{world.patient('E77')['id']}"
    assert world.patient("1001")["link"] and world.patient("1002")["link"]
    world.receive(move, unlink)
    assert world.reasons() == []
    assert world.visit("V9")["subject"]["reference"] == f"Patient/{world.patient('E12')['id']}" != before
    numbers = {number: world.patient(number).get("id") for number in ("1004", "E12", "2002", "E77")}
    assert numbers["1004"] == numbers["E12"] == numbers["2002"] != numbers["E77"]
    assert "link" not in world.patient("1001") and "link" not in world.patient("1002")
