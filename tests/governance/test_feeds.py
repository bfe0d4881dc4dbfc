"""Audit repositories on real sockets: told everything in order, down for as long as they like, and never losing one."""

from __future__ import annotations

import json
import re
import socket
import ssl
import struct
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from sqlalchemy import func, select

from adapter import governance
from adapter.access import Actor
from adapter.bridge import Bridge
from adapter.db.tables import audit_feed, work
from adapter.governance import feeds
from adapter.governance.seal import seal, seal_all
from adapter.settings import AuditFeed
from adapter.work import Lane, WorkLoop, revive
from connectors.audit_repository import SyslogTls, Trust
from connectors.contract import DeliveryError
from mappings.audit_event_to_dicom import audit_message, syslog_message
from mappings.fhir_check import check_resource
from tests.conftest import Clock
from tests.identity.test_mllp_tls import certificate

DOCTOR = Actor("person", "Practitioner/d1", "Dr. Ü <D>", "clinician", address="10.0.0.7", token_id="t1")


class SyslogServer:
    """RFC 5425 receiver: keeps whole frames. `broken`: reads a little, then resets the connection."""

    def __init__(self, pem: Path) -> None:
        self.messages: list[bytes] = []
        self.broken = False
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pem)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                plain, _ = self._listener.accept()
                with suppress(OSError), self._context.wrap_socket(plain, server_side=True) as connection:
                    self._serve(connection)

    def _serve(self, connection: ssl.SSLSocket) -> None:
        if self.broken:
            connection.recv(100)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        read = b""
        while chunk := connection.recv(65_536):
            read += chunk
        while read:
            length, _, rest = read.partition(b" ")
            self.messages.append(rest[: int(length)])
            read = rest[int(length) :]
        connection.unwrap()

    def close(self) -> None:
        self._listener.close()


class FhirServer(ThreadingHTTPServer):
    """Takes transactions of AuditEvents; `answer` is its status."""

    daemon_threads = True

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.answer = 200
        self.seen: list[tuple[str, str | None]] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: FhirServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, self.headers["Authorization"]))
        if self.server.answer < 300:
            entries = body.get("entry", [{"resource": body}])
            self.server.events += [entry["resource"] for entry in entries]
        self.send_response(self.server.answer)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Not into the test's output."""


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    return certificate(tmp_path, "arr")


@pytest.fixture
def syslog(pem: Path) -> Iterator[SyslogServer]:
    server = SyslogServer(pem)
    yield server
    server.close()


@pytest.fixture
def arr() -> Iterator[FhirServer]:
    server = FhirServer()
    yield server
    server.shutdown()
    server.server_close()


@contextmanager
def telling(bridge: Bridge, **feed: Any) -> Iterator[tuple[Bridge, WorkLoop]]:
    """The installation with this feed."""
    settings = bridge.settings.model_copy(update={"audit_feeds": (AuditFeed(name="arr", **feed),)})
    told = Bridge(settings, bridge.db, bridge.vault, bridge.now)
    lane = Lane(partial(feeds.tell, told, feeds.open_repository(told)))
    yield told, WorkLoop(bridge.db, {feeds.KIND: lane}, now=bridge.now)


def write(bridge: Bridge, count: int) -> None:
    with bridge.db.transaction() as tx:
        for n in range(count):
            governance.audit(tx, bridge, "query", DOCTOR, patient_id="p1", query=f"Media?n={n}")


def queries(told: list[dict[str, Any]]) -> list[str]:
    return [b64decode(entity["query"]).decode() for one in told for entity in one["entity"] if "query" in entity]


