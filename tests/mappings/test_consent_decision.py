"""The consent matrix: use x default x what Consents say, one rule of the decision at a time."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappings.consent_decision import ConsentDecision, Mode, decide
from mappings.consent_provision import PhotoFacts
from mappings.form_to_consent import ConsentForm, form_to_consent, withdraw
from mappings.photo_use import PHOTO_USES, get_photo_use
from mappings.terms import ACT_CODE, ACT_REASON, CONFIDENTIALITY, PHOTO_USE, Json

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
SIGNED = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
TRAIN, HOPERAT, TREAT = (ACT_REASON, "TRAIN"), (ACT_REASON, "HOPERAT"), (ACT_REASON, "TREAT")


def purposes(*codes: tuple[str, str]) -> list[Json]:
    return [{"system": system, "code": code} for system, code in codes]


def consent(consent_id: str = "c1", rule: str | None = "permit", **provision: Any) -> Json:
    """A Consent from anywhere: no photo-use category, only the provision given."""
    start = provision.pop("start", "2026-03-01")
    root: Json = {"period": {"start": start}, **provision} | ({"type": rule} if rule else {})
    return {
        "resourceType": "Consent",
        "id": consent_id,
        "status": "active",
        "scope": {
            "coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "patient-privacy"}]
        },
        "patient": {"reference": "Patient/p1"},
        "dateTime": "2026-03-02T08:00:00Z",
        "performer": [{"reference": "Patient/p1"}],
        "provision": root,
    }


def ours(choice: str, *, use: str = "teaching", consent_id: str = "c1", **form: Any) -> Json:
    """A Consent as our own forms write it."""
    facts: dict[str, Any] = {"signed_at": SIGNED, "performer": "Patient/p1", **form}
    signed = ConsentForm(
        id=f"form-{consent_id}",
        patient="Patient/p1",
        organization="Organization/o1",
        policy_uri="https://example.org/policy/1",
        method="form-fields",
        choices={use: choice},  # type: ignore[dict-item]
        **facts,
    )
    return form_to_consent(signed, consent_ids={use: consent_id}, recorded_at=SIGNED)[0]


def asked(*consents: Json, use: str = "teaching", **given: Any) -> ConsentDecision:
    return decide(consents, use=use, **{"at": AT, "mode": "required", **given})


# -- defaults and modes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", sorted(PHOTO_USES))
def test_without_a_consent_the_default_of_the_use_decides(use: str) -> None:
    expected = use == "patient-request"
    assert asked(use=use).permit is expected
    assert asked(use=use, policy={use: "permit"}).permit is (use != "treatment-documentation")
    assert asked(use=use, policy={use: "deny"}).permit is False


@pytest.mark.parametrize("use", sorted(PHOTO_USES))
def test_a_form_decides_its_own_use_and_no_other(use: str) -> None:
    for other in PHOTO_USES:
        permitted = asked(ours("permit", use=use), use=other).permit
        assert permitted is (other in (use, "patient-request"))
        refused = asked(ours("deny", use=use), use=other).permit
        assert refused is (other != use and other == "patient-request")


@pytest.mark.parametrize(
    ("mode", "said", "permit", "advised"),
    [
        ("disabled", None, True, False),
        ("disabled", "deny", True, False),
        ("disabled", "permit", True, False),
        ("advisory", None, True, True),
        ("advisory", "deny", True, True),
        ("advisory", "permit", True, False),
        ("required", None, False, False),
        ("required", "deny", False, False),
        ("required", "permit", True, False),
    ],
)
def test_treatment_documentation_follows_the_mode_of_the_site(
    mode: Mode, said: str | None, permit: bool, advised: bool
) -> None:
    consents = [ours(said, use="treatment-documentation")] if said else []
    decision = asked(*consents, use="treatment-documentation", mode=mode)
    assert (decision.permit, decision.advice is not None) == (permit, advised)
    if mode == "disabled":
        assert decision.consent_ids == ()


def test_the_mode_touches_treatment_only() -> None:
    for mode in ("disabled", "advisory", "required"):
        assert asked(mode=mode).permit is False
        assert asked(ours("permit"), mode=mode).permit is True


# -- E2: candidates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["draft", "proposed", "rejected", "inactive", "entered-in-error"])
def test_only_an_active_consent_counts(status: str) -> None:
    assert asked(ours("permit") | {"status": status}).permit is False
    assert asked(ours("deny", use="patient-request") | {"status": status}, use="patient-request").permit is True


def test_another_scope_is_not_asked() -> None:
    other = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "research"}]}
    assert asked(ours("permit") | {"scope": other}).permit is False


def test_another_patient_does_not_count_and_a_merged_one_does() -> None:
    assert asked(ours("permit"), facts=PhotoFacts(patients=frozenset({"Patient/p2"}))).permit is False
    assert asked(ours("permit"), facts=PhotoFacts(patients=frozenset({"Patient/p1", "Patient/p2"}))).permit is True
    versioned = ours("permit") | {"patient": {"reference": "https://x.example/fhir/Patient/p1/_history/4"}}
    assert asked(versioned, facts=PhotoFacts(patients=frozenset({"Patient/p1"}))).permit is True


@pytest.mark.parametrize(
    ("period", "permit"),
    [
        ({}, True),
        ({"start": "2026-11-20T12:00:00Z"}, True),
        ({"start": "2026-11-20T12:00:01Z"}, False),
        ({"start": "2026", "end": "2026"}, True),
        ({"end": "2026-11-20"}, True),
        ({"end": "2026-11-19"}, False),
        ({"end": "2026-11"}, True),
        ({"start": "2026-12"}, False),
    ],
)
def test_a_consent_counts_from_its_start_through_the_whole_of_its_end(period: Json, permit: bool) -> None:
    found = consent(purpose=purposes(TRAIN))
    found["provision"]["period"] = period
    assert asked(found).permit is permit


def test_a_day_is_a_day_where_the_question_is_asked() -> None:
    late = datetime(2026, 11, 20, 23, tzinfo=timezone(timedelta(hours=-5)))  # the 21st in UTC
    found = consent(purpose=purposes(TRAIN))
    found["provision"]["period"] = {"end": "2026-11-20"}
    assert asked(found, at=late).permit is True
    assert asked(found, at=late.astimezone(UTC)).permit is False


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        asked(ours("permit"), at=datetime(2026, 1, 1))  # noqa: DTZ001


def test_an_unknown_use_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="Known: treatment-documentation"):
        asked(use="publication")


# -- E6: purposes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "named", "rule", "permit"),
    [
        ("quality-improvement", (HOPERAT,), "permit", True),
        ("teaching", (HOPERAT,), "permit", False),
        ("teaching", (TRAIN,), "permit", True),
        ("teaching", (TREAT, TRAIN), "permit", True),
        ("patient-request", (TRAIN,), "deny", True),
        ("marketing", (HOPERAT, TREAT), "permit", False),
        ("algorithm-training", ((ACT_REASON, "HRESCH"), HOPERAT), "permit", False),
        ("publication-identifiable", ((PHOTO_USE, "publication-deidentified"),), "permit", False),
        ("treatment-documentation", ((ACT_REASON, "BTG"), (ACT_REASON, "ETREAT")), "permit", False),
        ("research", ((ACT_REASON, "CLINTRCH"),), "permit", False),
    ],
)
def test_a_purpose_covers_itself_and_what_lies_within_unless_the_use_must_be_named(
    use: str, named: tuple[tuple[str, str], ...], rule: str, permit: bool
) -> None:
    assert asked(consent(rule=rule, purpose=purposes(*named)), use=use).permit is permit


def test_a_denial_of_operations_denies_teaching_too() -> None:
    both = [consent("c1", purpose=purposes(TRAIN)), consent("c2", "deny", purpose=purposes(HOPERAT))]
    decision = asked(*both)
    assert (decision.permit, decision.consent_ids) == (False, ("c2",))


def test_a_permit_without_purpose_is_no_permit_for_uses_that_must_be_named() -> None:
    assert asked(consent(), use="quality-improvement").permit is True
    assert asked(consent(), use="teaching").permit is False
    assert asked(consent(rule="deny"), use="patient-request").permit is False


# -- E3, E5: constraints -----------------------------------------------------------------------------------


def actor(reference: str, role: str = "IRCP") -> Json:
    system = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
    return {"role": {"coding": [{"system": system, "code": role}]}, "reference": {"reference": reference}}


@pytest.mark.parametrize(
    ("requester", "permit"),
    [
        ({"Organization/school"}, True),
        ({"Practitioner/u1", "Organization/ward", "Organization/hospital"}, True),
        ({"Organization/other"}, False),
        (set(), False),
    ],
)
def test_a_grantee_is_matched_by_person_organisation_or_what_it_is_part_of(requester: set[str], permit: bool) -> None:
    found = consent(purpose=purposes(TRAIN), actor=[actor("Organization/school"), actor("Organization/hospital")])
    assert asked(found, requester=frozenset(requester)).permit is permit


def test_a_denial_to_an_unknown_asker_counts() -> None:
    refusal = consent(rule="deny", actor=[actor("Organization/school")])
    assert asked(refusal, use="patient-request").permit is False
    assert asked(refusal, use="patient-request", requester=frozenset({"Organization/x"})).permit is True


NORMAL = {"system": CONFIDENTIALITY, "code": "N"}


@pytest.mark.parametrize(
    ("limit", "facts", "permit"),
    [
        ({"dataPeriod": {"start": "2026-01"}}, {"taken_at": AT}, True),
        ({"dataPeriod": {"end": "2025"}}, {"taken_at": AT}, False),
        ({"dataPeriod": {"start": "2026-01"}}, {}, False),
        ({"securityLabel": [NORMAL]}, {"labels": (NORMAL,)}, True),
        ({"securityLabel": [NORMAL]}, {"labels": ({"system": CONFIDENTIALITY, "code": "R"},)}, False),
        ({"securityLabel": [{"system": "urn:x", "code": "N"}]}, {"labels": (NORMAL,)}, False),
        ({"data": [{"meaning": "instance", "reference": {"reference": "Media/m1"}}]}, {"photo": "Media/m1"}, True),
        ({"data": [{"meaning": "instance", "reference": {"reference": "Media/m1"}}]}, {"photo": "Media/m2"}, False),
        (
            {"data": [{"meaning": "related", "reference": {"reference": "Encounter/e1"}}]},
            {"photo": "Media/m1", "related": frozenset({"Encounter/e1"})},
            True,
        ),
        ({"data": [{"meaning": "authoredby", "reference": {"reference": "Practitioner/u"}}]}, {}, False),
    ],
)
def test_limits_of_a_permit_must_all_be_met_by_the_photo(limit: Json, facts: dict[str, Any], permit: bool) -> None:
    assert asked(consent(purpose=purposes(TRAIN), **limit), facts=PhotoFacts(**facts)).permit is permit


# -- E7: what is not understood ----------------------------------------------------------------------------

STRANGE: list[Json] = [
    {"action": [{"text": "disclose"}]},
    {"class": [{"code": "x"}]},
    {"code": [{"text": "x"}]},
    {"modifierExtension": [{"url": "urn:x", "valueCode": "x"}]},
    {"actor": [actor("Organization/o1", role="CST")]},
]


@pytest.mark.parametrize("strange", STRANGE, ids=lambda strange: str(next(iter(strange))))
def test_an_element_we_do_not_know_narrows_permits_and_widens_denials(strange: Json) -> None:
    org = frozenset({"Organization/o1"})
    permit = asked(consent(purpose=purposes(TRAIN), **strange), requester=org)
    assert permit.permit is False
    assert "not understood" in permit.because
    assert asked(consent(rule="deny", **strange), use="patient-request", requester=org).permit is False


@pytest.mark.parametrize("key", ["policyRule", "modifierExtension", "implicitRules"])
def test_rules_outside_the_provision_make_a_permit_unusable(key: str) -> None:
    assert asked(ours("permit") | {key: {"text": "x"}}).permit is False
    assert asked(ours("deny", use="patient-request") | {key: {"text": "x"}}, use="patient-request").permit is False


def test_a_newer_consent_that_is_not_understood_hides_the_older_permit() -> None:
    newer = ours("permit", consent_id="c2", signed_at=SIGNED + timedelta(days=1))
    newer["provision"]["action"] = [{"text": "x"}]
    decision = asked(ours("permit"), newer)
    assert (decision.permit, decision.consent_ids) == (False, ("c2",))


# -- E4: exceptions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root", "nested", "permit"),
    [
        ("permit", {"type": "deny", "actor": [actor("Organization/o1")]}, False),
        ("permit", {"type": "deny", "actor": [actor("Organization/o2")]}, True),
        ("permit", {"actor": [actor("Organization/o1")]}, False),
        ("permit", {"type": "permit", "actor": [actor("Organization/o1")]}, False),
        ("permit", {"type": "deny", "code": [{"text": "x"}]}, False),
        ("permit", {"type": "deny", "actor": [actor("Organization/o2")], "provision": [{"type": "permit"}]}, False),
        ("deny", {"type": "permit", "actor": [actor("Organization/o1")]}, True),
        ("deny", {"type": "permit", "actor": [actor("Organization/o2")]}, False),
        ("deny", {"actor": [actor("Organization/o1")]}, False),
        ("deny", {"type": "permit", "code": [{"text": "x"}]}, False),
        ("deny", {"type": "permit", "provision": [{"type": "deny", "purpose": purposes(TREAT)}]}, False),
        ("deny", {"type": "permit", "purpose": purposes(TREAT)}, False),
        (None, {"type": "permit", "actor": [actor("Organization/o1")]}, True),
        (None, {"type": "permit", "actor": [actor("Organization/o2")]}, False),
        (None, {"type": "permit", "code": [{"text": "x"}]}, False),
        (None, {"type": "deny"}, False),
    ],
)
def test_an_exception_reverses_its_parent_for_what_it_matches(root: str | None, nested: Json, permit: bool) -> None:
    found = consent(rule=root, purpose=purposes(TRAIN), provision=[nested])
    assert asked(found, requester=frozenset({"Organization/o1"})).permit is permit


def test_of_two_exceptions_the_denial_wins() -> None:
    org = frozenset({"Organization/o1"})
    nested = [{"type": "permit", "actor": [actor("Organization/o1")]}, {"type": "deny", "purpose": purposes(TRAIN)}]
    assert asked(consent(rule=None, purpose=purposes(TRAIN), provision=nested), requester=org).permit is False


# -- E8: several consents ----------------------------------------------------------------------------------


def test_the_newest_signature_wins_whatever_the_order() -> None:
    later = SIGNED + timedelta(days=30)
    refused_then_agreed = [ours("deny", consent_id="a"), ours("permit", consent_id="b", signed_at=later)]
    agreed_then_refused = [ours("permit", consent_id="a"), ours("deny", consent_id="b", signed_at=later)]
    for consents, permit in ((refused_then_agreed, True), (agreed_then_refused, False)):
        for order in (consents, consents[::-1]):
            assert asked(*order) == asked(*consents)
            assert (asked(*order).permit, asked(*order).consent_ids) == (permit, ("b",))


def test_signed_at_the_same_moment_the_denial_wins() -> None:
    assert asked(ours("permit", consent_id="a"), ours("deny", consent_id="b")).permit is False


def test_the_time_of_indexing_does_not_make_a_consent_newer() -> None:
    old = ours("permit", consent_id="a") | {"dateTime": "2026-11-19T00:00:00Z"}
    new = ours("deny", consent_id="b", signed_at=SIGNED + timedelta(days=1))
    assert asked(old, new).permit is False


def test_a_denial_to_everyone_beats_a_newer_permit_to_one() -> None:
    one = ours("permit", consent_id="b", grantee="Organization/school", signed_at=SIGNED + timedelta(days=1))
    assert asked(ours("deny", consent_id="a"), one, requester=frozenset({"Organization/school"})).permit is False


def test_merged_patients_who_disagree_are_denied_until_somebody_looks() -> None:
    other = ours("permit", consent_id="b", signed_at=SIGNED + timedelta(days=1)) | {
        "patient": {"reference": "Patient/p2"}
    }
    facts = PhotoFacts(patients=frozenset({"Patient/p1", "Patient/p2"}))
    assert asked(ours("deny", consent_id="a"), other, facts=facts).permit is False


# -- withdrawal, majority, obligations ---------------------------------------------------------------------


def withdrawn(permit: Json, at: datetime) -> tuple[Json, Json]:
    return withdraw(permit, deny_id="w1", withdrawn_at=at, recorded_at=at, performer="Patient/p1", method="verbal")


def test_a_withdrawal_holds_even_when_the_old_permit_comes_back() -> None:
    permit = ours("permit", grantee="Organization/school")
    school = frozenset({"Organization/school"})
    before = copy.deepcopy(permit)
    old, denial = withdrawn(permit, AT - timedelta(hours=1))
    assert permit == before
    assert asked(permit, requester=school).permit is True
    for consents in ((old, denial), (permit, denial), (old,)):
        assert asked(*consents, requester=school).permit is False
    assert asked(old, denial, requester=school).consent_ids == ("w1",)
    assert asked(permit, denial, requester=school, at=AT - timedelta(hours=2)).permit is True


def test_signing_again_after_a_withdrawal_permits_again() -> None:
    _, denial = withdrawn(ours("permit"), AT - timedelta(days=2))
    again = ours("permit", consent_id="c2", signed_at=AT - timedelta(days=1))
    assert asked(denial, again).permit is True


def test_only_an_active_permit_can_be_withdrawn() -> None:
    old, denial = withdrawn(ours("permit"), AT)
    for wrong in (old, denial):
        with pytest.raises(ValueError, match="Only an active consent"):
            withdrawn(wrong, AT)


def test_a_refusal_does_not_lapse_with_the_form() -> None:
    ends = (AT - timedelta(days=1)).date()
    assert asked(ours("permit", ends_on=ends)).permit is False
    refused = ours("deny", use="patient-request", ends_on=ends)
    assert asked(refused, use="patient-request").permit is False


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"choices": {}}, "no choice"),
        ({"choices": {"teaching": "maybe"}}, "must be permit or deny"),
        ({"choices": {"selling": "permit"}}, "No such photo use"),
        ({"performer": "RelatedPerson/r1"}, "how they are related"),
        ({"method": "telepathy"}, "No such signing method"),
    ],
)
def test_a_form_that_is_not_complete_is_refused(form: dict[str, Any], message: str) -> None:
    facts: dict[str, Any] = {
        "id": "f", "patient": "Patient/p1", "performer": "Patient/p1", "organization": "Organization/o1",
        "policy_uri": "urn:x", "signed_at": SIGNED, "method": "verbal", "choices": {"teaching": "permit"},
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        form_to_consent(ConsentForm(**{**facts, **form}), consent_ids={"teaching": "c1"}, recorded_at=SIGNED)


def test_what_a_parent_agreed_to_ends_when_the_child_comes_of_age_except_for_treatment() -> None:
    parent = {"performer": "RelatedPerson/r1", "relation": "MTH"}
    grown = PhotoFacts(majority_at=AT - timedelta(days=1))
    still_a_child = PhotoFacts(majority_at=AT + timedelta(days=1))
    assert asked(ours("permit", **parent), facts=grown).permit is False
    assert asked(ours("permit", **parent), facts=still_a_child).permit is True
    assert asked(ours("permit"), facts=grown).permit is True
    treatment = ours("permit", use="treatment-documentation", **parent)
    assert asked(treatment, use="treatment-documentation", facts=grown).permit is True


def test_obligations_come_from_the_use_and_from_the_label() -> None:
    labels = ({"system": ACT_CODE, "code": "HUAPRV"}, {"system": ACT_CODE, "code": "SEX"}, NORMAL)
    decision = asked(
        ours("permit", use="publication-deidentified"), use="publication-deidentified", facts=PhotoFacts(labels=labels)
    )
    assert decision.obligations == ("DEID", "HUAPRV")
    assert asked(facts=PhotoFacts(labels=labels)).obligations == ()


def test_the_reason_is_a_sentence_with_the_day_it_was_signed() -> None:
    assert asked(ours("permit")).because == "The patient's consent of 2026-03-01 permits teaching."
    assert asked(ours("deny")).because == "The patient's consent of 2026-03-01 refuses teaching."
    assert asked().because == "No consent speaks of teaching. Without one, teaching is not allowed."


@given(
    st.lists(
        st.tuples(st.sampled_from(["permit", "deny"]), st.integers(0, 3), st.sampled_from([None, "Organization/a"])),
        max_size=5,
    ),
    st.randoms(),
)
def test_order_never_matters_and_adding_a_new_denial_never_permits(said: list[Any], random: Any) -> None:
    consents = [
        ours(rule, consent_id=f"c{n}", signed_at=SIGNED + timedelta(days=day), grantee=grantee)
        for n, (rule, day, grantee) in enumerate(said)
    ]
    org = frozenset({"Organization/a"})
    shuffled = list(consents)
    random.shuffle(shuffled)
    assert asked(*shuffled, requester=org).permit is asked(*consents, requester=org).permit
    newest = ours("deny", consent_id="last", signed_at=SIGNED + timedelta(days=9))
    assert asked(*consents, newest, requester=org).permit is False


def test_every_use_has_its_code_in_the_local_code_system() -> None:
    from mappings.canonical_resources import codes_of

    assert set(PHOTO_USES) == set(codes_of("photo-use"))
    assert get_photo_use("teaching").words == "teaching"
