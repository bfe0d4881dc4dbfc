"""A worker that dies by SIGKILL amid deliveries to where nothing can be looked for: one photo in doubt for each death,
whatever else was in its hands, and nothing sent twice."""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from adapter.bridge import Bridge
from adapter.delivery import needs_a_look
from adapter.serve import open_prepared
from adapter.settings import load_settings
from tests.conftest import Clock
from tests.connectors.vendor_site import VendorSite, vendor_site
from tests.flows.test_crash import Service

PHOTOS, KILLS = range(1, 61), 4
PATIENCE_SECONDS = 60


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Bridge]:
    opened = open_prepared(load_settings(environment={}, data_dir=tmp_path / "data"))
    yield opened
    opened.close()


@pytest.mark.long
def test_each_kill_leaves_one_photo_in_doubt_at_most_and_none_is_sent_twice(
    installation: Bridge, clock: Clock, tmp_path: Path
) -> None:
    with vendor_site("hl7v2", installation, clock, resend="never") as site:
        for number in PHOTOS:
            site.capture(number)
        worker = Service(_environment(site, tmp_path), tmp_path / "worker.log", "worker")
        dice = random.Random(20261124)
        try:
            for kill in range(1, KILLS + 1):
                worker.start()
                _wait_until(partial(_has_sent, site, kill * len(PHOTOS) // (KILLS + 1)), worker)
                time.sleep(dice.random() / 100)
                worker.kill()
            worker.start()
            _wait_until(lambda: not _states(site).keys() - {"accepted", "failed"}, worker)
        finally:
            worker.kill()
        doubtful = [row for number in PHOTOS for row in site.rows(number) if needs_a_look(row)]
        states = _states(site)
        print(f"{KILLS} kills: {states['accepted']} accepted, {len(doubtful)} in doubt, {_sent(site)} sent")
        assert states == {"accepted": len(PHOTOS) - len(doubtful), "failed": len(doubtful)} and len(doubtful) <= KILLS
        assert states["accepted"] <= _sent(site) <= len(PHOTOS)
        assert states["accepted"] <= len(set(site.filed())) == len(site.filed())


def _environment(site: VendorSite, folder: Path) -> dict[str, str]:
    destination = site.bridge.settings.destinations[0]
    lines = [f"{name} = {_toml(value)}" for name, value in destination.items()]
    file = folder / "dermbridge.toml"
    file.write_text("processes = 1\nworker_threads = 1\n[[destinations]]\n" + "\n".join(lines) + "\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DERMBRIDGE_")}
    return kept | {
        "DERMBRIDGE_CONFIG": str(file),
        "DERMBRIDGE_DATA_DIR": str(site.bridge.settings.data_dir),
        "DERMBRIDGE_TEST_LEASE": "2",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f'"{name}" = {_toml(each)}' for name, each in value.items()) + " }"
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def _sent(site: VendorSite) -> int:
    return len(site.vendor.requests)


def _has_sent(site: VendorSite, wanted: int) -> bool:
    return _sent(site) >= wanted


def _states(site: VendorSite) -> Counter[str]:
    return Counter(row.state for number in PHOTOS for row in site.rows(number))


def _wait_until(is_so: Callable[[], bool], worker: Service) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        worker.check_alive()
        assert time.monotonic() < until, worker.log.read_text()[-3000:]
        time.sleep(0.005)
