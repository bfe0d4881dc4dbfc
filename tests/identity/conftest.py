"""A bridge that knows the assigning authorities of the demo hospital, and ADT messages for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from adapter.bridge import Bridge
from adapter.identity import apply_message, apply_messages
from adapter.work import Lane, WorkLoop

MRN = "urn:oid:2.16.840.1.113883.19.5"
VISIT = "urn:oid:2.16.840.1.113883.19.5.1"


@pytest.fixture
def site(bridge: Bridge) -> Bridge:
    known = {"identifier_systems": {"HOSP": MRN}, "visit_systems": {"HOSP": VISIT}}
    return replace(bridge, settings=bridge.settings.model_copy(update=known))


@pytest.fixture
def apply_all(site: Bridge) -> Callable[[], int]:
    """Do everything that is in line, as the work loop does."""
    lane = Lane(partial(apply_message, site), dead_blocks=True, together=partial(apply_messages, site))
    return WorkLoop(site.db, {"apply-adt": lane}, now=site.now).run_until_idle


def adt(
    event: str,
    control_id: str,
    mrn: str = "100",
    *,
    family: str = "Doe",
    born: str = "19800102",
    at: str = "20261123093000+0000",
    visit: str = "",
    merged: str = "",
    authority: str = "HOSP",
) -> bytes:
    """An ADT message of the demo hospital."""
    lines = [
        f"MSH|^~\\&|ADT|HOSP|DB|HOSP|{at}||ADT^{event}|{control_id}|P|2.5.1",
        f"EVN|{event}|{at}",
        f"PID|1||{mrn}^^^{authority}^MR||{family}^Jane||{born}|F",
    ]
    if visit:
        lines.append(f"PV1|1|O|DERM{'|' * 16}{visit}^^^HOSP^VN{'|' * 25}20261123080000+0000")
    if merged:
        lines.append(f"MRG|{merged}^^^HOSP^MR")
    return "".join(f"{line}\r" for line in lines).encode()
