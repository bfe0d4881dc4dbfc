"""/admin: how the installation stands, for the engineer: destinations, queues, what died and why. No secrets."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from adapter import governance
from adapter.access import check_right
from adapter.delivery import Destinations
from adapter.errors import BadInput, DermBridgeError
from adapter.identity.adt_standing import waiting_messages
from adapter.web.bodies import Form
from adapter.web.clock import age_since
from adapter.web.gate import actor_of
from adapter.web.pages import Web, see_other
from adapter.work import Queue, dead_letters, get_dead_letter, queues, revive

WORDINGS = {
    "apply-adt": "Apply ADT messages",
    "deliver": "Deliver photos",
    "look-up-patient": "Ask EHRs for patients",
    "render": "Make renditions",
    "job": "Run jobs",
}
FAR = {"deliver": "/deliveries?state=failed", "apply-adt": "/worklist"}  # where a person deals with one of these


def admin(web: Web, request: Request) -> Response:
    """GET /admin?page=.."""
    return _page(web, request, {})


def check_destination(web: Web, request: Request, _form: Form) -> Response:
    """POST /admin/destinations/{name}/check: asks it now what it offers, and shows the answer on the same page."""
    check_right(actor_of(request), "operate")
    name = request.path_params["name"]
    destinations = Destinations(web.bridge)
    try:
        findings = [
            {"subject": one.subject, "verdict": one.verdict, "detail": one.detail, "remedy": one.remedy}
            for one in destinations.get(name).check()
        ]
    except DermBridgeError as error:
        findings = [{"subject": "settings", "verdict": "error", "detail": str(error), "remedy": ""}]
    finally:
        destinations.close()
    return _page(web, request, {name: findings})


def replay(web: Web, request: Request, _form: Form) -> Response:
    """POST /admin/work/{id}/replay: a dead letter is tried again now."""
    bridge, actor, work_id = web.bridge, actor_of(request), request.path_params["id"]
    check_right(actor, "operate")
    if not work_id.isdecimal():
        raise BadInput("work is named by its number")
    with bridge.db.transaction() as tx:
        row = get_dead_letter(tx, int(work_id[:18]))
        revive(tx, row.idempotency_key, at=bridge.now())
        governance.audit(tx, bridge, "configuration", actor, detail=f"work {row.id} ({row.kind}) replayed")
    return see_other("/admin", "queued")


def _page(web: Web, request: Request, findings: dict[str, list[dict[str, str]]]) -> Response:
    bridge, actor, after = web.bridge, actor_of(request), request.query_params.get("page", "0")
    check_right(actor, "operate")
    if not after.isdecimal():
        raise BadInput("this page link is not one of ours; open the page again")
    with bridge.db.snapshot() as tx:
        lines = queues(tx)
        letters, following = dead_letters(tx, after=int(after[:18]))
        waiting = waiting_messages(tx)
    zone, now = bridge.settings.zone, bridge.now()
    return web.render(
        request,
        "admin.html",
        "Installation",
        facts=_facts(web),
        destinations=[
            _destination(entry) | {"findings": findings.get(str(entry["name"]))}
            for entry in bridge.settings.destinations
        ],
        queues=[_queue(web, one) for one in lines],
        messages=[
            {"state": state, "count": count, "age": age_since(oldest, now), "href": "/worklist"}
            for state, count, oldest in waiting
        ],
        dead=[
            {
                "id": row.id,
                "label": WORDINGS.get(row.kind, row.kind),
                "destination": row.destination,
                "attempts": row.attempts,
                "since": row.created_at.astimezone(zone),
                "reason": row.reason,
                "remedy": row.remedy,
                "replay_href": f"/admin/work/{row.id}/replay" if row.kind not in FAR else None,
                "href": FAR.get(row.kind),
            }
            for row in letters
        ],
        next_href=f"/admin?page={following}" if following else None,
    )


def _facts(web: Web) -> list[tuple[str, str]]:
    bridge = web.bridge
    settings = bridge.settings
    free = shutil.disk_usage(settings.data_dir).free / 2**30
    return [
        ("Version", version("dermbridge")),
        ("Database", "SQLite, embedded" if bridge.db.is_sqlite else "PostgreSQL"),
        ("Photos and keys", f"{settings.data_dir}, {free:.1f} GiB free"),
        ("Address", settings.base_url),
        ("ADT over MLLP", f"{settings.mllp_host}:{settings.mllp_port}"),
        ("Consent", settings.consent_mode),
        ("Time zone", settings.time_zone),
    ]


def _destination(entry: dict[str, Any]) -> dict[str, Any]:
    """What the settings say of it, without secrets: neither user and password of a URL nor any other key."""
    address = urlsplit(str(entry.get("base_url", "")))
    name = str(entry["name"])
    return {
        "name": name,
        "profile": str(entry.get("based_on") or "its own"),
        "address": f"{address.scheme}://{address.hostname}{f':{address.port}' if address.port else ''}{address.path}"
        if address.hostname
        else str(entry.get("folder", "")),
        "check_href": f"/admin/destinations/{name}/check",
        "deliveries_href": f"/deliveries?destination={name}",
    }


def _queue(web: Web, one: Queue) -> dict[str, Any]:
    now = web.bridge.now()
    late = one.oldest_due_at < now and one.state == "waiting"
    return {
        "label": WORDINGS.get(one.kind, one.kind),
        "state": one.state,
        "count": one.count,
        "due": f"for {age_since(one.oldest_due_at, now)}" if late else "not yet" if one.state == "waiting" else "",
    }
