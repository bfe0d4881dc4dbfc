"""Server-sent events of one patient: "media" and "delivery" make an open page look again.

A message says only that something changed; what it was is read by the page itself, through the usual checks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

from sqlalchemy import select
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from adapter.access import check_scope
from adapter.bridge import Bridge
from adapter.db.tables import session
from adapter.records.timeline import latest_change
from adapter.web.gate import actor_of, get_patient, session_of
from adapter.web.pages import Web

EVERY_SECONDS = 1.0
OTHERS_COMMIT_AFTER = 3  # looks: another process (a worker) may have written without our knowing
STREAM_LIFETIME = timedelta(minutes=10)  # the browser connects again, and passes the gates again
_Changes = tuple[datetime | None, datetime | None]


async def patient_events(web: Web, request: Request) -> Response:
    """GET /patients/{id}/events, until the session ends."""
    patient_id = request.path_params["id"]
    seen = await run_in_threadpool(_check_and_look, web.bridge, request, patient_id)
    held = session_of(request)
    stream = _stream(web.bridge, request, patient_id, seen, held.id if held else None)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


def _check_and_look(bridge: Bridge, request: Request, patient_id: str) -> _Changes:
    with bridge.db.snapshot() as tx:
        check_scope(actor_of(request), "s", "Media")
        get_patient(tx, actor_of(request), patient_id)
        return latest_change(tx, patient_id)


async def _stream(
    bridge: Bridge, request: Request, patient_id: str, seen: _Changes, session_id: str | None
) -> AsyncIterator[str]:
    yield "retry: 3000\n\n"
    commits, ends_at, looks = bridge.db.commits, bridge.now() + STREAM_LIFETIME, 0
    while bridge.now() < ends_at and not (request.app.state.is_ending or await request.is_disconnected()):
        await asyncio.sleep(EVERY_SECONDS)
        looks += 1
        if bridge.db.commits == commits and looks % OTHERS_COMMIT_AFTER:
            continue
        commits = bridge.db.commits
        found = await run_in_threadpool(_look, bridge, patient_id, session_id)
        if found is None:
            return
        for name, before, now in zip(("media", "delivery"), seen, found, strict=True):
            if now != before:
                yield f"event: {name}\ndata: changed\n\n"
        seen = found
        if looks % 15 == 0:
            yield ": still here\n\n"


def _look(bridge: Bridge, patient_id: str, session_id: str | None) -> _Changes | None:
    """None when the session is over. Watching does not count as use: it must not keep an idle session alive."""
    now, idle = bridge.now(), timedelta(minutes=bridge.settings.session_idle_minutes)
    with bridge.db.snapshot() as tx:
        if session_id is not None:
            row = tx.execute(
                select(session.c.seen_at, session.c.expires_at).where(session.c.id == session_id)
            ).one_or_none()
            if row is None or row.expires_at <= now or row.seen_at + idle <= now:
                return None
        return latest_change(tx, patient_id)
