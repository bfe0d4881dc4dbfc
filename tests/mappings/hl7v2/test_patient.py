"""PID -> Patient: what a field changes, keeps and deletes."""

from __future__ import annotations

import copy
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappings.hl7v2.er7 import Message, Segment
from mappings.hl7v2.errors import MessageError
from mappings.hl7v2.pid_to_patient import update_patient

SYSTEMS = {"HOSP": "urn:hosp", "OTHER": "urn:other", "EPI": "urn:epi", "1.2.9": "urn:mapped"}
STORED: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p1",
    "active": True,
    "identifier": [
        {"system": "urn:hosp", "value": "5"},
        {"system": "urn:other", "value": "X"},
        {"system": "urn:hosp", "value": "4", "use": "old"},
    ],
    "name": [{"family": "Doe", "given": ["Jane"]}, {"id": "pid-9-1", "family": "Alias"}],
    "telecom": [{"system": "phone", "value": "1"}, {"id": "pid-14-1", "system": "phone", "value": "2"}],
    "birthDate": "1970-01-02",
    "_birthDate": {"extension": []},
    "gender": "female",
    "deceasedDateTime": "2026-01-01",
    "extension": [
        {"url": "urn:kept", "valueString": "kept"},
        {"url": "http://hl7.org/fhir/StructureDefinition/patient-mothersMaidenName", "valueString": "Roe"},
    ],
}


def pid(fields: dict[int, str]) -> Segment:
    line = ["PID", *(fields.get(n, "") for n in range(1, 41))]
    return Message.parse(("MSH|^~\\&|A\r" + "|".join(line)).encode()).segments[1]


def updated(fields: dict[int, str], stored: dict[str, Any] | None = STORED, **options: Any) -> dict[str, Any]:
    return update_patient(copy.deepcopy(stored), pid(fields), systems=SYSTEMS, default_offset=UTC, **options)


def test_an_empty_pid_changes_nothing() -> None:
    assert updated({}) == STORED


def test_the_stored_patient_is_never_changed_in_place() -> None:
    before = copy.deepcopy(STORED)
    update_patient(STORED, pid({3: "9^^^HOSP", 5: "New", 6: "Poe", 7: "1980", 12: "GE", 13: "3"}), systems=SYSTEMS)
    assert before == STORED


def test_a_null_deletes_and_the_quotes_are_not_stored() -> None:
    null = dict.fromkeys(range(1, 41), '""')
    assert updated(null) == {
        "resourceType": "Patient",
        "id": "p1",
        "active": True,
        "identifier": STORED["identifier"],
        "extension": [{"url": "urn:kept", "valueString": "kept"}],
    }


@given(st.sets(st.integers(1, 40)), st.sampled_from(['""', '""~""', '""^""', "   "]))
def test_any_set_of_nulls_and_blanks_leaves_the_other_elements_alone(fields: set[int], text: str) -> None:
    owners = {5: "name", 9: "name", 13: "telecom", 14: "telecom", 40: "telecom", 7: "birthDate", 8: "gender"}
    owners |= {29: "deceasedDateTime", 6: "extension"}
    touched = {owners.get(n) for n in fields}
    after = updated(dict.fromkeys(fields, text))
    assert all(after[e] == STORED[e] for e in STORED if e not in touched and e != "_birthDate")
    assert '""' not in str(after)


def test_each_field_replaces_its_own_items_of_a_list() -> None:
    assert updated({5: "Poe^Ann^^^^^L~Roe^Ann^^^^^M"})["name"] == [
        {"use": "official", "family": "Poe", "given": ["Ann"]},
        {"use": "maiden", "family": "Roe", "given": ["Ann"]},
        {"id": "pid-9-1", "family": "Alias"},
    ]
    assert updated({9: "A1~A2"})["name"] == [
        {"family": "Doe", "given": ["Jane"]},
        {"id": "pid-9-1", "family": "A1"},
        {"id": "pid-9-2", "family": "A2"},
    ]
    assert updated({14: '""'})["telecom"] == [{"system": "phone", "value": "1"}]
    assert updated({13: '""', 14: '""'}).get("telecom") is None


