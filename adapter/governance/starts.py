"""When DermBridge ran, and with which settings: a change of them is in the log the moment it takes effect."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, select

from adapter.access import SYSTEM
from adapter.bridge import Bridge
from adapter.db.tables import audit_event, search_index
from adapter.governance.audit import DEVICE, audit
from adapter.governance.log import read_entry
from adapter.records import find_where

_LOOK_BACK = 50  # changes; enough to find that of each command in any real history


@contextmanager
def running(bridge: Bridge, command: str) -> Iterator[None]:
    """Tell the log that `command` starts, what its settings are if they changed, and when it stops."""
    digest = settings_digest(bridge)
    with bridge.db.transaction() as tx:
        audit(tx, bridge, "service-start", SYSTEM, detail=command)
        if (before := _last_digest(tx, command)) != digest:
            detail = f"{command} settings {digest}" + ("" if before else ", the first")
            audit(tx, bridge, "configuration", SYSTEM, references=[DEVICE], detail=detail)
    try:
        yield
    finally:
        with bridge.db.transaction() as tx:
            audit(tx, bridge, "service-stop", SYSTEM, detail=command)


def settings_digest(bridge: Bridge) -> str:
    """Differs when a setting does; keyed, so that nobody guesses a secret from it. A new key changes it as well."""
    text = repr(_plain(bridge.settings)).encode()
    return hmac.new(bridge.vault.derive_secret("settings digest"), text, hashlib.sha256).hexdigest()


def _plain(value: Any) -> Any:
    """Secrets told, tables in order."""
    if hasattr(value, "get_secret_value"):
        return value.get_secret_value()
    if isinstance(value, dict):
        return sorted((key, _plain(inner)) for key, inner in value.items())
    if isinstance(value, tuple):
        return [_plain(inner) for inner in value]
    if fields := getattr(type(value), "model_fields", None):
        return [(name, _plain(getattr(value, name))) for name in fields]
    return str(value)


def _last_digest(tx: Connection, command: str) -> str | None:
    column = search_index.c
    newest = (
        select(column.resource_id)
        .where(column.resource_type == "AuditEvent", column.param == "entity", column.value == DEVICE)
        .order_by(column.resource_id.desc())
        .limit(_LOOK_BACK)
    )
    ids = tx.execute(newest).scalars().all()
    for event in reversed(find_where(tx, "AuditEvent", audit_event.c.id.in_(ids))):
        words = (read_entry(event.resource).detail or "").replace(",", "").split()
        if words[:2] == [command, "settings"]:
            return words[2]
    return None
