"""One look at an installation: what is set up, what is not, what to do about it."""

from __future__ import annotations

import shutil
import sqlite3
from datetime import timedelta, tzinfo
from typing import Any

from sqlalchemy import Row
from sqlalchemy.exc import DBAPIError

from adapter.bridge import Bridge, open_bridge
from adapter.db.schema import check_schema
from adapter.delivery.circuit import circuits, how_it_stands
from adapter.delivery.destinations import Destinations
from adapter.errors import DermBridgeError
from adapter.governance import settle
from adapter.governance.standing import standing
from adapter.settings import Settings, environment, unknown_variables

BEHIND = 1000  # events that a repository may still have to be told
MIN_FREE_BYTES = 2 * 2**30


def examine(settings: Settings) -> list[dict[str, Any]]:
    """Findings as {"subject", "verdict": ok | warning | error, "detail"}."""
    findings = [_found("settings", "ok", f"photos and keys under {settings.data_dir}"), *_environment()]
    try:
        bridge = open_bridge(settings)
    except (DermBridgeError, OSError) as error:
        return [*findings, _found("installation", "error", str(error))]
    try:
        findings += [_database(bridge), _disk(settings), *_audit(bridge), *_destinations(bridge), *_exposure(settings)]
    finally:
        bridge.close()
    return findings


def _found(subject: str, verdict: str, detail: str) -> dict[str, Any]:
    return {"subject": subject, "verdict": verdict, "detail": detail}


def _environment() -> list[dict[str, Any]]:
    told = "is set and no setting of ours; see docs/settings.md for those there are"
    return [_found("environment", "warning", f"{name} {told}") for name in sorted(unknown_variables(environment()))]


def _database(bridge: Bridge) -> dict[str, Any]:
    engine = f"SQLite {sqlite3.sqlite_version}" if bridge.db.is_sqlite else "PostgreSQL"
    try:
        check_schema(bridge.db)
    except DermBridgeError as error:
        return _found("database", "error", str(error))
    return _found("database", "ok", f"{engine}, schema up to date")


def _audit(bridge: Bridge) -> list[dict[str, Any]]:
    """Empty when the database is not set up yet."""
    try:
        settle(bridge)
        with bridge.db.snapshot() as tx:
            found = standing(tx)
    except DBAPIError:
        return []
    size, late = found.head.tree_size if found.head else 0, timedelta(seconds=60 + bridge.settings.audit_seal_seconds)
    told = f"{size} events sealed, {found.waiting} waiting; prove it with: dermbridge audit verify"
    findings = [_found("audit log", "ok", told)]
    if found.waiting_since and bridge.now() - found.waiting_since > late:
        since = f"events since {found.waiting_since:%Y-%m-%d %H:%M} UTC are not sealed"
        findings = [_found("audit log", "warning", f"{since}; start `dermbridge worker`, or look in its log")]
    behind = {name: count for name, count in found.feeds.items() if count > BEHIND}
    told = "is {} events behind; what it answered is in /admin"
    return findings + [_found(f"audit feed {name}", "warning", told.format(count)) for name, count in behind.items()]


def _disk(settings: Settings) -> dict[str, Any]:
    free = shutil.disk_usage(settings.data_dir).free
    verdict = "ok" if free >= MIN_FREE_BYTES else "error"
    return _found("disk", verdict, f"{free / 2**30:.1f} GiB free under {settings.data_dir}")


def _destinations(bridge: Bridge) -> list[dict[str, Any]]:
    if not bridge.settings.destinations:
        return [_found("destinations", "warning", "none configured: photos stay here; see docs/connectors.md")]
    opened, down = Destinations(bridge), _down(bridge)
    findings = []
    for destination in bridge.settings.destinations:
        name = str(destination["name"])
        try:
            opened.get(name)
            verdict, told = ("warning", down[name]) if name in down else ("ok", "opened")
            findings.append(
                _found(f"destination {name}", verdict, f"{told}; ask it: dermbridge connectors check {name}")
            )
        except DermBridgeError as error:
            findings.append(_found(f"destination {name}", "error", str(error)))
    opened.close()
    return findings


def _down(bridge: Bridge) -> dict[str, str]:
    """Destinations that are stopped, or had outages since they last answered."""
    try:
        with bridge.db.snapshot() as tx:
            return {row.destination: _told(row, bridge.settings.zone) for row in circuits(tx)}
    except DBAPIError:
        return {}


def _told(row: Row[Any], zone: tzinfo) -> str:
    return how_it_stands(row, zone) + (f" ({row.reason})" if row.reason else "")


def _exposure(settings: Settings) -> list[dict[str, Any]]:
    here = ("127.0.0.1", "localhost", "::1")
    open_mllp = [one for one in settings.listeners if one.host not in here and one.certificate is None]
    plain_web = settings.base_url.startswith("http:") and "127.0.0.1" not in settings.base_url
    return [
        *(
            _found("mllp", "warning", f"port {one.port} is open beyond this machine without TLS; see docs/mllp.md")
            for one in open_mllp
        ),
        *([_found("web", "warning", "public_url is not https; EHRs will refuse the launch")] * plain_web),
    ]
