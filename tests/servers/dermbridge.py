"""The whole service on a loopback socket, for clients that are programs of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from adapter.app import build_app
from adapter.bridge import Bridge, open_bridge
from adapter.db.schema import prepare
from adapter.records import create_all
from adapter.settings import Settings


@contextmanager
def dermbridge(
    settings: Settings, records: Sequence[dict[str, Any]] = (), *, certificate: Path | None = None
) -> Iterator[Bridge]:
    """Served at `settings.http_port`, with these records, until the context ends; over https with a `certificate` (its
    key in the same file), as a proxy would."""
    bridge = open_bridge(settings)
    prepare(bridge.db)
    with bridge.db.transaction() as tx:
        create_all(tx, records, at=bridge.now())
    tls = {"ssl_certfile": certificate} if certificate else {}
    server = uvicorn.Server(uvicorn.Config(build_app(bridge), port=settings.http_port, log_level="critical", **tls))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield bridge
    finally:
        server.should_exit = True
        thread.join(10)
        bridge.close()
