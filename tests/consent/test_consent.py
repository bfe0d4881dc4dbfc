"""Consent from the signed form to the decision: evidence, merges, withdrawal and what waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select

from adapter import consent
from adapter.access import SYSTEM, Actor
from adapter.bridge import Bridge
from adapter.consent import ConsentForm
from adapter.db.tables import delivery, work
from adapter.errors import Conflict, Forbidden, NotFound, Unprocessable, UnsupportedMedia
from adapter.records import TABLES, Stored, create, find_where, get, update_resource
from adapter.records.binaries import get_binary, open_binary
from mappings.fhir_check import check_resource
from mappings.photo_use import PHOTO_USES, Rule
from mappings.terms import CANON
from tests.conftest import Clock

DOCTOR = Actor("person", "Practitioner/d1", "Dr. D", "clinician", frozenset({"user/Consent.crus"}), address="10.0.0.7")
READER = replace(DOCTOR, scopes=frozenset({"user/Consent.rs"}))
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
TREATMENT = "treatment-documentation"


@pytest.fixture
def strict(bridge: Bridge) -> Bridge:
    """The same, where treatment documentation needs consent; with two patients, of age and not."""
    required = replace(bridge, settings=bridge.settings.model_copy(update={"consent_mode": "required"}))
    with bridge.db.transaction() as tx:
        for patient_id, born in (("p1", "1980-05-01"), ("p2", "1980-05-01"), ("child", "2010-11-23")):
            create(tx, {"resourceType": "Patient", "id": patient_id, "birthDate": born}, at=bridge.now())
    return required


def form(bridge: Bridge, choices: Mapping[str, Rule] | None = None, **changes: Any) -> ConsentForm:
    given = ConsentForm(
        id="form-1",
        patient="Patient/p1",
        performer="Patient/p1",
        organization="Organization/clinic",
        policy_uri=f"{CANON}/policy/photo-consent/2026-01",
        signed_at=bridge.now() - timedelta(minutes=1),
        method="verbal",
        choices=choices or {TREATMENT: "permit"},
    )
    return replace(given, **changes)


def record(bridge: Bridge, given: ConsentForm, actor: Actor = DOCTOR, **more: Any) -> list[Stored]:
    with bridge.db.transaction() as tx:
        return consent.record(tx, bridge, actor, given, **more)


def may(bridge: Bridge, patient_id: str | None = "p1", use: str = TREATMENT) -> bool:
    with bridge.db.snapshot() as tx:
        return consent.decide(tx, bridge, patient_id, use=use).permit


def all_of(bridge: Bridge, resource_type: str) -> list[dict[str, Any]]:
    with bridge.db.snapshot() as tx:
        return [one.resource for one in find_where(tx, resource_type)]


def test_where_consent_is_required_nothing_goes_without_it(strict: Bridge) -> None:
    assert not may(strict)
    assert not may(strict, None)


@pytest.mark.parametrize("use", sorted(PHOTO_USES.keys() - {TREATMENT, "patient-request"}))
def test_every_other_use_is_denied_until_it_is_permitted_by_name(strict: Bridge, use: str) -> None:
    record(strict, form(strict))
    assert not may(strict, use=use)
    record(strict, form(strict, {use: "permit"}, id="form-2"))
    assert may(strict, use=use)


def test_the_consent_of_one_patient_says_nothing_about_another(strict: Bridge) -> None:
    record(strict, form(strict))
    assert may(strict, "p1")
    assert not may(strict, "p2")


def test_each_box_of_a_form_is_a_consent_with_provenance_and_audit(strict: Bridge) -> None:
    stored = record(strict, form(strict, {TREATMENT: "permit", "teaching": "deny"}))
    (told,) = all_of(strict, "Provenance")
    events = all_of(strict, "AuditEvent")
    assert [one["reference"] for one in told["target"]] == [one.version_reference for one in stored]
    assert len(stored) == len(events) == 2
    for one in [told, *events, *(one.resource for one in stored)]:
        check_resource(one)


def test_the_same_form_twice_is_recorded_once(strict: Bridge) -> None:
    first = record(strict, form(strict))
    assert record(strict, form(strict)) == first
    assert len(all_of(strict, "Consent")) == 1


def test_the_same_form_with_other_choices_is_refused(strict: Bridge) -> None:
    record(strict, form(strict))
    with pytest.raises(Conflict):
        record(strict, form(strict, {TREATMENT: "deny"}))


def test_the_same_form_from_two_senders_at_once_is_recorded_by_one(strict: Bridge) -> None:
    """The second does not see the first's rows yet, but its ids."""
    (first,) = record(strict, form(strict))
    with strict.db.transaction() as tx:
        update_resource(tx, first.resource | {"identifier": [{"value": "not seen yet"}]}, at=strict.now())
    with pytest.raises(Conflict, match="send it again"):
        record(strict, form(strict))


