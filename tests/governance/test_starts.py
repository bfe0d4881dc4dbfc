"""Starts, stops and changed settings are in the log; the log never tells a setting, let alone a secret."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from adapter.bridge import Bridge
from adapter.governance.log import Question, all_events
from adapter.governance.starts import running
from adapter.settings import Ehr
from tests.conftest import Clock

EHR = Ehr(name="e", iss="https://ehr.example.org", client_id="c", client_secret=SecretStr("s3cret-1"))


def start(bridge: Bridge, clock: Clock, command: str, **changed: Any) -> None:
    clock.advance(minutes=1)
    settings = bridge.settings.model_copy(update=changed)
    with running(Bridge(settings, bridge.db, bridge.vault, bridge.now), command):
        clock.advance(minutes=1)


def told(bridge: Bridge) -> list[tuple[str, str]]:
    return [(one.did, one.detail or "") for one in all_events(bridge.db, Question())][::-1]


def changes(bridge: Bridge) -> list[str]:
    return [detail.split()[0] for did, detail in told(bridge) if "settings" in detail]


def test_a_start_and_a_stop_are_told_and_the_first_settings(bridge: Bridge, clock: Clock) -> None:
    start(bridge, clock, "serve")
    started, changed, stopped = told(bridge)
    assert started == ("Started", "serve")
    assert changed[1].startswith("serve settings ")
    assert changed[1].endswith(", the first")
    assert stopped == ("Stopped", "serve")


@pytest.mark.parametrize(
    "changed",
    [
        {"site_name": "Elsewhere"},
        {"identifier_systems": {"HOSP": "urn:oid:1.2.3"}},
        {"ehrs": (EHR.model_copy(update={"client_secret": SecretStr("s3cret-2")}),)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_only_changed_settings_are_told_and_never_what_they_are(
    bridge: Bridge, clock: Clock, changed: dict[str, Any]
) -> None:
    before: dict[str, Any] = {"ehrs": (EHR,)}
    for settings in (before, before, before | changed, before | changed):
        start(bridge, clock, "serve", **settings)
    assert changes(bridge) == ["serve", "serve"]
    assert "s3cret" not in str(told(bridge))


def test_each_command_is_compared_with_itself(bridge: Bridge, clock: Clock) -> None:
    for _ in range(2):
        start(bridge, clock, "serve", http_port=1)
        start(bridge, clock, "worker", http_port=2)
    assert changes(bridge) == ["serve", "worker"]


def test_a_process_that_ends_badly_has_stopped_all_the_same(bridge: Bridge) -> None:
    with pytest.raises(ZeroDivisionError), running(bridge, "serve"):
        _ = 1 / 0
    assert told(bridge)[-1] == ("Stopped", "serve")
