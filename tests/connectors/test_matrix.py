"""The matrix: every vendor through everything that can happen in the middle of a delivery. Whatever it was, at the end
each photo is exactly once in the right chart, or waits where people see it with what to do.

DERMBRIDGE_FULL_MATRIX=1 lets everything happen after everything else: some five thousand days.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest

from adapter.delivery.withdrawal import take_back_withdrawn
from tests.connectors.vendor_site import BLIND, FILING, KEPT, VENDORS, Crash, Open, VendorSite, fault, in_chart, mrn

Happening = Callable[[VendorSite, str, SimpleNamespace], None]


def _fault(kind: str) -> Happening:
    def happens(site: VendorSite, name: str, _said: SimpleNamespace) -> None:
        site.vendor.faults.append(fault(name, kind))

    return happens


def _restart(method: str, *, after: bool) -> Happening:
    def happens(site: VendorSite, _name: str, _said: SimpleNamespace) -> None:
        site.in_the_middle(method, site.crash, after=after)

    return happens


def _withdrawal(*, after: bool, crash: bool = False) -> Happening:
    def happens(site: VendorSite, _name: str, said: SimpleNamespace) -> None:
        def withdraw() -> None:
            said.permit = False
            with site.bridge.db.transaction() as tx:
                take_back_withdrawn(tx, site.bridge, "p1")
            if crash:
                raise Crash

        site.in_the_middle("send", withdraw, after=after)

    return happens


def _merge(*, after: bool, crash: bool = False) -> Happening:
    def happens(site: VendorSite, _name: str, _said: SimpleNamespace) -> None:
        def merge() -> None:
            other = "2" if site.rows()[-1].patient == "p1" else "1"
            site.move(1, other)
            if crash:
                raise Crash

        site.in_the_middle("send", merge, after=after)

    return happens


HAPPENINGS: Mapping[str, Happening] = {
    "lost before": _fault("lost-before"),
    "lost after": _fault("lost-after"),
    "busy": _fault("busy"),
    "token expired": _fault("token-expired"),
    "restart before sending": _restart("send", after=False),
    "restart after sending": _restart("send", after=True),
    "restart before the proof": _restart("read_back", after=False),
    "withdrawn before sending": _withdrawal(after=False),
    "withdrawn after sending": _withdrawal(after=True),
    "withdrawn, then a restart": _withdrawal(after=True, crash=True),
    "merged before sending": _merge(after=False),
    "merged after sending": _merge(after=True),
    "merged, then a restart": _merge(after=True, crash=True),
}
ELSEWHERE = {
    "lost before",
    "lost after",
    "busy",
    "token expired",
}  # alone: in test_vendors.py, with what exactly follows
# After a lost answer or a restart a person must look there; at epic since nothing remembers which route it went by.
FORGETFUL = BLIND | {"epic"}
FULL = os.environ.get("DERMBRIDGE_FULL_MATRIX") == "1"
ALONE = [(each, "") for each in HAPPENINGS if each not in ELSEWHERE]
BACK_AGAIN = ("merged, then a restart", "merged before sending")  # to a patient whose copy is about to be taken back
DAYS = list(product(HAPPENINGS, HAPPENINGS)) if FULL else [*ALONE, BACK_AGAIN]


@pytest.mark.parametrize("policy", ["stop", "retract"] if FULL else ["retract"])
@pytest.mark.parametrize(("first", "second"), DAYS)
@pytest.mark.parametrize("name", VENDORS)
def test_whatever_happens_each_photo_is_once_in_the_right_chart_or_waits_with_what_to_do(
    name: str, first: str, second: str, policy: str, opened: Open, permit: SimpleNamespace
) -> None:
    site = opened(name, **everywhere(name, on_withdrawal=policy))
    HAPPENINGS[first](site, name, permit)
    site.capture()
    site.run()
    if second:
        HAPPENINGS[second](site, name, permit)
    for hours in (0.1, 1, 7, 7, 7):
        site.later(hours=hours)
    check_account(site, name)
    if permit.permit and name not in FORGETFUL:
        assert site.rows()[-1].state == in_chart(name)
    permit.permit = True
    site.vendor.faults = []
    for _ in (first, second):  # what was to happen may happen only now
        sent_by_a_person(site, name)
    check_account(site, name)
    state = site.rows()[-1].state
    waits = state == "withheld" and not permit.permit
    assert waits or state in {in_chart(name), "retracted", "retracting"} or mrn("1") in site.numbers()


def everywhere(name: str, **changes: Any) -> dict[str, Any]:
    return {"limits": {"per_minute": 1000}} | changes if FILING[name][0] != "MLLP" else changes


def check_account(site: VendorSite, name: str) -> None:
    """What the vendor holds is what the deliveries say, and what is not settled says why and what to do."""
    rows = site.rows()
    told = [(row.state, row.reason, row.remedy) for row in rows]
    must = Counter(mrn(row.patient[1:]) for row in rows if row.state == in_chart(name))
    kept = Counter(mrn(row.patient[1:]) for row in rows if row.state == "retracting")
    may = Counter(mrn(row.patient[1:]) for row in rows if row.state == "failed")
    there = Counter(site.numbers())
    assert not must + kept - there, (told, there)  # nothing lost
    assert not there - must - kept - may, (told, there)  # nothing twice, nothing in a chart nobody speaks of
    assert not kept or name in KEPT, told
    assert not may or name in FORGETFUL, told
    settled = {in_chart(name), "superseded", "retracted"}
    assert all(row.state in settled or (row.reason and row.remedy) for row in rows), told
    assert all(row.state not in {"pending", "sending", "unknown"} for row in rows), told


def sent_by_a_person(site: VendorSite, name: str) -> None:
    """Consent is there again; what failed was looked for, and only what is not there is sent again."""
    latest = site.rows()[-1]
    held = mrn(latest.patient[1:]) in site.numbers()
    if latest.state == "withheld" or (latest.state == "failed" and not held):
        site.again()
        site.later(hours=7)
