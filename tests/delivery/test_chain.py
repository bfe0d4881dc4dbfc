"""Deliveries to where only a person could say what arrived: whatever happens, one at most is in doubt."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import event

from adapter.bridge import Bridge
from adapter.delivery import needs_a_look
from adapter.delivery.deliver import deliver_together
from adapter.delivery.lane import Rounds
from adapter.delivery.outbox import DeliveryState, mark
from adapter.errors import Misconfigured
from adapter.work import LeaseLost, Work, claim, postpone
from connectors.contract import DeliveryError, Parcel, Receipt, Retry
from tests.conftest import Clock
from tests.connectors.vendor_site import Crash, VendorSite, vendor_site

PHOTOS = (1, 2, 3, 4)


@pytest.fixture
def site(bridge: Bridge, clock: Clock) -> Iterator[VendorSite]:
    with vendor_site("hl7v2", bridge, clock, resend="never") as opened:
        for number in PHOTOS:
            opened.capture(number)
        yield opened


def claimed(site: VendorSite) -> list[Work]:
    return claim(site.bridge.db, "deliver", "x", limit=8, now=site.clock())


def states(site: VendorSite) -> list[str]:
    return [site.rows(number)[0].state for number in PHOTOS]


def at_the_second(
    site: VendorSite, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None], *, after: bool = False
) -> None:
    """Something happens before, or after, the second photo leaves."""
    connector = site.destinations.get("x")
    real = connector.send

    def meanwhile(parcel: Parcel) -> Receipt:
        if parcel.media["id"] == "m2" and not after:
            happens()
        receipt = real(parcel)
        if parcel.media["id"] == "m2" and after:
            happens()
        return receipt

    monkeypatch.setattr(connector, "send", meanwhile)


def raising(error: BaseException) -> Callable[[], None]:
    def raised() -> None:
        raise error

    return raised


def test_a_chain_of_four_costs_five_commits(site: VendorSite) -> None:
    items, commits = claimed(site), list[int]()
    event.listen(site.bridge.db.writing_engine, "commit", lambda made: commits.append(id(made)))
    assert list(deliver_together(site.bridge, site.destinations, items)) == []
    assert len(commits) == len(PHOTOS) + 1
    assert states(site) == ["accepted"] * 4 and len(site.filed()) == 4 and claimed(site) == []


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_leaves_one_in_doubt_and_the_others_go_out_once(
    site: VendorSite, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    with monkeypatch.context() as changed:
        at_the_second(site, changed, raising(Crash()), after=after)
        with pytest.raises(Crash):
            deliver_together(site.bridge, site.destinations, claimed(site))
    assert states(site) == ["accepted", "sending", "pending", "pending"]
    site.later(minutes=5)
    assert states(site) == ["accepted", "failed", "accepted", "accepted"]
    assert needs_a_look(site.rows(2)[0]) and len(site.filed()) == (4 if after else 3)


def test_a_refusal_of_one_leaves_the_others_alone(site: VendorSite, monkeypatch: pytest.MonkeyPatch) -> None:
    at_the_second(site, monkeypatch, raising(DeliveryError("no", remedy="none", retry=Retry.NEVER)))
    assert list(Rounds(site.bridge, site.destinations).deliver(claimed(site))) == []
    assert states(site) == ["accepted", "failed", "accepted", "accepted"]


def test_an_error_of_ours_takes_no_receipt_and_begins_nothing(
    site: VendorSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_the_second(site, monkeypatch, raising(KeyError("a defect")))
    with pytest.raises(KeyError):
        deliver_together(site.bridge, site.destinations, claimed(site))
    assert states(site) == ["accepted", "sending", "pending", "pending"]


def test_where_no_connector_can_be_opened_all_wait_with_the_reason(
    site: VendorSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def misconfigured(name: str) -> None:
        raise Misconfigured(f"{name}: the key file is not there")

    monkeypatch.setattr(site.destinations, "get", misconfigured)
    assert list(Rounds(site.bridge, site.destinations).deliver(claimed(site))) == []
    assert states(site) == ["pending"] * 4
    assert all("key file" in site.rows(number)[0].reason for number in PHOTOS)


def test_what_a_person_moved_meanwhile_is_not_begun(site: VendorSite, monkeypatch: pytest.MonkeyPatch) -> None:
    def superseded() -> None:
        with site.bridge.db.transaction() as tx:
            mark(tx, site.rows(3)[0].id, DeliveryState.SUPERSEDED, at=site.clock())

    at_the_second(site, monkeypatch, superseded)
    assert list(Rounds(site.bridge, site.destinations).deliver(claimed(site))) == []
    assert states(site) == ["accepted", "accepted", "superseded", "accepted"]
    assert len(site.filed()) == 3


def test_a_photo_that_turns_out_to_be_another_patients_meanwhile_goes_to_that_one_alone(
    site: VendorSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as changed:
        at_the_second(site, changed, lambda: site.move(3, "2"))
        assert list(Rounds(site.bridge, site.destinations).deliver(claimed(site))) == []
    site.later(minutes=1)
    assert [row.state for row in site.rows(3)] == ["superseded", "accepted"]
    assert site.numbers() == ["1001"] * 3 + ["1002"]


def test_who_lost_the_lease_keeps_the_receipt_and_begins_nothing_more(
    site: VendorSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = claimed(site)

    def taken_over() -> None:
        with site.bridge.db.transaction() as tx:
            for item in items[1:]:
                postpone(tx, item, due_at=site.clock(), reason="taken over")

    with monkeypatch.context() as changed:
        at_the_second(site, changed, taken_over)
        assert deliver_together(site.bridge, site.destinations, items) == items[2:]
    with pytest.raises(LeaseLost):
        deliver_together(site.bridge, site.destinations, items[2:])
    assert states(site) == ["accepted", "accepted", "pending", "pending"]
    site.later(minutes=1)
    assert states(site) == ["accepted"] * 4 and len(site.filed()) == 4
