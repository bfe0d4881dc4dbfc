"""Deliveries that share their commits: what happens to one of them is no matter of the others."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from adapter.bridge import Bridge
from adapter.delivery.deliver import deliver, deliver_together
from adapter.work import LeaseLost, Work, claim, postpone
from connectors.contract import DeliveryError, Parcel, Receipt, Retry
from tests.conftest import Clock
from tests.connectors.vendor_site import Crash, VendorSite, vendor_site

PHOTOS = (1, 2, 3)


@pytest.fixture
def site(bridge: Bridge, clock: Clock) -> Iterator[VendorSite]:
    with vendor_site("hapi", bridge, clock) as opened:
        for number in PHOTOS:
            opened.capture(number)
        yield opened


def claimed(site: VendorSite) -> list[Work]:
    return claim(site.bridge.db, "deliver", "x", limit=8, now=site.clock())


def states(site: VendorSite) -> list[str]:
    return [site.rows(number)[0].state for number in PHOTOS]


def at_the_second(site: VendorSite, monkeypatch: pytest.MonkeyPatch, happens: BaseException, method: str) -> None:
    """Instead of what the connector would do with the second photo."""
    connector = site.destinations.get("x")
    real = getattr(connector, method)

    def instead(parcel: Parcel, *more: Any) -> Any:
        if parcel.media["id"] == "m2":
            raise happens
        return real(parcel, *more)

    monkeypatch.setattr(connector, method, instead)


def lost(*, outage: bool) -> DeliveryError:
    return DeliveryError("lost", remedy="none", retry=Retry.UNKNOWN, outage=outage)


def test_all_of_a_round_are_confirmed_and_each_has_its_own_attempts(site: VendorSite) -> None:
    assert list(deliver_together(site.bridge, site.destinations, claimed(site))) == []
    assert states(site) == ["confirmed"] * 3
    assert len(site.filed()) == 3 and claimed(site) == []
    assert len({site.rows(number)[0].receipt for number in PHOTOS}) == 3


def test_a_refusal_of_one_leaves_the_others_alone(site: VendorSite, monkeypatch: pytest.MonkeyPatch) -> None:
    at_the_second(site, monkeypatch, DeliveryError("no", remedy="none", retry=Retry.NEVER), "send")
    assert list(deliver_together(site.bridge, site.destinations, claimed(site))) == []
    assert states(site) == ["confirmed", "failed", "confirmed"]


def test_what_differs_when_it_is_read_back_fails_alone(site: VendorSite, monkeypatch: pytest.MonkeyPatch) -> None:
    at_the_second(site, monkeypatch, DeliveryError("later", remedy="none", retry=Retry.LATER), "read_back")
    deliver_together(site.bridge, site.destinations, claimed(site))
    assert states(site) == ["confirmed", "accepted", "confirmed"]


def test_after_an_outage_what_was_not_begun_goes_back_in_line(
    site: VendorSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_the_second(site, monkeypatch, lost(outage=True), "send")
    items = claimed(site)
    assert list(deliver_together(site.bridge, site.destinations, items)) == [items[2]]
    assert states(site) == ["confirmed", "unknown", "pending"]
    deliver(site.bridge, site.destinations, items[2])
    assert states(site) == ["confirmed", "unknown", "confirmed"]


def test_a_destination_that_became_slow_has_no_more_waiting_for_it(
    site: VendorSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[deliver.__module__], "QUICK_SECONDS", 0.0)
    items = claimed(site)
    assert list(deliver_together(site.bridge, site.destinations, items)) == items[1:]
    assert states(site) == ["confirmed", "pending", "pending"]


def test_an_error_of_ours_in_one_takes_no_receipt_from_the_others(
    site: VendorSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_the_second(site, monkeypatch, KeyError("a defect"), "send")
    with pytest.raises(KeyError):
        deliver_together(site.bridge, site.destinations, claimed(site))
    assert states(site) == ["accepted", "sending", "pending"]


def test_after_a_crash_each_of_the_round_is_looked_for_and_there_once(
    site: VendorSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as changed:
        at_the_second(site, changed, Crash(), "send")
        with pytest.raises(Crash):
            deliver_together(site.bridge, site.destinations, claimed(site))
    assert states(site) == ["sending"] * 3 and len(site.filed()) == 1
    site.later(minutes=5)
    assert states(site) == ["confirmed"] * 3 and len(site.filed()) == 3


def test_nothing_leaves_of_a_round_of_which_somebody_else_took_over_a_part(site: VendorSite) -> None:
    items = claimed(site)
    with site.bridge.db.transaction() as tx:
        postpone(tx, items[1], due_at=site.clock(), reason="taken over")
    with pytest.raises(LeaseLost):
        deliver_together(site.bridge, site.destinations, items)
    assert states(site) == ["pending"] * 3 and site.filed() == []


def test_a_photo_that_turns_out_to_be_another_patients_meanwhile_is_taken_back_alone(
    site: VendorSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector = site.destinations.get("x")
    real = connector.send

    def meanwhile(parcel: Parcel) -> Receipt:
        if parcel.media["id"] == "m2":
            site.move(2, "2")
        return real(parcel)

    with monkeypatch.context() as changed:
        changed.setattr(connector, "send", meanwhile)
        deliver_together(site.bridge, site.destinations, claimed(site))
    site.later(minutes=1)
    site.later(minutes=1)
    assert site.rows(2)[-1].state == "confirmed"
    assert sorted(site.numbers()) == ["1001", "1001", "1002"]
