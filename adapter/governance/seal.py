"""Sealing: each committed AuditEvent gets its leaf, in order, under a signed head; once a batch, beside the hot path.

An event is written with a row in `audit_tail` (its id and leaf hash). Whoever holds the lock of the log takes the
oldest of those rows, gives them the next numbers, grows tree and chain and signs a head, in one transaction: after a
crash the tail is as it was. An event that commits late, under an older id, waits in the tail like any other.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import Connection, bindparam, delete, func, insert, select

from adapter.bridge import Bridge
from adapter.db.many_rows import insert_rows
from adapter.db.tables import audit_head, audit_leaf, audit_node, audit_tail
from adapter.errors import DermBridgeError
from adapter.governance.feeds import put_in_line
from adapter.governance.looks import settle
from adapter.governance.merkle import CHAIN_START, EMPTY_ROOT, CompactRange, chain_hash
from adapter.governance.signing import Head, sign
from adapter.governance.tree import LOCK, STORED_LEVEL, StoredTree, find_head

log = structlog.get_logger()

BATCH_LEAVES = 500  # under one head; bounds how long the one writer of SQLite is held up (a few milliseconds)
LOOK_SECONDS = 1.0


def seal(bridge: Bridge, tree: CompactRange | None = None) -> Head | None:
    """Seal the oldest events of the tail; None when there are none. Raises LookupError when the log was damaged.

    `tree` is what this grew the last time, and is grown on where nobody else has sealed since: it spares reading it.
    """
    with bridge.db.transaction() as tx:
        bridge.db.lock(tx, LOCK)
        return _seal(tx, bridge, tree or CompactRange())


def seal_all(bridge: Bridge) -> Head | None:
    """Seal everything told so far; the newest head, None while the log is empty."""
    settle(bridge)
    tree = CompactRange()
    while seal(bridge, tree) is not None:
        pass
    with bridge.db.snapshot() as tx:
        return find_head(tx)


def is_due(bridge: Bridge) -> bool:
    """Whether a batch is full, or something waits and the last head is older than the settings allow."""
    with bridge.db.snapshot() as tx:
        some = select(audit_tail.c.event_id).limit(BATCH_LEAVES).subquery()
        waiting = tx.execute(select(func.count()).select_from(some)).scalar_one()
        if waiting in (0, BATCH_LEAVES):
            return bool(waiting)
        head = find_head(tx)
    return head is None or bridge.now() - head.signed_at >= timedelta(seconds=bridge.settings.audit_seal_seconds)


def _seal(tx: Connection, bridge: Bridge, tree: CompactRange) -> Head | None:
    waiting = tx.execute(_WAITING, {"count": BATCH_LEAVES}).all()
    if not waiting:
        return None
    before = find_head(tx)
    size, root, chain = (
        (before.tree_size, before.root_hash, before.chain_hash) if before else (0, EMPTY_ROOT, CHAIN_START)
    )
    if (tree.size, tree.root) != (size, root):
        tree.size, tree.peaks = size, StoredTree(tx).grown_to(size).peaks
    leaves: list[dict[str, Any]] = []
    nodes: list[dict[str, Any]] = []
    for seq, (event_id, leaf) in enumerate(waiting, size):
        chain = chain_hash(chain, leaf, seq)
        leaves.append({"seq": seq, "event_id": event_id, "leaf_hash": leaf, "chain_hash": chain})
        nodes += [node._asdict() for node in tree.append(leaf) if node.level >= STORED_LEVEL]
    at = bridge.now()
    head = sign(tx, bridge, Head(tree.size, tree.root, chain, at.replace(microsecond=at.microsecond // 1000 * 1000)))
    insert_rows(tx, audit_leaf, leaves)
    insert_rows(tx, audit_node, nodes)
    tx.execute(insert(audit_head), vars(head))
    tx.execute(_SEALED, {"first": waiting[0].event_id, "last": waiting[-1].event_id, "size": size})
    put_in_line(tx, bridge, before=size, size=tree.size)
    return head


_tail = audit_tail.c
_WAITING = select(_tail.event_id, _tail.leaf_hash).order_by(_tail.event_id).limit(bindparam("count"))
_SEALED = delete(audit_tail).where(  # between: so that no plan reads all of a long tail
    _tail.event_id.between(bindparam("first"), bindparam("last")),
    _tail.event_id.in_(select(audit_leaf.c.event_id).where(audit_leaf.c.seq >= bindparam("size"))),
)


class Sealer:
    """Seals in a thread of its own until stopped. Any number of processes may run one."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._stop = threading.Event()
        self._told = 0
        self._tree = CompactRange()
        self._thread = threading.Thread(target=self._run, name="audit-seal", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Leave no tail behind."""
        self._stop.set()
        self._thread.join()
        self._attempt(force=True)

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            self._attempt()

    def _attempt(self, *, force: bool = False) -> None:
        try:
            settle(self._bridge)
            head = seal_all(self._bridge) if force else None
            while not force and is_due(self._bridge):
                head = seal(self._bridge, self._tree)
            if head is not None and head.tree_size != self._told:
                log.info("audit.sealed", **head.as_json())  # where logs are collected, a head noted outside
                self._told = head.tree_size
        except (DermBridgeError, LookupError) as error:
            log.error("audit.not_sealed", error=str(error))
        except Exception as error:  # outermost edge of a thread: the next look tries again
            log.error("audit.not_sealed", error=type(error).__name__, exc_info=error)
