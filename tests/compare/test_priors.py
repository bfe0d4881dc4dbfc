"""Which photo is suggested to be laid beside another, why, and at what cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, event

from adapter.bridge import Bridge
from adapter.compare.priors import candidates, find_prior
from adapter.records import Stored, create, get
from mappings.body_sites import SNOMED_LATERALITY
from mappings.terms import BODY_STRUCTURE, LATERALITY, PHOTO_VIEW, SNOMED

HAND, FACE = "33712006", "73897004"
DERMOSCOPIC = {"view": "dermoscopic", "modality": "DMS"}


def media(photo_id: str, taken: str, **more: Any) -> dict[str, Any]:
    """A photo of the left hand, close-up, by a phone, unless told otherwise."""
    given: dict[str, Any] = {"site": HAND, "side": "left", "view": "close-up", "modality": "XC", "lesion": None} | more
    side = {"coding": [{"system": SNOMED, "code": SNOMED_LATERALITY[given["side"]]}]}
    extensions = [{"url": LATERALITY, "valueCodeableConcept": side}]
    if given["lesion"]:
        lesion = {"reference": f"BodyStructure/{given['lesion']}"}
        extensions.append({"url": BODY_STRUCTURE, "valueReference": lesion})
    resource = {
        "resourceType": "Media",
        "id": photo_id,
        "status": "completed",
        "subject": {"reference": f"Patient/{given.get('patient', 'asa')}"},
        "createdDateTime": taken,
        "bodySite": {"extension": extensions, "coding": [{"system": SNOMED, "code": given["site"]}]},
        "view": {"coding": [{"system": PHOTO_VIEW, "code": given["view"]}]},
        "modality": {"coding": [{"code": given["modality"]}]},
        "content": {"contentType": "image/jpeg", "url": "Binary/x"},
    }
    return resource | ({"encounter": {"reference": f"Encounter/{given['visit']}"}} if "visit" in given else {})


@pytest.fixture
def tx(bridge: Bridge) -> Iterator[Connection]:
    with bridge.db.transaction() as tx:
        for patient in ("asa", "bo"):
            create(tx, {"resourceType": "Patient", "id": patient, "active": True}, at=bridge.now())
        yield tx


def keep(tx: Connection, bridge: Bridge, *photos: dict[str, Any]) -> list[Stored]:
    return [create(tx, one, at=bridge.now()) for one in photos]


def suggested(tx: Connection, photo_id: str) -> str | None:
    best = find_prior(tx, get(tx, "Media", photo_id))
    return best.photo.id if best else None


def test_the_same_lesion_comes_before_a_more_recent_photo_of_the_site(tx: Connection, bridge: Bridge) -> None:
    keep(
        tx,
        bridge,
        media("lesion", "2024-01-05", lesion="l1"),
        media("site", "2025-01-05"),
        media("now", "2026-11-20", lesion="l1"),
    )
    assert suggested(tx, "now") == "lesion"
    best = find_prior(tx, get(tx, "Media", "now"))
    assert best is not None
    assert best.reasons[:2] == ("the same lesion", "the same site")
    assert best.but == ()


def test_without_a_lesion_the_same_view_counts_first_then_the_most_recent(tx: Connection, bridge: Bridge) -> None:
    keep(
        tx,
        bridge,
        media("old", "2023-01-05"),
        media("recent", "2025-01-05"),
        media("regional", "2026-01-05", view="regional"),
        media("now", "2026-11-20"),
    )
    assert suggested(tx, "now") == "recent"


@pytest.mark.parametrize(
    "other",
    [
        {"side": "right"},
        {"lesion": "l2"},
        DERMOSCOPIC,
        {"site": FACE},
        {"patient": "bo"},
    ],
    ids=["other side", "other lesion", "other kind of camera", "other site", "other patient"],
)
def test_what_shows_something_else_is_never_suggested(tx: Connection, bridge: Bridge, other: dict[str, Any]) -> None:
    keep(tx, bridge, media("other", "2025-01-05", **other), media("now", "2026-11-20", lesion="l1"))
    assert suggested(tx, "now") is None


def test_a_photo_of_the_same_visit_is_no_prior_but_can_be_chosen(tx: Connection, bridge: Bridge) -> None:
    for visit in ("e1", "e2"):
        visited = {"resourceType": "Encounter", "id": visit, "status": "finished", "class": {"code": "AMB"}}
        create(tx, visited | {"subject": {"reference": "Patient/asa"}}, at=bridge.now())
    keep(
        tx,
        bridge,
        media("same-visit", "2026-11-19", visit="e1"),
        media("same-day", "2026-11-20T08:00:00Z"),
        media("now", "2026-11-20T09:00:00Z", visit="e1"),
    )
    assert suggested(tx, "now") is None
    assert [one.id for one in candidates(tx, get(tx, "Media", "now"))] == ["same-visit", "same-day"]
    keep(tx, bridge, media("before", "2026-11-19", visit="e2"))
    assert suggested(tx, "now") == "before"


def test_an_earlier_photo_comes_before_a_later_one(tx: Connection, bridge: Bridge) -> None:
    keep(tx, bridge, media("later", "2026-11-21"), media("earlier", "2019-01-01"), media("now", "2026-11-20"))
    assert suggested(tx, "now") == "earlier"
    assert suggested(tx, "earlier") == "now"


def test_a_photo_entered_in_error_is_not_suggested(tx: Connection, bridge: Bridge) -> None:
    keep(
        tx,
        bridge,
        media("wrong", "2025-01-05") | {"status": "entered-in-error"},
        media("now", "2026-11-20"),
    )
    assert suggested(tx, "now") is None


@pytest.mark.parametrize("db_url", ["sqlite"], indirect=True)  # it reads SQLite's plans
def test_candidates_are_read_through_an_index_whatever_the_archive_holds(tx: Connection, bridge: Bridge) -> None:
    keep(tx, bridge, media("then", "2025-01-05", lesion="l1"), media("now", "2026-11-20", lesion="l1"))
    asked: list[tuple[str, Any]] = []
    note = event.listens_for(tx.engine, "before_cursor_execute")
    note(lambda _c, _cursor, statement, values, *_: asked.append((statement, values)))
    candidates(tx, get(tx, "Media", "now"))
    queries = [one for one in asked if "FROM media" in one[0]]
    plans = [
        str(row.detail)
        for statement, values in queries
        for row in tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
    ]
    assert len(plans) >= 7
    assert [plan for plan in plans if "SCAN" in plan] == []
    assert sum("ix_media_patient_site_created" in plan for plan in plans) == 3
    assert sum("ix_media_lesion_created" in plan for plan in plans) == 3
