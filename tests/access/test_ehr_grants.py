"""What an EHR granted ends with the session; the sandbox EHR asks for the proof that each kind of client owes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapter.access.ehr_grants import unseal
from adapter.access.oauth import exchange
from adapter.access.smart import registration_of
from adapter.errors import Forbidden
from tests.access.test_launch import (
    KEYS,
    Service,
    browser,
    csrf_of,
    ehr,
    page,
    public,
    row_of,
    sandbox_options,
    sandbox_template,
    served,
    start,
)

__all__ = ["browser", "ehr", "sandbox_options", "sandbox_template", "served", "start"]


@pytest.mark.parametrize("sandbox_options", [{"client_jwks": public(KEYS[1])}], ids=["ES384"])
def test_logging_out_revokes_what_was_granted_to_our_key(
    start: Callable[..., Service], browser: httpx.Client, tmp_path: Path, sandbox_options: dict[str, Any]
) -> None:
    (tmp_path / "key.pem").write_bytes(KEYS[1].as_pem(private=True))
    service = start(private_key=str(tmp_path / "key.pem"))
    home = service.launch(browser).headers["location"]
    grant = unseal(service.bridge, row_of(service))
    assert grant is not None
    assert service.client.post("/logout", data={"csrf_token": csrf_of(page(service, home).text)}).status_code == 303
    registration = registration_of(service.bridge, service.bridge.settings.ehrs[0])
    again = {"grant_type": "refresh_token", "refresh_token": grant.refresh_token}
    with httpx.Client() as http, pytest.raises(Forbidden, match="refused"):
        exchange(http, registration, {"token_endpoint": grant.token_endpoint}, again, service.bridge.now())
