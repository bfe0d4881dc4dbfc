"""What is reached is the same by read, search, include, history, Binary, Bundle and page: scopes, labels, patients."""

from __future__ import annotations

import base64
import re
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from adapter.access import Actor
from adapter.access.policy import MADE_BY, can_see, grants_of
from adapter.access.reach import Reach, sensitivity
from adapter.access.sessions import COOKIE, start_session
from adapter.access.tokens import issue_token
from adapter.bridge import Bridge
from adapter.records import create, create_all, find_where, get, update_resource
from adapter.records.paging import PageCodec
from adapter.records.search import search
from adapter.records.search_filters import CHAIN_LIMIT
from adapter.settings import Settings
from mappings.terms import CONFIDENTIALITY, coding
from tests.access.conftest import RECORDS, Serve, photo
from tests.conftest import Clock
from tests.fhir_api.conftest import InProcess
from tests.web.conftest import Browser, picture, sign_in


def token(bridge: Bridge, scope: str) -> dict[str, str]:
    with bridge.db.transaction() as tx:
        _, secret = issue_token(tx, name="test", scope=scope, at=bridge.now())
    return {"Authorization": f"Bearer {secret}"}


def found(client: httpx.Client, headers: dict[str, str], query: str) -> set[str]:
    answer = client.get(f"/fhir/{query}", headers=headers)
    assert answer.status_code == 200, answer.text
    return {one["resource"]["id"] for one in answer.json().get("entry", [])}


# --- scopes ---------------------------------------------------------------------------------------------------------


def test_a_restricted_scope_holds_for_every_way_to_a_record(serve: Serve) -> None:
    bridge, client = serve()
    own = token(bridge, "system/Media.rs?patient=Patient/p1 system/Patient.rs?_id=p1")
    assert found(client, own, "Media") == {"m1", "overview"}
    assert found(client, own, "Media?patient=p2") == set()
    assert found(client, own, "Patient") == {"p1"}
    assert found(client, own, "Media?_include=Media:patient") == {"m1", "overview", "p1"}
    for path, status in {
        "/fhir/Media/m1": 200,
        "/fhir/Media/m2": 404,
        "/fhir/Media/m1/_history": 200,
        "/fhir/Media/m2/_history": 404,
        "/fhir/Media/m2/_history/1": 404,
        "/fhir/Patient/p2": 404,
        "/fhir/Consent": 403,
        "/captures/m1": 403,  # a restricted scope opens nothing but FHIR, where its restriction is enforced
        "/photos/m1": 403,
    }.items():
        assert client.get(path, headers=own).status_code == status, path
    entries = [{"request": {"method": "GET", "url": f"Media/{one}"}} for one in ("m1", "m2")]
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": entries}
    json = {"Content-Type": "application/fhir+json"}
    answers = client.post("/fhir", json=bundle, headers=own | json).json()["entry"]
    assert [one["response"]["status"][:3] for one in answers] == ["200", "404"]


def test_an_older_version_that_lay_outside_a_restricted_scope_stays_unseen(serve: Serve) -> None:
    bridge, client = serve()
    with bridge.db.transaction() as tx:
        moved = get(tx, "Media", "m2").resource | {"subject": {"reference": "Patient/p1"}}
        update_resource(tx, moved, at=bridge.now())
    own, all_photos = token(bridge, "system/Media.rs?patient=Patient/p1"), token(bridge, "system/Media.rs")
    for headers, status, versions in ((own, 404, ["2"]), (all_photos, 200, ["2", "1"])):
        assert client.get("/fhir/Media/m2/_history/1", headers=headers).status_code == status
        history = client.get("/fhir/Media/m2/_history", headers=headers).json()["entry"]
        assert [one["response"]["etag"] for one in history] == [f'W/"{version}"' for version in versions]
        assert client.get("/fhir/Media/m2/_history/2", headers=headers).status_code == 200