def test_the_signed_paper_is_kept_bit_exact_for_those_who_may_read_the_consent(strict: Bridge) -> None:
    given = form(strict, method="paper-photo")
    (stored,) = record(strict, given, source=PNG, source_content_type="image/png")
    binary_id = stored.resource["sourceAttachment"]["url"].removeprefix("Binary/")
    with strict.db.snapshot() as tx:
        row = get_binary(tx, binary_id)
        assert open_binary(tx, strict.vault, row).read() == PNG
    assert row.security_context == stored.reference


def test_a_signature_without_its_picture_is_refused(strict: Bridge) -> None:
    with pytest.raises(Unprocessable):
        record(strict, form(strict, method="signature-image"))


def test_a_paper_that_is_not_what_it_says_is_refused(strict: Bridge) -> None:
    with pytest.raises(UnsupportedMedia):
        record(strict, form(strict, method="paper-photo"), source=b"<html>", source_content_type="image/png")


def test_a_consent_signed_tomorrow_is_refused(strict: Bridge) -> None:
    with pytest.raises(Unprocessable):
        record(strict, form(strict, signed_at=strict.now() + timedelta(days=1)))


def test_who_may_only_read_records_nothing(strict: Bridge) -> None:
    with pytest.raises(Forbidden):
        record(strict, form(strict), READER)


def test_a_session_on_another_chart_cannot_record_or_withdraw(strict: Bridge) -> None:
    (stored,) = record(strict, form(strict))
    elsewhere = replace(DOCTOR, patient_id="p2")
    with pytest.raises(NotFound):
        record(strict, form(strict, id="form-2"), elsewhere)
    with pytest.raises(NotFound), strict.db.transaction() as tx:
        consent.withdraw(tx, strict, elsewhere, stored.id, how="verbal")


def test_withdrawn_means_refused_from_now_on_and_once(strict: Bridge, clock: Clock) -> None:
    (stored,) = record(strict, form(strict))
    clock.advance(hours=1)
    for _ in range(2):
        with strict.db.transaction() as tx:
            ended = consent.withdraw(tx, strict, DOCTOR, stored.id, how="verbal")
    assert ended.resource["status"] == "inactive"
    assert not may(strict)
    consents = all_of(strict, "Consent")
    assert [one["provision"]["type"] for one in consents if one["status"] == "active"] == ["deny"]
    told = [one for one in all_of(strict, "Provenance") if "entity" in one]
    assert [one["entity"][0]["what"]["reference"] for one in told] == [stored.version_reference]
    for one in [*consents, *told]:
        check_resource(one)


def test_a_refusal_cannot_be_withdrawn(strict: Bridge) -> None:
    (stored,) = record(strict, form(strict, {TREATMENT: "deny"}))
    with pytest.raises(Conflict), strict.db.transaction() as tx:
        consent.withdraw(tx, strict, DOCTOR, stored.id, how="verbal")


def test_a_new_permit_after_a_withdrawal_counts(strict: Bridge, clock: Clock) -> None:
    (stored,) = record(strict, form(strict))
    clock.advance(hours=1)
    with strict.db.transaction() as tx:
        consent.withdraw(tx, strict, DOCTOR, stored.id, how="verbal")
    clock.advance(hours=1)
    record(strict, form(strict, id="form-2"))
    assert may(strict)


