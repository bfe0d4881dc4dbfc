"""A destination stopped by a person, what waits for it, and what goes in line again: on each database."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select

from adapter import consent
from adapter.access.actor import SYSTEM
from adapter.bridge import Bridge
from adapter.db.tables import work
from adapter.delivery import deliveries_of, replay, resume_destination, stop_destination
from adapter.delivery.circuit import FAILURES, circuits
from adapter.delivery.rehearsal import moment
from adapter.errors import BadInput, Conflict, NotFound
from adapter.records import find_where
from adapter.sandbox.vendors import Fault
from tests.conftest import Clock
from tests.connectors.vendor_site import VendorSite, consent_says, vendor_site


@pytest.fixture
def permit(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    said = consent_says(True)
    monkeypatch.setattr(consent, "decide_each", lambda tx, bridge, asked: [said for _ in asked])
    return said


@pytest.fixture
def site(bridge: Bridge, clock: Clock, permit: SimpleNamespace) -> Iterator[VendorSite]:
    with vendor_site("medplum", bridge, clock) as opened:
        yield opened


def say(site: VendorSite, act: Any, **more: Any) -> Any:
    with site.bridge.db.transaction() as tx:
        return act(tx, site.bridge, SYSTEM, "x", **more)


def test_a_stopped_destination_gets_nothing_and_everything_waits_with_the_reason(site: VendorSite) -> None:
    say(site, stop_destination, because="upgrade until 06:00")
    for number in (1, 2, 3):
        site.capture(number)
    site.run()
    site.later(hours=2)
    assert site.vendor.requests == []
    assert {site.rows(number)[0].state for number in (1, 2, 3)} == {"pending"}
    with site.bridge.db.snapshot() as tx:
        assert {deliveries_of(tx, f"m{number}")[0].reason for number in (1, 2, 3)} == {
            "the destination is stopped: upgrade until 06:00"
        }


def test_when_it_goes_on_the_oldest_goes_first_and_at_once(site: VendorSite) -> None:
    say(site, stop_destination, because="down")
    for number in (3, 1, 2):
        site.capture(number)
    site.run()
    assert say(site, resume_destination) == 3
    site.run()
    assert {site.rows(number)[0].state for number in (1, 2, 3)} == {"confirmed"}
    accepted = sorted((site.rows(number)[0].id, number) for number in (1, 2, 3))
    held = [
        resource["identifier"][0]["value"] for (kind, _), resource in site.vendor.resources.items() if kind == "Media"
    ]
    assert len(held) == 3 and [number for _, number in accepted] == [3, 1, 2]
    with site.bridge.db.snapshot() as tx:
        assert circuits(tx) == []
        details = [str(each.resource) for each in find_where(tx, "AuditEvent")]
    assert any("x stopped" in each for each in details) and any("x go on" in each for each in details)


def test_an_answer_does_not_let_a_stopped_destination_go_on(site: VendorSite) -> None:
    site.capture(1)
    site.vendor.faults = [Fault("lost-before", "")]
    site.run()
    say(site, stop_destination, because="down")
    site.later()
    with site.bridge.db.snapshot() as tx:
        assert "stopped" in deliveries_of(tx, "m1")[0].reason
        assert circuits(tx)[0].held == "down"


def test_the_backlog_of_an_outage_goes_as_soon_as_one_got_through(site: VendorSite) -> None:
    numbers = range(1, FAILURES + 6)
    for number in numbers:
        site.capture(number)
    site.vendor.faults = [Fault("lost-before", "") for _ in range(FAILURES)]
    site.run()
    site.later(seconds=31)  # the probe, and then the rest without waiting for its own time
    assert sum(site.rows(number)[0].state == "confirmed" for number in numbers) >= len(numbers) - FAILURES
    with site.bridge.db.snapshot() as tx:
        assert not tx.execute(select(work.c.id).where(work.c.reason.startswith("the destination is left"))).all()


def test_what_a_set_back_ehr_lost_is_filed_again_and_what_it_has_is_not(site: VendorSite) -> None:
    site.capture(1)
    site.run()
    early = site.clock() + timedelta(minutes=30)
    site.clock.advance(hours=1)
    for number in (2, 3):
        site.capture(number)
    site.run()
    lost = next(key for key, each in site.vendor.resources.items() if key[0] == "Media" and "m2" in str(each))
    del site.vendor.resources[lost]
    assert say(site, replay, since=early) == 2
    asked = len(site.vendor.requests)
    site.run()
    assert {site.rows(number)[0].state for number in (1, 2, 3)} == {"confirmed"}
    created = [path for method, path in site.vendor.requests[asked:] if method == "POST" and path.endswith("/Media")]
    assert len(site.filed()) == 3 and len(created) == 1


def test_without_a_time_only_what_failed_is_replayed(site: VendorSite) -> None:
    site.capture(1)
    site.run()
    assert say(site, replay) == 0
    hour = timedelta(hours=1)
    assert say(site, replay, since=site.clock() - 2 * hour, until=site.clock() - hour) == 0


def test_a_stretch_of_time_that_holds_nothing_is_refused_rather_than_replayed_in_part(site: VendorSite) -> None:
    now, hour = site.clock(), timedelta(hours=1)
    for wrong in ({"since": now + hour}, {"since": now, "until": now - hour}, {"until": now}):
        with pytest.raises(BadInput, match=r"earlier time|since when"):
            say(site, replay, **wrong)


def test_where_nothing_can_be_looked_for_a_person_is_told_what_to_look_for(
    bridge: Bridge, clock: Clock, permit: SimpleNamespace
) -> None:
    with vendor_site("meditech", bridge, clock) as site:
        site.capture(1)
        site.run()
        assert say(site, replay, since=clock() - timedelta(hours=1)) == 1
        site.run()
        row = site.rows(1)[0]
        assert row.state == "failed" and "Look there for" in row.remedy and len(site.filed()) == 1


def test_who_is_not_there_or_not_stopped_is_told_so(site: VendorSite) -> None:
    with pytest.raises(Conflict, match="not stopped"):
        say(site, resume_destination)
    with site.bridge.db.transaction() as tx, pytest.raises(NotFound):
        stop_destination(tx, site.bridge, SYSTEM, "nowhere", because="x")


def test_a_time_of_day_is_todays_in_the_sites_time_zone(bridge: Bridge) -> None:
    settings = bridge.settings.model_copy(update={"time_zone": "America/New_York"})
    zoned = dataclasses.replace(bridge, settings=settings)
    at = moment(zoned, "09:00")
    assert at.tzinfo is not None and (at.hour, at.date()) == (9, bridge.now().astimezone(settings.zone).date())
    assert moment(bridge, "2026-11-23T09:00Z").isoformat() == "2026-11-23T09:00:00+00:00"
    with pytest.raises(BadInput, match="09:00"):
        moment(bridge, "nine")
