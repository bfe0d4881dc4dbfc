"""PV1 -> Encounter: the event decides the status, the fields the rest."""

from __future__ import annotations

import copy
from datetime import UTC
from typing import Any

import pytest

from mappings.hl7v2.dtm import DTM
from mappings.hl7v2.er7 import Message, Segment
from mappings.hl7v2.errors import MessageError
from mappings.hl7v2.pv1_to_encounter import update_encounter

STORED: dict[str, Any] = {
    "resourceType": "Encounter",
    "id": "e1",
    "status": "finished",
    "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
    "subject": {"reference": "Patient/p1"},
    "identifier": [{"system": "urn:hosp:visit", "value": "V1"}],
    "period": {"start": "2026-11-01T08:00:00+00:00", "end": "2026-11-01T09:00:00+00:00"},
    "location": [
        {"location": {"display": "A"}, "status": "active"},
        {"id": "pv1-6-1", "location": {"display": "B"}, "status": "completed"},
    ],
}


def pv1(fields: dict[int, str]) -> Segment:
    line = ["PV1", *(fields.get(n, "") for n in range(1, 53))]
    return Message.parse(("MSH|^~\\&|A\r" + "|".join(line)).encode()).segments[1]


def updated(
    trigger_event: str, fields: dict[int, str], stored: dict[str, Any] | None = STORED, occurred: str = ""
) -> dict[str, Any]:
    return update_encounter(
        copy.deepcopy(stored),
        pv1(fields),
        trigger_event=trigger_event,
        systems={"HOSP": "urn:hosp:visit"},
        default_system="urn:default",
        default_offset=UTC,
        occurred=DTM.find(occurred),
    )


@pytest.mark.parametrize(
    ("trigger_event", "fields", "stored", "status"),
    [
        ("A01", {}, None, "in-progress"),
        ("A01", {45: "20261101"}, None, "finished"),
        ("A04", {}, None, "arrived"),
        ("A04", {44: "20261101"}, None, "in-progress"),
        ("A05", {}, None, "planned"),
        ("A14", {}, None, "planned"),
        ("A27", {}, STORED, "cancelled"),
        ("A11", {}, STORED, "cancelled"),
        ("A38", {}, STORED, "cancelled"),
        ("A03", {}, None, "finished"),
        ("A13", {}, STORED, "in-progress"),
        ("A13", {45: "20261101"}, STORED, "in-progress"),
        ("A21", {}, STORED, "onleave"),
        ("A22", {}, STORED, "in-progress"),
        ("A08", {}, STORED, "finished"),
        ("A08", {44: "20261101"}, STORED, "finished"),
        ("A06", {2: "I"}, STORED, "finished"),
        ("A08", {}, None, "in-progress"),
        ("A08", {2: "P"}, None, "planned"),
        ("A08", {45: "20261101"}, None, "finished"),
        ("A40", {}, None, "in-progress"),
    ],
)
def test_the_event_decides_the_status(
    trigger_event: str, fields: dict[int, str], stored: dict[str, Any] | None, status: str
) -> None:
    assert updated(trigger_event, fields, stored)["status"] == status


def test_an_update_without_values_changes_nothing() -> None:
    assert updated("A08", {}) == STORED


def test_the_stored_encounter_is_never_changed_in_place() -> None:
    before = copy.deepcopy(STORED)
    update_encounter(STORED, pv1({3: "Z", 19: "V2^^^HOSP", 44: "2025"}), trigger_event="A13", systems={})
    assert before == STORED


@pytest.mark.parametrize(
    ("sent", "coding"),
    [
        ("E", {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "EMER"}),
        ("I^Inpatient", {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"}),
        ("R", {"system": "http://terminology.hl7.org/CodeSystem/v2-0004", "code": "R"}),
        ("", {"system": "http://terminology.hl7.org/CodeSystem/v3-NullFlavor", "code": "UNK"}),
        ('""', {"system": "http://terminology.hl7.org/CodeSystem/v3-NullFlavor", "code": "UNK"}),
    ],
)
def test_an_encounter_always_has_a_class(sent: str, coding: dict[str, str]) -> None:
    assert updated("A01", {2: sent}, None)["class"] == coding


@pytest.mark.parametrize(
    ("trigger_event", "fields", "occurred", "period"),
    [
        ("A08", {44: "202611010700"}, "", {"start": "2026-11-01T07:00:00+00:00", "end": "2026-11-01T09:00:00+00:00"}),
        ("A08", {45: '""'}, "", {"start": "2026-11-01T08:00:00+00:00"}),
        ("A08", {44: '""', 45: '""'}, "", None),
        ("A13", {}, "", {"start": "2026-11-01T08:00:00+00:00"}),
        ("A03", {45: '""'}, "202611011000", {"start": "2026-11-01T08:00:00+00:00", "end": "2026-11-01T10:00:00+00:00"}),
        ("A03", {45: "20261102"}, "20261103", {"start": "2026-11-01T08:00:00+00:00", "end": "2026-11-02"}),
        ("A08", {44: "20261105"}, "20261106", {"start": "2026-11-05"}),
    ],
)
def test_the_period_follows_admission_and_discharge(
    trigger_event: str, fields: dict[int, str], occurred: str, period: dict[str, str] | None
) -> None:
    assert updated(trigger_event, fields, occurred=occurred).get("period") == period


@pytest.mark.parametrize("n", [44, 45])
def test_a_time_that_is_none_is_refused_with_its_place(n: int) -> None:
    with pytest.raises(MessageError) as caught:
        updated("A01", {n: "yesterday"})
    assert (caught.value.condition, caught.value.location) == (102, f"PV1^1^{n}")


def test_visit_numbers_are_typed_and_have_their_system() -> None:
    after = updated("A01", {19: "V9", 50: "W1^^^HOSP^XX~W2^^^ELSE"}, None)
    assert [
        (i.get("system"), i["value"], i.get("type", {}).get("coding", [{}])[0].get("code")) for i in after["identifier"]
    ] == [
        ("urn:default", "V9", "VN"),
        ("urn:hosp:visit", "W1", "XX"),
        (None, "W2", None),
    ]


def test_locations_move_with_the_fields_that_name_them() -> None:
    after = updated("A02", {3: "POC^R1^B2^HOSP&1.2^^^Main^3"})
    assert after["location"] == [
        {"location": {"display": "POC, R1, B2, HOSP, Main, 3"}, "status": "active"},
        STORED["location"][1],
    ]
    assert updated("A02", {6: '""'})["location"] == STORED["location"][:1]
    assert updated("A05", {2: "P", 3: "X"})["location"][0]["status"] == "planned"


def test_doctors_take_part_as_what_their_field_says() -> None:
    after = updated("A01", {7: "7^Okafor^Ngozi^B^Jr^Dr^MD^^HOSP^^^^NPI~8^Other", 9: "9^Con^Sul"}, None)
    assert [(p["type"][0]["coding"][0]["code"], p["individual"]["display"]) for p in after["participant"]] == [
        ("ATND", "Dr Ngozi B Okafor Jr MD"),
        ("ATND", "Other"),
        ("CON", "Sul Con"),
    ]
    assert after["participant"][0]["individual"]["identifier"]["system"] == "urn:hosp:visit"
    kept = updated("A54", {7: "1^New"}, after)
    assert [p["individual"]["display"] for p in kept["participant"]] == ["New", "Sul Con"]
