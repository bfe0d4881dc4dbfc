"""One DermBridge for the tests of all simulated vendors, emptied after each."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adapter import consent
from adapter.bridge import Bridge, open_bridge
from adapter.db.tables import metadata
from adapter.sandbox.vendors import RunningVendor, running_vendor
from adapter.settings import load_settings
from connectors.contract import Connector
from connectors.layers import merged
from connectors.profile import build_profile
from connectors.registry import open_connector
from tests.conftest import Clock
from tests.connectors.vendor_site import Open, Played, VendorSite, consent_says, vendor_site


@pytest.fixture(scope="module")
def installation(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    """One for all, since opening costs more than most tests; SQLite alone: tests/delivery runs on both databases."""
    folder = tmp_path_factory.mktemp("data")
    folder.chmod(0o700)
    shutil.copyfile(sqlite_template, folder / "dermbridge.sqlite3")
    opened = open_bridge(load_settings(environment={}, data_dir=folder))
    yield opened
    opened.close()


@pytest.fixture
def emptied(installation: Bridge, clock: Clock) -> Iterator[Bridge]:
    """Empty, and with this test's clock."""
    yield dataclasses.replace(installation, now=clock)
    with installation.db.transaction() as tx:
        for table in reversed(metadata.sorted_tables):
            tx.execute(table.delete())


@pytest.fixture
def permit(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    said = consent_says(True)
    monkeypatch.setattr(consent, "decide_each", lambda tx, bridge, asked: [said for _ in asked])
    return said


@pytest.fixture
def opened(emptied: Bridge, clock: Clock, permit: SimpleNamespace) -> Iterator[Open]:
    contexts = []

    def open_site(name: str, **changes: Any) -> VendorSite:
        contexts.append(vendor_site(name, emptied, clock, **changes))
        return contexts[-1].__enter__()

    yield open_site
    for context in contexts:
        context.__exit__(None, None, None)


@pytest.fixture
def played() -> Iterator[Played]:
    """Opens played vendors that know the patients A-1 and A-2, each with the connector that reaches it."""
    with ExitStack() as stack:

        def open_one(name: str, **changes: Any) -> tuple[RunningVendor, Connector]:
            running = stack.enter_context(running_vendor(name))
            for number in "12":
                running.vendor.admit(f"A-{number}", "1970-01-01", f"V-{number}")
            entry = merged(running.destination("x", timeouts={"attempts": 1, "read": 2.0}), changes)
            connector = open_connector(build_profile(entry, source="test"), str)
            stack.callback(connector.close)
            return running, connector

        yield open_one
