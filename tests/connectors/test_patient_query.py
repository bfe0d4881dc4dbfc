"""Asking a FHIR server who a patient is: each way, merges followed, vendors' words understood, garbage refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.sandbox.vendors import Fault, Vendor, running_vendor
from adapter.sandbox.vendors.behaviour import Refusal
from connectors.contract import DeliveryError, Retry
from connectors.kinds import FhirR4Profile
from connectors.patient_query import PatientQuery
from connectors.patients_found import Sought, find_profile
from connectors.profile import build_profile, find_shipped_profiles

BASE = "https://ehr.example/fhir"
MRN = "urn:oid:1.2.3"
AT = datetime(2026, 11, 23, 9, 20, tzinfo=UTC)
ERIN = Sought(MRN, "4711", family="Example", given="Erin", birth_date="1970-01-01", gender="female")
Answers = Callable[[httpx.Request], httpx.Response]


def patient(patient_id: str = "a", value: str = "4711", **more: Any) -> dict[str, Any]:
    name = [{"family": "Example", "given": ["Erin"]}]
    found = {"resourceType": "Patient", "id": patient_id, "identifier": [{"system": MRN, "value": value}], "name": name}
    return found | {"birthDate": "1970-01-01", "gender": "female"} | more


def visit(visit_id: str, start: str, end: str | None = None, **more: Any) -> dict[str, Any]:
    period = {"start": start} | ({"end": end} if end else {})
    subject = {"reference": f"{BASE}/Patient/a"}
    found = {"resourceType": "Encounter", "id": visit_id, "status": "finished", "class": {"code": "AMB"}}
    return found | {"subject": subject, "period": period} | more


def bundle(*resources: dict[str, Any], **more: Any) -> httpx.Response:
    entries = [{"resource": each} for each in resources]
    return httpx.Response(200, json={"resourceType": "Bundle", "type": "searchset", "entry": entries} | more)


def outcome(status: int, code: str = "processing", vendor: str = "", **headers: str) -> httpx.Response:
    issue = {"severity": "error", "code": code} | ({"details": {"coding": [{"code": vendor}]}} if vendor else {})
    return httpx.Response(status, json={"resourceType": "OperationOutcome", "issue": [issue]}, headers=headers)


class Ehr:
    """Answers by path (below the base, without query); whatever it was not told of is 404. Keeps the requests."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answers: dict[str, httpx.Response | Answers]) -> None:
        self.answers, self.requests = answers, list[httpx.Request]()
        monkeypatch.setattr("connectors.session.open_transport", lambda *_: httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        found = self.answers.get(request.url.path.removeprefix("/fhir/"), outcome(404, "not-found"))
        return found(request) if callable(found) else found

    def query(self, *ways: str, **table: Any) -> PatientQuery:
        profile = {"name": "x", "kind": "fhir-r4", "base_url": BASE, "timeouts": {"attempts": 1}}
        top = {name: table.pop(name) for name in ("search", "patient", "signals") if name in table}
        lookup = {"ways": ways} | table
        return PatientQuery(FhirR4Profile.model_validate(profile | top | {"patient_lookup": lookup}), lambda _: "")


@pytest.fixture
def ehr(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ehr]:
    return lambda **answers: Ehr(monkeypatch, {name.replace("__", "/"): each for name, each in answers.items()})


def ids(found: Any) -> list[str]:
    return [one.patient["id"] for one in found.matches]


def test_an_identifier_finds_only_who_really_bears_it(ehr: Callable[..., Ehr]) -> None:
    asked = ehr(Patient=bundle(patient("a"), patient("b", "4712"), {"resourceType": "OperationOutcome"}))
    found = asked.query("identifier").find(ERIN)
    assert (ids(found), found.several) == (["a"], False)
    assert found.asked == ("Patient?identifier=urn%3Aoid%3A1.2.3%7C4711&_count=9",)


def test_an_identifier_of_a_system_they_do_not_have_is_not_sent(ehr: Callable[..., Ehr]) -> None:
    asked = ehr(Patient=bundle(patient()))
    assert asked.query("identifier", patient={"identifier_systems": ["urn:other"]}).find(ERIN).matches == ()
    assert asked.requests == []


def test_where_searches_are_posted_no_identifier_stands_in_an_address(ehr: Callable[..., Ehr]) -> None:
    asked = ehr(Patient___search=bundle(patient()), Encounter___search=bundle(visit("v", "2026-11-23T09:00:00Z")))
    found = asked.query("identifier", search="post").find(ERIN, AT)
    assert found.matches[0].visit is not None
    assert [str(one.url.query) for one in asked.requests] == ["b''", "b''"]
    sent = parse_qs(asked.requests[1].content.decode())
    assert sent["date"] == ["le2026-11-23T09:20:00+00:00", "ge2026-11-23T09:20:00+00:00"]


def test_demographics_are_asked_all_together_or_not_at_all(ehr: Callable[..., Ehr]) -> None:
    asked = ehr(Patient=bundle(patient("a"), patient("b", "9")))
    query = asked.query("demographics")
    assert query.find(Sought(family="Example")).matches == ()
    assert asked.requests == []
    assert ids(query.find(ERIN)) == ["a", "b"]
    assert dict(asked.requests[0].url.params) == {"family": "Example", "birthdate": "1970-01-01", "_count": "9"}


def test_a_match_keeps_the_servers_own_grade_and_never_what_it_excludes(ehr: Callable[..., Ehr]) -> None:
    def graded(one: dict[str, Any], grade: str, score: Any) -> dict[str, Any]:
        grade_of = {"url": "http://hl7.org/fhir/StructureDefinition/match-grade", "valueCode": grade}
        return {"resource": one, "search": {"score": score, "extension": [grade_of]}}

    entries = [graded(patient("a"), "probable", 0.7), graded(patient("b"), "certainly-not", 0.1)]
    entries.append(graded(patient("c"), "possible", "much"))
    asked = ehr(**{"Patient__$match": httpx.Response(200, json={"resourceType": "Bundle", "entry": entries})})
    found = asked.query("match", only_certain=False).find(ERIN)
    assert [(m.patient["id"], m.grade, m.score) for m in found.matches] == [
        ("a", "probable", 0.7),
        ("c", "possible", None),
    ]
    sent = json.loads(asked.requests[0].content)
    assert {"name": "onlyCertainMatches", "valueBoolean": False} in sent["parameter"]
    assert sent["parameter"][0]["resource"]["birthDate"] == "1970-01-01"


@pytest.mark.parametrize(
    ("answer", "several"),
    [
        (outcome(200, vendor="4101"), False),
        (bundle({"resourceType": "OperationOutcome", "issue": [{"details": {"coding": [{"code": "4101"}]}}]}), False),
        (outcome(400, vendor="59013"), True),
        (outcome(400, vendor="59011"), True),
    ],
)
def test_a_vendors_none_and_several_are_answers(ehr: Callable[..., Ehr], answer: httpx.Response, several: bool) -> None:
    asked = ehr(**{"Patient__$match": answer})
    query = asked.query("match", none_codes=["4101"], several_codes=["59011", "59013"])
    found = query.find(ERIN)
    assert (found.matches, found.several) == ((), several)


def test_a_cross_reference_is_read_and_its_several_ids_are_all_named(ehr: Callable[..., Ehr]) -> None:
    targets = [{"name": "targetId", "valueReference": {"reference": f"{BASE}/Patient/{each}"}} for each in "ab"]
    known = httpx.Response(200, json={"resourceType": "Parameters", "parameter": targets})
    asked = ehr(**{"Patient__$ihe-pix": known}, Patient__a=httpx.Response(200, json=patient("a")))
    asked.answers["Patient/b"] = httpx.Response(200, json=patient("b", "9"))
    found = asked.query("cross-reference", target_systems=["urn:x"]).find(ERIN)
    assert ids(found) == ["a", "b"]
    assert dict(asked.requests[0].url.params) == {"sourceIdentifier": f"{MRN}|4711", "targetSystem": "urn:x"}


def test_a_cross_reference_by_identifiers_alone_is_searched_for(ehr: Callable[..., Ehr]) -> None:
    target = {"name": "targetIdentifier", "valueIdentifier": {"system": "urn:x", "value": "7"}}
    known = httpx.Response(200, json={"resourceType": "Parameters", "parameter": [target]})
    asked = ehr(**{"Patient__$ihe-pix": known}, Patient=bundle(patient("a")))
    assert ids(asked.query("cross-reference").find(ERIN)) == ["a"]


def test_an_identifier_unknown_to_the_cross_reference_is_nobodys(ehr: Callable[..., Ehr]) -> None:
    for answer in (outcome(404, "not-found"), outcome(400, "code-invalid")):
        assert ehr(**{"Patient__$ihe-pix": answer}).query("cross-reference").find(ERIN).matches == ()
    with pytest.raises(DeliveryError) as told:
        ehr(**{"Patient__$ihe-pix": outcome(403, "code-invalid")}).query("cross-reference").find(ERIN)
    assert told.value.retry is Retry.NEVER


def test_the_ways_are_tried_in_order_until_one_finds_somebody(ehr: Callable[..., Ehr]) -> None:
    asked = ehr(**{"Patient__$match": outcome(404, "not-supported"), "Patient": bundle(patient("a"))})
    found = asked.query("match", "demographics", "identifier").find(ERIN)
    assert (ids(found), found.not_offered, found.matches[0].way) == (["a"], ("match",), "demographics")


def test_a_merged_patient_is_followed_to_the_one_in_use(ehr: Callable[..., Ehr]) -> None:
    link = [{"type": "replaced-by", "other": {"reference": "Patient/b"}}]
    survivor = httpx.Response(200, json=patient("b", "9", identifier=[{"system": MRN, "value": "9"}]))
    asked = ehr(Patient=bundle(patient("a", active=False, link=link)), Patient__b=survivor)
    assert ids(asked.query("identifier").find(ERIN)) == ["b"]


def test_merges_in_a_circle_and_patients_out_of_use_are_nobody(ehr: Callable[..., Ehr]) -> None:
    link = [{"type": "replaced-by", "other": {"reference": "Patient/a"}}]
    circle = patient("a", active=False, link=link)
    asked = ehr(Patient=bundle(circle), Patient__a=httpx.Response(200, json=circle))
    assert asked.query("identifier").find(ERIN).matches == ()
    assert ehr(Patient=bundle(patient("a", active=False))).query("identifier").find(ERIN).matches == ()
    nowhere = patient("a", active=False, link=[{"type": "replaced-by"}])
    assert ehr(Patient=bundle(nowhere)).query("identifier").find(ERIN).matches == ()


def test_a_redirect_to_the_survivor_is_followed_even_where_its_code_is_a_signal(ehr: Callable[..., Ehr]) -> None:
    link = [{"type": "replaced-by", "other": {"reference": "Patient/b"}}]
    moved = outcome(404, vendor="4107", location=f"{BASE}/Patient/c")
    asked = ehr(
        Patient=bundle(patient("a", link=link)), Patient__b=moved, Patient__c=httpx.Response(200, json=patient("c"))
    )
    assert ids(asked.query("identifier", signals=[{"code": "4107", "means": "never"}]).find(ERIN)) == ["c"]
    there_and_back = outcome(301, location="Patient/b")
    asked = ehr(Patient=bundle(patient("a", link=link)), Patient__b=there_and_back, Patient__c=moved)
    with pytest.raises(DeliveryError):
        asked.query("identifier").find(ERIN)


def test_more_than_one_page_is_more_than_one_patient(ehr: Callable[..., Ehr]) -> None:
    asked = ehr(Patient=bundle(patient("a"), link=[{"relation": "next", "url": f"{BASE}?page=2"}]))
    found = asked.query("identifier").find(ERIN, AT)
    assert (ids(found), found.several) == (["a"], True)
    many = bundle(*(patient(f"p{number}") for number in range(5)))
    found = ehr(Patient=many).query("identifier", at_most=3).find(ERIN)
    assert (len(found.matches), found.several) == (3, True)


@pytest.mark.parametrize(
    ("visits", "expected"),
    [
        ([visit("v", "2026-11-23T09:00:00Z")], "v"),
        ([visit("v", "2026-11-23"), visit("w", "2026-11-20", "2026-11-22")], "v"),
        ([visit("v", "2026-11-23T09:00:00Z"), visit("w", "2026-11-01")], None),
        ([visit("v", "2026-11-23T09:00:00Z", status="cancelled")], None),
        ([visit("v", "2026-11-23T09:00:00Z", subject={"reference": "Patient/b"})], None),
        ([visit("v", "2026-11-23T09:00:00Z", "2026-11-23T09:20:00Z")], None),
        ([visit("v", "2026-11-23T10:21:00+01:00")], None),
    ],
)
def test_the_visit_is_the_only_one_that_covers_the_time(
    ehr: Callable[..., Ehr], visits: list[dict[str, Any]], expected: str | None
) -> None:
    found = ehr(Patient=bundle(patient()), Encounter=bundle(*visits)).query("identifier").find(ERIN, AT)
    (match,) = found.matches
    assert (match.visit and match.visit["id"]) == expected


def test_a_visit_that_could_not_be_stored_is_refused_whole(ehr: Callable[..., Ehr]) -> None:
    for wrong in ({"class": {"code": "A\x00"}}, {"status": "over"}, {"period": {"start": "yesterday"}}):
        told = bundle(visit("v", "2026-11-23", **wrong))
        with pytest.raises(DeliveryError):
            ehr(Patient=bundle(patient()), Encounter=told).query("identifier").find(ERIN, AT)


def test_a_server_without_visits_still_tells_the_patient(ehr: Callable[..., Ehr]) -> None:
    (match,) = ehr(Patient=bundle(patient())).query("identifier").find(ERIN, AT).matches
    assert match.visit is None


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, content=b"<html>signed out</html>"),
        httpx.Response(200, content=b"["),
        httpx.Response(200, content=b"[" * 200_000),
        httpx.Response(200, json=[1]),
        httpx.Response(200, json={"resourceType": "Patient"}),
        bundle(patient(birthDate="23.11.1970")),
        bundle(patient(birthDate="1970-02-31")),
        bundle(patient(identifier={"value": "1"})),
        bundle(patient(name=[{"family": ["Example"]}])),
        bundle(patient(name=[{"family": "Exam\x00ple"}])),
        bundle(patient("a/../b")),
        httpx.Response(
            200, content=b'{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Patient","id":"\\ud800"}}]}'
        ),
        outcome(500),
        outcome(403, "forbidden"),
    ],
)
def test_what_is_no_answer_is_an_error_and_never_nobody(ehr: Callable[..., Ehr], answer: httpx.Response) -> None:
    with pytest.raises(DeliveryError) as told:
        ehr(Patient=answer).query("identifier").find(ERIN)
    assert "4711" not in str(told.value)