def test_an_identifier_list_is_a_snapshot_of_the_authorities_it_names() -> None:
    after = updated({3: "7^^^HOSP^MR~8^^^HOSP^PI"})
    assert [(i.get("system"), i["value"], i.get("use")) for i in after["identifier"]] == [
        ("urn:hosp", "7", None),
        ("urn:hosp", "8", None),
        ("urn:other", "X", None),
        ("urn:hosp", "4", "old"),
    ]


@pytest.mark.parametrize(
    ("cx", "system", "assigner"),
    [
        ("5^^^HOSP", "urn:hosp", None),
        ("5^^^HOSP&2.16.840&ISO", "urn:hosp", None),
        ("5^^^&1.2.9&ISO", "urn:mapped", None),
        ("5^^^NEW&2.16.840.1&ISO", "urn:oid:2.16.840.1", None),
        ("5^^^NEW&not an oid&ISO", None, "NEW"),
        ("5^^^&0b1c2d3e-0000-4000-8000-000000000000&UUID", "urn:uuid:0b1c2d3e-0000-4000-8000-000000000000", None),
        ("5^^^&https://hosp.example/mrn&URI", "https://hosp.example/mrn", None),
        ("5^^^NEW", None, "NEW"),
        ("5^^^^EPI", "urn:epi", None),
        ("5^^^^MR", "urn:default", None),
        ("5", "urn:default", None),
    ],
)
def test_the_system_follows_the_assigning_authority(cx: str, system: str | None, assigner: str | None) -> None:
    (identifier,) = updated({3: cx}, None, default_system="urn:default")["identifier"]
    assert (identifier.get("system"), identifier.get("assigner", {}).get("display")) == (system, assigner)
    by_function = update_patient(None, pid({3: cx}), systems=SYSTEMS.get, default_system="urn:default")
    assert by_function["identifier"] == [identifier]


def test_only_pid_3_gets_the_default_system() -> None:
    after = updated({2: "A", 3: "5", 4: "B"}, None, default_system="urn:default")
    assert [(i.get("system"), i["value"]) for i in after["identifier"]] == [
        ("urn:default", "5"),
        (None, "A"),
        (None, "B"),
    ]
    assert len(updated({2: "5", 3: "5"}, None, default_system="urn:default")["identifier"]) == 1


@pytest.mark.parametrize("fields", [{3: "5^^^HOSP", 19: "123-45-6789"}, {3: "5^^^HOSP~123-45-6789^^^SSA^SS"}])
def test_a_social_security_number_is_dropped_unless_it_is_asked_for(fields: dict[int, str]) -> None:
    assert "123-45-6789" not in str(updated(fields, None))
    assert "123-45-6789" in str(updated(fields, None, keep_ssn=True))


def test_what_filing_a_photo_does_not_need_is_not_read() -> None:
    assert updated({n: f"SECRET{n}" for n in (10, 17, 21, 22, 23, 26, 27, 28, 35, 36, 37, 38, 39)}) == STORED


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({29: "20261101"}, {"deceasedDateTime": "2026-11-01"}),
        ({30: "Y"}, {"deceasedDateTime": "2026-01-01"}),
        ({30: "N"}, {"deceasedBoolean": False}),
        ({29: '""', 30: "Y"}, {"deceasedBoolean": True}),
        ({29: '""', 30: '""'}, {}),
        ({30: "?"}, {"deceasedDateTime": "2026-01-01"}),
    ],
)
def test_death_is_one_choice(fields: dict[int, str], expected: dict[str, Any]) -> None:
    after = updated(fields)
    assert {name: value for name, value in after.items() if name.startswith("deceased")} == expected


def test_the_time_of_birth_goes_into_its_extension_and_goes_with_the_date() -> None:
    born = updated({7: "197001021530"})
    assert born["birthDate"] == "1970-01-02"
    assert born["_birthDate"]["extension"][0]["valueDateTime"] == "1970-01-02T15:30:00+00:00"
    assert "_birthDate" not in updated({7: "19700102"}, born)
    assert updated({7: "1970"})["birthDate"] == "1970"


