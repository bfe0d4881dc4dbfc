"""Many photos through a long bad time: faults of every kind at random, restarts, moves to other patients. At the end
each photo is in the right chart exactly once, counted at the vendor: no duplicate, no loss.

DERMBRIDGE_FAULT_RUN=10000 for the long run: so many photos, and as many faults.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Sequence
from functools import partial

import pytest

from adapter.delivery import send_again
from adapter.sandbox.vendors import Fault
from adapter.sandbox.vendors.behaviour import Refusal
from tests.connectors.vendor_site import FILING, Open, VendorSite, in_chart, mrn

pytestmark = pytest.mark.long

VENDORS = ("medplum", "oracle-health", "pacs", "hl7v2", "openemr", "hapi")
MANY = int(os.environ.get("DERMBRIDGE_FAULT_RUN", "80")) // len(VENDORS)
PHOTOS = range(3, MANY + 3)  # each of a patient of its own: p1 and p2 are those to whom some turn out to belong
ROUNDS = 8
HTTP_LUCK = ("lost-before", "lost-after", "busy", "token-expired", "refuse")
MLLP_LUCK = ("lost-before", "lost-after", "silent", "nack")


@pytest.mark.parametrize("name", VENDORS)
def test_many_photos_through_faults_at_random_end_exactly_once_each(name: str, opened: Open) -> None:
    site, dice = opened(name, limits={"per_minute": 10_000_000}), random.Random(name)
    for hour in range(ROUNDS):
        a_bad_hour(site, name, dice, PHOTOS[hour::ROUNDS])
    site.vendor.faults = []
    for _ in range(5):
        site.later(hours=7)
        send_failed_again(site, name)
    site.later(hours=7)
    duplicates, losses = counted(site, name)
    print(f"{name}: {MANY} photos, {len(site.vendor.requests)} requests, {duplicates} duplicates, {losses} losses")
    assert (duplicates, losses) == (0, 0)


def a_bad_hour(site: VendorSite, name: str, dice: random.Random, photos: Sequence[int]) -> None:
    """As many faults as photos, two restarts, and a photo moved to another patient while the worker runs."""
    for number in photos:
        site.register(str(number))
        site.capture(number, patient=str(number))
    method, path = FILING[name]
    luck = MLLP_LUCK if method == "MLLP" else HTTP_LUCK
    kinds = [kind for _ in photos for kind in (dice.choice(luck), "none")]  # else the circuit opens and saves it
    site.vendor.faults = [Fault(kind, method, path, Refusal(status=503)) for kind in kinds]
    moved = dice.choice(photos)
    site.in_the_middle("send", partial(site.move, moved, dice.choice("12")), after=dice.random() < 0.5)
    site.run()
    for _ in range(2):
        site.in_the_middle(dice.choice(("send", "read_back")), site.crash, after=dice.random() < 0.5)
        site.later(minutes=2)
    send_failed_again(site, name)
    site.clock.advance(hours=1)


def send_failed_again(site: VendorSite, name: str) -> None:
    """Refused with a reason: a person saw to it."""
    failed = [row for row in site.unsettled(in_chart(name)) if row.state == "failed"]
    assert all(row.reason and row.remedy for row in failed)
    with site.bridge.db.transaction() as tx:
        for row in failed:
            send_again(tx, site.bridge, row.id)


def counted(site: VendorSite, name: str) -> tuple[int, int]:
    """(copies too many, copies missing) at the vendor, by the patient's number; here every photo has settled.

    What nobody can take back there stays in the first record, and its delivery says so.
    """
    newest = {number: site.rows(number)[-1] for number in PHOTOS}
    assert {row.state for row in newest.values()} == {in_chart(name)}, Counter(row.state for row in newest.values())
    kept = [row for row in site.unsettled(in_chart(name)) if row.state == "retracting"]
    assert all("no way to take a photo back" in row.reason for row in kept)
    expected = Counter(mrn(row.patient[1:]) for row in (*newest.values(), *kept))
    there = Counter(site.numbers())
    return (there - expected).total(), (expected - there).total()
