"""/readyz is asked by whatever sends people here: only where a photo could be stored."""

from __future__ import annotations

from typing import Any

import pytest

from tests.access.conftest import machine, serve

__all__ = ["machine", "serve"]


@pytest.mark.parametrize(("photo_bytes", "status"), [(2**20, 200), (2**60, 503)])
def test_a_service_is_ready_while_the_next_photo_fits_on_the_disk(serve: Any, photo_bytes: int, status: int) -> None:
    _, client = serve(max_capture_bytes=photo_bytes)
    assert client.get("/readyz").status_code == status
    assert client.get("/healthz").status_code == 200
