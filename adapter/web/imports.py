"""/imports: what `dermbridge import drive` did, run by run and file by file."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Row
from starlette.requests import Request
from starlette.responses import Response

from adapter import governance
from adapter.access import can
from adapter.batch.import_runs import LEFTOVERS, VERDICTS, files_of, get_run, page_of_runs
from adapter.errors import BadInput
from adapter.web.gate import settler_of
from adapter.web.pages import Web

WORDINGS = {
    "stored": ("ok", "check", "stored"),
    "known": ("plain", "check", "already there"),
    "held": ("warning", "hold", "kept, waits for its patient"),
    "refused": ("error", "cross", "refused"),
    "no-rule": ("warning", "minus", "no rule"),
}


def imports(web: Web, request: Request) -> Response:
    """GET /imports?page=..; needs the right to the worklist, since leftovers end there."""
    settler_of(request)
    with web.bridge.db.snapshot() as tx:
        runs, following = page_of_runs(tx, before=request.query_params.get("page"))
    return web.render(
        request,
        "imports.html",
        "Imports",
        imports=[_run(web, row, counts) for row, counts in runs],
        next_href=f"/imports?page={following}" if following else None,
    )


def import_run(web: Web, request: Request) -> Response:
    """GET /imports/{id}?verdict=..&after=..: every file with what became of it."""
    bridge, actor, query = web.bridge, settler_of(request), request.query_params
    verdict, after, href = query.get("verdict") or None, query.get("after", "-1"), request.url.path
    if verdict not in (None, *VERDICTS) or not after.removeprefix("-").isdecimal():
        raise BadInput(f"files are shown by verdict: {', '.join(VERDICTS)}")
    with bridge.db.snapshot() as tx:
        run, counts = get_run(tx, request.path_params["id"])
        files, following = files_of(tx, run.id, verdict=verdict, after=int(after[:9]))
    references = [f"Media/{file.capture_id}" for file in files if file.capture_id]
    governance.audit_look(bridge, actor, patient_id=None, references=references, query=f"import {run.id}")
    kinds = [(None, "All", sum(counts.values())), *((one, WORDINGS[one][2], counts.get(one, 0)) for one in VERDICTS)]
    return web.render(
        request,
        "import.html",
        "Import",
        run=_run(web, run, counts),
        kinds=[
            {"label": label, "count": count, "href": _link(href, verdict=one), "current": one == verdict}
            for one, label, count in kinds
            if count or one == verdict
        ],
        files=[_file(file, sees=can(actor, "r", "Media")) for file in files],
        next_href=_link(href, verdict=verdict, after=str(following)) if following is not None else None,
    )


def _run(web: Web, row: Row[Any], counts: dict[str, int]) -> dict[str, Any]:
    zone = web.bridge.settings.zone
    return {
        "href": f"/imports/{row.id}",
        "source": row.folder,
        "by": row.actor_display,
        "at": row.started_at.astimezone(zone),
        "finished_at": row.finished_at and row.finished_at.astimezone(zone),
        "found": sum(counts.values()),
        "leftovers": sum(counts.get(one, 0) for one in LEFTOVERS),
        "counts": {one: counts.get(one, 0) for one in VERDICTS},
    }


def _file(row: Row[Any], *, sees: bool) -> dict[str, Any]:
    level, glyph, wording = WORDINGS[row.verdict]
    shown = row.capture_id if sees else None
    return {
        "path": row.path,
        "level": level,
        "glyph": glyph,
        "wording": wording,
        "reason": row.reason,
        "href": f"/photos/{shown}" if shown else None,
        "thumbnail": f"/captures/{shown}/thumbnail" if shown else None,
    }


def _link(path: str, **query: str | None) -> str:
    given = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(given)}" if given else path
