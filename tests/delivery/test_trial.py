"""What an integration engineer types before the first real photo: secrets, keys, a trial on a test system."""

from __future__ import annotations

import dataclasses
import json
import stat
from typing import Any

import pytest

from adapter.bridge import Bridge
from adapter.delivery.rehearsal import examine_destination, keep_secret
from adapter.delivery.trial import try_destination
from adapter.errors import BadInput, Conflict, Misconfigured
from adapter.records import find_where
from adapter.sandbox.vendors import Fault, RunningVendor, running_vendor
from connectors.layers import merged

EXPECTED = {
    "medplum": {"sent": "ok", "read back": "ok", "sent again": "ok", "taken back": "ok"},
    "oracle-health": {"sent": "ok", "read back": "ok", "sent again": "ok", "taken back": "ok"},
    "athenaone": {"sent": "ok", "read back": "warning", "sent again": "warning", "taken back": "warning"},
    "modmed-ema": {"sent": "ok", "read back": "warning", "sent again": "ok", "taken back": "warning"},
    "veradigm": {"sent": "ok", "read back": "warning", "sent again": "warning", "taken back": "ok"},
    "openemr": {"sent": "ok", "read back": "ok", "sent again": "ok", "taken back": "warning"},
    "pacs": {"sent": "ok", "read back": "ok", "sent again": "ok", "taken back": "ok"},
    "hl7v2": {"sent": "ok", "read back": "warning", "sent again": "warning", "taken back": "ok"},
}


def with_destination(bridge: Bridge, running: RunningVendor, **changes: Any) -> Bridge:
    entry = merged(running.destination("x"), changes)
    keep_secret(bridge.settings, "simulator", "s")
    return dataclasses.replace(bridge, settings=bridge.settings.model_copy(update={"destinations": (entry,)}))


def tried(bridge: Bridge, **more: Any) -> dict[str, Any]:
    given = {"patient": "4711", "born": "", "visit": "V-4711", "photo": None, "keep": False} | more
    return {each.subject: each for each in try_destination(bridge, "x", **given)}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_photo_is_tried_end_to_end_and_each_step_told(name: str, bridge: Bridge) -> None:
    with running_vendor(name) as running:
        running.vendor.admit("4711", "1970-01-01", "V-4711")
        site = with_destination(bridge, running)
        steps = tried(site)
        assert {subject: each.verdict for subject, each in steps.items()} == EXPECTED[name], steps
        assert all(each.remedy for each in steps.values() if each.verdict != "ok")
        assert len(running.vendor.filed()) == (EXPECTED[name]["taken back"] != "ok")
        tried(site)  # another trial is another photo, no replay
    with bridge.db.snapshot() as tx:
        assert "tried at x" in str([each.resource for each in find_where(tx, "AuditEvent")])


def test_a_patient_nobody_knows_stops_the_trial_with_what_to_do(bridge: Bridge) -> None:
    with running_vendor("medplum") as running:
        steps = tried(with_destination(bridge, running))
        assert list(steps) == ["stopped here"] and "Register the patient" in steps["stopped here"].remedy


def test_the_photo_of_a_trial_is_kept_where_it_is_wanted(bridge: Bridge) -> None:
    with running_vendor("medplum") as running:
        running.vendor.admit("4711", visit="V-4711")
        assert "taken back" not in tried(with_destination(bridge, running), keep=True)
        assert [each.mrn for each in running.vendor.filed()] == ["4711"]


def test_a_profile_that_is_not_complete_asks_nobody(bridge: Bridge) -> None:
    with running_vendor("oracle-health") as running:
        site = with_destination(bridge, running, tenant={"tenant": "set-me"})
        found = examine_destination(site, "x", ask=True)
        assert found[-1].subject == "connection" and "nobody asked" in found[-1].detail
        assert running.vendor.requests == []


def test_a_trial_that_came_too_soon_says_how_long_to_wait(bridge: Bridge) -> None:
    with running_vendor("medplum") as running:
        running.vendor.admit("4711")
        running.vendor.faults = [Fault("busy", "")]
        told = tried(with_destination(bridge, running, limits={"pause_seconds": 47}))
    assert told["stopped here"].detail.endswith("Again in 47 s.")


def test_nothing_goes_anywhere_while_a_profile_says_set_me(bridge: Bridge) -> None:
    with running_vendor("oracle-health") as running:
        site = with_destination(bridge, running, tenant={"tenant": "set-me"})
        with pytest.raises(Misconfigured, match=r"destination 'x': base_url, tenant.tenant not set"):
            tried(site)
        assert running.vendor.requests == []


def test_a_profile_is_examined_before_a_destination_is_based_on_it(bridge: Bridge) -> None:
    subjects = [each.subject for each in examine_destination(bridge, "epic", ask=True)]
    assert "1 route" in " ".join(subjects) and "connection" not in subjects


def test_the_answers_of_the_destination_follow_the_verdicts(bridge: Bridge) -> None:
    with running_vendor("medplum") as running:
        found = {each.subject: each for each in examine_destination(with_destination(bridge, running), "x", ask=True)}
    assert found["SMART configuration"].verdict == "ok" and "playing medplum" in found["software"].detail
    assert found["searching Media by identifier"].detail == "a number nobody bears finds nobody"


def test_a_secret_is_its_owners_alone_and_a_key_is_never_overwritten(bridge: Bridge) -> None:
    file, public = keep_secret(bridge.settings, "one", "text")
    assert (stat.S_IMODE(file.stat().st_mode), file.read_text(), public) == (0o600, "text\n", "")
    key, public = keep_secret(bridge.settings, "key.pem", "", new_key="ec")
    assert "PRIVATE" in key.read_text() and "d" not in json.loads(public)["keys"][0]
    with pytest.raises(Conflict, match="next_secret"):
        keep_secret(bridge.settings, "key.pem", "", new_key="ec")
    for name, text, kind in (("../one", "x", ""), ("one", "", ""), ("one", "", "dsa")):
        with pytest.raises(BadInput):
            keep_secret(bridge.settings, name, text, new_key=kind)


def test_a_site_names_its_own_where_the_starter_profile_left_room() -> None:
    assert merged({"authorities": {"set-me": "EPI"}}, {"authorities": {"urn:a": "HOSP"}}) == {
        "authorities": {"urn:a": "HOSP"}
    }
