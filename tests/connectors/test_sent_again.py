"""A photo that was sent again, by a person, and did not come to it: what the destination holds is never forgotten."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from adapter.delivery import deliver_media, send_again, take_back
from adapter.delivery.outbox import hold
from adapter.delivery.withdrawal import take_back_withdrawn
from adapter.records import get, update_resource
from connectors.dicomweb import DicomWeb
from connectors.fhir_server import FhirServer
from tests.connectors.vendor_site import Open, VendorSite


@pytest.fixture
def site(opened: Open) -> VendorSite:
    """Its photo was read back and found different: failed, and there."""
    site = opened("medplum", on_withdrawal="retract")
    site.capture()
    site.in_the_middle("read_back", lambda: _corrupt(site), after=False)
    site.run()
    assert (site.rows()[0].state, site.numbers()) == ("failed", ["1001"])
    return site


def _corrupt(site: VendorSite) -> None:
    site.vendor.binaries = {name: (kind, data[:-1] + b"!") for name, (kind, data) in site.vendor.binaries.items()}


def say_again(site: VendorSite) -> None:
    """A person says so; no worker has come to it yet."""
    with site.bridge.db.transaction() as tx:
        send_again(tx, site.bridge, site.rows()[0].id)


def change(site: VendorSite, **elements: Any) -> None:
    with site.bridge.db.transaction() as tx:
        media = update_resource(tx, get(tx, "Media", "m1").resource | elements, at=site.clock())
        deliver_media(tx, site.bridge, media)


def states(site: VendorSite) -> list[str]:
    return [row.state for row in site.rows()]


def test_overtaken_by_the_same_patients_newer_version_it_is_replaced(site: VendorSite) -> None:
    say_again(site)
    change(site, note=[{"text": "better"}])
    site.later()
    assert (states(site), site.numbers()) == (["superseded", "confirmed"], ["1001"])


def test_overtaken_by_the_right_patients_it_is_taken_back_from_the_wrong_one(site: VendorSite) -> None:
    say_again(site)
    site.move(1, "2")
    site.later()
    assert (states(site), site.numbers()) == (["retracted", "confirmed"], ["1002"])


def test_sent_again_when_another_patient_has_it_already_waits_as_what_it_is(
    site: VendorSite, permit: SimpleNamespace
) -> None:
    permit.permit = False
    site.move(1, "2")
    site.run()
    say_again(site)
    site.run()
    assert (states(site), site.numbers()) == (["accepted", "withheld"], ["1001"])
    permit.permit = True
    with site.bridge.db.transaction() as tx:
        send_again(tx, site.bridge, site.rows()[1].id)
    site.later()
    assert (states(site), site.numbers()) == (["retracted", "confirmed"], ["1002"])


@pytest.mark.parametrize("waits", ["held", "withheld"])
def test_what_waits_with_a_copy_there_is_taken_back_when_the_photo_turns_out_another_patients(
    site: VendorSite, permit: SimpleNamespace, waits: str
) -> None:
    permit.permit = waits != "withheld"
    say_again(site)
    if waits == "held":
        with site.bridge.db.transaction() as tx:
            hold(tx, site.bridge, site.rows()[0].id)
    site.run()
    assert states(site) == [waits]
    permit.permit = True
    site.move(1, "2")
    site.later()
    assert (states(site), site.numbers()) == (["retracted", "confirmed"], ["1002"])


def test_a_photo_that_is_nobodys_is_taken_back_though_it_waits_to_be_sent_again(site: VendorSite) -> None:
    say_again(site)
    with site.bridge.db.transaction() as tx:
        update_resource(tx, get(tx, "Media", "m1").resource | {"status": "entered-in-error"}, at=site.clock())
        take_back(tx, site.bridge, "m1", reason="it is nobody's")
    site.later()
    assert (states(site), site.numbers()) == (["retracted"], [])


def test_a_worker_that_finds_it_nobodys_takes_it_back_itself(site: VendorSite) -> None:
    with site.bridge.db.transaction() as tx:
        update_resource(tx, get(tx, "Media", "m1").resource | {"status": "entered-in-error"}, at=site.clock())
    say_again(site)
    site.later()
    assert (states(site), site.numbers()) == (["retracted"], [])


@pytest.mark.parametrize("again", [False, True])
def test_a_withdrawal_takes_back_what_is_there_though_it_failed_or_waits(
    site: VendorSite, permit: SimpleNamespace, again: bool
) -> None:
    if again:
        say_again(site)
    permit.permit = False
    with site.bridge.db.transaction() as tx:
        take_back_withdrawn(tx, site.bridge, "p1")
    site.later()
    assert (states(site), site.numbers()) == (["withheld"], [])


@pytest.mark.parametrize(
    ("name", "changes", "kind", "step"),
    [
        ("pacs", {"retract": "reject"}, DicomWeb, "_retire_previous"),
        ("medplum", {"replaces": False}, FhirServer, "update"),
    ],
)
def test_a_crash_before_the_former_version_is_taken_away_leaves_no_second_one(
    name: str, changes: dict[str, Any], kind: type, step: str, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = opened(name, **changes)
    site.capture()
    site.run()
    change(site, note=[{"text": "better"}])
    with monkeypatch.context() as crashing:
        crashing.setattr(kind, step, lambda *_: site.crash())
        site.run()
    assert site.numbers() == ["1001", "1001"]
    site.later(minutes=10)
    assert (states(site), site.numbers()) == (["superseded", "confirmed"], ["1001"])
