"""A patient is meant with every id that was merged into it."""

from __future__ import annotations

from adapter.bridge import Bridge
from adapter.records import create, find_all
from adapter.records.confinement import same_patients, same_patients_each
from tests.conftest import Clock


def test_each_patient_of_many_is_known_with_its_merged_ids_and_no_others(bridge: Bridge, clock: Clock) -> None:
    with bridge.db.transaction() as tx:
        for name in ("p1", "p2", "p3", "p4"):
            link = [{"type": "replaced-by", "other": {"reference": "Patient/p2"}}] if name in {"p1", "p3"} else []
            create(tx, {"resourceType": "Patient", "id": name} | ({"link": link} if link else {}), at=clock())
        asked = ["p1", "p2", "p4", "nobody"]
        each = same_patients_each(tx, asked)
        assert each == {one: same_patients(tx, [one]) for one in asked}
        assert each["p1"] == {"p1", "p2", "p3"} and each["p4"] == {"p4"}
        assert same_patients_each(tx, []) == {}
        assert find_all(tx, "Patient", asked).keys() == {"p1", "p2", "p4"}
        assert find_all(tx, "Patient", []) == {}
