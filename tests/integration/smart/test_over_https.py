"""The same foreign authorization server over https, both ends with certificates of a hospital's own authority."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from adapter.access.outbound import outbound_client
from adapter.settings import load_settings
from tests.integration.smart.test_foreign_ehr import (
    PROOFS,
    Foreign,
    Tls,
    grant_of,
    person,
    running,
    signed_in,
    until_expiry,
)
from tests.sandbox.conftest import free_port
from tests.web.conftest import picture

pytestmark = pytest.mark.real


def issued(folder: Path, name: str) -> Tls:
    """A new authority, and a certificate for 127.0.0.1 that it signed."""
    root, leaf = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    subject, ours = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, one)]) for one in (name, "127.0.0.1"))
    at, day = datetime.now(UTC), timedelta(days=1)
    authority = (
        x509.CertificateBuilder(subject, subject, root.public_key(), 1, at - day, at + day)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(root, hashes.SHA256())
    )
    server = (
        x509.CertificateBuilder(subject, ours, leaf.public_key(), 2, at - day, at + day)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(root, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    key = leaf.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    made = Tls(folder / f"{name}.pem", folder / f"{name}-server.pem")
    made.authority.write_bytes(authority.public_bytes(pem))
    made.server.write_bytes(key + server.public_bytes(pem))
    return made


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return issued(tmp_path_factory.mktemp("tls"), "hospital")


@pytest.fixture
def seconds() -> int:
    return 3600


@pytest.fixture
def foreign(tmp_path: Path, seconds: int, tls: Tls) -> Iterator[Foreign]:
    port, ours = free_port(), free_port()
    with running(port, f"https://127.0.0.1:{ours}", seconds, tls), ExitStack() as doors:
        yield Foreign(tmp_path, port, ours, doors, tls)


@pytest.fixture
def browser(tls: Tls) -> Iterator[httpx.Client]:
    trusted = ssl.create_default_context(cafile=tls.authority)
    with httpx.Client(headers={"Accept": "text/html"}, timeout=30, verify=trusted) as opened:
        yield opened


@pytest.mark.parametrize("client_id", PROOFS)
def test_a_launch_over_https_opens_the_chart_whatever_the_proof(
    foreign: Foreign, browser: httpx.Client, client_id: str
) -> None:
    """Configuration, token and keys of the EHR by our trust; our keys by the EHR's."""
    foreign.bridge(client_id)
    home = foreign.launch(browser)
    assert home.status_code == 200 and "NAKASHIMA" in home.text, home.text
    assert {cookie.secure for cookie in browser.cookies.jar if cookie.name.startswith("__Host-dermbridge")} == {True}
    assert person(foreign, browser, home).capture(picture()).status_code == 201


@pytest.mark.parametrize("seconds", [2])
def test_tokens_are_renewed_and_revoked_over_https(foreign: Foreign, browser: httpx.Client) -> None:
    bridge = foreign.bridge()
    home, first = foreign.launch(browser), grant_of(bridge).refresh_token
    until_expiry(bridge)
    assert browser.get(home.url).status_code == 200 and grant_of(bridge).refresh_token != first
    assert person(foreign, browser, home).post("/logout").status_code == 303
    assert browser.get(home.url).status_code == 401


def test_staff_sign_in_over_https(foreign: Foreign, browser: httpx.Client) -> None:
    came = signed_in(foreign, browser, "rivera")
    assert came.status_code == 200 and "Dr. Inés Rivera" in came.text


def test_an_authority_that_nobody_named_is_not_trusted_and_the_page_says_what_to_set(
    foreign: Foreign, browser: httpx.Client
) -> None:
    foreign.bridge(trusts=False)
    refused = foreign.launch(browser)
    assert refused.status_code == 503 and "ca_files" in refused.text, refused.text


def test_a_host_of_ca_files_is_not_vouched_for_by_another_authority(tmp_path: Path, foreign: Foreign) -> None:
    other = issued(tmp_path, "another")
    settings = load_settings(environment={}, ca_files={"127.0.0.1": other.authority})
    with outbound_client(settings) as http, pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        http.get(f"{foreign.origin}/jwks")