def test_everything_sealed_is_told_by_syslog_in_order_once(bridge: Bridge, syslog: SyslogServer, pem: Path) -> None:
    with telling(bridge, url=f"syslog+tls://127.0.0.1:{syslog.port}", ca=pem) as (told, loop):
        write(told, feeds.CHUNK + 50)
        seal_all(told)
        loop.run_until_idle()
        loop.run_until_idle()
    line = re.compile(rb'<85>1 \S+ \S+ DermBridge - IHE\+RFC-3881 \[meta sequenceId="(\d+)"\] (<AuditMessage>.*)', re.S)
    matches = [line.fullmatch(one) for one in syslog.messages]
    assert [int(match[1]) for match in matches if match] == list(range(1, feeds.CHUNK + 51))
    assert all(match and ElementTree.fromstring(match[2]) is not None for match in matches)


def test_a_repository_that_is_down_is_told_later_and_costs_one_row_meanwhile(
    bridge: Bridge, arr: FhirServer, clock: Clock
) -> None:
    arr.answer = 503
    with telling(bridge, url=f"http://127.0.0.1:{arr.server_port}/fhir", token="secret") as (told, loop):
        for _ in range(5):
            write(told, 3)
            seal(told)
            loop.run_until_idle()
            clock.advance(days=1)
        with bridge.db.snapshot() as tx:
            assert tx.execute(select(work.c.state, work.c.reason)).all() == [
                ("waiting", "The audit repository answered 503.")
            ]
        arr.answer = 200
        loop.run_until_idle()
    assert queries(arr.events) == ["Media?n=0", "Media?n=1", "Media?n=2"] * 5
    assert set(arr.seen) == {("/fhir", "Bearer secret")}
    with bridge.db.snapshot() as tx:
        assert tx.execute(select(audit_feed.c.next_seq)).scalar_one() == 15
        assert tx.execute(select(func.count()).select_from(work)).scalar_one() == 0


def test_what_is_told_is_valid_fhir_that_says_which_event_of_ours_it_is(bridge: Bridge, arr: FhirServer) -> None:
    with telling(bridge, url=f"http://127.0.0.1:{arr.server_port}/fhir", bundle=False) as (told, loop):
        write(told, 2)
        seal(told)
        loop.run_until_idle()
    assert {path for path, _ in arr.seen} == {"/fhir/AuditEvent"}
    for one in arr.events:
        check_resource(one)
        assert "id" not in one
        assert one["meta"]["source"].startswith(f"{bridge.settings.base_url}/fhir/AuditEvent/")


def test_a_connection_that_breaks_in_the_middle_has_told_nothing(syslog: SyslogServer, pem: Path) -> None:
    repository = SyslogTls(f"syslog+tls://127.0.0.1:{syslog.port}", Trust(pem), host="h", seconds=5)
    event = {"resourceType": "AuditEvent", "id": "1", **EVENT}
    syslog.broken = True
    with pytest.raises(DeliveryError, match="could not be told"):
        repository.tell([(n, event) for n in range(20_000)])
    syslog.broken = False
    repository.tell([(7, event)])
    assert [message.partition(b"sequenceId=")[2][:3] for message in syslog.messages] == [b'"8"']


def test_a_repository_whose_certificate_is_not_trusted_is_told_nothing(syslog: SyslogServer) -> None:
    with pytest.raises(DeliveryError, match="not trusted"):
        SyslogTls(f"syslog+tls://127.0.0.1:{syslog.port}", Trust(), host="h", seconds=5).tell([])


def test_what_the_repository_refuses_waits_for_a_person(bridge: Bridge, arr: FhirServer) -> None:
    arr.answer = 422
    with telling(bridge, url=f"http://127.0.0.1:{arr.server_port}/fhir") as (told, loop):
        write(told, 1)
        seal(told)
        loop.run_until_idle()
        with bridge.db.transaction() as tx:
            assert tx.execute(select(work.c.state)).scalars().all() == ["dead"]
            assert revive(tx, f"{feeds.KIND}:arr", at=told.now())
        arr.answer = 201
        loop.run_until_idle()
    assert queries(arr.events) == ["Media?n=0"]


