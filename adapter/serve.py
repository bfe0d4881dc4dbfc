"""The long-running processes: HTTP with everything beside it, or worker and MLLP on their own."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import structlog
import uvicorn
from starlette.applications import Starlette

from adapter import identity
from adapter.app import build_app, work_lanes
from adapter.bridge import Bridge, open_bridge
from adapter.db.schema import prepare
from adapter.delivery.destinations import Destinations
from adapter.identity.mllp import serve_mllp
from adapter.settings import Settings
from adapter.work import WorkLoop


def configure_logs() -> None:
    """JSON lines of ids and outcomes; names, bodies and addresses with queries never get this far."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)


def open_prepared(settings: Settings) -> Bridge:
    """The installation with its schema in order. Raises Misconfigured."""
    bridge = open_bridge(settings)
    try:
        prepare(bridge.db)
    except BaseException:
        bridge.close()
        raise
    return bridge


async def start_mllp(bridge: Bridge) -> asyncio.Server:
    return await serve_mllp(
        bridge.settings.mllp_host,
        bridge.settings.mllp_port,
        partial(identity.receive_messages, bridge),
        max_message_bytes=bridge.settings.mllp_max_message_bytes,
    )


def beside_http(bridge: Bridge) -> Callable[[Starlette], AbstractAsyncContextManager[Any]]:
    """A lifespan that runs the work loop and the MLLP listener in the HTTP process."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        destinations = Destinations(bridge)
        loop = WorkLoop(bridge.db, work_lanes(bridge, destinations), now=bridge.now)
        loop.start()
        listener = await start_mllp(bridge)
        try:
            yield
        finally:
            listener.close()
            await asyncio.to_thread(loop.stop)
            destinations.close()

    return lifespan


def http_server(bridge: Bridge, *, everything: bool) -> uvicorn.Server:
    """An uvicorn server that is ready to run; the access log is off since paths hold ids of patients."""
    app = build_app(bridge, lifespan=beside_http(bridge) if everything else None)
    config = uvicorn.Config(
        app,
        host=bridge.settings.http_host,
        port=bridge.settings.http_port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    return uvicorn.Server(config)


def serve_http(settings: Settings, *, everything: bool) -> None:
    configure_logs()
    bridge = open_prepared(settings)
    structlog.get_logger().info(
        "serve.start", url=settings.base_url, mllp_port=settings.mllp_port if everything else None
    )
    try:
        http_server(bridge, everything=everything).run()
    finally:
        bridge.close()


def run_worker(settings: Settings) -> None:
    configure_logs()
    bridge = open_prepared(settings)
    destinations = Destinations(bridge)
    loop = WorkLoop(bridge.db, work_lanes(bridge, destinations), now=bridge.now)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    loop.start()
    structlog.get_logger().info("worker.start")
    ended.wait()
    loop.stop()
    destinations.close()
    bridge.close()


def run_mllp(settings: Settings) -> None:
    configure_logs()
    bridge = open_prepared(settings)

    async def listen() -> None:
        server = await start_mllp(bridge)
        structlog.get_logger().info("mllp.start", port=settings.mllp_port)
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        await stopped.wait()
        server.close()

    asyncio.run(listen())
    bridge.close()
