"""GET /worklist: photos without a certain patient and ADT messages that could not be applied, with next steps."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, select
from starlette.requests import Request
from starlette.responses import Response

from adapter import governance, identity
from adapter.access import check_patient, check_right
from adapter.bridge import Bridge
from adapter.db.tables import adt_message, media
from adapter.errors import BadInput
from adapter.records import Stored, find_where
from adapter.records.search_parameters import token_value
from adapter.web.bodies import Form
from adapter.web.deliveries import age_since
from adapter.web.gate import actor_of
from adapter.web.pages import Web, see_other
from mappings.terms import IDENTITY_STATE

SHOWN = 100
REFRESH_SECONDS = 15
KINDS = {  # kind -> (label, level, why it waits, what to do)
    "unidentified": (
        "No patient",
        "error",
        "It came without a patient identifier.",
        "Find out whose it is from the time, the device and the operator; until then it goes nowhere.",
    ),
    "quarantined": (
        "Identity in doubt",
        "warning",
        "What came with it contradicts the patient's record.",
        "Compare the name and birth date on the wristband with the chart.",
    ),
    "awaiting-patient": (
        "Waiting for patient",
        "info",
        "No registration message has announced its patient yet.",
        "Nothing: it binds by itself when the ADT message arrives.",
    ),
    "adt": ("ADT message", "error", "", ""),
}
ADT_WAITING = ("queued", "refused")


def worklist(web: Web, request: Request) -> Response:
    bridge, actor = web.bridge, actor_of(request)
    check_right(actor, "worklist")
    check_patient(actor, None)  # what belongs to nobody yet is not for a session confined to one chart
    chosen = request.query_params.get("kind") or None
    if chosen is not None and chosen not in KINDS:
        raise BadInput(f"the worklist holds {', '.join(KINDS)}")
    with bridge.db.snapshot() as tx:
        counts = _counts(tx)
        photos = [one for kind in KINDS if kind != "adt" and chosen in (None, kind) for one in _photos(tx, kind)]
        messages = _messages(tx) if chosen in (None, "adt") else []
    with bridge.db.transaction() as tx:
        shown = [one.version_reference for _, one in photos]
        governance.audit(tx, bridge, "query", actor, references=shown, query="Media?identity-state:not=bound")
    entries = [_photo_entry(bridge, kind, one) for kind, one in photos]
    entries += [_message_entry(bridge, row) for row in messages]
    kinds: list[tuple[str, str | None, int]] = [("All", None, sum(counts.values()))]
    kinds += [(KINDS[kind][0], kind, counts[kind]) for kind in KINDS]
    return web.render(
        request,
        "worklist.html",
        "Worklist",
        kinds=[
            {
                "label": label,
                "href": f"/worklist?kind={kind}" if kind else "/worklist",
                "count": n,
                "current": kind == chosen,
            }
            for label, kind, n in kinds
        ],
        entries=sorted(entries, key=lambda entry: entry["since"]),
        next_href=None,
        refresh=REFRESH_SECONDS,
    )


def replay(web: Web, request: Request, _form: Form) -> Response:
    """POST /worklist/adt/{id}/replay: apply a message again, after what it lacked was put right."""
    bridge, actor, message_id = web.bridge, actor_of(request), request.path_params["id"]
    check_right(actor, "worklist")
    check_patient(actor, None)
    with bridge.db.transaction() as tx:
        identity.replay(tx, bridge, message_id)
        governance.audit(tx, bridge, "update", actor, detail=f"ADT message {message_id} applied again")
    return see_other("/worklist", "replayed")


def _counts(tx: Connection) -> dict[str, int]:
    found = {kind: tx.execute(_of_state(func.count(), kind)).scalar_one() for kind in KINDS if kind != "adt"}
    waiting = select(func.count()).select_from(adt_message).where(adt_message.c.state.in_(ADT_WAITING))
    return found | {"adt": tx.execute(waiting).scalar_one()}


def _of_state(what: Any, kind: str) -> Any:
    return (
        select(what)
        .select_from(media)
        .where(media.c.identity_state == token_value(kind, IDENTITY_STATE), media.c.deleted.is_(False))
    )


def _photos(tx: Connection, kind: str) -> list[tuple[str, Stored]]:
    of_state = media.c.identity_state == token_value(kind, IDENTITY_STATE)
    return [(kind, one) for one in find_where(tx, "Media", of_state, order_by=media.c.created, limit=SHOWN)]


def _messages(tx: Connection) -> list[Any]:
    columns = [adt_message.c[name] for name in ("id", "sender", "control_id", "trigger_event", "reason", "remedy")]
    statement = select(*columns, adt_message.c.received_at).where(adt_message.c.state.in_(ADT_WAITING))
    return list(tx.execute(statement.order_by(adt_message.c.received_at).limit(SHOWN)))


def _photo_entry(bridge: Bridge, kind: str, photo: Stored) -> dict[str, Any]:
    label, level, reason, next_step = KINDS[kind]
    href, since = f"/photos/{photo.id}", photo.last_updated
    return {
        "id": photo.id,
        "kind_label": label,
        "level": level,
        "thumbnail": f"/captures/{photo.id}/thumbnail",
        "title": f"Photo by {photo.resource.get('operator', {}).get('display') or 'an unnamed sender'}",
        "href": href,
        "reason": reason,
        "next_step": next_step,
        "since": since.astimezone(bridge.settings.zone),
        "age": age_since(since, bridge.now()),
        "actions": [{"label": "Look", "href": href, "method": "get", "primary": kind != "awaiting-patient"}],
    }


def _message_entry(bridge: Bridge, row: Any) -> dict[str, Any]:
    label, level, _, _ = KINDS["adt"]
    again = {"label": "Apply again", "href": f"/worklist/adt/{row.id}/replay", "method": "post", "primary": True}
    return {
        "id": row.id,
        "kind_label": label,
        "level": level,
        "thumbnail": None,
        "title": f"{row.trigger_event} from {row.sender}, {row.control_id}",
        "href": None,
        "reason": row.reason or "It is in line to be applied.",
        "next_step": row.remedy or "Nothing: it is applied as soon as those before it are.",
        "since": row.received_at.astimezone(bridge.settings.zone),
        "age": age_since(row.received_at, bridge.now()),
        "actions": [again] if row.reason else [],
    }
