"""What Provenance and AuditEvent refuse, and when a BALP profile is claimed; shapes stand in the golden pairs."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest

from mappings.audit_event import Party, User, audit_event
from mappings.provenance import Agent, Entity, provenance

AT = datetime(2026, 11, 20, 14, 30, tzinfo=UTC)
SERVER = Party(who="Device/dermbridge", address="https://photos.example.org/fhir")
CLIENT = Party(who={"identifier": {"value": "client-1"}}, address="192.0.2.7")


def event(name: str, **given: Any) -> dict[str, Any]:
    return audit_event(name, **{"recorded": AT, "server": SERVER, "client": CLIENT, **given})


def profile_of(resource: dict[str, Any]) -> str | None:
    profiles = resource.get("meta", {}).get("profile", [None])
    return profiles[0] and str(profiles[0]).rpartition("/")[2]


def test_the_profile_tells_whether_a_patient_is_known() -> None:
    assert profile_of(event("read", entity_refs=["Media/m1/_history/1"])) == "IHE.BasicAudit.Read"
    known = event("read", entity_refs=["Media/m1/_history/1"], patient_ref="Patient/p1")
    assert profile_of(known) == "IHE.BasicAudit.PatientRead"


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("read", {"entity_refs": ["Media/m1/_history/1"], "outcome": "8"}),
        ("read", {"entity_refs": ["Media/m1/_history/1", "Media/m2/_history/1"]}),
        ("read", {"entity_refs": ["Media/m1/_history/1"], "client": Party(who="Device/x")}),
        ("read", {"entity_refs": ["Media/m1/_history/1"], "client": None}),
        ("consent-decision", {"entity_refs": [], "patient_ref": "Patient/p1", "actor": User(who="Practitioner/u")}),
        ("disclose", {"entity_refs": ["Media/m1/_history/1"], "purpose": "TREAT"}),
        ("login", {}),
    ],
)
def test_no_profile_is_claimed_that_the_event_does_not_keep(name: str, given: dict[str, Any]) -> None:
    assert profile_of(event(name, **given)) is None


def test_the_query_is_kept_as_it_came_and_stands_alone_in_its_entity() -> None:
    asked = "/fhir/Media?patient=p1&foo=%00<script>"
    entity = next(one for one in event("query", query=asked)["entity"] if "query" in one)
    assert base64.b64decode(entity["query"]).decode() == asked
    assert not entity.keys() & {"what", "name", "detail"}


def test_somebody_is_always_the_requestor_and_only_one() -> None:
    for given in ({}, {"actor": User(who="Practitioner/u1")}, {"client": None}):
        agents = event("service-start", **given)["agent"]
        assert [agent["requestor"] for agent in agents].count(True) == 1


def test_what_we_push_we_asked_for_ourselves() -> None:
    pushed = event("disclose", purpose="TREAT", patient_ref="Patient/p1", entity_refs=["Media/m1/_history/1"])
    source = next(agent for agent in pushed["agent"] if agent["type"]["coding"][0]["code"] == "110153")
    assert source["requestor"] is True
    assert source["who"] == pushed["source"]["observer"]


@pytest.mark.parametrize(
    ("address", "kind"),
    [("192.0.2.7", "2"), ("2001:db8::7", "2"), ("::1", "2"), ("https://x.example/fhir", "5"), ("ws-7.example", "1")],
)
def test_the_kind_of_address_is_told_from_its_shape(address: str, kind: str) -> None:
    client = event("login", client=Party(who="Device/x", address=address))["agent"][0]
    assert client["network"] == {"address": address, "type": kind}


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("reading", {}, "No such audit event"),
        ("disclose", {}, "must give its purpose"),
        ("query", {}, "must give its query"),
        ("query", {"query": ""}, "must give its query"),
        ("break-glass-start", {}, "must give its detail"),
        ("read", {"patient_ref": "Anna Muster"}, "never by name"),
        ("read", {"patient_ref": "Media/m1"}, "never by name"),
    ],
)
def test_an_audit_event_without_what_it_needs_is_refused(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        event(name, **given)


def make(case: str, agents: list[Agent], entities: list[Entity], targets: list[str]) -> dict[str, Any]:
    return provenance(case, targets=targets, agents=agents, entities=entities, recorded=AT)


@pytest.mark.parametrize(
    ("case", "agents", "entities", "targets", "message"),
    [
        ("invented", [], [], ["Media/m1"], "No such Provenance case"),
        ("capture", [], [], ["Media/m1"], "must name: performer"),
        ("capture", [Agent("performer", "Practitioner/u"), Agent("verifier", "Practitioner/v")], [], ["Media/m1"],
         "no agent of type: verifier"),
        ("transform", [Agent("assembler", "Device/d")], [], ["Media/m1"], "must say its: source"),
        ("wrong-patient", [Agent("enterer", "Practitioner/u")], [Entity("revision", "Media/m1/_history/1")],
         ["Media/m1/_history/2"], "must say its: removal"),
        ("capture", [Agent("performer", "Practitioner/u")], [], [], "at least one target"),
    ],
)  # fmt: skip
def test_a_provenance_without_what_its_case_needs_is_refused(
    case: str, agents: list[Agent], entities: list[Entity], targets: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(case, agents, entities, targets)


def test_a_case_brings_its_reason_and_the_caller_may_give_another() -> None:
    agents, entities = [Agent("assembler", "Device/d")], [Entity("source", "Binary/adt1")]
    merged = make("merge", agents, entities, ["Patient/p1/_history/2"])
    assert merged["reason"][0]["coding"][0]["code"] == "PATADMIN"
    other = provenance("merge", targets=["Patient/p1"], agents=agents, entities=entities, recorded=AT, reason="HLEGAL")
    assert other["reason"][0]["coding"][0]["code"] == "HLEGAL"
