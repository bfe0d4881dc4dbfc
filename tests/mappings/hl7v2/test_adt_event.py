"""ADT messages as events: what is asked for, when, and of whom."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from adapter.identity.adt_steps import STEPS
from mappings.hl7v2.adt_event import AdtEvent, adt_to_event
from mappings.hl7v2.er7 import Message
from mappings.hl7v2.errors import MessageError
from mappings.hl7v2.header import ADT_EVENTS
from tests.mappings.hl7v2.golden import DATA

PID = "PID|1||5^^^HOSP^MR||Doe^Jane"
MRG = "MRG|6^^^HOSP^MR||A1^^^HOSP^AN||V1^^^HOSP^VN|W1~W2"


def event_of(
    trigger_event: str, *segments: str, msh_7: str = "20261102083011", zone: timezone | None = UTC
) -> AdtEvent:
    msh = f"MSH|^~\\&|A|B|C|D|{msh_7}||ADT^{trigger_event}|1|P|2.5"
    return adt_to_event(Message.parse("\r".join((msh, *segments)).encode()), zone)


def values(identifiers) -> list[str]:
    return [identifier.key for identifier in identifiers]


def test_a_merge_names_the_surviving_and_the_prior_identifiers() -> None:
    event = event_of("A40", "EVN|A40|20261102083000+0200||||20261101", PID, MRG)
    (group,) = event.groups
    assert (event.trigger_event, event.does) == ("A40", ("merge-patient",))
    assert event.recorded_at == datetime(2026, 11, 2, 6, 30, tzinfo=UTC)
    assert event.occurred is not None
    assert event.occurred.fhir_date() == "2026-11-01"
    assert (values(group.patient_identifiers), values(group.prior_identifiers)) == (["HOSP|5"], ["HOSP|6"])
    assert group.prior_account is not None
    assert group.prior_visit is not None
    assert (group.prior_account.key, group.prior_visit.key) == ("HOSP|A1", "HOSP|V1")
    assert values(group.prior_alternate_visits) == ["|W1", "|W2"]


def test_a_merge_of_several_patients_has_several_groups() -> None:
    event = event_of("A40", PID, MRG, "PV1|1|O", PID.replace("5", "7"), "PD1|1", MRG.replace("6^", "8^"))
    assert [values(g.patient_identifiers + g.prior_identifiers) for g in event.groups] == [
        ["HOSP|5", "HOSP|6"],
        ["HOSP|7", "HOSP|8"],
    ]
    assert event.groups[0].pv1 is not None
    assert event.groups[1].pv1 is None
    assert event.groups[1].pd1 is not None


def test_several_mrg_under_one_pid_are_several_groups_of_that_patient() -> None:
    event = event_of(
        "A45", PID, "PD1|x", "MRG|||A1||V1", "PV1|1|O|||||||||||||||||V1", "MRG|||A1||V2", "PV1|2|O|||||||||||||||||V2"
    )
    assert [(g.patient_identifiers[0].value, g.prior_visit.value, g.visit.value) for g in event.groups] == [  # type: ignore[union-attr]
        ("5", "V1", "V1"),
        ("5", "V2", "V2"),
    ]
    assert all(g.pd1 is event.groups[0].pd1 for g in event.groups)


def test_the_zone_of_msh_7_completes_the_times_of_the_message_before_the_site_zone() -> None:
    event = event_of("A08", "EVN|A08|202611020830", PID + "|" * 28 + "20261102070000", msh_7="20261102083011-0500")
    assert event.recorded_at == datetime(2026, 11, 2, 13, 30, tzinfo=UTC)
    assert event.groups[0].pid_33 == datetime(2026, 11, 2, 12, tzinfo=UTC)
    assert event.default_offset == timezone(timedelta(hours=-5))


def test_without_any_zone_there_is_no_instant() -> None:
    event = event_of("A08", "EVN|A08|202611020830", PID, zone=None)
    assert (event.recorded_at, event.default_offset) == (None, None)


def test_a_time_that_cannot_be_read_falls_back_on_that_of_the_message() -> None:
    assert event_of("A08", "EVN|A08|11111", PID).recorded_at == datetime(2026, 11, 2, 8, 30, 11, tzinfo=UTC)
    assert event_of("A08", PID, msh_7="11111").recorded_at is None


def test_the_trigger_event_of_an_old_feed_stands_in_evn_1() -> None:
    assert event_of("", "EVN|A31|2026", PID).does == ("patient",)


@pytest.mark.parametrize(
    ("segments", "uncertain", "protected"),
    [
        ((PID,), False, False),
        ((PID + "|" * 26 + "Y",), True, False),
        ((PID + "|" * 26 + "N",), False, False),
        ((PID + "|" * 27 + "AL~UA",), True, False),
        ((PID, "PV1|1|O" + "|" * 14 + "VIP"), False, True),
        ((PID, "PV1|1|O" + "|" * 14 + "N"), False, False),
        ((PID, "PV1|1|O" + "|" * 14 + '""'), False, False),
        ((PID, "PD1" + "|" * 12 + "Y"), False, True),
    ],
)
def test_uncertain_identity_and_protection_are_seen(
    segments: tuple[str, ...], uncertain: bool, protected: bool
) -> None:
    (group,) = event_of("A08", *segments).groups
    assert (group.has_uncertain_identity, group.is_protected) == (uncertain, protected)


@pytest.mark.parametrize(
    ("trigger_event", "segments", "condition", "location"),
    [
        ("A99", (PID,), 201, "MSH^1^9^1^2"),
        ("A19", (PID,), 201, "MSH^1^9^1^2"),
        ("", (PID,), 201, "MSH^1^9^1^2"),
        ("A08", ("PID|1||||Doe",), 101, "PID^1^3"),
        ("A08", ('PID|1||""^^^HOSP',), 101, "PID^1^3"),
        ("A08", (), 101, "PID^1^3"),
        ("A40", (PID,), 101, "MRG^1^1"),
        ("A40", (PID, "MRG|||A1"), 101, "MRG^1^1"),
        ("A40", (PID, MRG, PID), 101, "MRG^1^1"),
        ("A42", (PID,), 101, "MRG^1^5"),
        ("A42", (PID, MRG), 101, "PV1^1^19"),
        ("A17", (PID, "PV1|1|I||||||||||||||||V1"), 101, "PV1^1^3"),
        ("A45", (PID, "MRG|6"), 101, "MRG^1^5"),
    ],
)
def test_an_event_that_cannot_be_applied_says_where_and_why(
    trigger_event: str, segments: tuple[str, ...], condition: int, location: str
) -> None:
    with pytest.raises(MessageError) as caught:
        event_of(trigger_event, *segments)
    assert (caught.value.condition, caught.value.location) == (condition, location)


def test_another_message_type_is_refused() -> None:
    with pytest.raises(MessageError) as caught:
        adt_to_event(Message.parse(b"MSH|^~\\&|A|B|C|D|2026||ORU^R01|1|P|2.5\rPID|1||5"))
    assert caught.value.condition == 200


def test_bed_status_needs_no_patient() -> None:
    assert event_of("A20", "NPU|1").groups == ()


def test_a_real_merge_of_accounts_that_names_no_prior_account_says_so() -> None:
    with pytest.raises(MessageError) as caught:
        adt_to_event(Message.parse((DATA / "fhir-converter" / "ADT-A41-02.hl7").read_bytes()), UTC)
    assert (caught.value.condition, caught.value.location) == (101, "MRG^1^3")


REAL = [path for path in sorted((DATA / "fhir-converter").glob("ADT-A*.hl7")) if path.stem != "ADT-A41-02"]


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_every_real_adt_message_is_an_event_of_its_kind(path) -> None:
    event = adt_to_event(Message.parse(path.read_bytes()), UTC)
    assert event.trigger_event == path.stem.split("-")[1]
    assert event.does == tuple(ADT_EVENTS[event.trigger_event]["does"])
    assert event.groups or not event.does
    assert event.recorded_at


def test_the_table_of_events_is_complete_and_uses_known_words() -> None:
    statuses = {None, "planned", "arrived", "in-progress", "onleave", "finished", "cancelled"}
    assert {step for event in ADT_EVENTS.values() for step in event.get("does", ())} == STEPS.keys()
    assert {event.get("encounter") for event in ADT_EVENTS.values()} == statuses
    assert len(ADT_EVENTS) == 58  # A01 to A55, A60 to A62
