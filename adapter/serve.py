"""The long-running services: HTTP with everything beside it, or worker and MLLP on their own.

HTTP and worker run as several processes (`processes.py`). They are alike, but the first also does what one does best:
receive HL7 v2 and apply it in order, seal the audit log, and what little else is left to it.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
import uvicorn
from starlette.applications import Starlette

from adapter import identity
from adapter.accepting import Sharing, listen
from adapter.access import expiry
from adapter.app import build_app, work_lanes
from adapter.bridge import Bridge, open_bridge
from adapter.db.schema import prepare
from adapter.delivery.destinations import Destinations, check_destinations
from adapter.governance.seal import Sealer
from adapter.governance.starts import running
from adapter.identity.mllp import MllpServer
from adapter.identity.mllp_connection import Limits
from adapter.identity.mllp_intake import Intake
from adapter.identity.mllp_strangers import Strangers
from adapter.identity.mllp_tls import server_tls
from adapter.logs import configure_logs
from adapter.processes import ALONE, Member, fork_processes
from adapter.settings import Settings
from adapter.web.metrics import count_together, make_room_for_counts
from adapter.work import Lane, WorkLoop

log = structlog.get_logger()

SHARED_WORK = frozenset({"deliver", "render"})
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Let glibc keep what a photo used for the next one, instead of giving it back and faulting every page in again.

    That was a quarter of what accepting a photo cost, and a third of delivering one. Other C
    libraries are left as they are. See mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
        mallopt(_M_TRIM_THRESHOLD, 256 * 2**20)


def collect_less() -> None:
    """Leave out of every garbage collection what start-up made, which stays, and collect the rest less often."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    gc.enable()


def open_prepared(settings: Settings) -> Bridge:
    """The installation, its schema and destinations in order. Raises Misconfigured."""
    check_destinations(settings)
    bridge = open_bridge(settings)
    try:
        prepare(bridge.db)
        with bridge.db.transaction() as tx:
            expiry.put_in_line(tx, bridge)
    except BaseException:
        bridge.close()
        raise
    return bridge


@contextmanager
def opened_in_each_process(settings: Settings, command: str) -> Iterator[tuple[Bridge, Member]]:
    """Forks; then, in each process, the installation. The first tells the audit log when they began and when ended."""
    member = fork_processes(settings.processes)
    bridge = open_bridge(settings)
    bridge.db.tell_others = member.ring
    member.when_rung(bridge.db.woken)
    try:
        with running(bridge, command) if member.is_first else nullcontext():
            yield bridge, member
    finally:
        bridge.close()


async def start_mllp(bridge: Bridge) -> MllpServer:
    """Listen on every configured address. Raises OSError when one is taken, Misconfigured for TLS files of no use."""
    settings = bridge.settings
    server = MllpServer(
        partial(identity.receive, bridge),
        limits=Limits(
            max_message_bytes=settings.mllp_max_message_bytes,
            max_bytes_in_flight=settings.mllp_max_bytes_in_flight,
            max_connections=settings.mllp_max_connections,
            idle_seconds=settings.mllp_idle_seconds,
            stall_seconds=settings.mllp_stall_seconds,
        ),
        find_answers=partial(identity.find_answers, bridge),
        stranger=Strangers(bridge),
    )
    for listener in settings.listeners:
        await server.listen(listener.host, listener.port, ssl=server_tls(listener))
    return server


def acknowledged_first(lanes: Mapping[str, Lane], intake: Intake) -> Mapping[str, Lane]:
    """The lanes, with a burst of messages acknowledged before it is applied: that costs a hundred times as much."""
    lane = lanes["apply-adt"]

    def after_burst(apply: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def applied(work: Any) -> Any:
            intake.let_burst_pass()
            return apply(work)

        return applied

    together = after_burst(lane.together) if lane.together else None
    return {**lanes, "apply-adt": replace(lane, handler=after_burst(lane.handler), together=together)}


@contextmanager
def working(bridge: Bridge, member: Member, intake: Intake | None = None) -> Iterator[None]:
    """Within, this process does its part of the work: the first all of it, the others the kinds that fill a core."""
    with closing(Destinations(bridge)) as destinations:
        lanes = work_lanes(bridge, destinations)
        if intake is not None:
            lanes = acknowledged_first(lanes, intake)
        shared = {kind: lane for kind, lane in lanes.items() if member.is_first or kind in SHARED_WORK}
        loop = WorkLoop(bridge.db, shared, now=bridge.now)
        loop.start()
        sealer = Sealer(bridge) if member.is_first else None
        if sealer:
            sealer.start()
        try:
            yield
        finally:
            loop.stop()
            if sealer:
                sealer.stop()


def beside_http(bridge: Bridge, member: Member) -> Callable[[Starlette], AbstractAsyncContextManager[Any]]:
    """A lifespan that works and, in the first process, listens for MLLP beside HTTP."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        listener = await start_mllp(bridge) if member.is_first else None
        work = working(bridge, member, listener.intake if listener else None)
        work.__enter__()
        try:
            yield
        finally:
            if listener:
                await listener.close()
            await asyncio.to_thread(work.__exit__, None, None, None)

    return lifespan


def http_server(bridge: Bridge, member: Member = ALONE, *, everything: bool) -> uvicorn.Server:
    """An uvicorn server that is ready to run; the access log is off since paths hold ids of patients."""
    app = build_app(bridge, lifespan=beside_http(bridge, member) if everything else None)
    collect_less()
    config = uvicorn.Config(
        app,
        host=bridge.settings.http_host,
        port=bridge.settings.http_port,
        log_config=None,  # as configure_logs has it
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    return Sharing(config, app, member)


def serve_http(settings: Settings, *, everything: bool) -> None:
    configure_logs()
    keep_freed_memory()
    open_prepared(settings).close()  # nothing that is open survives a fork
    with listen(settings) as listening:
        counts = settings.data_dir / "counts" / f"{socket.gethostname()}-{listening.getsockname()[1]}"
        if settings.processes > 1:
            make_room_for_counts(counts, settings.processes)
        with opened_in_each_process(settings, "serve") as (bridge, member):
            if settings.processes > 1:
                count_together(counts, member.number)
            if member.is_first:
                log.info("serve.start", url=settings.base_url, mllp_port=settings.mllp_port if everything else None)
            # uvicorn ends with the signal that stopped it, which must not cut off what follows here.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            http_server(bridge, member, everything=everything).run([listening])


def run_worker(settings: Settings) -> None:
    configure_logs()
    keep_freed_memory()
    open_prepared(settings).close()
    with opened_in_each_process(settings, "worker") as (bridge, member):
        collect_less()
        ended = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        with working(bridge, member):
            if member.is_first:
                log.info("worker.start")
            ended.wait()


def run_mllp(settings: Settings) -> None:
    configure_logs()
    bridge = open_prepared(settings)

    async def listen() -> None:
        server = await start_mllp(bridge)
        log.info("mllp.start", ports=[listener.port for listener in settings.listeners])
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        await stopped.wait()
        await server.close()

    with running(bridge, "mllp"):
        asyncio.run(listen())
    bridge.close()
