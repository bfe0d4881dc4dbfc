"""How each destination stands, on /deliveries, and what who operates DermBridge can say of all that goes there."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection, Row
from starlette.requests import Request
from starlette.responses import Response

from adapter.access import check_right
from adapter.bridge import Bridge
from adapter.delivery.backlog import replay, resume_destination, stop_destination
from adapter.delivery.circuit import circuits
from adapter.delivery.looked import is_blind
from adapter.delivery.outbox import destination_names
from adapter.errors import BadInput
from adapter.records.delivery_list import COUNTED, Standing, causes, confirmed_since, pace_of, standings
from adapter.web.bodies import Form
from adapter.web.clock import age_since, local, period
from adapter.web.gate import actor_of
from adapter.web.pages import Web, see_other

UNSENT = ("pending", "sending", "unknown")
UNSETTLED = ("failed", "withheld", "held", "retracting")


def cards(tx: Connection, bridge: Bridge, since: datetime, chosen: str | None) -> list[dict[str, Any]]:
    """One for each destination; `since`: from when what is in the chart is counted."""
    names = destination_names(bridge)
    standing, confirmed = standings(tx, names), confirmed_since(tx, names, since)
    down = {row.destination: row for row in circuits(tx)}
    return [_card(tx, bridge, name, standing, confirmed.get(name, 0), down.get(name), name == chosen) for name in names]


def _card(
    tx: Connection,
    bridge: Bridge,
    name: str,
    standing: list[Standing],
    confirmed: int,
    circuit: Row[Any] | None,
    current: bool,
) -> dict[str, Any]:
    own = [one for one in standing if one.destination == name]
    oldest = min((one.oldest_at for one in own if one.state in UNSENT), default=None)
    waiting = sum(one.count for one in own if one.state in UNSENT)
    pace = pace_of(tx, name, bridge.now())
    failures = causes(tx, name)[:5] if any(one.state == "failed" for one in own) else []
    return {
        "name": name,
        "href": list_href(name, None),
        "current": current,
        "waiting": count_told(waiting),
        "oldest_at": local(bridge, oldest),
        "oldest": age_since(oldest, bridge.now()) if oldest else None,
        "all_sent": not any(one.state in (*UNSENT, *UNSETTLED) for one in own),
        "per_minute": f"{pace.per_minute:.1f}".removesuffix(".0"),
        "to_chart": period(pace.median_seconds) if pace.median_seconds is not None else None,
        "to_chart_p95": period(pace.p95_seconds) if pace.p95_seconds is not None else None,
        "circuit": _circuit(bridge, circuit) if circuit else None,
        "causes": [{"reason": one.reason, "remedy": one.remedy, "count": one.count} for one in failures],
        "confirmed": count_told(confirmed),
        "confirmed_href": list_href(name, "confirmed"),
        "counts": [
            {"state": one.state, "count": count_told(one.count), "href": list_href(name, one.state)} for one in own
        ],
        "say_href": f"/deliveries/destinations/{name}",
        "can_replay": not all(is_blind(one.reason) for one in failures),
    }


def _circuit(bridge: Bridge, row: Row[Any]) -> dict[str, Any]:
    return {
        "held": row.held,
        "failures": row.failures,
        "reason": row.reason,
        "since": local(bridge, row.began_at),
        "next_try": local(bridge, row.open_until) if row.held is None else None,
    }


def count_told(count: int) -> str:
    """`10,000 or more` beyond what is counted."""
    return f"{count:,}" if count < COUNTED else f"{COUNTED:,} or more"


def list_href(destination: str | None, state: str | None, page: str | None = None) -> str:
    """/deliveries filtered so."""
    given = {"destination": destination, "state": state, "page": page}
    return f"/deliveries?{urlencode({name: value for name, value in given.items() if value})}"


def post_destination(web: Web, request: Request, form: Form) -> Response:
    """POST /deliveries/destinations/{name}: `say` is stop, resume or replay (what failed; with `since`, a local time,
    also what the destination took from then on, which is looked for there first)."""
    bridge, actor, name = web.bridge, actor_of(request), request.path_params["name"]
    check_right(actor, "operate")
    with bridge.db.transaction() as tx:
        match form.get("say"):
            case "stop":
                stop_destination(tx, bridge, actor, name, because=form.get("because"))
            case "resume":
                resume_destination(tx, bridge, actor, name)
            case "replay":
                replay(tx, bridge, actor, name, since=_time(bridge, form.get("since")))
            case _:
                raise BadInput("say stop, resume or replay")
    return see_other(list_href(name, None), "stopped" if form.get("say") == "stop" else "queued")


def _time(bridge: Bridge, given: str) -> datetime | None:
    try:
        return datetime.fromisoformat(given).replace(tzinfo=bridge.settings.zone) if given else None
    except ValueError as error:
        raise BadInput("the time is written 2026-11-23T09:00") from error