def test_several_restricted_scopes_add_up(serve: Serve) -> None:
    bridge, client = serve()
    both = token(bridge, "system/Media.rs?view=overview system/Media.rs?patient=Patient/p2 system/Media.r")
    assert found(client, both, "Media") == {"overview", "m2"}
    assert client.get("/fhir/Media/m1", headers=both).status_code == 200  # .r of the third reads everything


def test_a_chain_tells_nothing_about_records_out_of_reach(serve: Serve) -> None:
    bridge, client = serve()
    only_media = token(bridge, "system/Media.rs")
    assert found(client, only_media, "Media?patient.family=Lindqvist") == set()
    with_patients = token(bridge, "system/Media.rs system/Patient.s")
    assert found(client, with_patients, "Media?patient.family=Lindqvist") == {"m1", "overview"}


def test_a_restricted_scope_on_every_type_holds_for_each(serve: Serve) -> None:
    bridge, client = serve()
    own = token(bridge, "system/*.rs?_id=m1")
    assert (found(client, own, "Media"), found(client, own, "Patient")) == ({"m1"}, set())


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ("", set()),
        ("system/Patient.r", set()),
        ("system/Patient.s?_id=p2", set()),
        ("system/Patient.s?_id=p1", {"m1", "overview"}),
        ("system/Patient.s?link.family=Lindqvist", set()),
    ],
)
def test_the_chain_of_a_scope_looks_no_further_than_its_owner(serve: Serve, others: str, expected: set[str]) -> None:
    bridge, client = serve()
    asking = token(bridge, f"system/Media.rs?patient.family=Lindqvist {others}")
    assert found(client, asking, "Media") == expected
    assert client.get("/fhir/Media/m1", headers=asking).status_code == (200 if expected else 404)


def test_the_chain_of_a_scope_may_meet_any_number_of_patients(serve: Serve) -> None:
    bridge, client = serve()
    with bridge.db.transaction() as tx:
        many = (
            {"resourceType": "Patient", "id": f"born{n}", "birthDate": "1980-01-01"} for n in range(CHAIN_LIMIT + 1)
        )
        create_all(tx, [*many, photo("of-many", "born7")], at=bridge.now())
    asking = token(bridge, "system/Media.rs?patient.birthdate=1980-01-01 system/Patient.s")
    assert found(client, asking, "Media") == {"of-many"}
    assert client.get("/fhir/Media/of-many", headers=asking).status_code == 200
    assert client.get("/fhir/Media/m1", headers=asking).status_code == 404
    confined = token(bridge, "system/Media.rs?patient.birthdate=1980-01-01 system/Patient.s?_id=p1")
    assert found(client, confined, "Media") == set()


def test_what_is_written_must_lie_within_the_scope(serve: Serve) -> None:
    bridge, client = serve()
    own = token(bridge, "system/BodyStructure.crus?patient=Patient/p1") | {"Content-Type": "application/fhir+json"}

    def lesion(patient_id: str) -> dict[str, Any]:
        return {"resourceType": "BodyStructure", "patient": {"reference": f"Patient/{patient_id}"}}

    made = client.post("/fhir/BodyStructure", json=lesion("p1"), headers=own)
    assert made.status_code == 201
    assert client.post("/fhir/BodyStructure", json=lesion("p2"), headers=own).status_code == 403
    path = "/" + "/".join(made.headers["location"].split("/")[3:6])
    moved = client.put(path, json=lesion("p2") | {"id": path.rpartition("/")[2]}, headers=own)
    assert moved.status_code == 403
    with bridge.db.snapshot() as tx:
        assert [one.resource["patient"]["reference"] for one in find_where(tx, "BodyStructure")] == ["Patient/p1"]


