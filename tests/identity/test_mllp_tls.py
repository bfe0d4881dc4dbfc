"""TLS on the MLLP socket, from the settings' PEM files to the name of the peer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from adapter.bridge import Bridge
from adapter.errors import Misconfigured, Unavailable
from adapter.identity.mllp_client import send
from adapter.identity.mllp_strangers import Strangers
from adapter.identity.mllp_tls import client_tls, server_tls
from adapter.records import find_where
from adapter.serve import start_mllp
from adapter.settings import MllpListener, load_settings
from tests.conftest import Clock
from tests.identity.conftest import adt
from tests.identity.listening import MESSAGE, Ledger, serving


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate and its key in one file: its own CA."""
    return certificate(tmp_path_factory.mktemp("ours"), "adt-feed")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("theirs"), "stranger")


def certificate(folder: Path, common_name: str) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "peer.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + built.public_bytes(serialization.Encoding.PEM))
    return path


def test_a_listener_with_a_certificate_speaks_tls_and_nothing_else(ours: Path) -> None:
    ledger = Ledger()
    with serving(ledger, ssl=server_tls(MllpListener(port=0, certificate=ours))) as port:
        assert send("127.0.0.1", port, [MESSAGE], ssl=client_tls(ours)) == [b"ACK " + MESSAGE]
        with pytest.raises(Unavailable):
            send("127.0.0.1", port, [MESSAGE])
    assert ledger.received == [MESSAGE]
    assert "/" not in ledger.peers[0]


def test_mutual_tls_admits_those_the_ca_has_signed_and_names_them(ours: Path, theirs: Path) -> None:
    ledger = Ledger()
    listener = MllpListener(port=0, certificate=ours, client_ca=ours)
    with serving(ledger, ssl=server_tls(listener)) as port:
        assert send("127.0.0.1", port, [MESSAGE], ssl=client_tls(ours, ours)) == [b"ACK " + MESSAGE]
        for certificate_shown in (None, theirs):
            with pytest.raises(Unavailable):
                send("127.0.0.1", port, [MESSAGE], ssl=client_tls(ours, certificate_shown))
    assert [peer.split("/")[1] for peer in ledger.peers] == ["adt-feed"]


def test_who_shows_a_wrong_certificate_or_none_is_in_the_audit_log_once_a_minute(
    bridge: Bridge, clock: Clock, ours: Path, theirs: Path
) -> None:
    strangers = Strangers(bridge)
    listener = MllpListener(port=0, certificate=ours, client_ca=ours)

    def knock(shown: Path | None) -> None:
        with serving(Ledger(), ssl=server_tls(listener), stranger=strangers) as port, pytest.raises(Unavailable):
            send("127.0.0.1", port, [MESSAGE], ssl=client_tls(ours, shown))

    knock(theirs)
    knock(theirs)
    clock.advance(minutes=2)
    knock(None)
    with bridge.db.snapshot() as tx:
        events = [one.resource for one in find_where(tx, "AuditEvent")]
    failed = [one for one in events if {"110126"} & {code["code"] for code in one.get("subtype", [])}]
    assert [one["outcome"] for one in failed] == ["8", "8"]
    told = [one["outcomeDesc"] for one in sorted(failed, key=lambda one: one["recorded"])]
    assert told == [
        "MLLP over TLS: CERTIFICATE_VERIFY_FAILED",
        "MLLP over TLS: PEER_DID_NOT_RETURN_A_CERTIFICATE; 1 more since the last entry",
    ]
    assert all("127.0.0.1" in str(one["agent"]) for one in failed)


def test_a_client_does_not_speak_to_a_listener_of_another_ca(ours: Path, theirs: Path) -> None:
    ledger = Ledger()
    with (
        serving(ledger, ssl=server_tls(MllpListener(port=0, certificate=ours))) as port,
        pytest.raises(Unavailable, match="certificate verify failed"),
    ):
        send("127.0.0.1", port, [MESSAGE], ssl=client_tls(theirs))
    assert ledger.received == []


@pytest.mark.parametrize("text", [None, "no PEM", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMC4=\n-----END"])
def test_a_file_that_is_of_no_use_is_named_with_the_remedy(tmp_path: Path, ours: Path, text: str | None) -> None:
    file = tmp_path / "broken.pem"
    if text is not None:
        file.write_text(text)
    for listener in (
        MllpListener(port=0, certificate=file),
        MllpListener(port=0, certificate=ours, key=file),
        MllpListener(port=0, certificate=ours, client_ca=file),
    ):
        with pytest.raises(Misconfigured, match=r"broken\.pem.*PEM"):
            server_tls(listener)


def test_every_listener_of_the_settings_has_its_own_certificate(tmp_path: Path) -> None:
    file = tmp_path / "dermbridge.toml"
    file.write_text(
        'mllp_certificate = "a.pem"\nmllp_client_ca = "ca.pem"\n'
        '[[mllp_listeners]]\nport = 2576\ncertificate = "b.pem"\n'
    )
    first, second = load_settings(file, {}).listeners
    assert (first.port, str(first.certificate), str(first.client_ca)) == (2575, "a.pem", "ca.pem")
    assert (second.port, str(second.certificate), second.client_ca) == (2576, "b.pem", None)


@pytest.mark.parametrize("text", ['mllp_client_ca = "ca.pem"', '[[mllp_listeners]]\nport = 1\nkey = "key.pem"'])
def test_a_key_or_a_ca_without_a_certificate_is_refused_at_start(tmp_path: Path, text: str) -> None:
    file = tmp_path / "dermbridge.toml"
    file.write_text(text)
    with pytest.raises(Misconfigured, match="certificate"):
        load_settings(file, {})


def test_the_service_listens_at_every_address_of_its_settings(bridge: Bridge, ours: Path) -> None:
    further = (MllpListener(port=0, certificate=ours),)
    opened = replace(bridge, settings=bridge.settings.model_copy(update={"mllp_port": 0, "mllp_listeners": further}))
    message = adt("A28", "1", mrn="")

    async def exchange() -> list[bytes]:
        server = await start_mllp(opened)
        answers = []
        for port, tls in zip(server.ports, (None, client_tls(ours)), strict=True):
            answers += await asyncio.to_thread(send, "127.0.0.1", port, [message], ssl=tls)
        await server.close()
        return answers

    plain, encrypted = asyncio.run(exchange())
    assert plain == encrypted
    assert b"MSA|AE|1" in plain
