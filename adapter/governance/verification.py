"""Is the log what was sealed? Every event against its leaf, leaves against chain and tree, tree against every head.

Read in pages, each in a short snapshot, so that memory is bounded and a running service is not held up. What this
cannot see alone is a log cut back, or rewritten and signed again, as a whole: for that a head noted outside is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, func, select

from adapter.db.engine import Database
from adapter.db.tables import audit_event, audit_head, audit_leaf, audit_tail
from adapter.governance.merkle import CHAIN_START, CompactRange, chain_hash, leaf_hash
from adapter.governance.signing import Head, PublicKey, public_keys
from adapter.governance.tree import find_head

PAGE = 2000
MOST_PROBLEMS = 100  # told one by one


@dataclass(frozen=True)
class Problem:
    """`seq` is the number of the leaf, from 0; None where there is none."""

    seq: int | None
    event_id: str | None
    problem: str


@dataclass
class Verdict:
    """What was read and what was wrong with it; at most MOST_PROBLEMS of `found` are kept in `problems`."""

    events: int = 0
    heads: int = 0
    unsealed: int = 0
    found: int = 0
    problems: list[Problem] = field(default_factory=list)
    newest: Head | None = None

    def add(self, seq: int | None, event_id: str | None, problem: str) -> None:
        self.found += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(Problem(seq, event_id, problem))


def verify(
    db: Database, *, noted: Sequence[Head] = (), progress: Callable[[int, int], None] = lambda _done, _of: None
) -> Verdict:
    """Everything, against the heads stored and those `noted` outside. `progress` is told (leaves read, leaves)."""
    verdict = Verdict()
    with db.snapshot() as tx:
        keys, verdict.newest = public_keys(tx), find_head(tx)
        _check_tail(tx, verdict)
        _check_counts(tx, verdict)
    end = verdict.newest.tree_size if verdict.newest else 0
    walk = _Walk(verdict, keys)
    for one in noted:
        if one.tree_size > end:
            verdict.add(end, None, f"the log was cut: a head of {one.tree_size} events was noted, now there are {end}")
    at_size: dict[int, list[Head]] = {}
    for one in noted:
        at_size.setdefault(one.tree_size, []).append(one)
    for leaves, heads in _pages(db, end):
        due = {one.tree_size: [one] for one in heads}
        for size, others in at_size.items():
            due[size] = due.get(size, []) + others
        walk.page(leaves, due)
        progress(walk.tree.size, end)
    if walk.tree.size < end:
        verdict.add(walk.tree.size, None, f"the leaves from here to {end - 1} are missing")
    verdict.events = walk.tree.size
    return verdict


class _Walk:
    """One pass over the leaves in order."""

    def __init__(self, verdict: Verdict, keys: dict[str, PublicKey]) -> None:
        self.tree = CompactRange()
        self._chain = CHAIN_START
        self._verdict = verdict
        self._keys = keys
        self._diverged = False  # after the first wrong root every later one is wrong as well

    def page(self, leaves: Sequence[Any], due: dict[int, list[Head]]) -> None:
        append, chain, verdict = self.tree.append, self._chain, self._verdict
        for seq, event_id, leaf, linked, body in leaves:
            if seq != self.tree.size:
                verdict.add(self.tree.size, None, f"the leaves from here to {seq - 1} are missing")
                self.tree.size, self._diverged = seq, True
            if body is None:
                verdict.add(seq, event_id, "the event is missing")
            elif leaf_hash(body.encode()) != leaf:
                verdict.add(seq, event_id, "the event is not what was sealed")
            chain = chain_hash(chain, leaf, seq)
            if chain != linked:
                verdict.add(seq, event_id, "the chain of hashes breaks here")
                chain = linked
            if self._diverged:
                self.tree.size += 1
            else:
                append(leaf)
            for head in due.get(seq + 1, ()):
                self._check_head(head, chain)
        self._chain = chain

    def _check_head(self, head: Head, chain: bytes) -> None:
        self._verdict.heads += 1
        key = self._keys.get(head.key_id)
        if key is None or not key.has_signed(head):
            self._verdict.add(head.tree_size, None, "this head was not signed with a key of this installation")
        if not self._diverged and (head.root_hash, head.chain_hash) != (self.tree.root, chain):
            self._verdict.add(head.tree_size, None, "the events up to this head are not those it was signed for")
            self._diverged = head.chain_hash == chain  # a wrong tree stays wrong; a wrong head is alone


def _pages(db: Database, end: int) -> Iterator[tuple[Sequence[Any], list[Head]]]:
    """(seq, event id, leaf hash, chain hash, text or None) in order, with the heads among them."""
    leaf, start = audit_leaf.c, 0
    columns = (leaf.seq, leaf.event_id, leaf.leaf_hash, leaf.chain_hash, audit_event.c.body)
    pages = (
        select(*columns)
        .outerjoin(audit_event, audit_event.c.id == leaf.event_id)
        .where(leaf.seq >= bindparam("start"), leaf.seq < bindparam("stop"))
        .order_by(leaf.seq)
    )
    head = audit_head.c
    heads = (
        select(head.tree_size, head.root_hash, head.chain_hash, head.signed_at, head.key_id, head.signature)
        .where(head.tree_size > bindparam("start"), head.tree_size <= bindparam("stop"))
        .order_by(head.tree_size)
    )
    for start in range(0, end, PAGE):
        span = {"start": start, "stop": min(start + PAGE, end)}
        with db.snapshot() as tx:
            yield tx.execute(pages, span).all(), [Head(*row) for row in tx.execute(heads, span)]


def _check_tail(tx: Connection, verdict: Verdict) -> None:
    """What waits for its seal must already be what was written."""
    tail = audit_tail.c
    wanted = select(tail.event_id, tail.leaf_hash, audit_event.c.body)
    for row in tx.execute(wanted.outerjoin(audit_event, audit_event.c.id == tail.event_id)):
        verdict.unsealed += 1
        if row.body is None:
            verdict.add(None, row.event_id, "the event is missing, before it was sealed")
        elif leaf_hash(row.body.encode()) != row.leaf_hash:
            verdict.add(None, row.event_id, "the event was altered before it was sealed")


def _check_counts(tx: Connection, verdict: Verdict) -> None:
    """Nothing stands in the log beside what is sealed or waits for it."""
    events, leaves = (
        tx.execute(select(func.count()).select_from(table)).scalar_one() for table in (audit_event, audit_leaf)
    )
    end = verdict.newest.tree_size if verdict.newest else 0
    beyond = select(audit_leaf.c.seq).where(audit_leaf.c.seq >= end).order_by(audit_leaf.c.seq).limit(1)
    if (first := tx.execute(beyond).scalar_one_or_none()) is not None:
        verdict.add(first, None, "from here on no head covers the leaves; the newest heads were removed")
    if events == leaves + verdict.unsealed:
        return
    known = (audit_leaf.c.event_id, audit_tail.c.event_id)
    strays = select(audit_event.c.id).where(*(~select(one).where(one == audit_event.c.id).exists() for one in known))
    for event_id in tx.execute(strays.order_by(audit_event.c.id).limit(MOST_PROBLEMS)).scalars():
        verdict.add(None, event_id, "the event has no leaf; its leaf was removed, or the event was slipped in")
