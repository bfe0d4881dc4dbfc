"""Whatever is merged, moved and undone, in whatever order: each photo is where the changes that stand put it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapter.access import SYSTEM
from adapter.bridge import Bridge
from adapter.errors import Conflict
from adapter.identity import find_patient, merge_patients, queue, receive_messages, undo_change
from adapter.identity.matching import find_survivor
from adapter.identity.moves import changes
from adapter.records import find_by_identifier, find_where, get, update_resource
from tests.identity.conftest import MRN, VISIT
from tests.identity.test_merges import content, photo
from tests.identity.world import message, mr, mrg, pid, pv1

Apply = Callable[[], int]
PATIENTS = range(4)
NUMBERS = count()

patients = st.sampled_from(PATIENTS)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("merge"), patients, patients),
        st.tuples(st.just("move"), patients, patients),  # the visit that began with the one, to the other
        st.tuples(st.just("update"), patients, patients),
        st.tuples(st.just("undo"), st.integers(0, 9), st.just(0)),
    ),
    max_size=9,
)


@dataclass
class Hospital:
    """Four patients, each with a visit and a photo of it, under numbers nobody used before; and what was done."""

    site: Bridge
    apply_all: Apply
    prefix: int = field(default_factory=lambda: next(NUMBERS))
    ids: list[str] = field(default_factory=list)
    photos: list[str] = field(default_factory=list)
    done: dict[str, tuple[str, Any, str]] = field(default_factory=dict)  # change id -> (kind, source or visit, target)

    def number(self, n: int) -> str:
        return f"{self.prefix}.{n}"

    def receive(self, *messages: bytes) -> None:
        receive_messages(self.site, messages, "test")
        self.apply_all()
        with self.site.db.snapshot() as tx:
            assert queue(tx) == []

    def admit(self) -> None:
        self.receive(*(message("A01", f"C{next(NUMBERS)}", pid(self.number(n)), pv1(self.number(n))) for n in PATIENTS))
        with self.site.db.transaction() as tx:
            for n in PATIENTS:
                patient = find_patient(tx, MRN, self.number(n))
                assert patient
                taken = photo(tx, self.site, patient.reference)
                (visit,) = find_by_identifier(tx, "Encounter", VISIT, self.number(n))
                with_visit = {**taken.resource, "encounter": {"reference": visit.reference}}
                update_resource(tx, with_visit, at=self.site.now())
                self.ids.append(patient.id)
                self.photos.append(taken.id)

    def merge(self, source: int, target: int) -> None:
        with self.site.db.transaction() as tx:
            survivor = find_survivor(tx, self.ids[target])
            assert survivor
            try:
                change_id = merge_patients(tx, self.site, SYSTEM, self.ids[source], self.ids[target])
            except Conflict:
                return
            if change_id:
                self.done[change_id] = ("merge", self.ids[source], survivor.id)

    def move(self, visit: int, target: int) -> None:
        owner = self.owners()[visit]
        with self.site.db.snapshot() as tx:
            known, survivor = get(tx, "Patient", owner).resource, find_survivor(tx, self.ids[target])
        assert survivor
        if owner == survivor.id:
            return
        own = next(one["value"] for one in known["identifier"] if one.get("use") != "old")
        moved = mrg(f1=mr(own), f5=f"{self.number(visit)}^^^HOSP^VN")
        control_id = f"C{next(NUMBERS)}"
        self.receive(message("A45", control_id, pid(self.number(target)), moved, pv1(self.number(visit))))
        with self.site.db.snapshot() as tx:
            self.done[changes(tx, limit=1)[0].id] = ("move", visit, survivor.id)

    def update(self, patient: int, _other: int) -> None:
        self.receive(message("A31", f"C{next(NUMBERS)}", pid(self.number(patient), f8="F")))

    def undo(self, which: int, _other: int) -> bool:
        if not self.done:
            return False
        change_id = list(self.done)[which % len(self.done)]
        with self.site.db.transaction() as tx:
            try:
                undo_change(tx, self.site, SYSTEM, change_id)
            except Conflict:
                return False
        del self.done[change_id]
        return True

    def owners(self) -> list[str]:
        with self.site.db.snapshot() as tx:
            subjects = [get(tx, "Media", one).resource["subject"]["reference"] for one in self.photos]
        return [one.removeprefix("Patient/") for one in subjects]

    def expected(self) -> list[str]:
        """The changes that stand, carried out again from the beginning, in memory."""
        owners = list(self.ids)
        for _, (kind, what, target) in sorted(self.done.items()):
            if kind == "move":
                owners[what] = target
                continue
            owners = [target if owner == what else owner for owner in owners]
        return owners

    def visits(self) -> list[str]:
        with self.site.db.snapshot() as tx:
            found = [find_by_identifier(tx, "Encounter", VISIT, self.number(n))[0] for n in PATIENTS]
        return [one.resource["subject"]["reference"].removeprefix("Patient/") for one in found]

    def state(self) -> list[dict[str, Any]]:
        with self.site.db.snapshot() as tx:
            kept = [get(tx, "Patient", one) for one in self.ids]
            media = [get(tx, "Media", one) for one in self.photos]
        without = ("extension", "gender")  # updates are not undone
        return [{k: v for k, v in content(one.resource).items() if k not in without} for one in (*kept, *media)]


@settings(
    max_examples=int(os.environ.get("DERMBRIDGE_EXAMPLES", "10")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(operations=operations)
def test_each_photo_is_under_the_patient_the_standing_changes_say(
    site: Bridge, apply_all: Apply, operations: list[tuple[str, int, int]]
) -> None:
    hospital = Hospital(site, apply_all)
    hospital.admit()
    first = hospital.state()
    for name, one, other in operations:
        getattr(hospital, name)(one, other)
        owners = hospital.owners()
        assert owners == hospital.expected() == hospital.visits()
        with site.db.snapshot() as tx:
            assert all(get(tx, "Patient", owner).resource["active"] for owner in owners)
    while hospital.done:
        assert any(hospital.undo(which, 0) for which in range(len(hospital.done)))
        assert hospital.owners() == hospital.expected()
    assert hospital.state() == first


def test_what_goes_back_to_a_patient_merged_away_since_goes_on_to_the_survivor(site: Bridge, apply_all: Apply) -> None:
    hospital = Hospital(site, apply_all)
    hospital.admit()
    hospital.move(0, 1)  # the visit of patient 0 goes to 1
    hospital.merge(0, 2)  # and 0 is merged into 2
    assert hospital.owners()[0] == hospital.ids[1]
    assert hospital.undo(0, 0)
    assert hospital.owners()[0] == hospital.ids[2]
    assert hospital.undo(0, 0)
    assert hospital.owners() == hospital.ids


def test_every_version_of_a_moved_photo_is_kept(site: Bridge, apply_all: Apply) -> None:
    hospital = Hospital(site, apply_all)
    hospital.admit()
    hospital.merge(0, 1)
    hospital.undo(0, 0)
    with site.db.snapshot() as tx:
        versions = [get(tx, "Media", hospital.photos[0], n).resource["subject"]["reference"] for n in (2, 3, 4)]
        assert len(find_where(tx, "Media")) == len(PATIENTS)
    assert versions == [f"Patient/{hospital.ids[n]}" for n in (0, 1, 0)]