def test_a_photo_is_created_within_a_restricted_scope_alone(serve: Serve) -> None:
    bridge, client = serve()
    json = {"Content-Type": "application/fhir+json"}
    own, overviews = (
        token(bridge, f"system/Media.c?{only}") | json for only in ("patient=Patient/p1", "view=overview")
    )

    def sent(patient_id: str, headers: dict[str, str]) -> int:
        content = {"contentType": "image/jpeg", "data": base64.b64encode(picture()).decode()}
        taken = {"subject": {"reference": f"Patient/{patient_id}"}, "createdDateTime": "2026-11-23T09:10:00Z"}
        media = {"resourceType": "Media", "status": "completed", "content": content} | taken
        return client.post("/fhir/Media", json=media, headers=headers).status_code

    assert (sent("p2", own), sent("p1", own), sent("p1", own)) == (403, 201, 200)
    assert sent("p1", overviews) == 403  # nor is it told that this photo is here
    with bridge.db.snapshot() as tx:
        assert len(find_where(tx, "Media")) == len([one for one in RECORDS if one["resourceType"] == "Media"]) + 1


def test_a_consent_is_created_within_a_restricted_scope_alone(serve: Serve) -> None:
    bridge, client = serve()
    own = token(bridge, "system/Consent.c?patient=Patient/p1") | {"Content-Type": "application/fhir+json"}

    def said(patient_id: str) -> int:
        use = {"system": "https://dermbridge.org/fhir/CodeSystem/photo-use", "code": "teaching"}
        consented = {
            "resourceType": "Consent",
            "status": "active",
            "scope": {"coding": [{"code": "patient-privacy"}]},
            "category": [{"coding": [use]}],
            "patient": {"reference": f"Patient/{patient_id}"},
            "dateTime": "2026-11-01",
            "policyRule": {"coding": [{"code": "OPTIN"}]},
            "provision": {"type": "permit"},
        }
        return client.post("/fhir/Consent", json=consented, headers=own).status_code

    assert (said("p2"), said("p1")) == (403, 201)


def test_a_capture_device_creates_and_reads_nothing(serve: Serve) -> None:
    bridge, client = serve()
    device = token(bridge, "system/Media.c")
    for path in (
        "/fhir/Media/m1",
        "/fhir/Media",
        "/fhir/Patient",
        "/captures/m1",
        "/captures/m1/display",
        "/photos/m1",
    ):
        assert client.get(path, headers=device).status_code == 403, path


# --- sensitivity ----------------------------------------------------------------------------------------------------


@pytest.fixture
def charts(serve: Serve) -> tuple[Bridge, httpx.Client, Any]:
    bridge, client = serve(emergency_minutes=30)
    return bridge, client, client._transport._inner.app  # type: ignore[attr-defined]


def test_a_very_restricted_photo_is_open_to_those_with_the_right_alone(
    charts: tuple[Bridge, httpx.Client, Any],
) -> None:
    bridge, client, _ = charts
    plain, raised = token(bridge, "system/Media.rs"), token(bridge, "system/Media.rs right/very-restricted")
    assert found(client, plain, "Media?patient=p1") == {"m1", "overview"}
    assert found(client, raised, "Media?patient=p1") == {"m1", "overview", "secret"}
    assert client.get("/fhir/Media?patient=p1&_total=accurate", headers=plain).json()["total"] == 2
    for path in ("/fhir/Media/secret", "/fhir/Media/secret/_history", "/fhir/Media/secret/_history/1"):
        assert client.get(path, headers=plain).status_code == 404, path
        assert client.get(path, headers=raised).status_code == 200, path


def restrict(bridge: Bridge, media_id: str) -> None:
    with bridge.db.transaction() as tx:
        photo = get(tx, "Media", media_id).resource
        photo["meta"]["security"] = [coding(CONFIDENTIALITY, "R")]
        update_resource(tx, photo, at=bridge.now())


def test_a_restricted_photo_is_open_to_roles_that_treat_in_their_charts_and_to_tokens_with_the_right(
    charts: tuple[Bridge, httpx.Client, Any],
) -> None:
    bridge, client, app = charts
    restrict(bridge, "m1")
    assert in_chart(bridge, app).get("/photos/m1").status_code == 200
    assert sign_in(bridge, app, "photographer", "p1").get("/photos/m1").status_code == 200
    assert sign_in(bridge, app, "clinician", "p2").get("/photos/m1").status_code == 404
    administrator = sign_in(bridge, app, "administrator", None)
    assert administrator.get("/photos/m1").status_code == 403
    assert "2 restricted photos" in administrator.get("/patients/p1").text
    plain, raised = token(bridge, "system/Media.rs"), token(bridge, "system/Media.rs right/restricted")
    assert found(client, plain, "Media?patient=p1") == {"overview"}
    assert found(client, raised, "Media?patient=p1") == {"m1", "overview"}
    assert client.get("/fhir/Media/m1", headers=plain).status_code == 404


