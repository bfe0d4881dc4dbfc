"""Mutual TLS over HTTP and MLLP, and DICOM titles: who may speak to whom, on real sockets."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from adapter.sandbox.vendors import RunningVendor, running_vendor
from connectors.contract import DeliveryError
from connectors.profile import ProfileError, build_profile
from connectors.registry import open_connector
from tests.connectors.test_contract import MRN, VISIT, parcel


class Authority:
    """A certificate authority; `pem` is its certificate."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self._certificate = self._signed(self._name, self._key.public_key(), ca=True)
        self.pem = folder / "ca.pem"
        self.pem.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> str:
        """The path of a PEM with certificate and key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        pem = self._signed(subject, key.public_key(), ca=False).public_bytes(serialization.Encoding.PEM)
        pem += key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self._folder / f"{name}.pem").write_bytes(pem)
        return str(self._folder / f"{name}.pem")

    def _signed(self, subject: x509.Name, key: Any, *, ca: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(self._name, subject, key, x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        names = [x509.IPAddress(ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def guarded(authority: Authority) -> ssl.SSLContext:
    """A server's side that wants to see a certificate of this authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.pem))
    context.load_cert_chain(authority.issue("server"))
    context.verify_mode = ssl.CERT_REQUIRED
    return context


class _Statement(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None: ...


@pytest.fixture
def https(authority: Authority) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Statement)
    server.socket = guarded(authority).wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}/fhir"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def engine(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningVendor]:
    """An interface engine whose MLLP port speaks TLS."""
    from adapter.sandbox.vendors import servers

    real, context = servers._MllpServer.get_request, guarded(authority)

    def accept(server: Any) -> Any:
        connection, address = real(server)
        return context.wrap_socket(connection, server_side=True), address

    monkeypatch.setattr(servers._MllpServer, "get_request", accept)
    with running_vendor("hl7v2") as running:
        running.vendor.admit("A-1")
        yield running


@pytest.mark.parametrize(
    ("shown", "trusted", "verdict"), [(True, True, "ok"), (False, True, "error"), (True, False, "error")]
)
def test_mutual_tls_over_http(authority: Authority, https: str, shown: bool, trusted: bool, verdict: str) -> None:
    auth = {"client_certificate": authority.issue("us")} if shown else {}
    auth |= {"ca_file": str(authority.pem)} if trusted else {}
    table = {"name": "x", "kind": "fhir-r4", "base_url": https, "auth": auth, "timeouts": {"attempts": 1}}
    connector = open_connector(build_profile(table, source="test"), str)
    found = {each.subject: each for each in connector.check()}
    connector.close()
    assert found["connection"].verdict == verdict and (verdict == "ok" or found["connection"].remedy)


def refusal_at(base_url: str) -> str:
    table = {"name": "x", "kind": "fhir-r4", "base_url": base_url, "timeouts": {"attempts": 1, "connect": 1.0}}
    with closing(open_connector(build_profile(table, source="test"), str)) as connector:
        (found,) = connector.check()
    return f"{found.detail} {found.remedy}"


def test_why_a_destination_is_not_reached_is_told_with_what_to_change(https: str) -> None:
    host = https.split("/")[2]
    told = refusal_at(https)
    assert f"{host} could not be reached: its certificate is not to be trusted" in told and "ca_file" in told
    with running_vendor("hapi") as plain:
        assert "whether that port speaks TLS" in refusal_at(plain.address.replace("http:", "https:"))
    assert "nobody listens there" in refusal_at("http://127.0.0.1:1/fhir")
    assert "nobody knows that name (DNS)" in refusal_at("https://ehr.invalid/fhir")


@pytest.mark.parametrize("key", ["ca_file", "client_certificate"])
def test_a_certificate_file_that_is_not_there_is_told_with_its_key(key: str, tmp_path: Path) -> None:
    table: dict[str, Any] = {"name": "x", "kind": "fhir-r4", "base_url": "https://ehr.invalid/fhir"}
    with pytest.raises(ProfileError, match=f"{key}: .*gone.pem is of no use"):
        open_connector(build_profile(table | {"auth": {key: str(tmp_path / "gone.pem")}}, source="test"), str)
    table = {"name": "x", "kind": "hl7v2", "host": "127.0.0.1", "port": 1, "tls": True, key: "gone.pem"}
    engine = open_connector(build_profile(table | {"authorities": {MRN: "HOSP"}}, source="test"), str)
    with pytest.raises(DeliveryError, match=f"{key}: gone.pem is of no use") as error:
        engine.send(parcel())
    assert not error.value.outage


@pytest.mark.parametrize(("trusted", "told"), [(True, "by TLS"), (False, "not to be trusted")])
def test_checking_an_engine_that_speaks_tls_looks_at_its_certificate(
    authority: Authority, engine: RunningVendor, trusted: bool, told: str
) -> None:
    changes = {"tls": True, "client_certificate": authority.issue("us")}
    changes |= {"ca_file": str(authority.pem)} if trusted else {}
    table = engine.destination("x", **changes, authorities={MRN: "HOSP"})
    with closing(open_connector(build_profile(table, source="test"), str)) as connector:
        (found,) = connector.check()
    assert told in found.detail and found.verdict == ("ok" if trusted else "error")


@pytest.mark.parametrize(("shown", "tls"), [(True, True), (False, True), (True, False)])
def test_mutual_tls_over_mllp(authority: Authority, engine: RunningVendor, shown: bool, tls: bool) -> None:
    changes = {"tls": tls, "ca_file": str(authority.pem), "authorities": {MRN: "HOSP", VISIT: "HOSP"}}
    changes |= {"client_certificate": authority.issue("us")} if shown else {}
    table = engine.destination("x", **changes, timeouts={"read": 2.0, "attempts": 1}, accepts=[], transform={})
    connector = open_connector(build_profile(table, source="test"), str)
    if shown and tls:
        assert connector.send(parcel()).route == "hl7v2-oru" and len(engine.vendor.filed()) == 1
    else:
        with pytest.raises(DeliveryError) as error:
            connector.send(parcel())
        assert error.value.outage and not engine.vendor.filed()


@pytest.mark.parametrize(
    ("called", "calling", "verdict"), [("PACS", "PHOTOS", "ok"), ("OTHER", "PHOTOS", "error"), ("PACS", "X", "error")]
)
def test_an_archive_that_knows_titles_is_called_by_its_own_and_told_ours(
    called: str, calling: str, verdict: str
) -> None:
    from pynetdicom.ae import ApplicationEntity
    from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

    archive = ApplicationEntity(ae_title="PACS")
    archive.require_called_aet, archive.require_calling_aet = True, ["PHOTOS"]
    archive.add_supported_context(Verification)
    server = archive.start_server(("127.0.0.1", 0), block=False)
    assert server is not None
    table = {"name": "x", "kind": "dicom-cstore", "host": "127.0.0.1", "port": server.server_address[1]}
    table |= {"called_ae": called, "calling_ae": calling, "timeouts": {"connect": 2.0, "read": 2.0}}
    connector = open_connector(build_profile(table, source="test"), str)
    (found,) = connector.check()
    server.shutdown()
    assert found.verdict == verdict and (verdict == "ok" or "AE title" in found.remedy)