@pytest.mark.parametrize(("n", "text"), [(7, "19700230"), (29, "unknown")])
def test_a_date_that_is_none_is_refused_with_its_place(n: int, text: str) -> None:
    with pytest.raises(MessageError) as caught:
        updated({n: text})
    assert (caught.value.condition, caught.value.location) == (102, f"PID^1^{n}")


@pytest.mark.parametrize(
    ("sent", "gender"),
    [("M", "male"), ("F^Female^HL70001", "female"), ("A", "other"), ("U", "unknown"), ("X", "unknown")],
)
def test_gender_keeps_to_its_required_codes(sent: str, gender: str) -> None:
    assert updated({8: sent})["gender"] == gender


@pytest.mark.parametrize(
    ("xtn", "expected"),
    [
        ("(555)555-0123", {"system": "phone", "value": "(555)555-0123", "use": "home"}),
        ("^PRN^CP^^41^22^5550101", {"system": "phone", "value": "41 22 5550101", "use": "home"}),
        ("^^CP^^^^07912345", {"system": "phone", "value": "07912345", "use": "mobile"}),
        ("^NET^Internet^a@example.org", {"system": "email", "value": "a@example.org"}),
        ("^NET^^a@example.org", {"system": "email", "value": "a@example.org"}),
        ("1^WPN^FX", {"system": "fax", "value": "1", "use": "work"}),
        ("1^^^^^^^^^^^2", {"system": "phone", "value": "2", "use": "home"}),
    ],
)
def test_a_home_telecom_keeps_its_own_use_and_equipment(xtn: str, expected: dict[str, str]) -> None:
    assert updated({13: xtn}, None)["telecom"] == [expected]


def test_a_telecom_or_address_without_content_is_left_out() -> None:
    after = updated({5: "^^^^Dr", 11: "^^^^^^H~^^Bern^^^^BDL", 13: "^PRN^PH"}, None)
    assert set(after) == {"resourceType", "active"}


def test_the_county_completes_the_only_address() -> None:
    assert updated({11: "1 Road^^Town", 12: "GL"}, None)["address"] == [
        {"line": ["1 Road"], "city": "Town", "district": "GL"}
    ]
    assert "GL" not in str(updated({11: "1 Road~2 Road", 12: "GL"}, None))
    assert updated({11: "1 Road^^^^^^^^AB", 12: "GL"}, None)["address"][0]["district"] == "AB"


@pytest.mark.parametrize(
    ("sent", "coding"),
    [
        ("fr", {"system": "urn:ietf:bcp:47", "code": "fr"}),
        ("PT_br", {"system": "urn:ietf:bcp:47", "code": "pt-BR"}),
        ("ara^^HL70296", {"system": "http://terminology.hl7.org/CodeSystem/v2-0296", "code": "ara"}),
    ],
)
def test_the_language_is_a_tag_when_it_looks_like_one(sent: str, coding: dict[str, str]) -> None:
    assert updated({15: sent})["communication"][0]["language"]["coding"] == [coding]


def test_a_message_that_names_one_type_of_identifier_keeps_the_other_types_of_that_authority() -> None:
    first = update_patient(None, pid({3: "1^^^HOSP^MR~E1^^^HOSP^PI"}), systems=SYSTEMS)
    second = update_patient(first, pid({3: "2^^^HOSP^MR"}), systems=SYSTEMS)
    assert [one["value"] for one in second["identifier"]] == ["2", "E1"]


def test_what_the_caller_knows_to_be_anothers_identifier_is_not_taken() -> None:
    patient = update_patient(None, pid({3: "1^^^HOSP^MR~2^^^HOSP^MR"}), systems=SYSTEMS, ignoring={("urn:hosp", "2")})
    assert [one["value"] for one in patient["identifier"]] == ["1"]


def test_the_parts_of_a_surname_are_kept() -> None:
    (name,) = update_patient(None, pid({3: "1^^^HOSP", 5: "van Gogh&van&Gogh^Vincent"}), systems=SYSTEMS)["name"]
    assert name["family"] == "van Gogh"
    parts = [(one["url"].rpartition("humanname-")[2], one["valueString"]) for one in name["_family"]["extension"]]
    assert parts == [("own-prefix", "van"), ("own-name", "Gogh")]
