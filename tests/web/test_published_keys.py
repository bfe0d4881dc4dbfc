"""/.well-known/jwks.json publishes the public keys by which EHRs verify us, and never a private part."""

from __future__ import annotations

from pathlib import Path

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from adapter.app import build_app
from adapter.bridge import Bridge
from adapter.settings import Ehr
from tests.fhir_api.conftest import InProcess


def published(bridge: Bridge) -> dict[str, list[dict[str, str]]]:
    with httpx.Client(transport=InProcess(build_app(bridge)), base_url="http://testserver") as client:
        answer = client.get("/.well-known/jwks.json")
    assert answer.status_code == 200
    found: dict[str, list[dict[str, str]]] = answer.json()
    return found


def test_without_a_key_the_set_is_empty(bridge: Bridge) -> None:
    assert published(bridge) == {"keys": []}


def test_only_the_public_part_is_published(bridge: Bridge, tmp_path: Path) -> None:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = tmp_path / "ehr.pem"
    file.write_bytes(ec.generate_private_key(ec.SECP384R1()).private_bytes(*form))
    ehr = Ehr(name="EHR", iss="https://ehr.example", client_id="dermbridge", private_key=file, key_id="2026-11")
    object.__setattr__(bridge, "settings", bridge.settings.model_copy(update={"ehrs": (ehr,)}))
    (key,) = published(bridge)["keys"]
    assert (key["kid"], key["kty"], key["crv"], key["use"], key["alg"]) == ("2026-11", "EC", "P-384", "sig", "ES384")
    assert "d" not in key
