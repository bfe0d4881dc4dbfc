"""/worklist: everything that waits for a person, oldest first, and the one that is open with what can be done about it.

Who may not see photos gets their rows without picture, link or patient; messages are for everybody with the worklist.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from adapter import batch, governance, identity
from adapter.access import Actor, can, check_right, check_scope
from adapter.access.policy import can_see
from adapter.bridge import Bridge
from adapter.delivery import Destinations, ask_destination
from adapter.errors import BadInput, NotFound
from adapter.identity.unmatched import COUNTED, STATES, count_unmatched, unmatched_photos
from adapter.records import Stored
from adapter.web.bodies import Form
from adapter.web.gate import actor_of, get_photo, settler_of
from adapter.web.pages import Web, see_other
from adapter.web.worklist_items import job_detail, job_entry, message_detail, message_entry, photo_detail, photo_entry
from mappings.wrong_patient import state_of

PAGE = 30
REFRESH_SECONDS = 15
MESSAGES_COUNTED = 100
LABELS = {
    "unidentified": "No patient",
    "quarantined": "Identity in doubt",
    "awaiting-patient": "Waiting for patient",
    "adt": "ADT messages",
    "confirm": "To confirm",
}


def worklist(web: Web, request: Request) -> Response:
    """?kind=..&after=..&open=..&q=.. ; `open` is the id of what is shown beside the list, `q` looks for a patient."""
    bridge, actor, query = web.bridge, settler_of(request), request.query_params
    kind, after = query.get("kind") or None, query.get("after") or None
    if kind is not None and kind not in LABELS:
        raise BadInput(f"the worklist holds {', '.join(LABELS)}")
    with bridge.db.snapshot() as tx:
        counts = _counts(tx)
        job = _own_job(tx, actor, query.get("job"))
        under_way = {one["target"] for one in job["items"] if one["state"] == "waiting"} if job else set()
        rows = [one for one in _rows(tx, bridge, actor, kind, after) if one[0]["id"] not in under_way]
        page, more = rows[:PAGE], len(rows) > PAGE
        opened = _opened(page, query.get("open"))
        detail, seen = _detail(tx, bridge, actor, opened, query.get("q", "").strip()[:200])
        photos = [one.version_reference for _, one in page if isinstance(one, Stored)]
    shown = list(dict.fromkeys([*photos, *seen]))
    governance.audit_look(bridge, actor, patient_id=None, references=shown, query="Media?identity-state:not=bound")
    here = {"kind": kind, "after": after}
    for entry, _ in page:
        entry["current"] = opened is not None and entry["id"] == opened[0]["id"]
        entry["href"] = _href(here, open=entry["id"]) if entry["may_open"] else None
    return web.render(
        request,
        "worklist.html",
        "Worklist",
        kinds=_kinds(counts, kind),
        entries=[entry for entry, _ in page],
        detail=detail | {"back": {name: value or "" for name, value in here.items()}} if detail else None,
        settled_href=f"/jobs/{job['id']}" if job else None,
        first_href=_href({"kind": kind}) if after else None,
        next_href=_href({"kind": kind, "after": page[-1][0]["id"]}) if more else None,
        refresh=REFRESH_SECONDS,
    )


def settle(web: Web, request: Request, form: Form) -> Response:
    """POST /worklist/photos/{id}: give the photo to `patient`, perhaps at the visit `encounter`."""
    bridge, actor, media_id = web.bridge, actor_of(request), request.path_params["id"]
    if not form.get("patient"):
        raise BadInput("choose one of the patients first")
    parameters = {"patient": form.get("patient"), "reason": form.get("reason") or "settled on the worklist"}
    if form.get("encounter"):
        parameters["encounter"] = form.get("encounter")
    with bridge.db.transaction() as tx:
        media, _ = get_photo(tx, actor, "u", media_id)
        if form.get("version") != str(media.version_id):
            raise BadInput("this photo was changed meanwhile; look at it again on the worklist")
        destination, _, their_id = form.get("patient").rpartition("/")
        if destination:  # known at an EHR only, as its answer says
            patient_id, visit = identity.register_candidate(tx, bridge, actor, media_id, destination, their_id)
            parameters |= {"patient": patient_id} | ({"encounter": visit} if visit else {})
            if state_of(get_photo(tx, actor, "u", media_id)[0].resource) == "bound":
                return see_other(_href({"kind": form.get("kind"), "after": form.get("after")}), "bound")
        job_id = batch.prepare_job(
            tx, bridge, actor, "refile", patient_id=None, targets=[media_id], parameters=parameters
        )
        batch.start_job(tx, bridge, actor, job_id)
    return see_other(_href({"kind": form.get("kind"), "after": form.get("after"), "job": job_id}))


def ask(web: Web, request: Request, form: Form) -> Response:
    """POST /worklist/photos/{id}/ask: ask the EHRs whose photo it is, here and now."""
    bridge, actor, media_id = web.bridge, actor_of(request), request.path_params["id"]
    with bridge.db.snapshot() as tx:
        media, patient_id = get_photo(tx, actor, "u", media_id)
        check_right(actor, "worklist")
        check_scope(actor, "s", "Patient")
    if patient_id is not None and state_of(media.resource) == "bound":
        raise BadInput("this photo has its patient already")
    with closing(Destinations(bridge)) as destinations:
        identity.ask_ehrs(bridge, partial(ask_destination, destinations), actor, media)
    return see_other(_href({"kind": form.get("kind"), "after": form.get("after"), "open": media_id}))


def replay(web: Web, request: Request, form: Form) -> Response:
    """POST /worklist/adt/{id}/replay: apply a message again, after what it lacked was put right."""
    bridge, actor, message_id = web.bridge, settler_of(request), request.path_params["id"]
    with bridge.db.transaction() as tx:
        identity.replay(tx, bridge, message_id)
        governance.audit(tx, bridge, "update", actor, detail=f"ADT message {message_id} applied again")
    return see_other(_href({"kind": form.get("kind") or None}), "replayed")


def dismiss(web: Web, request: Request, form: Form) -> Response:
    """POST /worklist/adt/{id}/dismiss: it was settled otherwise, as `because` says; those behind it go on."""
    bridge, actor, message_id = web.bridge, settler_of(request), request.path_params["id"]
    if not form.get("because"):
        raise BadInput("say how it was settled, without naming the patient; it is kept with the message")
    with bridge.db.transaction() as tx:
        identity.dismiss(tx, bridge, actor, message_id, because=form.get("because")[:200])
    return see_other(_href({"kind": form.get("kind") or None}), "dismissed")


# --- the list -------------------------------------------------------------------------------------------------------

Listed = tuple[dict[str, Any], Any]


def _rows(tx: Connection, bridge: Bridge, actor: Actor, kind: str | None, after: str | None) -> list[Listed]:
    """One more than a page; (entry, what it stands for)."""
    rows: list[Listed] = []
    states = [state for state in STATES if kind in (None, state)]
    for photo in unmatched_photos(tx, states, after=after, limit=PAGE + 1):
        state = state_of(photo.resource) or ""
        sees = can(actor, "r", "Media") and can_see(actor, photo.resource)
        rows.append((photo_entry(bridge, photo, LABELS[state], sees=sees), photo))
    if kind in (None, "adt"):
        rows += [(message_entry(bridge, row), row) for row in identity.queue(tx, PAGE + 1, after)]
    if kind in (None, "confirm") and can(actor, "u", "Media"):
        waiting = batch.to_confirm(tx, limit=COUNTED)
        rows += [(job_entry(bridge, row), row) for row in waiting if after is None or row.id > after]
    return sorted(rows, key=lambda row: row[0]["id"])[: PAGE + 1]


def _counts(tx: Connection) -> dict[str, int]:
    messages = len(identity.queue(tx, MESSAGES_COUNTED))
    return count_unmatched(tx) | {"adt": messages, "confirm": len(batch.to_confirm(tx, limit=COUNTED))}


def _kinds(counts: dict[str, int], chosen: str | None) -> list[dict[str, Any]]:
    most = dict.fromkeys(LABELS, COUNTED) | {"adt": MESSAGES_COUNTED}
    full = any(counts[kind] >= most[kind] for kind in LABELS)
    total = f"{sum(counts.values())}{'+' if full else ''}"
    kinds = [{"label": "All", "href": "/worklist", "count": total, "current": chosen is None}]
    for kind, label in LABELS.items():
        count = f"{most[kind]}+" if counts[kind] >= most[kind] else str(counts[kind])
        kinds.append({"label": label, "href": _href({"kind": kind}), "count": count, "current": kind == chosen})
    return [one for one in kinds if one["label"] != LABELS["confirm"] or one["count"] != "0" or one["current"]]


# --- what is open ---------------------------------------------------------------------------------------------------


def _opened(page: list[Listed], asked: str | None) -> Listed | None:
    """The one asked for when it is on this page, else the first that may be opened."""
    may = {row[0]["id"]: row for row in page if row[0]["may_open"]}
    return may.get(asked or "") or next(iter(may.values()), None)


def _detail(
    tx: Connection, bridge: Bridge, actor: Actor, opened: Listed | None, asked: str
) -> tuple[dict[str, Any], list[str]]:
    """(what the page shows of it, references of the records it shows)."""
    if opened is None:
        return {}, []
    entry, row = opened
    if isinstance(row, Stored):
        media, _ = get_photo(tx, actor, "r", row.id)
        check_scope(actor, "s", "Patient")
        return photo_detail(tx, bridge, media, asked, may_settle=can(actor, "u", "Media"))
    return (job_detail(row) if entry["kind"] == "confirm" else message_detail(bridge, row)), []


def _own_job(tx: Connection, actor: Actor, job_id: str | None) -> dict[str, Any] | None:
    """The job that `settle` began, for its way back."""
    try:
        status = batch.job_status(tx, job_id) if job_id else None
    except NotFound:
        return None
    return status if status and status["actor"] == actor.id else None


def _href(here: dict[str, Any], **more: Any) -> str:
    given = {name: value for name, value in (here | more).items() if value}
    return f"/worklist?{urlencode(given)}" if given else "/worklist"