def test_a_server_that_is_away_or_too_slow_is_asked_later(ehr: Callable[..., Ehr]) -> None:
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    def slow(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow", request=request)

    for answer in (away, slow, outcome(503)):
        with pytest.raises(DeliveryError) as told:
            ehr(Patient=answer).query("identifier").find(ERIN)
        assert told.value.retry is Retry.LATER


_KEYS = ["resourceType", "entry", "resource", "id", "identifier", "link", "other", "search", "score", "extension"]
_KEYS += ["type", "name", "reference", "parameter", "valueReference", "valueIdentifier", "issue", "details", "code"]
_PATHS = ("Patient", "Patient/$match", "Patient/$ihe-pix", "Encounter", "Patient/1")
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(_JSON, st.sampled_from(["Bundle", "Parameters", "Patient"]), st.sampled_from([200, 301, 400, 404, 422, 500]))
def test_no_answer_whatever_makes_anything_but_a_delivery_error(body: Any, kind: str, status: int) -> None:
    given_ = body | {"resourceType": kind} if isinstance(body, dict) else body
    sent = json.dumps(given_).encode()
    with pytest.MonkeyPatch.context() as patch:
        ehr = Ehr(patch, dict.fromkeys(_PATHS, lambda _: httpx.Response(status, content=sent)))
        for way in ("identifier", "demographics", "match", "cross-reference"):
            try:
                found = ehr.query(way).find(ERIN, AT)
            except DeliveryError:
                continue
            assert all(isinstance(one.patient["id"], str) for one in found.matches)


def test_what_is_kept_of_a_patient_is_what_is_needed(ehr: Callable[..., Ehr]) -> None:
    more: dict[str, Any] = {"photo": [{"data": "AAAA"}], "telecom": [{"value": "555"}], "maritalStatus": {"text": "x"}}
    (match,) = ehr(Patient=bundle(patient(**more))).query("identifier").find(ERIN).matches
    assert match.patient == patient()
    assert "Example" not in repr(match)


def test_which_shipped_profiles_ask_for_patients() -> None:
    offering = {}
    for name in find_shipped_profiles():
        profile = find_profile(build_profile({"based_on": name}, source=name))
        if profile:
            offering[name] = profile.patient_lookup.ways
    assert offering == {
        "epic": ("identifier", "match"),
        "hapi": ("identifier", "demographics"),
        "medplum": ("identifier", "demographics"),
        "oracle-health": ("identifier", "demographics"),
        "sandbox": ("identifier", "demographics", "match", "cross-reference"),
    }


# --- a vendor as it documents itself --------------------------------------------------------------------------------


@pytest.fixture
def epic() -> Iterator[tuple[Vendor, PatientQuery]]:
    with running_vendor("epic") as running:
        profile = find_profile(build_profile(running.destination("x", timeouts={"attempts": 1}), source="x"))
        assert profile is not None
        query = PatientQuery(profile, lambda _: "a-secret")
        running.vendor.admit("4711", "1970-01-01")
        yield running.vendor, query
        query.close()


def test_epic_finds_by_identifier_and_tells_none_from_several(epic: tuple[Vendor, PatientQuery]) -> None:
    _, query = epic
    assert ids(query.find(ERIN)) == ["pat-4711"]
    stranger = Sought(MRN, "9999", family="Example", birth_date="1999-09-09")
    assert query.find(stranger).matches == () and not query.find(stranger).several
    born_alike = Sought(MRN, "9999", family="Example", birth_date="1970-01-01")
    assert query.find(born_alike).matches == () and query.find(born_alike).several


def test_epic_redirects_to_the_survivor_of_a_merge(epic: tuple[Vendor, PatientQuery]) -> None:
    vendor, query = epic
    for number in ("4712", "4713"):
        vendor.admit(number, "1970-01-01")
    vendor.merge("4711", "4712")
    vendor.merge("4712", "4713")
    assert ids(query.find(ERIN)) == ["pat-4713"]


def test_break_the_glass_stays_a_signal_that_is_never_tried_again(epic: tuple[Vendor, PatientQuery]) -> None:
    vendor, query = epic
    vendor.faults = [Fault("refuse", "GET", "/Patient", refusal=Refusal(status=403, code="4130"))]
    with pytest.raises(DeliveryError, match="4130") as told:
        query.find(ERIN)
    assert told.value.retry is Retry.NEVER
