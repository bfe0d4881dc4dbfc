"""FHIR search: each kind of parameter, the edges of dates, pages that neither lose nor repeat, and confinement."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from adapter.bridge import Bridge
from adapter.errors import BadInput, Gone
from adapter.records import create_all, delete
from adapter.records.date_intervals import date_interval
from adapter.records.paging import PageCodec
from adapter.records.search import PAGE, Page, search
from tests.conftest import Clock

Json = dict[str, Any]
Ask = Callable[..., Page]
SNOMED = "http://snomed.info/sct"
HOSPITAL = "urn:oid:2.16.840.1.113883.19.5"
VIEW = "https://dermbridge.org/fhir/CodeSystem/photo-view"
BASE = "https://photos.example/fhir"
SHARED_BRIDGE = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def patient(patient_id: str, family: str = "Muster", given: str = "Anna", **more: Any) -> Json:
    name = [{"family": family, "given": [given]}]
    identifier = [{"system": HOSPITAL, "value": f"MRN-{patient_id}"}]
    return {"resourceType": "Patient", "id": patient_id, "name": name, "identifier": identifier, **more}


def media(
    media_id: str, patient_id: str | None = "p1", created: str | None = "2026-11-20T10:00:00Z", **more: Any
) -> Json:
    resource = {"resourceType": "Media", "id": media_id, "status": "completed", **more}
    if patient_id:
        resource["subject"] = {"reference": f"Patient/{patient_id}"}
    return resource | ({"createdDateTime": created} if created else {})


def site(code: str, system: str = SNOMED) -> Json:
    return {"bodySite": {"coding": [{"system": system, "code": code}]}}


def add(bridge: Bridge, *resources: Json) -> None:
    with bridge.db.transaction() as tx:
        create_all(tx, resources, at=bridge.now())


@pytest.fixture
def ask(bridge: Bridge) -> Ask:
    codec = PageCodec(b"a secret of the test", bridge.now)

    def run(
        resource_type: str, *params: tuple[str, str], patient_ids: Iterable[str] | None = None, **options: Any
    ) -> Page:
        within = None if patient_ids is None else frozenset(patient_ids)
        with bridge.db.snapshot() as tx:
            return search(tx, resource_type, params, patient_ids=within, codec=codec, base_url=BASE, **options)

    return run


def ids(page: Page) -> list[str]:
    return [one.id for one in page.entries]


# --- tokens, references, strings ------------------------------------------------------------------------------------


def test_a_token_is_found_by_code_by_system_and_code_and_by_either_of_two(bridge: Bridge, ask: Ask) -> None:
    add(
        bridge,
        media("m1", **site("40983000")),
        media("m2", **site("40983000", "urn:other")),
        media("m3", **site("409830001")),
        media("m4"),
    )
    assert sorted(ids(ask("Media", ("site", "40983000")))) == ["m1", "m2"]
    assert ids(ask("Media", ("site", f"{SNOMED}|40983000"))) == ["m1"]
    assert ids(ask("Media", ("site", "|40983000"))) == []
    assert sorted(ids(ask("Media", ("site", f"{SNOMED}|")))) == ["m1", "m3"]
    assert sorted(ids(ask("Media", ("site", f"{SNOMED}|40983000,409830001")))) == ["m1", "m3"]
    assert ids(ask("Media", ("status", "completed"), ("site", "409830001"))) == ["m3"]
    assert sorted(ids(ask("Media", ("site:not", "40983000")))) == ["m3", "m4"]
    assert ids(ask("Media", ("site:missing", "true"))) == ["m4"]
    assert sorted(ids(ask("Media", ("site:missing", "false")))) == ["m1", "m2", "m3"]


def test_an_identifier_may_hold_the_letters_that_search_uses(bridge: Bridge, ask: Ask) -> None:
    add(bridge, media("m1", identifier=[{"system": "urn:a", "value": "x,y|z"}, {"value": "plain"}]), media("m2"))
    assert ids(ask("Media", ("identifier", r"urn:a|x\,y\|z"))) == ["m1"]
    assert ids(ask("Media", ("identifier", "|plain"))) == ["m1"]
    assert ids(ask("Media", ("identifier", "plain"))) == ["m1"]
    assert ids(ask("Media", ("identifier:not", "plain"))) == ["m2"]
    assert ids(ask("Media", ("identifier:missing", "true"))) == ["m2"]


def test_a_reference_is_found_however_it_is_written(bridge: Bridge, ask: Ask) -> None:
    add(
        bridge,
        media("m1", operator={"reference": "Practitioner/d1"}, encounter={"reference": "Encounter/e1"}),
        media("m2", "p2", operator={"reference": "https://ehr.example/Practitioner/d1"}),
        media("m3", None),
    )
    for text in ("p1", "Patient/p1", f"{BASE}/Patient/p1"):
        assert ids(ask("Media", ("patient", text))) == ["m1"], text
    assert sorted(ids(ask("Media", ("patient", "p1,Patient/p2")))) == ["m1", "m2"]
    assert ids(ask("Media", ("subject:Patient", "p1"))) == ["m1"]
    assert ids(ask("Media", ("patient", "Group/p1"))) == []
    assert ids(ask("Media", ("patient:missing", "true"))) == ["m3"]
    assert ids(ask("Media", ("encounter", "Encounter/e1"))) == ["m1"]
    assert ids(ask("Media", ("operator", "d1"))) == ["m1"]
    assert ids(ask("Media", ("operator:Practitioner", "d1"))) == ["m1"]
    assert ids(ask("Media", ("operator", "https://ehr.example/Practitioner/d1"))) == ["m2"]


def test_photos_are_found_by_the_identifier_of_the_patient_known_or_only_announced(bridge: Bridge, ask: Ask) -> None:
    waiting = {"subject": {"identifier": {"system": HOSPITAL, "value": "MRN-late"}}}
    add(bridge, patient("p1"), patient("p2"), media("m1"), media("m2", "p2"), media("m3", None) | waiting)
    assert ids(ask("Media", ("patient.identifier", f"{HOSPITAL}|MRN-p1"))) == ["m1"]
    assert ids(ask("Media", ("subject:Patient.identifier", "MRN-p2"))) == ["m2"]
    assert ids(ask("Media", ("patient.identifier", "MRN-nobody"))) == []
    assert ids(ask("Media", ("subject:identifier", f"{HOSPITAL}|MRN-late"))) == ["m3"]
    assert ids(ask("Media", ("patient.identifier", "MRN-p2"), patient_ids=["p1"])) == []


def test_names_are_found_without_case_and_accents_unless_asked_exactly(bridge: Bridge, ask: Ask) -> None:
    add(
        bridge,
        patient("p1", "Müller", birthDate="1980-05-12"),
        patient("p2", "muller", birthDate="1980"),
        patient("p3", "Möllering", birthDate="1981-01-01", active=False),
    )
    assert sorted(ids(ask("Patient", ("family", "MULL")))) == ["p1", "p2"]
    assert ids(ask("Patient", ("family:exact", "Müller"))) == ["p1"]
    assert ids(ask("Patient", ("family:contains", "ERING"))) == ["p3"]
    assert ids(ask("Patient", ("family:contains", "%"))) == []
    assert sorted(ids(ask("Patient", ("birthdate", "1980")))) == ["p1", "p2"]
    assert ids(ask("Patient", ("birthdate", "1980-05"))) == ["p1"]
    assert ids(ask("Patient", ("birthdate", "gt1980"))) == ["p3"]
    assert ids(ask("Patient", ("active", "false"))) == ["p3"]
    assert sorted(ids(ask("Patient", ("_id", "p1,p3")))) == ["p1", "p3"]


def test_provenance_and_audit_follow_a_patient_through_merges(bridge: Bridge, ask: Ask) -> None:
    def event_of(name: str, patient_id: str) -> Json:
        what = [{"what": {"reference": f"Patient/{patient_id}"}}]
        return {"resourceType": "AuditEvent", "id": name, "recorded": "2026-11-20T10:00:00Z", "entity": what}

    replaced = [{"type": "replaced-by", "other": {"reference": "Patient/new"}}]
    target = [{"reference": "Patient/old/_history/3"}, {"reference": "Media/m1"}]
    add(
        bridge,
        patient("old", link=replaced),
        patient("new"),
        patient("other"),
        media("m1", "new"),
        event_of("a1", "old"),
        event_of("a2", "new"),
        event_of("a3", "other"),
        {"resourceType": "Provenance", "id": "v1", "recorded": "2026-11-20T10:00:00Z", "target": target},
    )
    assert ids(ask("Media", ("patient", "old"))) == ["m1"]
    assert sorted(ids(ask("AuditEvent", ("patient", "new")))) == ["a1", "a2"]
    assert sorted(ids(ask("AuditEvent", ("patient", "old")))) == ["a1", "a2"]
    assert ids(ask("Provenance", ("target", "Patient/new"))) == ["v1"]
    assert ids(ask("Patient", ("_id", "old"))) == ["old"]


def test_unknown_names_are_refused_strictly_and_left_out_leniently(bridge: Bridge, ask: Ask) -> None:
    add(bridge, media("m1"))
    for name in ("colour", "site:below", "created:exact", "patient.colour", "operator.family", "_has:Consent:x"):
        with pytest.raises(BadInput) as refused:
            ask("Media", (name, "x"))
        assert refused.value.issue_type == "not-supported", name
    with pytest.raises(BadInput, match="known: _id, _lastUpdated, identifier, patient"):
        ask("Media", ("colour", "x"))
    page = ask("Media", ("colour", "x"), ("status", "completed"), lenient=True)
    assert (ids(page), page.ignored, page.self_params) == (["m1"], ("colour",), (("status", "completed"),))


MALFORMED = [
    ("created", "yesterday"),
    ("created", "20261120"),
    ("created", "ge2026-13"),
    ("_count", "-1"),
    ("_count", "²"),
    ("_total", "some"),
    ("_sort", "identifier"),
    ("_include", "Media:colour"),
    ("_revinclude", "Media:patient"),
    ("site:missing", "maybe"),
]


def test_a_malformed_value_is_the_senders_error(ask: Ask) -> None:
    for param in MALFORMED:
        with pytest.raises(BadInput):
            ask("Media", param)


NAMES = [
    "_id",
    "_lastUpdated",
    "_count",
    "_sort",
    "_total",
    "_elements",
    "_include",
    "_summary",
    "created",
    "identifier",
    "lesion",
    "operator",
    "patient",
    "patient:missing",
    "patient.identifier",
    "site",
    "site:not",
    "status",
    "subject:identifier",
    PAGE,
]
TRICKY = st.text(st.sampled_from("ab09|,\\\\$:/.-%_'\"+ TZegäß😀"), max_size=30)


@SHARED_BRIDGE
@given(params=st.lists(st.tuples(st.sampled_from(NAMES), TRICKY | st.text(max_size=20)), max_size=3))
def test_any_query_finds_or_is_refused_but_never_breaks(
    bridge: Bridge, ask: Ask, params: list[tuple[str, str]]
) -> None:
    if not ask("Media").entries:
        add(bridge, patient("p1"), media("m1", **site("1")))
    try:
        ask("Media", *((name, value.replace("\x00", "")) for name, value in params))
    except BadInput as refused:
        assert str(refused)


@pytest.mark.parametrize("name", ["status", "status:not", "identifier", "created", "subject"])
def test_commas_without_a_value_find_nothing_instead_of_everything(bridge: Bridge, ask: Ask, name: str) -> None:
    add(bridge, patient("p1"), media("m1"))
    with pytest.raises(BadInput, match="no value"):
        ask("Media", (name, ",,"))


# --- dates ----------------------------------------------------------------------------------------------------------

STORED_DATES = [
    "2025",
    "2026",
    "2026-11",
    "2026-11-22",
    "2026-11-23",
    "2026-11-23T00:00:00Z",
    "2026-11-23T09:30:00Z",
    "2026-11-23T09:30:01Z",
    "2026-11-23T23:59:59Z",
    "2026-11-24T00:30:00+01:00",
    "2026-12-31",
    "2027-01-01T00:00:00Z",
]
SEARCHED_DATES = [*STORED_DATES, "2026-11-23T09:30Z", "2026-11-23T09:29:59Z", "2026-10", "9999-12-31", "0001"]
Span = tuple[datetime, datetime]
ORACLE: dict[str, Callable[[Span, Span], bool]] = {  # the words of the specification: (kept, asked)
    "eq": lambda kept, asked: asked[0] <= kept[0] and kept[1] <= asked[1],
    "ne": lambda kept, asked: not (asked[0] <= kept[0] and kept[1] <= asked[1]),
    "gt": lambda kept, asked: kept[1] > asked[1],
    "lt": lambda kept, asked: kept[0] < asked[0],
    "ge": lambda kept, asked: kept[1] > asked[1] or (asked[0] <= kept[0] and kept[1] <= asked[1]),
    "le": lambda kept, asked: kept[0] < asked[0] or (asked[0] <= kept[0] and kept[1] <= asked[1]),
    "sa": lambda kept, asked: kept[0] >= asked[1],
    "eb": lambda kept, asked: kept[1] <= asked[0],
}


@SHARED_BRIDGE
@given(prefix=st.sampled_from(sorted(ORACLE)), text=st.sampled_from(SEARCHED_DATES))
def test_dates_compare_as_intervals_of_their_precision(bridge: Bridge, ask: Ask, prefix: str, text: str) -> None:
    if not ask("Media").entries:
        add(
            bridge,
            *(media(f"m{n:02}", created=created) for n, created in enumerate(STORED_DATES)),
            media("none", created=None),
        )
    expected = {
        f"m{n:02}" for n, kept in enumerate(STORED_DATES) if ORACLE[prefix](date_interval(kept), date_interval(text))
    }
    assert set(ids(ask("Media", ("created", f"{prefix}{text}")))) == expected
    if prefix == "eq":
        assert set(ids(ask("Media", ("created", text)))) == expected


def test_approximate_dates_are_wider_the_longer_ago_they_are(bridge: Bridge, ask: Ask) -> None:
    add(bridge, media("near", created="2026-11-13"), media("far", created="2025-01-01"))
    assert ids(ask("Media", ("created", "ap2026-11-14"))) == ["near"]
    assert ids(ask("Media", ("created", "ap2026-11-20"))) == []
    assert ids(ask("Media", ("created", "ap2025-02-20"))) == ["far"]


def test_an_encounter_that_has_not_ended_overlaps_every_later_day(bridge: Bridge, ask: Ask) -> None:
    def visit(name: str, **period: str) -> Json:
        return {"resourceType": "Encounter", "id": name, "status": "in-progress", "period": period}

    add(bridge, visit("open", start="2026-11-01"), visit("over", start="2026-11-01", end="2026-11-03"), visit("never"))
    assert ids(ask("Encounter", ("date", "gt2026-11-20"))) == ["open"]
    assert ids(ask("Encounter", ("date", "eb2026-11-04"))) == ["over"]
    assert ids(ask("Encounter", ("date", "2026-11"))) == ["over"]
    assert ids(ask("Encounter", ("date:missing", "true"))) == ["never"]


def test_last_updated_tells_changes_since(bridge: Bridge, ask: Ask, clock: Clock) -> None:
    add(bridge, media("m1"))
    clock.advance(hours=1)
    add(bridge, media("m2"))
    assert ids(ask("Media", ("_lastUpdated", "ge2026-11-23T10:30:00Z"))) == ["m2"]
    assert ids(ask("Media", ("_sort", "_lastUpdated"))) == ["m1", "m2"]


# --- pages ----------------------------------------------------------------------------------------------------------


def walk(ask: Ask, page: Page, way: str) -> list[list[str]]:
    pages = [ids(page)]
    while token := getattr(page, way):
        page = ask("Media", (PAGE, token))
        pages.append(ids(page))
    return pages


def last_page(ask: Ask, page: Page) -> Page:
    while page.next:
        page = ask("Media", (PAGE, page.next))
    return page


MANY = [
    media(f"m{n:02}", created=None if n % 5 == 0 else f"2026-11-{1 + n % 4:02}", **(site("1") if n % 3 else {}))
    for n in range(23)
]


@SHARED_BRIDGE
@given(
    count=st.integers(1, 25),
    order=st.sampled_from(
        [
            "",
            "created",
            "-created",
            "site,-created",
            "-site,created",
            "_id",
            "-_id",
            "-_lastUpdated",
            "created,-created",
        ]
    ),
)
def test_pages_hold_every_item_exactly_once_in_both_directions(
    bridge: Bridge, ask: Ask, count: int, order: str
) -> None:
    if not ask("Media").entries:
        add(bridge, *MANY)
    first = ask("Media", ("_count", str(count)), ("_sort", order))
    forward = walk(ask, first, "next")
    flat = [one for page in forward for one in page]
    assert sorted(flat) == [one["id"] for one in MANY]
    assert flat == ids(ask("Media", ("_count", "100"), ("_sort", order)))
    backward = walk(ask, last_page(ask, first), "previous")
    assert [one for page in reversed(backward) for one in page] == flat


def test_alternatives_of_one_filter_come_in_one_order_each_once(bridge: Bridge, ask: Ask) -> None:
    add(bridge, *(media(f"m{n:02}", created=f"2026-11-{1 + n:02}", **site(str(n % 12))) for n in range(24)))
    for sites in ("1,2,1", "1,2,3,4,5,6,7,8,9,10", f"{SNOMED}|1,2", "1,99"):
        codes = {one.rpartition("|")[2] for one in sites.split(",")}
        expected = [f"m{n:02}" for n in reversed(range(24)) if str(n % 12) in codes]
        first = ask("Media", ("site", sites), ("_count", "3"), ("_total", "accurate"))
        assert ([one for page in walk(ask, first, "next") for one in page], first.total) == (expected, len(expected))
        backward = walk(ask, last_page(ask, first), "previous")
        assert [one for page in reversed(backward) for one in page] == expected
    with pytest.raises(BadInput):
        ask("Media", ("site", ",".join(str(n) for n in range(201))))


def test_missing_values_come_last_whichever_way_is_sorted(bridge: Bridge, ask: Ask) -> None:
    add(bridge, media("a", created=None), media("b", created="2026-11-01"), media("c", created="2026-11-02"))
    assert ids(ask("Media", ("_sort", "created"))) == ["b", "c", "a"]
    assert ids(ask("Media", ("_sort", "-created"))) == ["c", "b", "a"]


def test_pages_neither_lose_nor_repeat_while_photos_arrive_and_go(bridge: Bridge, ask: Ask, clock: Clock) -> None:
    add(bridge, *MANY)
    page, seen, arrived = ask("Media", ("_count", "4")), [], 0
    while True:
        seen += ids(page)
        if not page.next:
            break
        arrived += 1
        add(bridge, media(f"new{arrived}", created=f"2026-11-{10 + arrived:02}"))
        with bridge.db.transaction() as tx:
            delete(tx, "Media", seen[-1], at=clock())
        page = ask("Media", (PAGE, page.next))
    assert len(seen) == len(set(seen))
    assert set(seen) >= {one["id"] for one in MANY}


def test_a_page_link_hides_its_query_expires_and_is_of_no_use_elsewhere(bridge: Bridge, ask: Ask, clock: Clock) -> None:
    add(bridge, patient("p1"), *MANY)
    token = ask("Media", ("patient.identifier", "MRN-p1"), ("_count", "2")).next
    assert token is not None
    assert "MRN" not in token
    assert len(ids(ask("Media", (PAGE, token)))) == 2
    assert ids(ask("Media", (PAGE, token), patient_ids=["p2"])) == []
    for wrong in (token[:-2] + "AA", "", "x", token.swapcase(), "é"):
        if wrong:
            with pytest.raises(BadInput):
                ask("Media", (PAGE, wrong))
    with pytest.raises(BadInput):
        ask("Consent", (PAGE, token))
    clock.advance(hours=1)
    with pytest.raises(Gone):
        ask("Media", (PAGE, token))


def test_totals_are_counted_only_when_asked(bridge: Bridge, ask: Ask) -> None:
    add(bridge, *MANY)
    assert ask("Media").total is None
    assert ask("Media", ("_total", "accurate"), ("_count", "3")).total == 23
    counted = ask("Media", ("_summary", "count"), ("site", "1"))
    assert (counted.total, counted.entries) == (15, [])
    assert ask("Media", ("_count", "0")).total == 23
    assert len(ask("Media", ("_count", "1000"), max_count=7).entries) == 7


INDEXED: list[tuple[tuple[str, str], ...]] = [
    (),
    (("patient", "p1"),),
    (("patient", "p1"), ("created", "ge2026-01-01"), ("created", "lt2026-11-04")),
    (("site", "1"),),
    (("created", "gt2026-01-01"), ("status", "completed")),
    (("_sort", "_lastUpdated"),),
]


@pytest.mark.parametrize("db_url", ["sqlite"], indirect=True)
def test_a_deep_page_is_a_range_of_an_index_without_sorting(bridge: Bridge, ask: Ask) -> None:
    """On PostgreSQL the plan depends on the number of rows; benchmarks/search.py measures it."""
    add(bridge, *MANY)
    asked: list[tuple[str, Any]] = []
    event.listen(bridge.db.engine, "before_cursor_execute", lambda *args: asked.append((args[2], args[3])))
    for params in INDEXED:
        page = ask("Media", *params, ("_count", "2"))
        asked.clear()
        ask("Media", (PAGE, str(page.next)))
        statement, values = next(one for one in asked if "ORDER BY" in one[0])
        with bridge.db.snapshot() as tx:
            plan = " ".join(row.detail for row in tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values))
        assert "SEARCH media USING INDEX" in plan, params
        assert "SCAN media" not in plan, params
        assert "ORDER BY" not in plan or "UNION ALL" in plan, params  # alternatives: each limited, then merged


# --- includes and confinement ---------------------------------------------------------------------------------------


def test_includes_follow_references_and_iterate_when_asked(bridge: Bridge, ask: Ask) -> None:
    add(
        bridge,
        patient("p1"),
        {"resourceType": "Encounter", "id": "e1", "status": "finished", "subject": {"reference": "Patient/p1"}},
        media("m1", encounter={"reference": "Encounter/e1"}, operator={"reference": "Practitioner/gone"}),
        {"resourceType": "Provenance", "id": "v1", "target": [{"reference": "Media/m1/_history/1"}]},
    )

    def included(*params: tuple[str, str], **options: Any) -> list[str]:
        return sorted(one.reference for one in ask("Media", *params, **options).includes)

    assert included() == []
    assert included(("_include", "Media:patient")) == ["Patient/p1"]
    assert included(("_include", "Media:subject:Group")) == []
    assert included(("_include", "Media:encounter"), ("_include", "Encounter:patient")) == ["Encounter/e1"]
    both = (("_include", "Media:encounter"), ("_include:iterate", "Encounter:patient"))
    assert included(*both) == ["Encounter/e1", "Patient/p1"]
    assert included(("_include", "Media:operator")) == []
    assert included(("_revinclude", "Provenance:target")) == ["Provenance/v1"]
    assert included(*both, may_include=lambda name: name != "Patient") == ["Encounter/e1"]


def test_a_session_sees_only_its_patient_in_entries_includes_and_totals(bridge: Bridge, ask: Ask) -> None:
    target = [{"reference": "Media/m2"}]
    add(
        bridge,
        patient("p1"),
        patient("p2"),
        media("m1"),
        media("m2", "p2"),
        media("m3", None),
        {"resourceType": "Provenance", "id": "v2", "target": target},
        {"resourceType": "Device", "id": "camera"},
        {"resourceType": "Device", "id": "implant", "patient": {"reference": "Patient/p2"}},
        {"resourceType": "Practitioner", "id": "d1"},
    )
    page = ask("Media", ("_total", "accurate"), patient_ids=["p1"])
    assert (ids(page), page.total, page.patient_ids) == (["m1"], 1, {"p1"})
    assert ids(ask("Media", ("patient", "p2"), patient_ids=["p1"])) == []
    assert ids(ask("Patient", patient_ids=["p1"])) == ["p1"]
    assert ids(ask("Provenance", patient_ids=["p1"])) == []
    assert ids(ask("Provenance", patient_ids=["p2"])) == ["v2"]
    assert ids(ask("Device", patient_ids=["p1"])) == ["camera"]
    assert ids(ask("Practitioner", patient_ids=["p1"])) == ["d1"]
    assert ask("Media", patient_ids=None).patient_ids == {"p1", "p2"}


def test_deleted_photos_are_found_no_more(bridge: Bridge, ask: Ask, clock: Clock) -> None:
    add(bridge, patient("p1"), media("m1", identifier=[{"value": "one"}]))
    with bridge.db.transaction() as tx:
        delete(tx, "Media", "m1", at=clock())
    assert ids(ask("Media")) == ids(ask("Media", ("identifier", "one"))) == []


# --- date intervals -------------------------------------------------------------------------------------------------


@given(st.datetimes(timezones=st.just(UTC)), st.sampled_from([4, 7, 10, 16, 19]))
def test_a_date_stands_for_all_moments_of_its_precision(moment: datetime, letters: int) -> None:
    text = moment.replace(microsecond=0).isoformat()[:letters] + ("Z" if letters > 10 else "")
    low, high = date_interval(text)
    assert low <= moment.replace(microsecond=0) < high
    assert high - low <= timedelta(days=366)
