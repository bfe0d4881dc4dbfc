"""Audit repositories: each is told everything sealed, in order, from where it stands; the log itself is the spool.

Sealing puts one row of work in line for each feed. A repository that is down costs that row alone, however long: its
place in the log stays where it is, and what was sealed meanwhile is told once it answers.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import orjson
from sqlalchemy import Connection, insert, select, update

from adapter.bridge import Bridge
from adapter.db.tables import audit_event, audit_feed, audit_leaf
from adapter.governance.tree import LOCK
from adapter.settings import AuditFeed
from adapter.work import Work, bury, enqueue, finish, postpone
from connectors.audit_repository import AuditRepository, FhirFeed, SyslogTls, Trust
from connectors.contract import DeliveryError, Retry

KIND = "tell-audit"
CHUNK = 200
LONGEST_WAIT = timedelta(minutes=5)

Opener = Callable[[AuditFeed], AuditRepository]
Told = tuple[int, dict[str, Any]]
"""(number in the log, AuditEvent)"""


def put_in_line(tx: Connection, bridge: Bridge, *, before: int, size: int) -> None:
    """Called when the log has grown from `before` to `size`: there is something to tell to every feed.

    A feed seen for the first time begins with what is new, or with the first event of all (`from_start`).
    """
    if size == before or not bridge.settings.audit_feeds:
        return
    known = set(tx.execute(select(audit_feed.c.name)).scalars())
    for feed in bridge.settings.audit_feeds:
        if feed.name not in known:
            start = {"name": feed.name, "next_seq": 0 if feed.from_start else before, "started_at": bridge.now()}
            tx.execute(insert(audit_feed), start)
        enqueue(tx, Work(KIND, f"{KIND}:{feed.name}", {"feed": feed.name}), at=bridge.now())


def tell(bridge: Bridge, open_repository: Opener, work: Work) -> None:
    """Handler of KIND: everything from the feed's place on, chunk by chunk, each noted once it is told."""
    feed = next((one for one in bridge.settings.audit_feeds if one.name == work.payload["feed"]), None)
    if feed is None:  # taken out of the settings
        with bridge.db.transaction() as tx:
            finish(tx, work)
        return
    repository = open_repository(feed)
    while True:
        with bridge.db.snapshot() as tx:
            start, end, events = _next(tx, feed.name)
        if start == end:
            if _finished(bridge, work, feed.name):
                return
            continue
        try:
            repository.tell(events)
        except DeliveryError as error:
            _set_aside(bridge, work, error)
            return
        with bridge.db.transaction() as tx:
            place = update(audit_feed).where(audit_feed.c.name == feed.name, audit_feed.c.next_seq == start)
            if tx.execute(place.values(next_seq=end, told_at=bridge.now())).rowcount != 1:
                return  # whoever took this work over goes on


def _next(tx: Connection, name: str) -> tuple[int, int, Sequence[Told]]:
    """(the feed's place, its place after these, the events); one that was deleted behind our back is passed over."""
    start: int = tx.execute(select(audit_feed.c.next_seq).where(audit_feed.c.name == name)).scalar_one()
    column = audit_leaf.c
    wanted = select(column.seq, audit_event.c.body).outerjoin(audit_event, audit_event.c.id == column.event_id)
    rows = tx.execute(wanted.where(column.seq >= start, column.seq < start + CHUNK).order_by(column.seq)).all()
    end = rows[-1].seq + 1 if rows else start
    return start, end, [(row.seq, orjson.loads(row.body)) for row in rows if row.body is not None]


def _finished(bridge: Bridge, work: Work, name: str) -> bool:
    """Whether really nothing is left: what is sealed from here on puts a row in line again."""
    with bridge.db.transaction() as tx:
        bridge.db.lock(tx, LOCK)
        start, end, _ = _next(tx, name)
        if start != end:
            return False
        finish(tx, work)
    return True


def _set_aside(bridge: Bridge, work: Work, error: DeliveryError) -> None:
    with bridge.db.transaction() as tx:
        if error.retry is Retry.NEVER:
            bury(tx, work, reason=str(error), remedy=error.remedy, blocks=False)
        else:
            wait = min(timedelta(seconds=5 * 2 ** min(work.attempts, 10)), LONGEST_WAIT)
            postpone(tx, work, due_at=bridge.now() + wait, reason=str(error))


def open_repository(bridge: Bridge) -> Opener:
    """As the settings say."""

    def opened(feed: AuditFeed) -> AuditRepository:
        trust = Trust(feed.ca, feed.certificate, feed.key)
        if feed.is_syslog:
            return SyslogTls(feed.url, trust, host=socket.getfqdn() or "-")
        token = feed.token.get_secret_value() if feed.token else None
        source = f"{bridge.settings.base_url}/fhir"
        return FhirFeed(feed.url, trust, source=source, token=token, bundle=feed.bundle)

    return opened
