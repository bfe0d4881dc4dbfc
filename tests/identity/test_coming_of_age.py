"""A birth date that is told later labels the photos of who was under age by it; the ledger takes that back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, select

from adapter.access import SYSTEM
from adapter.bridge import Bridge
from adapter.db.tables import delivery
from adapter.identity import find_patient, undo_change
from adapter.identity.moves import changes
from adapter.records import create, find_where, get, update_resource
from adapter.settings import load_settings
from mappings.security_labels import raise_labels
from mappings.terms import CONFIDENTIALITY, DERIVED_FROM, PHOTO_LABEL, PICTURE_DERIVATION, coding
from tests.identity.conftest import MRN, adt
from tests.identity.test_fhir_feed import Feed, feed, patient
from tests.identity.test_merges import photo
from tests.identity.world import World, admitted, message, mr, pid, pv1, segment

__all__ = ["feed"]
CHILD, ADULT = "20100102", "19800102"


@pytest.fixture
def world(site: Bridge, apply_all: Callable[[], int]) -> World:
    """With a destination, to which the photos of the two patients were not sent yet."""
    world = admitted(site, apply_all)
    named = load_settings(environment={}, destinations=[{"name": "ehr", "kind": "directory"}]).destinations
    object.__setattr__(site, "settings", site.settings.model_copy(update={"destinations": named}))
    return world


def codes(resource: dict[str, Any]) -> set[str]:
    return {one["code"] for one in resource["meta"]["security"]}


def born(world: World, control_id: str, date: str, number: str = "100", event: str = "A08") -> None:
    world.receive(message(event, control_id, pid(number, f7=date)))


def kinds(world: World) -> list[str]:
    with world.site.db.snapshot() as tx:
        return [row.kind for row in changes(tx)]


def test_a_corrected_birth_date_labels_the_photos_of_a_child_and_of_nobody_else(world: World) -> None:
    born(world, "m1", CHILD)
    assert codes(world.photo("100")) == {"N", "minor"} and codes(world.photo("200")) == {"N"}
    with world.site.db.snapshot() as tx:
        (told,) = [one.resource for one in find_where(tx, "AuditEvent") if "110135" in str(one.resource.get("subtype"))]
        (statement,) = [
            one.resource for one in find_where(tx, "Provenance") if "LABEL" in str(one.resource["activity"])
        ]
        again = tx.execute(select(delivery.c.media_id, delivery.c.media_version)).all()
    version = f"Media/{world.photos['100']}/_history/{world.photo('100')['meta']['versionId']}"
    assert version in str(told["entity"]) and version in str(statement["target"])
    assert [tuple(row) for row in again] == [(world.photos["100"], int(world.photo("100")["meta"]["versionId"]))]


def test_one_message_after_another_says_it_once(world: World) -> None:
    world.receive(*(message("A08", f"m{n}", pid("100", f7=date)) for n, date in enumerate((CHILD, "20100103", CHILD))))
    born(world, "again", CHILD)
    assert kinds(world) == ["label"]
    assert world.photo("100")["meta"]["versionId"] == "3"  # filed, put into its visit, labelled


@pytest.mark.parametrize("date", [ADULT, "19800103", "", '""'])
def test_who_was_of_age_is_not_labelled(world: World, date: str) -> None:
    born(world, "m1", date)
    assert codes(world.photo("100")) == {"N"} and kinds(world) == []


def test_labels_rise_by_themselves_and_are_taken_back_by_hand_alone(world: World) -> None:
    born(world, "m1", CHILD)
    born(world, "m2", ADULT)
    assert codes(world.photo("100")) == {"N", "minor"}
    with world.site.db.transaction() as tx:
        (change,) = changes(tx)
        undo_change(tx, world.site, SYSTEM, change.id)
    assert codes(world.photo("100")) == {"N"} and kinds(world) == []
    with world.site.db.snapshot() as tx:
        told = [one.resource for one in find_where(tx, "AuditEvent") if "110135" in str(one.resource.get("subtype"))]
    assert len(told) == 2


def test_an_intimate_photo_becomes_very_restricted_with_everything_made_of_it(world: World) -> None:
    source = f"Media/{world.photos['100']}"
    with world.site.db.transaction() as tx:
        stored = get(tx, *source.split("/"))
        labels = raise_labels([coding(CONFIDENTIALITY, "R"), coding(PHOTO_LABEL, "intimate")])
        intimate = {**stored.resource, "meta": {**stored.resource["meta"], "security": labels}}
        update_resource(tx, intimate, at=world.site.now())
        owner = stored.resource["subject"]
        saved = {"resourceType": "Observation", "id": "saved", "status": "final", "subject": owner}
        saved |= {"derivedFrom": [{"reference": source}], "meta": {"security": labels}}
        sheet = photo(tx, world.site, owner["reference"]).resource
        made_of = [{"url": DERIVED_FROM, "valueReference": {"reference": "Observation/saved"}}]
        tags = [*sheet["meta"]["tag"], coding(PICTURE_DERIVATION, "sheet")]
        drawn = {**sheet, "extension": made_of, "createdDateTime": "2031-01-01"}
        update_resource(tx, drawn | {"meta": {**sheet["meta"], "tag": tags}}, at=world.site.now())
        create(tx, saved, at=world.site.now())
    born(world, "m1", CHILD)
    for reference in (source, "Observation/saved", f"Media/{sheet['id']}"):
        assert {"V", "minor", "intimate"} <= codes(world.by_id(reference)), reference
    with world.site.db.transaction() as tx:
        (change,) = changes(tx)
        undo_change(tx, world.site, SYSTEM, change.id)
    assert "V" not in codes(world.by_id(source)) | codes(world.by_id("Observation/saved"))


def test_a_birth_date_told_in_fhir_labels_as_well(site: Bridge, feed: Feed) -> None:
    assert feed.put("1", patient("1")).status_code == 201
    with site.db.transaction() as tx:
        owner = find_patient(tx, MRN, "1")
        assert owner
        taken = photo(tx, site, owner.reference)
    assert feed.put("1", patient("1", birthDate="2010-01-02")).status_code == 200
    with site.db.snapshot() as tx:
        assert "minor" in codes(get(tx, "Media", taken.id).resource)


def test_a_merge_into_a_childs_record_labels_what_comes_along(world: World) -> None:
    world.receive(adt("A08", "m1", "200", born=CHILD), adt("A40", "m2", "200", born=CHILD, merged="100"))
    assert codes(world.photo("100")) == codes(world.photo("200")) == {"N", "minor"}


def test_a_visit_moved_to_a_childs_record_labels_its_photos(world: World) -> None:
    born(world, "m1", CHILD, "200")
    world.receive(
        message("A45", "m2", pid("200", f7=CHILD), segment("MRG", f1=mr("100"), f5="V1^^^HOSP^VN"), pv1("V1"))
    )
    assert world.owner("100") == "200" and codes(world.photo("100")) == {"N", "minor"}
    assert sorted(kinds(world)) == ["label", "label", "move"]


def test_what_it_costs_does_not_grow_with_the_photos_in_statements(world: World) -> None:
    def statements(control_id: str, date: str) -> int:
        seen: list[str] = []

        def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            seen.append(statement)

        event.listen(world.site.db.writing_engine, "before_cursor_execute", note)
        born(world, control_id, date)
        event.remove(world.site.db.writing_engine, "before_cursor_execute", note)
        return len(seen)

    object.__setattr__(world.site, "settings", world.site.settings.model_copy(update={"destinations": ()}))
    few = statements("m1", CHILD)
    with world.site.db.transaction() as tx:
        (change,) = changes(tx)
        undo_change(tx, world.site, SYSTEM, change.id)
        for _ in range(8):
            photo(tx, world.site, world.photo("100")["subject"]["reference"])
    born(world, "m2", ADULT)
    assert statements("m3", CHILD) <= few + 2
