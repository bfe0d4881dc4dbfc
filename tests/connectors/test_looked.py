"""Destinations that cannot be asked: after a lost answer somebody looks there, and says what they saw."""

from __future__ import annotations

import pytest

from adapter.access import SYSTEM
from adapter.delivery import send_again
from adapter.delivery.looked import find_blind, tell_looked
from adapter.errors import Conflict, NotFound
from tests.connectors.vendor_site import BLIND, Open, VendorSite, fault, in_chart

VENDORS = sorted(BLIND)


def lose(site: VendorSite, name: str, kind: str) -> None:
    site.vendor.faults = [fault(name, kind)]
    site.capture()
    site.run()
    site.later()
    assert site.rows()[0].state == "failed"


def say(site: VendorSite, *, there: bool) -> None:
    with site.bridge.db.transaction() as tx:
        found = find_blind(tx, "m1", "x")
        tell_looked(tx, site.bridge, SYSTEM, found, there=there, because="looked", by="Ada")
    site.run()


@pytest.mark.parametrize("name", VENDORS)
def test_what_is_not_there_is_sent_again(name: str, opened: Open) -> None:
    site = opened(name)
    lose(site, name, "lost-before")
    say(site, there=False)
    assert (site.rows()[0].state, site.numbers()) == (in_chart(name), ["1001"])


@pytest.mark.parametrize("name", VENDORS)
def test_what_is_there_counts_as_arrived_by_somebodys_word_however_often_it_is_looked_at(
    name: str, opened: Open
) -> None:
    site = opened(name)
    lose(site, name, "lost-after")
    say(site, there=True)
    with site.bridge.db.transaction() as tx:
        send_again(tx, site.bridge, site.rows()[0].id)
    site.run()
    row = site.rows()[0]
    assert (row.state, row.reason, site.numbers()) == ("accepted", "seen there by Ada: looked", ["1001"])
    with pytest.raises(NotFound), site.bridge.db.snapshot() as tx:
        find_blind(tx, "m1", "x")
    with pytest.raises(Conflict), site.bridge.db.transaction() as tx:
        tell_looked(tx, site.bridge, SYSTEM, row.id, there=True, because="looked")


@pytest.mark.parametrize("name", VENDORS)
def test_what_somebody_saw_is_taken_back_by_people_when_it_is_another_patients(name: str, opened: Open) -> None:
    site = opened(name)
    lose(site, name, "lost-after")
    say(site, there=True)
    site.move(1, "2")
    site.later()
    old, new = site.rows()
    assert (old.state, new.state, site.numbers()) == ("retracting", in_chart(name), ["1001", "1002"]), new.reason
    assert "A person found this photo there" in old.reason and "Ask the department" in old.remedy


@pytest.mark.parametrize("name", VENDORS)
def test_a_new_version_of_what_somebody_saw_goes_beside_it(name: str, opened: Open) -> None:
    site = opened(name)
    lose(site, name, "lost-after")
    say(site, there=True)
    site.move(1, "1")
    site.later()
    old, new = site.rows()
    assert (old.state, new.state) == ("superseded", in_chart(name)), new.reason
