"""kill -9 around saving comparisons and measurements: nothing acknowledged is lost, nothing repeated is kept twice."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from adapter.access import SYSTEM
from adapter.bridge import Bridge, open_bridge
from adapter.compare.reopening import is_comparison
from adapter.compare.saved import save_comparison
from adapter.measure.measuring import Drawn, keep
from adapter.records import Stored, find_where
from adapter.records.binaries import get_binary, open_binary
from adapter.records.pictures import pictures_of
from adapter.settings import load_settings
from mappings.comparison_to_observation import View
from mappings.measurement_to_observation import observation_to_measurement

KEPT, KILLS = 24, 4
PROGRAM = "import sys; from tests.compare.test_killed import save_until_killed; save_until_killed(*sys.argv[1:])"


def save_until_killed(data_dir: str, url: str, first: str, left: str, right: str) -> None:
    """Request after request from number `first`, each told once it is acknowledged; a process of its own."""
    bridge = open_bridge(load_settings(environment={}, data_dir=Path(data_dir), database_url=url))
    for number in range(int(first), KEPT):
        sys.stdout.write(f"{_save(bridge, number, left, right)}\n")
        sys.stdout.flush()


def _save(bridge: Bridge, number: int, left: str, right: str) -> str:
    """Request `number`: a comparison, then a measurement, in turns. Its resource's id."""
    if number % 2 == 0:
        return save_comparison(bridge, SYSTEM, [(left, 1), (right, 1)], view=View(), note=f"{number}").id
    line = ((10.0, 10.0), (20.0 + number, 10.0))
    return keep(bridge, SYSTEM, left, Drawn("length", line, 1.0, 1.0, {"source": "none"}, "Drawn by hand", 1)).id


@pytest.mark.long
def test_what_was_acknowledged_stands_once_with_all_that_belongs_to_it(bridge: Bridge, pair: tuple[str, str]) -> None:
    arguments = [str(bridge.settings.data_dir), bridge.settings.database_url or bridge.settings.database]
    dice, answered = random.Random(20261123), list[str]()
    for kill in range(1, KILLS + 1):
        command = [sys.executable, "-c", PROGRAM, *arguments, str(len(answered)), *pair]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], text=True) as process:
            assert process.stdout is not None
            while len(answered) < KEPT * kill // (KILLS + 1):
                answered.append(process.stdout.readline().strip())
            time.sleep(dice.uniform(0, 0.03))
            process.kill()
            answered += [line.strip() for line in process.stdout if line.endswith("\n")]
    answered += [_save(bridge, number, *pair) for number in range(len(answered), KEPT)]
    assert [_save(bridge, number, *pair) for number in range(KEPT)] == answered
    with bridge.db.snapshot() as tx:
        found = {one.id: one for one in find_where(tx, "Observation")}
        assert len(answered) == KEPT and set(answered) == set(found)
        assert [_said(found[one]) for one in answered] == [_asked(number) for number in range(KEPT)]
        told = Counter(target["reference"] for one in find_where(tx, "Provenance") for target in one.resource["target"])
        events = [one.resource for one in find_where(tx, "AuditEvent") if one.resource["action"] == "C"]
        logged = Counter(entity["what"]["reference"] for one in events for entity in one["entity"] if "what" in entity)
        for one in found.values():
            pictures = pictures_of(tx, one.reference)
            assert len(pictures) == (3 if is_comparison(one.resource) else 0)
            for made in (one, *pictures):
                assert told[made.version_reference] == logged[made.version_reference] == 1
            for picture in pictures:
                row = get_binary(tx, picture.resource["content"]["url"].removeprefix("Binary/"))
                assert len(open_binary(tx, bridge.vault, row).read()) == row.size


def _asked(number: int) -> str | float:
    return f"{number}" if number % 2 == 0 else 10.0 + number


def _said(kept: Stored) -> str | float:
    if is_comparison(kept.resource):
        return str(kept.resource["note"][0]["text"])
    return float(observation_to_measurement(kept.resource)["measures"][0]["value"])
