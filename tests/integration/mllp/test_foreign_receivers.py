"""Our photos by HL7 v2 into three MLLP servers of other make: @medplum/hl7, node-hl7-server and HL7apy.

The Node ones need Node.js 20 or later and `npm ci` in this folder; without them they are skipped with that sentence.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from hl7apy.parser import parse_message

from benchmarks.mllp_peers import PEERS, hl7apy_peer
from connectors.contract import Connector
from connectors.hl7v2 import Hl7v2
from connectors.profile import build_profile
from connectors.registry import open_connector
from tests.connectors.test_contract import MRN, PHOTO, VISIT, parcel

pytestmark = pytest.mark.real

EVENTS = ("ORU^R01", "MDM^T02", "MDM^T10", "MDM^T11")
RECEIVERS: dict[str, Any] = PEERS | {"HL7apy": lambda: hl7apy_peer("ORU^R01^ORU_R01", "MDM^T02^MDM_T02")}


@pytest.fixture(params=RECEIVERS)
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    opened: AbstractContextManager[int] = RECEIVERS[request.param]()
    try:
        number = opened.__enter__()
    except LookupError as missing:
        (pytest.fail if os.environ.get("DERMBRIDGE_REQUIRE_REAL") else pytest.skip)(str(missing))
    yield number
    opened.__exit__(None, None, None)


def connector(port: int, message: str) -> Connector:
    table = {
        "name": "engine",
        "based_on": "hl7v2",
        "host": "127.0.0.1",
        "port": port,
        "message": message,
        "authorities": {MRN: "HOSP", VISIT: "HOSP"},
        "timeouts": {"read": 10.0},
    }
    return open_connector(build_profile(table, source="test"), lambda name: name)


@pytest.mark.parametrize("message", ["ORU^R01", "MDM^T02"])
@pytest.mark.parametrize("size", [len(PHOTO), 3_000_000], ids=["small", "large"])
def test_a_photo_is_acknowledged(port: int, message: str, size: int, request: pytest.FixtureRequest) -> None:
    if size > len(PHOTO) and "HL7apy" in request.node.callspec.params.values():
        pytest.xfail("HL7apy takes minutes to read a segment of 4 MB")
    opened = connector(port, message)
    content = PHOTO + bytes(size - len(PHOTO))
    receipt = opened.send(parcel(content=content))
    assert receipt.ids["Document"] and receipt.ids["Patient"] == "A-1"
    opened.close()


@pytest.mark.parametrize("event", EVENTS)
def test_hl7apy_reads_what_we_send(event: str) -> None:
    opened = connector(1, event if event in {"ORU^R01", "MDM^T02"} else "MDM^T02")
    assert isinstance(opened, Hl7v2)
    sent = opened.message(parcel(), event, withdraws=event.endswith("T11"))
    read = parse_message(sent.decode(), find_groups=False)
    assert read.msh.msh_9.to_er7().startswith(event)
    assert read.pid.pid_3.pid_3_1.to_er7() == "A-1"
