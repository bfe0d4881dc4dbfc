"""Generated from the route table: whatever shows or changes something of a patient leaves an AuditEvent.

A new route fails here until it is tried, or it is said why it touches no patient.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from adapter.bridge import Bridge
from adapter.db.tables import audit_event
from adapter.fhir_api.offered import INTERACTIONS
from adapter.governance import settle
from adapter.records import create, find_where
from adapter.web.routes import GET, POST, STREAMED
from tests.web.conftest import Browser, picture, sign_in
from tests.web.test_routes_consents import SIGNED, signed

ROUTES = frozenset({*(("GET", path) for path in GET), *(("POST", path) for path in POST), *STREAMED})
NO_PATIENT = {
    ("GET", "/launch"): "sends the browser to the EHR; nobody is signed in yet",
    ("GET", "/login"): "sends the browser to the identity provider",
    ("GET", "/card.pdf"): "a card to print; nothing of a patient",
    ("GET", "/patients/{id}/apps/{client_id}"): "what the app may see is decided, and audited, at /auth/authorize",
    ("GET", "/sessions"): "who is signed in where and with which apps; no patient is named",
    ("GET", "/style.css"): "how the EHR looks",
    ("GET", "/admin"): "queues, destinations and settings: counts and ids of work",
    ("POST", "/admin/destinations/{name}/check"): "asks a destination what it offers",
    ("GET", "/imports"): "runs and how many files they had; the files are at /imports/{id}",
    ("GET", "/jobs/{id}.json"): "how far a job is: counts",
    ("GET", "/patients/{id}/events"): "that something changed; what did is asked for, and audited, elsewhere",
    ("POST", "/jobs"): "a preview, which its page shows; an export is audited photo by photo",
    ("POST", "/compare"): "leads to the comparison, which is audited",
    ("POST", "/jobs/{id}/start"): "puts work in line; it is audited photo by photo when it is done",
    ("POST", "/jobs/{id}/cancel"): "drops a preview",
    ("POST", "/jobs/{id}/undo"): "puts work in line; it is audited photo by photo when it is done",
}
ELSEWHERE = {
    ("GET", "/callback"): "tests/access/test_launch.py",
    ("GET", "/callback/{callback}"): "tests/access/test_launch.py",
    ("POST", "/break-glass"): "tests/access",
    ("POST", "/break-glass/end"): "tests/access",
    ("GET", "/break-glass"): "tests/access",
    ("GET", "/charts"): "tests/access/test_relationship.py",
    ("POST", "/charts/{id}/open"): "tests/access/test_relationship.py",
    ("GET", "/h/{secret}"): "tests/web/test_handoff.py",
    ("GET", "/handoff"): "tests/web/test_handoff.py",
    ("GET", "/imports/{id}"): "tests/web/test_routes_imports.py",
    ("POST", "/deliveries/{id}/send-again"): "tests/web/test_routes_deliveries.py",
    ("POST", "/deliveries/{id}/hold"): "tests/web/test_routes_deliveries.py",
    ("POST", "/deliveries/{id}/looked"): "tests/web/test_routes_deliveries.py",
    ("POST", "/admin/work/{id}/replay"): "tests/web/test_routes_admin.py",
    ("POST", "/sessions/{id}/end"): "tests/web/test_sessions.py",
    ("POST", "/sessions/apps/{id}/end"): "tests/access/test_app_tokens.py",
    ("GET", "/auth/authorize"): "tests/access/test_app_launch.py",
    ("POST", "/auth/authorize/decision"): "tests/access/test_app_launch.py",
    ("POST", "/worklist/photos/{id}"): "tests/web/test_worklist.py",
    ("POST", "/worklist/photos/{id}/ask"): "tests/web/test_worklist_asks.py",
    ("POST", "/worklist/adt/{id}/replay"): "tests/web/test_worklist.py",
    ("POST", "/worklist/adt/{id}/dismiss"): "tests/web/test_worklist.py",
    ("POST", "/jobs/{id}/confirm"): "tests/identity",
    ("POST", "/refile"): "tests/identity",
    ("POST", "/deliveries/destinations/{name}"): "tests/web/test_routes_deliveries.py",
    ("GET", "/patients/{id}/elsewhere"): "tests/web/test_elsewhere.py",
    ("POST", "/patients/{id}/elsewhere"): "tests/web/test_elsewhere.py",
    ("POST", "/saved-comparisons"): "tests/web/test_saved_comparisons.py",
    ("GET", "/saved-comparisons/{id}"): "tests/web/test_saved_comparisons.py",
    ("GET", "/saved-comparisons/{id}/{form}"): "tests/web/test_saved_comparisons.py",
    ("POST", "/saved-comparisons/{id}/send"): "tests/web/test_saved_comparisons.py",
    ("POST", "/saved-comparisons/{id}/withdraw"): "tests/web/test_saved_comparisons.py",
    ("GET", "/comparisons/{id}/{picture}"): "tests/compare/test_comparing.py",
    ("GET", "/photos/{id}/scale"): "tests/web/test_measuring_over_http.py",
    ("GET", "/photos/{id}/outline"): "tests/web/test_measuring_over_http.py",
    ("GET", "/comparisons/{id}/normalised"): "tests/web/test_comparing_over_http.py",
    ("GET", "/photos/{id}/normalised"): "tests/web/test_measuring_over_http.py",
    ("POST", "/photos/{id}/measurements"): "tests/web/test_measuring_over_http.py",
    ("POST", "/photos/{id}/measurements/{measurement}/withdraw"): "tests/web/test_measuring_over_http.py",
    ("GET", "/comparison"): "tests/compare/test_comparing.py",
    ("POST", "/comparison"): "tests/web/test_comparing_over_http.py",
    ("POST", "/comparison/take-back"): "tests/web/test_comparing_over_http.py",
    ("GET", "/captures/{id}/tiles/{ticket}/{level}/{column}/{row}"): "tests/web/test_deep_zoom.py",
    ("GET", "/comparisons/{id}/tiles"): "tests/web/test_comparing_over_http.py",
    ("GET", "/comparisons/{id}/tiles/{ticket}/{level}/{column}/{row}"): "tests/web/test_deep_zoom.py",
}
PHOTO_BYTES = ("original", "clean", "display", "thumbnail")


@pytest.fixture
def ids(bridge: Bridge, clinician: Browser) -> dict[str, str]:
    """A photo or two, a consent, a job and a lesion of p1."""
    photo, other = (str(clinician.capture(picture(width)).json()["id"]) for width in (90, 91))
    asked = {"operation": "assign", "patient": "p1", "media": [photo], "site": "113179006"}
    job = clinician.post("/jobs", asked).headers["location"]
    lesion = {"resourceType": "BodyStructure", "id": "mole", "patient": {"reference": "Patient/p1"}}
    with bridge.db.transaction() as tx:
        create(tx, lesion, at=bridge.now())
    return {"photo": photo, "other": other, "consent": signed(clinician), "job": job, "lesion": "mole"}


TRIED: dict[tuple[str, str], Callable[[Browser, Browser, dict[str, str]], Any]] = {
    ("GET", "/"): lambda _clinician, administrator, _ids: administrator.get("/"),
    ("GET", "/patients/{id}"): lambda clinician, _, _ids: clinician.get("/patients/p1"),
    ("GET", "/patients/{id}/consents"): lambda clinician, _, _ids: clinician.get("/patients/p1/consents"),
    ("GET", "/consents/{id}"): lambda clinician, _, ids: clinician.get(ids["consent"]),
    ("GET", "/consents/{id}/evidence"): lambda clinician, _, ids: clinician.get(f"{ids['consent']}/evidence"),
    ("GET", "/photos/{id}"): lambda clinician, _, ids: clinician.get(f"/photos/{ids['photo']}"),
    ("GET", "/photos/{id}/measurements"): lambda clinician, _, ids: clinician.get(
        f"/photos/{ids['photo']}/measurements"
    ),
    ("GET", "/lesions/{id}"): lambda clinician, _, ids: clinician.get(f"/lesions/{ids['lesion']}"),
    ("GET", "/capture"): lambda clinician, _, _ids: clinician.get("/capture?patient=p1"),
    ("GET", "/compare"): lambda clinician, _, ids: clinician.get(f"/compare?media={ids['photo']}&media={ids['other']}"),
    ("GET", "/deliveries"): lambda _clinician, administrator, _ids: administrator.get("/deliveries"),
    ("GET", "/worklist"): lambda _clinician, administrator, _ids: administrator.get("/worklist"),
    ("GET", "/refile"): lambda clinician, _, ids: clinician.get(f"/refile?media={ids['photo']}"),
    ("GET", "/audit"): lambda _, officer, _ids: officer.get("/audit?patient=1001"),
    ("GET", "/audit.csv"): lambda _, officer, _ids: officer.get("/audit.csv?patient=1001"),
    ("GET", "/jobs"): lambda clinician, _, _ids: clinician.get("/jobs"),
    ("GET", "/jobs/{id}"): lambda clinician, _, ids: clinician.get(ids["job"]),
    ("GET", "/captures/{id}"): lambda clinician, _, ids: clinician.get(f"/captures/{ids['photo']}"),
    ("GET", "/captures/{id}/tiles"): lambda clinician, _, ids: clinician.get(f"/captures/{ids['photo']}/tiles"),
    ("GET", "/captures/{id}/{content}"): lambda clinician, _, ids: clinician.get(f"/captures/{ids['photo']}/clean"),
    ("POST", "/captures"): lambda clinician, _, _ids: clinician.capture(picture(95)),
    ("POST", "/logout"): lambda clinician, _, _ids: clinician.post("/logout"),
    ("POST", "/photos/{id}"): lambda clinician, _, ids: clinician.post(
        f"/photos/{ids['other']}", {"site": "113179006", "version": "1"}
    ),
    ("POST", "/patients/{id}/consents"): lambda clinician, _, _ids: clinician.post(
        "/patients/p1/consents", SIGNED | {"method": "verbal", "statement_read": "1"}
    ),
    ("POST", "/consents/{id}/withdraw"): lambda clinician, _, ids: clinician.post(
        f"{ids['consent']}/withdraw", {"how": "said"}
    ),
}


def seen(bridge: Bridge) -> set[str]:
    settle(bridge)
    with bridge.db.snapshot() as tx:
        return set(tx.execute(select(audit_event.c.id)).scalars())


def test_every_route_is_tried_here_or_it_is_said_why_not() -> None:
    known = [*TRIED, *NO_PATIENT, *ELSEWHERE]
    assert sorted(known) == sorted(ROUTES)


def test_every_route_that_touches_a_patient_leaves_an_audit_event(
    bridge: Bridge, app: Any, clinician: Browser, administrator: Browser, ids: dict[str, str]
) -> None:
    officer = sign_in(bridge, app, "privacy-officer", None)
    silent = []
    order = sorted(
        TRIED, key=lambda route: (route == ("POST", "/logout"), route == ("POST", "/consents/{id}/withdraw"))
    )
    for route in order:
        before = seen(bridge)
        answer = TRIED[route](clinician, officer if "/audit" in route[1] else administrator, ids)
        assert answer.status_code < 400, (route, answer.text[:500])
        if seen(bridge) == before:
            silent.append(route)
    assert silent == []


@pytest.mark.parametrize("content", PHOTO_BYTES)
def test_every_look_at_a_photo_names_it_also_one_answered_from_the_browsers_own_copy(
    bridge: Bridge, clinician: Browser, content: str
) -> None:
    photo = clinician.capture(picture()).json()["id"]
    before = seen(bridge)
    shown = clinician.get(f"/captures/{photo}/{content}")
    again = clinician.get(f"/captures/{photo}/{content}", headers={"If-None-Match": shown.headers["etag"]})
    assert (shown.status_code, again.status_code) == (200, 304)
    assert [references(one) for one in events(bridge, before)] == [{"Patient/p1", f"Media/{photo}"}] * 2


@pytest.mark.parametrize("resource_type", sorted(INTERACTIONS))
def test_every_type_read_or_searched_over_fhir_leaves_an_audit_event(
    bridge: Bridge, clinician: Browser, administrator: Browser, resource_type: str, ids: dict[str, str]
) -> None:
    before, headers = seen(bridge), {"Accept": "application/fhir+json"}
    if resource_type == "Binary":
        media = clinician.get(f"/fhir/Media/{ids['photo']}", headers=headers).json()
        assert clinician.get(f"/fhir/{media['content']['url']}", headers=headers).status_code == 200
        assert {"Patient/p1", f"Media/{ids['photo']}"} <= references(events(bridge, before)[-1])
        return
    answer = clinician.get(f"/fhir/{resource_type}", headers=headers)
    expected = 403 if resource_type == "AuditEvent" else 200
    assert answer.status_code == expected, answer.text
    assert len(seen(bridge) - before) >= 1


def test_who_is_refused_is_in_the_log_with_what_was_asked_for(
    bridge: Bridge, clinician: Browser, colleague: Browser
) -> None:
    photo = clinician.capture(picture()).json()["id"]
    before = seen(bridge)
    assert clinician.get("/audit").status_code == 403
    assert colleague.get("/patients/p1").status_code == 404
    assert colleague.get(f"/captures/{photo}/display").status_code == 404
    assert colleague.get(f"/fhir/Media/{photo}", headers={"Accept": "*/*"}).status_code == 404
    assert colleague.get("/fhir/AuditEvent", headers={"Accept": "*/*"}).status_code == 403
    told = events(bridge, before)
    assert {one["outcome"] for one in told} == {"8"}
    assert [references(one) for one in told] == [
        set(),
        {"Patient/p1"},
        {"Patient/p1"},
        {f"Media/{photo}"},
        set(),
    ]


def test_within_a_chart_nothing_tells_whether_another_patients_photo_exists(
    clinician: Browser, colleague: Browser
) -> None:
    photo = clinician.capture(picture()).json()["id"]
    for path in ("/captures/{}", "/captures/{}/display", "/fhir/Media/{}"):
        there, not_there = (colleague.get(path.format(one), headers={"Accept": "*/*"}) for one in (photo, "0" * 36))
        assert there.status_code == not_there.status_code == 404
        assert re.sub(photo, "", there.text) == re.sub("0" * 36, "", not_there.text)


def events(bridge: Bridge, before: set[str]) -> list[dict[str, Any]]:
    settle(bridge)
    with bridge.db.snapshot() as tx:
        return [one.resource for one in find_where(tx, "AuditEvent") if one.id not in before]


def references(event: dict[str, Any]) -> set[str]:
    found = [one["what"].get("reference", "") for one in event.get("entity", []) if "what" in one]
    return {one.partition("/_history")[0] for one in found if one and not one.startswith("Binary/")}
