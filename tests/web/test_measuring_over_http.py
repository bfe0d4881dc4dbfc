"""Measuring over HTTP: figures, an Observation at /fhir, the lesion's course, and how it is withdrawn."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest
from sqlalchemy import func, select

from adapter.access import SYSTEM
from adapter.bridge import Bridge
from adapter.capture.receive import Upload, receive
from adapter.db.tables import audit_event
from adapter.governance import settle
from adapter.records import create
from tests.measure.scenes import scene
from tests.web.conftest import Browser

pytestmark = pytest.mark.long

LINE = {"kind": "length", "points": [[100, 100], [500, 400]], "version": 1}


@pytest.fixture
def media(bridge: Bridge, app: Any) -> str:
    return store(bridge, "2026-11-23T09:00:00Z")


def store(bridge: Bridge, taken_at: str) -> str:
    with bridge.db.transaction() as tx:
        lesion = {"resourceType": "BodyStructure", "id": f"mole-{taken_at[:4]}", "patient": {"reference": "Patient/p1"}}
        create(tx, lesion, at=bridge.now())
    return capture(bridge, taken_at)


def capture(bridge: Bridge, taken_at: str) -> str:
    told = {"patient": "Patient/p1", "lesion": "BodyStructure/mole-2026", "taken_at": taken_at}
    return receive(bridge, SYSTEM, Upload(scene("card").jpeg, told)).id


def outline(found: dict[str, Any]) -> dict[str, str]:
    drawn = {"kind": "outline", "points": found["points"], "sigma": 0.5, "edge": found["edge"], "how": "found"}
    return {"drawn": orjson.dumps(drawn | {"scale": {"source": "card"}, "version": 1}).decode()}


def looks(bridge: Bridge) -> int:
    settle(bridge)
    with bridge.db.snapshot() as tx:
        return tx.execute(select(func.count()).select_from(audit_event)).scalar_one()


def test_a_lesion_is_found_measured_kept_searched_and_withdrawn(bridge: Bridge, media: str, clinician: Browser) -> None:
    photo = scene("card")
    offered = clinician.get(f"/photos/{media}/scale").json()
    assert offered["scales"][0]["source"] == "card"
    x, y = photo.middle
    before = looks(bridge)
    found = clinician.get(f"/photos/{media}/outline?x={x}&y={y}").json()
    assert looks(bridge) == before + 1
    fields = outline(found)
    measured = clinician.post(f"/photos/{media}/measurements", fields)
    assert measured.status_code == 200
    assert measured.json()["shown"][0]["label"] == "Area"
    assert clinician.get(f"/photos/{media}/measurements").json() == {"measurements": []}

    kept = clinician.post(f"/photos/{media}/measurements", fields | {"keep": "1"})
    assert kept.status_code == 201
    [listed] = clinician.get(f"/photos/{media}/measurements").json()["measurements"]
    assert listed == kept.json()
    area = "http://snomed.info/sct|42798000"
    for query in (f"derived-from=Media/{media}", f"code={area}", "patient=p1", "date=2026-11-23"):
        bundle = clinician.get(f"/fhir/Observation?{query}", headers={"Accept": "application/fhir+json"}).json()
        assert [one["resource"]["id"] for one in bundle["entry"]] == [listed["id"]], query
    assert "mm²" in clinician.get(f"/photos/{media}").text

    normal = clinician.get(f"/photos/{media}/normalised")
    assert (normal.headers["content-type"], normal.content[:3]) == ("image/jpeg", b"\xff\xd8\xff")

    away = f"/photos/{media}/measurements/{listed['id']}/withdraw"
    assert clinician.post(away, {"why": ""}).status_code == 400
    assert clinician.post(away, {"why": "the wrong mole"}).status_code == 303
    assert clinician.get(f"/photos/{media}/measurements").json() == {"measurements": []}
    gone = clinician.get(f"/fhir/Observation/{listed['id']}", headers={"Accept": "application/fhir+json"}).json()
    assert gone["status"] == "entered-in-error"


def test_two_visits_make_a_chart_with_a_table(bridge: Bridge, media: str, clinician: Browser) -> None:
    later = store(bridge, "2027-02-23T09:00:00Z")
    x, y = scene("card").middle
    for one in (media, later):
        found = clinician.get(f"/photos/{one}/outline?x={x}&y={y}").json()
        clinician.post(f"/photos/{one}/measurements", outline(found) | {"keep": "1"})
    before = looks(bridge)
    shown = clinician.get("/lesions/mole-2026").text
    assert looks(bridge) == before + 1
    with bridge.db.snapshot() as tx:
        told = tx.execute(select(audit_event.c.body).order_by(audit_event.c.id.desc())).scalars().first()
    assert all(f"Media/{one}/_history/" in str(told) for one in (media, later))
    assert "no difference beyond the uncertainty" in shown
    assert shown.count('class="chart-dot"') >= 2
    assert "As a table" in shown
    assert 'class="chart-dot"' in clinician.get(f"/photos/{later}").text


def test_a_lesions_measurements_stand_in_the_order_of_time_whatever_the_clocks_zone(
    bridge: Bridge, media: str, clinician: Browser
) -> None:
    east, west = (capture(bridge, at) for at in ("2026-11-24T05:00:00+13:00", "2026-11-23T20:00:00-05:00"))
    for one in (east, west, media):  # 16:00, 01:00 of the next day, 09:00 in UTC
        clinician.post(f"/photos/{one}/measurements", {"drawn": orjson.dumps(LINE).decode(), "keep": "1"})
    listed = clinician.get("/lesions/mole-2026").text.partition("Measurements</h2>")[2]
    assert re.findall(r'href="/photos/([^"/]+)"', listed) == [west, east, media]


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        ("{", "no JSON"),
        ({"kind": "circle"}, "drawn.kind"),
        (LINE | {"points": [[1, 1]]}, "drawn.points"),
        (LINE | {"points": [[1, 1], [1e9, 4]]}, "is no pixel"),
        (LINE | {"points": [[1, 1], ["NaN", 4]]}, "is no pixel"),
        (LINE | {"value": 12}, "drawn.value"),
        (LINE | {"scale": {"source": "points", "points": [[1, 1], [3, 3]], "millimetres": 5}}, "too near"),
        (LINE | {"points": [[1, 1], [-400, 4]]}, "outside the photo"),
        (LINE | {"scale": {"source": "points", "millimetres": 5}}, "needs two"),
        (LINE | {"kind": "outline", "points": [[0, 0], [90, 90], [90, 0], [0, 90]]}, "crosses itself"),
        (LINE | {"kind": "outline", "points": [[0, 0], [1, 0], [1, 1]]}, "too small"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_its_reason(
    media: str, clinician: Browser, drawn: Any, said: str
) -> None:
    body = drawn if isinstance(drawn, str) else orjson.dumps(drawn).decode()
    answer = clinician.post(f"/photos/{media}/measurements", {"drawn": body}, headers={"Accept": "application/json"})
    assert answer.status_code in (400, 422)
    assert said in answer.text


def test_a_chart_of_another_patient_sees_nothing_of_it(media: str, colleague: Browser) -> None:
    for path in ("scale", "outline?x=1&y=1", "normalised", "measurements"):
        assert colleague.get(f"/photos/{media}/{path}").status_code == 404, path
    drawn = {"drawn": orjson.dumps(LINE).decode(), "keep": "1"}
    assert colleague.post(f"/photos/{media}/measurements", drawn).status_code == 404
    assert colleague.get("/lesions/mole-2026").status_code == 404


def test_the_card_is_a_pdf_to_print(clinician: Browser) -> None:
    card = clinician.get("/card.pdf")
    assert (card.headers["content-type"], card.content[:5]) == ("application/pdf", b"%PDF-")