@pytest.mark.parametrize("resource_type", sorted(MADE_BY))
@pytest.mark.parametrize("level", ["U", "N", "R", "V", "RV"])
def test_one_record_and_a_search_agree_on_every_level(bridge: Bridge, resource_type: str, level: str) -> None:
    maker: Any = {"reference": "https://north.example/fhir/Practitioner/a"}
    made_by = {"Media": {"operator": maker}, "Observation": {"performer": [maker]}}[resource_type]
    labels = {"security": [coding(CONFIDENTIALITY, level)]}
    record = {"resourceType": resource_type, "id": "x", "meta": labels, **made_by}
    with bridge.db.transaction() as tx:
        create(tx, record, at=bridge.now())
    rights: list[frozenset[str]] = [frozenset(), frozenset({"restricted"}), frozenset({"very-restricted"})]
    for who in (maker["reference"], "https://south.example/fhir/Practitioner/a", "Practitioner/a"):
        for of in rights:
            for emergency in (None, "ETREAT"):
                actor = Actor("person", who, "A", "clinician", rights=of, emergency=emergency)
                with bridge.db.snapshot() as tx:
                    searched = bool(find_where(tx, resource_type, *sensitivity(actor, resource_type)))
                open_to_all = level in ("U", "N") or who == maker["reference"] or emergency is not None
                expected = open_to_all or "very-restricted" in of or (level == "R" and "restricted" in of)
                assert can_see(actor, record) == searched == expected, (who, of, emergency)


@pytest.mark.parametrize("db_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("asked", "index"),
    [((), "ix_media_open_created"), ((("site", "http://snomed.info/sct|1"),), "ix_media_open_site_created")],
)
def test_who_may_see_no_restricted_photo_does_not_search_through_those(
    bridge: Bridge, asked: tuple[tuple[str, str], ...], index: str
) -> None:
    """On PostgreSQL the plan depends on the number of rows."""
    actor, statements = Actor("machine", "m", "M", "machine", frozenset({"system/Media.s"})), []
    event.listen(bridge.db.engine, "before_cursor_execute", lambda *args: statements.append((args[2], args[3])))
    with bridge.db.snapshot() as tx:
        reach, codec = Reach(tx, actor, bridge.now()), PageCodec(b"a secret of the test", bridge.now)
        search(tx, "Media", asked, patient_ids=None, codec=codec, reached=reach.alternatives)
        statement, values = next(one for one in statements if "ORDER BY" in one[0])
        plan = "\n".join(row.detail for row in tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values))
    assert set(re.findall(r"ix_media_\w+", plan)) == {index, "ix_media_operator_level_created"}, plan


def test_the_timeline_says_how_many_photos_need_more(charts: tuple[Bridge, httpx.Client, Any]) -> None:
    bridge, _, app = charts
    page = sign_in(bridge, app, "clinician", "p1").get("/patients/p1")
    assert "1 restricted photo" in page.text
    assert "/photos/secret" not in page.text


def in_chart(bridge: Bridge, app: Any) -> Browser:
    """A clinician whom an EHR launched into the chart of p1."""
    scopes, rights = grants_of("clinician")
    ehr = "https://ehr.test/fhir"
    actor = Actor("person", "Practitioner/c", "Dr. C", "clinician", scopes, rights, patient_id="p1", ehr=ehr)
    with bridge.db.transaction() as tx:
        cookie, session = start_session(tx, actor, at=bridge.now(), lifetime=timedelta(hours=8))
    client = httpx.Client(transport=InProcess(app), base_url="http://testserver", cookies={COOKIE: cookie})
    return Browser(client, session.csrf)