@pytest.mark.parametrize(("from_start", "count"), [(False, 1), (True, 3)])
def test_a_new_feed_begins_with_what_is_new_or_with_everything(
    bridge: Bridge, arr: FhirServer, from_start: bool, count: int
) -> None:
    write(bridge, 2)
    seal(bridge)
    with telling(bridge, url=f"http://127.0.0.1:{arr.server_port}/fhir", from_start=from_start) as (told, loop):
        write(told, 1)
        seal(told)
        loop.run_until_idle()
    assert len(arr.events) == count


def test_a_feed_taken_out_of_the_settings_leaves_no_work(bridge: Bridge, arr: FhirServer) -> None:
    with telling(bridge, url=f"http://127.0.0.1:{arr.server_port}/fhir") as (told, _):
        write(told, 1)
        seal(told)
    WorkLoop(
        bridge.db, {feeds.KIND: Lane(partial(feeds.tell, bridge, feeds.open_repository(bridge)))}, now=bridge.now
    ).run_until_idle()
    with bridge.db.snapshot() as tx:
        assert tx.execute(select(func.count()).select_from(work)).scalar_one() == 0


EVENT: dict[str, Any] = {
    "type": {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "110106"},
    "subtype": [{"system": "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle", "code": "disclose"}],
    "action": "R",
    "recorded": "2026-11-23T09:30:00.000Z",
    "outcome": "0",
    "agent": [
        {
            "type": {"coding": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "110153"}]},
            "who": {"identifier": {"value": "importer"}, "display": "Importer"},
            "name": "Dr. Ü <D>",
            "requestor": True,
            "policy": ["urn:ietf:params:oauth:jti:t1"],
            "network": {"address": "10.0.0.7", "type": "2"},
        }
    ],
    "source": {"site": "Larkfield", "observer": {"reference": "Device/dermbridge"}},
    "entity": [
        {"what": {"reference": "Patient/p1"}, "type": {"code": "1"}, "role": {"code": "1"}},
        {"type": {"code": "4"}, "detail": [{"type": "detail", "valueString": "why"}]},
    ],
}


def test_the_dicom_message_says_what_the_event_says() -> None:
    root = ElementTree.fromstring(audit_message({"id": "e1", **EVENT}))
    assert [child.tag for child in root] == [
        "EventIdentification",
        "ActiveParticipant",
        "AuditSourceIdentification",
        *["ParticipantObjectIdentification"] * 2,
    ]
    event, participant, source, patient, detail = root
    assert event.attrib == {
        "EventActionCode": "R",
        "EventDateTime": "2026-11-23T09:30:00.000Z",
        "EventOutcomeIndicator": "0",
    }
    assert event[0].attrib == {"csd-code": "110106", "codeSystemName": "DCM", "originalText": "110106"}
    assert participant.attrib == {
        "UserID": "importer",
        "AlternativeUserID": "urn:ietf:params:oauth:jti:t1",
        "UserName": "Dr. Ü <D>",
        "UserIsRequestor": "true",
        "NetworkAccessPointID": "10.0.0.7",
        "NetworkAccessPointTypeCode": "2",
    }
    assert source.attrib == {"AuditEnterpriseSiteID": "Larkfield", "AuditSourceID": "Device/dermbridge"}
    assert (patient.attrib["ParticipantObjectID"], patient[0].attrib["csd-code"]) == ("p1", "2")
    assert b64decode(detail[1].attrib["value"]) == b"why"


def test_the_number_of_a_message_stays_within_what_rfc_5424_counts() -> None:
    assert b'sequenceId="2147483647"' in syslog_message({"id": "1", **EVENT}, host="h", seq=2**31 - 2)
    assert b'sequenceId="1"' in syslog_message({"id": "1", **EVENT}, host="h", seq=2**31 - 1)


@pytest.mark.parametrize("url", ["http://arr.example.org/fhir", "syslog://arr.example.org", "udp://x"])
def test_a_feed_that_would_leave_in_the_clear_is_refused_at_start(url: str) -> None:
    with pytest.raises(ValueError, match="the audit log names patients"):
        AuditFeed(name="arr", url=url)