def test_consent_of_a_merged_patient_counts_and_a_refusal_of_either_beats_it(strict: Bridge) -> None:
    record(strict, form(strict))
    _merge(strict, "p1", into="p2")
    assert may(strict, "p2")
    record(strict, form(strict, {TREATMENT: "deny"}, id="form-2", patient="Patient/p2", performer="Patient/p2"))
    assert not may(strict, "p1")


def test_a_form_of_a_merged_patient_is_recorded_for_the_survivor(strict: Bridge) -> None:
    _merge(strict, "p1", into="p2")
    (stored,) = record(strict, form(strict), replace(DOCTOR, patient_id="p1"))
    assert stored.resource["patient"] == stored.resource["performer"][0] == {"reference": "Patient/p2"}


def test_what_a_parent_permitted_for_teaching_ends_when_the_child_is_of_age(strict: Bridge, clock: Clock) -> None:
    signer = {"patient": "Patient/child", "performer": "RelatedPerson/mother", "relation": "MTH"}
    record(strict, form(strict, {"teaching": "permit"}, **signer))
    assert may(strict, "child", "teaching")
    clock.advance(days=2 * 366)  # the child turned 18 on 2028-11-23
    assert not may(strict, "child", "teaching")


def test_what_was_withheld_is_put_in_line_when_consent_is_given(strict: Bridge) -> None:
    now = strict.now()
    row = {"media_id": "m1", "media_version": 1, "patient": "p1", "destination": "ehr", "state": "withheld"}
    with strict.db.transaction() as tx:
        tx.execute(insert(delivery), {**row, "id": "d1", "created_at": now, "updated_at": now})
    record(strict, form(strict))
    with strict.db.snapshot() as tx:
        assert tx.execute(select(delivery.c.state)).scalar_one() == "pending"
        assert tx.execute(select(work.c.kind)).scalar_one() == "deliver"


def test_copies_lists_what_destinations_hold_and_not_what_they_gave_back(strict: Bridge) -> None:
    now = strict.now()
    row = {"media_version": 1, "patient": "p1", "destination": "ehr", "created_at": now, "updated_at": now}
    states = {"confirmed": now, "retracted": now, "pending": None}
    with strict.db.transaction() as tx:
        for state, accepted in states.items():
            tx.execute(
                insert(delivery), {**row, "id": state, "media_id": state, "state": state, "accepted_at": accepted}
            )
        assert [one.media_id for one in consent.copies(tx, "p1")] == ["confirmed"]


def test_a_disclosure_decision_goes_into_the_log_with_its_consents(strict: Bridge) -> None:
    (stored,) = record(strict, form(strict, {"teaching": "deny"}))
    with strict.db.transaction() as tx:
        decision = consent.decide_and_audit(tx, strict, DOCTOR, "p1", use="teaching")
    assert decision.consent_ids == (stored.id,)
    with strict.db.snapshot() as tx:
        columns = TABLES["AuditEvent"].c
        (told,) = find_where(tx, "AuditEvent", columns.outcome == "8|", columns.patient == "p1")
    check_resource(told.resource)


def test_without_the_gate_treatment_needs_no_consent(bridge: Bridge) -> None:
    assert may(replace(bridge, settings=bridge.settings.model_copy(update={"consent_mode": "disabled"})))
    assert may(bridge), "advisory permits, with advice"


def test_the_system_may_record_too(strict: Bridge) -> None:
    assert record(strict, form(strict), SYSTEM)


def _merge(bridge: Bridge, source: str, *, into: str) -> None:
    with bridge.db.transaction() as tx:
        patient = get(tx, "Patient", source).resource
        link = [{"other": {"reference": f"Patient/{into}"}, "type": "replaced-by"}]
        update_resource(tx, patient | {"active": False, "link": link}, at=bridge.now())
