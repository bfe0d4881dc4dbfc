"""/audit: who saw this photo, who this patient's, what did this user do; for the privacy officer."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from adapter import governance
from adapter.access import check_right
from adapter.bridge import Bridge
from adapter.errors import BadInput
from adapter.governance.log import Entry, Question, all_events, find_events, find_patient_ids
from adapter.records import Stored, find_all
from adapter.web.gate import actor_of
from adapter.web.pages import Web
from adapter.web.patient_card import patient_name

FIELDS = ("patient", "photo", "user", "since", "until")
COLUMNS = ("recorded", "who", "user", "did", "outcome", "patient", "records", "query", "detail", "audit_event")
_RUN_BY_SPREADSHEETS = ("=", "+", "-", "@", "\t", "\r")


def audit_page(web: Web, request: Request) -> Response:
    """?patient= (id or record number), ?photo=, ?user= (Practitioner/..), ?since=, ?until= (days), ?page=."""
    bridge, actor, asked = web.bridge, actor_of(request), _asked(request)
    check_right(actor, "audit")
    governance.settle(bridge)
    with bridge.db.snapshot() as tx:
        question = _question(tx, bridge, asked)
        entries, following = find_events(tx, question, before=request.query_params.get("page"))
        patients = find_all(tx, "Patient", [one.patient_id for one in entries if one.patient_id])
    _note(bridge, request, question)
    return web.render(
        request,
        "audit.html",
        "Audit",
        asked=dict.fromkeys(FIELDS, "") | asked,
        entries=[_shown(bridge, one, patients) for one in entries],
        csv_href=f"/audit.csv?{urlencode(asked)}",
        next_href=f"/audit?{urlencode(asked | {'page': following})}" if following else None,
    )


def audit_csv(web: Web, request: Request) -> Response:
    """The same question's whole answer as CSV, streamed."""
    bridge, actor = web.bridge, actor_of(request)
    check_right(actor, "audit")
    governance.settle(bridge)
    with bridge.db.snapshot() as tx:
        question = _question(tx, bridge, _asked(request))
    _note(bridge, request, question)
    headers = {"Content-Disposition": f'attachment; filename="audit-{bridge.now():%Y%m%d-%H%M%S}.csv"'}
    return StreamingResponse(_lines(bridge, question), headers=headers, media_type="text/csv; charset=utf-8")


def _asked(request: Request) -> dict[str, str]:
    return {name: value for name in FIELDS if (value := request.query_params.get(name, "").strip()[:200])}


def _question(tx: Connection, bridge: Bridge, asked: dict[str, str]) -> Question:
    photo = asked.get("photo", "").rstrip("/").rpartition("/")[2] or None  # an id, a reference or a page's address
    return Question(
        patient_ids=find_patient_ids(tx, asked["patient"]) if "patient" in asked else None,
        photo=photo,
        user=asked.get("user"),
        since=_day(bridge, asked.get("since")),
        until=_day(bridge, asked.get("until"), further=1),
    )


def _day(bridge: Bridge, text: str | None, *, further: int = 0) -> datetime | None:
    """When that day begins at the site, or one so many days later. Raises BadInput."""
    if not text:
        return None
    try:
        day = date.fromisoformat(text) + timedelta(days=further)
        return datetime.combine(day, time(), bridge.settings.zone).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadInput("days are written like 2026-11-23") from None


def _note(bridge: Bridge, request: Request, question: Question) -> None:
    """Reading the log is an access as well; what was asked is told by ids only."""
    about = {"entity": f"Media/{question.photo}" if question.photo else None, "agent": question.user}
    query = f"AuditEvent?{urlencode({name: value for name, value in about.items() if value})}"
    patient_id = min(question.patient_ids) if question.patient_ids else None
    with bridge.db.transaction() as tx:
        governance.audit(tx, bridge, "query", actor_of(request), patient_id=patient_id, query=query)


def _shown(bridge: Bridge, entry: Entry, patients: dict[str, Stored]) -> dict[str, Any]:
    photos = [one.split("/")[1] for one in entry.records if one.startswith("Media/")]
    patient = patients.get(entry.patient_id or "")
    return {
        "at": entry.at.astimezone(bridge.settings.zone),
        "who": entry.who,
        "who_href": f"/audit?{urlencode({'user': entry.user})}" if entry.user else None,
        "did": entry.did,
        "failed": entry.failed,
        "patient_name": patient_name(patient.resource) if patient else entry.patient_id,
        "patient_href": f"/audit?{urlencode({'patient': entry.patient_id})}" if entry.patient_id else None,
        "photos": [{"id": one[-6:], "href": f"/audit?{urlencode({'photo': one})}"} for one in photos],
        "others": [one.partition("/_history")[0] for one in entry.records if not one.startswith("Media/")],
        "query": entry.query,
        "detail": entry.detail,
    }


def _lines(bridge: Bridge, question: Question) -> Iterator[str]:
    yield _line(COLUMNS)
    for one in all_events(bridge.db, question):
        outcome = "failed" if one.failed else "done"
        about = (one.patient_id or "", " ".join(one.records), one.query or "", one.detail or "", one.id)
        yield _line((one.at.isoformat(), one.who, one.user or "", one.did, outcome, *about))


def _line(cells: tuple[str, ...]) -> str:
    """A cell that a spreadsheet would run as a formula begins with an apostrophe."""
    out = io.StringIO()
    csv.writer(out).writerow([f"'{cell}" if cell.startswith(_RUN_BY_SPREADSHEETS) else cell for cell in cells])
    return out.getvalue()
