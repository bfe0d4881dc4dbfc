"""The order of a patient's photos: by visit, by site, and where a photo without a date stands."""

from __future__ import annotations

from typing import Any

from adapter.bridge import Bridge
from adapter.records import create_all
from adapter.records.timeline import neighbours, photos_of
from mappings.terms import SNOMED


def photo(photo_id: str, taken: str | None, visit: str | None = None, site: str = "", issued: str = "12-01") -> Any:
    found: dict[str, Any] = {
        "resourceType": "Media",
        "id": photo_id,
        "status": "completed",
        "subject": {"reference": "Patient/p1"},
        "issued": f"2026-{issued}T10:00:00Z",
        "content": {"contentType": "image/jpeg"},
    }
    found |= {"createdDateTime": f"2026-{taken}:00Z"} if taken else {}
    found |= {"encounter": {"reference": f"Encounter/{visit}"}} if visit else {}
    return found | ({"bodySite": {"coding": [{"system": SNOMED, "code": site}]}} if site else {})


def visit(visit_id: str, start: str) -> Any:
    return {
        "resourceType": "Encounter",
        "id": visit_id,
        "status": "finished",
        "class": {"code": "AMB"},
        "subject": {"reference": "Patient/p1"},
        "period": {"start": f"2026-{start}:00Z"},
    }


def order(bridge: Bridge, group: str, count: int = 60) -> list[str]:
    ids: list[str] = []
    after: str | None = None
    with bridge.db.snapshot() as tx:
        while True:
            page = photos_of(tx, "p1", group=group, after=after, count=count)
            ids += [one.id for one in page.photos]
            if (after := page.next) is None:
                return ids


def keep(bridge: Bridge, *resources: Any) -> None:
    with bridge.db.transaction() as tx:
        create_all(tx, [{"resourceType": "Patient", "id": "p1"}, *resources], at=bridge.now())


def test_a_visit_whose_photos_have_no_date_stands_at_its_own_time(bridge: Bridge) -> None:
    keep(
        bridge,
        visit("march", "03-03T09:00"),
        photo("may", "05-05T10:00"),
        photo("undated", None, visit="march"),
        photo("january", "01-05T10:00"),
    )
    assert order(bridge, "visit") == ["may", "undated", "january"]


def test_without_date_and_visit_a_photo_stands_where_it_was_received(bridge: Bridge) -> None:
    keep(
        bridge,
        photo("june", "06-01T10:00"),
        photo("undated", None, issued="05-05"),
        photo("april", "04-01T10:00"),
    )
    assert order(bridge, "visit") == ["june", "undated", "april"]
    with bridge.db.snapshot() as tx:
        page = photos_of(tx, "p1", group="visit")
        assert neighbours(tx, page.photos[1]) == ("april", "june")


def test_the_photos_of_a_visit_stay_together_at_the_latest_of_them(bridge: Bridge) -> None:
    keep(
        bridge,
        visit("stay", "03-01T09:00"),
        visit("clinic", "03-10T09:00"),
        photo("stay-1", "03-02T10:00", visit="stay"),
        photo("clinic-1", "03-10T09:30", visit="clinic"),
        photo("alone", "03-15T10:00"),
        photo("stay-2", "03-20T10:00", visit="stay"),
        photo("stay-undated", None, visit="stay"),
    )
    expected = ["stay-2", "stay-1", "stay-undated", "alone", "clinic-1"]
    assert order(bridge, "visit") == expected
    assert order(bridge, "visit", count=2) == expected
    assert order(bridge, "visit", count=1) == expected


def test_by_body_site_an_undated_photo_stands_among_those_of_its_site(bridge: Bridge) -> None:
    keep(
        bridge,
        visit("march", "03-03T09:00"),
        photo("hand-may", "05-05T10:00", site="1"),
        photo("hand-undated", None, visit="march", site="1"),
        photo("hand-january", "01-05T10:00", site="1"),
        photo("back", "06-01T10:00", site="2"),
        photo("no-site", "07-01T10:00"),
    )
    expected = ["hand-may", "hand-undated", "hand-january", "back", "no-site"]
    assert order(bridge, "site") == expected
    assert order(bridge, "site", count=1) == expected
