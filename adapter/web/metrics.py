"""/metrics in OpenMetrics (https://prometheus.io/docs/specs/om/open_metrics_spec/): latency, and how work stands.

Counts of rows are read when asked, each a range of an index over what is unfinished; nothing grows with the archive.
No label holds an id: routes are named by their pattern.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, values
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapter.access import Actor, can, has_right
from adapter.bridge import Bridge
from adapter.delivery import destination_names
from adapter.delivery.circuit import circuits
from adapter.errors import Forbidden
from adapter.identity.adt_standing import waiting_messages
from adapter.records import TABLES
from adapter.records.delivery_list import confirmed_since, pace_of, standings
from adapter.settings import configure_library
from adapter.work import queues

SCOPE_TYPE = "Metrics"  # a token with the scope system/Metrics.r may read them
COUNT_BYTES = 2**20  # of each process: some 400 combinations of method, route and status
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_FIRST_PARTS = frozenset({*TABLES, "Binary", "metadata"})


def make_room_for_counts(folder: Path, processes: int) -> None:
    """The files in `folder` in which the processes of one service will count. Raises OSError when the disk is full.

    Written to their end: they are mapped into memory, and a process dies of what its disk then has no room for.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    for number in range(processes):
        (folder / f"histogram_{number}.db").write_bytes(bytes(COUNT_BYTES))


def count_together(folder: Path, number: int) -> None:
    """Let this process, under its number, keep its counts in `folder`, so that each tells those of all.

    Its replacement goes on where it ended (https://prometheus.github.io/client_python/multiprocess/).
    """
    configure_library("PROMETHEUS_MULTIPROC_DIR", str(folder))
    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]


class Metrics:
    """One registry for each application; `observe` may be called from any thread."""

    def __init__(self, bridge: Bridge) -> None:
        self._told = CollectorRegistry()
        self._latency = Histogram(
            "dermbridge_http_response_start_seconds",
            "From the request to the first byte of its answer",
            ("method", "route", "status"),
            buckets=_SECONDS,
            registry=None,
        )
        if values.ValueClass._multiprocess:
            MultiProcessCollector(self._told)  # type: ignore[no-untyped-call]
        else:
            self._told.register(self._latency)
        self._told.register(_Standing(bridge))

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        self._latency.labels(method, route, str(status)).observe(seconds)

    def text(self) -> bytes:
        return bytes(generate_latest(self._told))  # type: ignore[no-untyped-call]


class _Standing:
    """Read from the database at the moment of asking."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def describe(self) -> list[Any]:
        """Nothing is read while registering."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        bridge, now = self._bridge, self._bridge.now()
        names = destination_names(bridge)
        with bridge.db.snapshot() as tx:
            lines, waiting = queues(tx), waiting_messages(tx)
            standing = standings(tx, names)
            confirmed = confirmed_since(tx, names, now - timedelta(hours=24))
            paces = {name: pace_of(tx, name, now) for name in names}
            down = {row.destination: row for row in circuits(tx)}
        work = GaugeMetricFamily("dermbridge_work", "Unfinished work", labels=("kind", "state"))
        due = GaugeMetricFamily(
            "dermbridge_work_oldest_due_seconds", "For how long the oldest could be done", labels=("kind", "state")
        )
        for one in lines:
            work.add_metric([one.kind, one.state], one.count)
            due.add_metric([one.kind, one.state], max((now - one.oldest_due_at).total_seconds(), 0))
        deliveries = GaugeMetricFamily(
            "dermbridge_deliveries", "Deliveries not in a final state", labels=("destination", "state")
        )
        for each in standing:
            deliveries.add_metric([each.destination, each.state], each.count)
        lately = GaugeMetricFamily(
            "dermbridge_deliveries_confirmed_24h", "In chart, of those begun within 24 hours", labels=("destination",)
        )
        for name in names:
            lately.add_metric([name], confirmed.get(name, 0))
        to_chart = GaugeMetricFamily(
            "dermbridge_deliveries_to_chart_seconds",
            "From the order to the proof, of the latest",
            labels=("destination", "quantile"),
        )
        shut = GaugeMetricFamily(
            "dermbridge_destination_shut", "1 while it is left alone or stopped", labels=("destination",)
        )
        for name, pace in paces.items():
            for quantile, seconds in (("0.5", pace.median_seconds), ("0.95", pace.p95_seconds)):
                if seconds is not None:
                    to_chart.add_metric([name, quantile], seconds)
            row = down.get(name)
            shut.add_metric([name], int(row is not None and bool(row.held or row.open_until)))
        messages = GaugeMetricFamily("dermbridge_adt_waiting", "ADT messages that wait for a person", labels=("state",))
        for state, count, _ in waiting:
            messages.add_metric([state], count)
        yield from (work, due, deliveries, lately, to_chart, shut, messages)


class Timed:
    """Measures every request until its answer begins; an event stream's length says nothing about us."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                seconds = time.perf_counter() - began
                self._metrics.observe(scope["method"], route_of(scope), message["status"], seconds)
            await send(message)

        await self._app(scope, receive, measured)


def route_of(scope: Scope) -> str:
    """The pattern of the route that took the request (`/patients/{id}`), `/fhir/Media` on FHIR, else `other`."""
    path, taken = scope["path"], scope.get("path_params", {})
    if path.startswith("/fhir"):
        first = path.removeprefix("/fhir").strip("/").partition("/")[0]
        return f"/fhir/{first}" if first in _FIRST_PARTS else "/fhir"
    if path.startswith("/static/"):
        return "/static"
    if "endpoint" not in scope:
        return "other"
    for name, value in taken.items():
        path = re.sub(rf"/{re.escape(str(value))}(?=[/.]|$)", f"/{{{name}}}", path, count=1)
    return str(path)


def metrics_page(request: Request) -> Response:
    """GET /metrics: from this machine, with a token of scope system/Metrics.r, or for who operates DermBridge."""
    actor: Actor | None = getattr(request.state, "actor", None)
    allowed = _is_local(request) if actor is None else can(actor, "r", SCOPE_TYPE) or has_right(actor, "operate")
    if not allowed:
        raise Forbidden("metrics are read from this machine or with a token: dermbridge token issue … system/Metrics.r")
    metrics: Metrics = request.app.state.metrics
    return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _is_local(request: Request) -> bool:
    """A proxy on this machine forwards for others, and says so."""
    forwarded = any(name in request.headers for name in ("forwarded", "x-forwarded-for", "x-real-ip"))
    try:
        return not forwarded and request.client is not None and ip_address(request.client.host).is_loopback
    except ValueError:
        return False
