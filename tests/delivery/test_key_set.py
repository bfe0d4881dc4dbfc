"""The public keys by which destinations know us: those in force and those that follow, over HTTP."""

from __future__ import annotations

import dataclasses
from typing import Any

from adapter.bridge import Bridge
from adapter.delivery import published_keys
from connectors.signing_key import new_signing_key, read_signing_key


def test_every_key_of_a_destination_is_published_once_with_the_one_that_follows(bridge: Bridge) -> None:
    folder = bridge.settings.data_dir / "secrets"
    folder.mkdir(exist_ok=True)
    pems = {name: new_signing_key("ec") for name in ("now", "then", "other")}
    for name, pem in pems.items():
        (folder / name).write_text(pem)
    ehr: dict[str, Any] = {"name": "ehr", "kind": "fhir-r4", "base_url": "https://e.example/fhir"}
    auth = {"kind": "private_key_jwt", "client_id": "c"}
    destinations = (
        ehr | {"auth": auth | {"secret": "now", "next_secret": "then"}},
        ehr | {"name": "same-key", "auth": auth | {"secret": "now"}},
        {"name": "epic", "based_on": "epic", "routes": {"fhir-r4": {"auth": auth | {"secret": "other"}}}},
        ehr | {"name": "not-there", "auth": auth | {"secret": "missing"}},
        ehr | {"name": "no-key", "auth": {"kind": "basic", "client_id": "c", "secret": "now"}},
    )
    settings = bridge.settings.model_copy(update={"destinations": destinations})
    keys = published_keys(dataclasses.replace(bridge, settings=settings))
    assert sorted(each["kid"] for each in keys) == sorted(read_signing_key(pem).key_id for pem in pems.values())
    assert not any("d" in each for each in keys)
