"""The audit log: what each room may tell, in the transaction of what it tells of, and valid FHIR every time."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import pytest

from adapter import governance
from adapter.access import SYSTEM, Actor
from adapter.bridge import Bridge
from adapter.fhir_api import Access
from adapter.governance.audit import SHORT_NAMES
from adapter.records import find_where
from adapter.records.search_parameters import TABLES
from mappings.audit_event import EVENTS
from mappings.fhir_check import check_resource

DOCTOR = Actor("person", "Practitioner/d1", "Dr. D", "clinician", address="10.0.0.7", token_id="t1")
MACHINE = Actor("machine", "importer", "Importer", "machine", address="importer.example.org")


@pytest.mark.parametrize("actor", [DOCTOR, MACHINE, SYSTEM], ids=lambda actor: actor.kind)
def test_every_event_by_every_kind_of_actor_is_valid_and_has_one_requestor(bridge: Bridge, actor: Actor) -> None:
    with bridge.db.transaction() as tx:
        for event in sorted(EVENTS | SHORT_NAMES.keys()):
            told = governance.audit(
                tx, bridge, event, actor, patient_id="p1", references=["Media/m1/_history/1"], query="a=b", detail="why"
            ).resource
            check_resource(told)
            assert [agent["requestor"] for agent in told["agent"]].count(True) == 1, event


def test_an_event_is_found_by_patient_and_by_person(bridge: Bridge) -> None:
    with bridge.db.transaction() as tx:
        governance.audit(tx, bridge, "read", DOCTOR, patient_id="p1", references=["Media/m1/_history/1"])
        governance.audit(tx, bridge, "read", SYSTEM, patient_id="p2")
    columns = TABLES["AuditEvent"].c
    with bridge.db.snapshot() as tx:
        (by_patient,) = find_where(tx, "AuditEvent", columns.patient == "p1")
        (by_person,) = find_where(tx, "AuditEvent", columns.agent == "Practitioner/d1")
    assert by_patient == by_person


def test_a_change_that_is_rolled_back_leaves_no_event(bridge: Bridge) -> None:
    with pytest.raises(ZeroDivisionError), bridge.db.transaction() as tx:
        governance.audit(tx, bridge, "update", DOCTOR)
        _ = 1 / 0
    assert _log(bridge) == []


def test_a_failure_says_so_in_its_outcome(bridge: Bridge) -> None:
    with bridge.db.transaction() as tx:
        governance.audit(tx, bridge, "access-denied", DOCTOR, outcome="8", detail="the scope Media.r is missing")
    (told,) = _log(bridge)
    assert (told["outcome"], told["outcomeDesc"]) == ("8", "the scope Media.r is missing")


def test_an_export_names_its_recipient_who_did_not_ask_for_it(bridge: Bridge) -> None:
    with bridge.db.transaction() as tx:
        governance.audit(tx, bridge, "export", SYSTEM, patient_id="p1", recipient="https://ehr.example.org/fhir")
    (told,) = _log(bridge)
    (recipient,) = [one for one in told["agent"] if one["type"]["coding"][0]["code"] == "110152"]
    assert recipient["network"] == {"address": "https://ehr.example.org/fhir", "type": "5"}
    assert recipient["requestor"] is False


def test_an_unknown_event_is_refused(bridge: Bridge) -> None:
    with pytest.raises(ValueError, match="No such audit event"), bridge.db.transaction() as tx:
        governance.audit(tx, bridge, "peek", DOCTOR)


def test_a_search_that_shows_two_patients_is_told_to_the_log_of_each(bridge: Bridge) -> None:
    accesses = [
        Access("query", patient_id="p1", query="Media?view=overview"),
        Access("query", patient_id="p2", query="Media?view=overview"),
        Access("query", query=""),
    ]
    with bridge.db.transaction() as tx:
        governance.fhir_audit(bridge)(tx, accesses, DOCTOR, request_id="r1")
        governance.fhir_audit(bridge)(tx, [], DOCTOR, request_id="r2")
    told = _log(bridge)
    assert len(told) == 3
    for one in told:
        check_resource(one)
    queries = [entity["query"] for one in told for entity in one["entity"] if "query" in entity]
    assert [b64decode(query).decode() for query in queries] == ["Media?view=overview"] * 2 + ["?"]
    assert all({"identifier": {"value": "r1"}} in [entity["what"] for entity in _with_what(one)] for one in told)


def _with_what(told: dict[str, Any]) -> list[dict[str, Any]]:
    return [entity for entity in told["entity"] if "what" in entity]


def _log(bridge: Bridge) -> list[dict[str, Any]]:
    with bridge.db.snapshot() as tx:
        return [one.resource for one in find_where(tx, "AuditEvent")]