def broken(browser: Browser, **fields: str) -> Any:
    given = {"reason": "ETREAT", "why": "bleeding wound seen in clinic"} | fields
    return browser.post("/break-glass", given)


def test_breaking_the_glass_opens_the_chart_for_a_while_and_is_in_the_audit_log(
    charts: tuple[Bridge, httpx.Client, Any], clock: Clock
) -> None:
    bridge, _, app = charts
    browser = in_chart(bridge, app)
    assert browser.get("/photos/secret").status_code == 403
    assert broken(browser).status_code == 303
    page = browser.get("/photos/secret")
    assert page.status_code == 200
    assert "every access is recorded" in page.text
    with bridge.db.snapshot() as tx:
        events = [one.resource for one in find_where(tx, "AuditEvent")]
    (event,) = [one for one in events if any(code["code"] == "110127" for code in one.get("subtype", []))]
    assert "ETREAT" in str(event) and "bleeding wound" in str(event)
    for _ in range(3):
        clock.advance(minutes=10)
        last = browser.get("/photos/secret").status_code
    assert last == 403
    assert browser.get("/photos/m1").status_code == 200


def test_the_glass_can_be_mended_before_its_time(charts: tuple[Bridge, httpx.Client, Any]) -> None:
    bridge, _, app = charts
    browser = in_chart(bridge, app)
    broken(browser)
    assert browser.post("/break-glass/end").status_code == 303
    assert browser.get("/photos/secret").status_code == 403


@pytest.mark.parametrize("fields", [{"why": "because"}, {"reason": "CURIOSITY"}, {"reason": ""}, {"why": ""}])
def test_the_glass_is_not_broken_without_a_reason(
    charts: tuple[Bridge, httpx.Client, Any], fields: dict[str, str]
) -> None:
    bridge, _, app = charts
    browser = sign_in(bridge, app, "clinician", "p1")
    assert broken(browser, **fields).status_code == 400
    assert browser.get("/photos/secret").status_code == 403


@pytest.mark.parametrize("role", ["engineer", "administrator"])
def test_who_sees_every_chart_cannot_break_the_glass(charts: tuple[Bridge, httpx.Client, Any], role: str) -> None:
    bridge, _, app = charts
    assert broken(sign_in(bridge, app, role, None)).status_code in (403, 404)


def test_staff_outside_the_ehr_reach_the_one_patient_they_name_by_number_and_birth_date(
    charts: tuple[Bridge, httpx.Client, Any], clock: Clock
) -> None:
    bridge, _, app = charts
    browser = sign_in(bridge, app, "clinician", "")
    assert browser.get("/patients/p1").status_code == 404
    assert browser.get("/").headers["location"] == "/charts"
    assert broken(browser, number="1001", birth_date="1990-01-01").status_code == 404
    assert broken(browser, number="1001", birth_date="1961-03-12").status_code == 303
    assert browser.get("/patients/p1").status_code == 200
    assert browser.get("/patients/p2").status_code == 404
    clock.advance(minutes=10)
    assert browser.get("/patients/p1").status_code == 200
    browser.post("/break-glass/end")
    assert browser.get("/patients/p1").status_code == 404


def test_the_embedded_default_of_an_emergency_is_an_hour() -> None:
    assert timedelta(minutes=Settings().emergency_minutes) == timedelta(hours=1)


@pytest.mark.parametrize("named", ["%06", "p2%20OR%201", "x" * 300])
def test_an_address_that_names_no_record_is_refused_like_any_other(
    charts: tuple[Bridge, httpx.Client, Any], named: str
) -> None:
    bridge, _, app = charts
    assert sign_in(bridge, app, "clinician", "p1").get(f"/patients/{named}").status_code == 404
    with bridge.db.snapshot() as tx:
        assert [one for one in find_where(tx, "AuditEvent") if "110132" in str(one.resource["subtype"])]
