"""Is the log what was sealed? Every event against its leaf and against what it is found by, leaves against chain and
tree, tree against every head.

Read in pages, each in a short snapshot, so that memory is bounded and a running service is not held up. What this
cannot see alone is a log cut back, or rewritten and signed again, as a whole: for that a head noted outside is needed.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, func, select

from adapter.db.engine import Database
from adapter.db.tables import audit_event, audit_head, audit_leaf, audit_tail, search_index
from adapter.governance.derived import Index, find_altered, index_of
from adapter.governance.merkle import CHAIN_START, CompactRange, chain_hash, leaf_hash
from adapter.governance.signing import Head, PublicKey, public_keys
from adapter.governance.tree import find_head

PAGE = 2000
MOST_PROBLEMS = 100  # told one by one
WORTH_PROCESSES = 32  # pages; fewer are read sooner than another process starts
AHEAD = 4  # pages that each process may be ahead of the walk: what bounds memory


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
    db: Database,
    *,
    noted: Sequence[Head] = (),
    progress: Callable[[int, int], None] = lambda _done, _of: None,
    processes: int = 1,
) -> Verdict:
    """Everything, against the heads stored and those `noted` outside. `progress` is told (leaves read, leaves).

    Events are read and hashed by as many `processes`; chain, tree and heads are followed by this one.
    """
    verdict = Verdict()
    with db.snapshot() as tx:
        keys, verdict.newest = public_keys(tx), find_head(tx)
        indexed = tx.execute(_INDEXED).scalar_one()
        indexed -= _check_tail(tx, verdict)
        _check_counts(tx, verdict)
    for name in db.spool.damaged() if db.spool else ():
        verdict.add(None, None, f"looks kept in {name} are not what was written")
    end = verdict.newest.tree_size if verdict.newest else 0
    walk = _Walk(verdict, keys)
    due: dict[int, list[Head]] = {}
    for one in noted:
        if one.tree_size > end:
            verdict.add(end, None, f"the log was cut: a head of {one.tree_size} events was noted, now there are {end}")
        due.setdefault(one.tree_size, []).append(one)
    spans = [(start, min(start + PAGE, end)) for start in range(0, end, PAGE)]
    for page in _read(db, spans, processes):
        walk.page(page, due)
        indexed -= page.indexed
        progress(walk.tree.size, end)
    if walk.tree.size < end:
        verdict.add(walk.tree.size, None, f"the leaves from here to {end - 1} are missing")
    if indexed:
        _check_index(db, verdict)
    verdict.events = walk.tree.size
    return verdict


# --- pages: what needs nothing but the events in it ----------------------------------------------------------------


class _Leaf(NamedTuple):
    seq: int
    event_id: str
    leaf_hash: bytes
    chain_hash: bytes
    problem: str | None


@dataclass
class _Page:
    leaves: list[_Leaf]
    heads: list[Head]
    indexed: int


def _read(db: Database, spans: Sequence[tuple[int, int]], processes: int) -> Iterator[_Page]:
    if processes < 2 or len(spans) < WORTH_PROCESSES:
        yield from (_read_page(db, *span) for span in spans)
        return
    url = db.url.render_as_string(hide_password=False)
    with ProcessPoolExecutor(processes, get_context("spawn"), _open, (url,)) as pool:
        ahead = deque(pool.submit(_read_there, span) for span in spans[: processes * AHEAD])
        for span in spans[processes * AHEAD :]:
            yield ahead.popleft().result()
            ahead.append(pool.submit(_read_there, span))
        while ahead:
            yield ahead.popleft().result()


def _open(url: str) -> None:
    global _there  # noqa: PLW0603 - one database for the life of a worker process
    _there = Database(url)
    gc.set_threshold(100_000)  # a page has no cycles, and is looked through for them ten times at the usual threshold


def _read_there(span: tuple[int, int]) -> _Page:
    return _read_page(_there, *span)


_there: Database
_leaf, _head = audit_leaf.c, audit_head.c
_SPAN = (_leaf.seq >= bindparam("start"), _leaf.seq < bindparam("stop"))
_EVENTS = (
    select(_leaf.seq, _leaf.event_id, _leaf.leaf_hash, _leaf.chain_hash, audit_event)
    .outerjoin(audit_event, audit_event.c.id == _leaf.event_id)
    .where(*_SPAN)
    .order_by(_leaf.seq)
)
_INDEX = (
    select(search_index.c.resource_id, search_index.c.param, search_index.c.value)
    .where(search_index.c.resource_type == "AuditEvent")
    .where(search_index.c.resource_id.in_(select(_leaf.event_id).where(*_SPAN)))  # a join may begin with all the index
)
_INDEXED = (
    select(func.count())
    .select_from(search_index)
    .where(search_index.c.resource_type == "AuditEvent")
    .where(search_index.c.resource_id >= "")  # counted in the order of ids, which is that of the disk
)
_HEADS = (
    select(_head.tree_size, _head.root_hash, _head.chain_hash, _head.signed_at, _head.key_id, _head.signature)
    .where(_head.tree_size > bindparam("start"), _head.tree_size <= bindparam("stop"))
    .order_by(_head.tree_size)
)


def _read_page(db: Database, start: int, stop: int) -> _Page:
    span = {"start": start, "stop": stop}
    with db.snapshot() as tx:
        rows = tx.execute(_EVENTS, span).all()
        found = tx.execute(_INDEX, span).all()
        heads = [Head(*row) for row in tx.execute(_HEADS, span)]
    index = index_of(found)
    leaves = [
        _Leaf(row.seq, row.event_id, row.leaf_hash, row.chain_hash, _problem(row, index.get(row.event_id, set())))
        for row in rows
    ]
    return _Page(leaves, heads, len(found))


def _problem(row: Any, index: Index, since: str = "sealed") -> str | None:
    """What is wrong with the event of a leaf, as far as its own rows tell."""
    if row.body is None:
        return "the event is missing"
    text = row.body.encode()
    if leaf_hash(text) != row.leaf_hash:
        return f"the event is not what was {since}"
    altered = find_altered(text, row._mapping, index)
    return f"what the event is found by was altered: {', '.join(altered)}" if altered else None


# --- the walk: what needs all before it -----------------------------------------------------------------------------


class _Walk:
    """One pass over the leaves in order."""

    def __init__(self, verdict: Verdict, keys: dict[str, PublicKey]) -> None:
        self.tree = CompactRange()
        self._chain = CHAIN_START
        self._verdict = verdict
        self._keys = keys
        self._diverged = False  # after the first wrong root every later one is wrong as well

    def page(self, page: _Page, noted: dict[int, list[Head]]) -> None:
        append, chain, verdict = self.tree.append, self._chain, self._verdict
        due = {head.tree_size: head for head in page.heads}
        for seq, event_id, leaf, linked, problem in page.leaves:
            if seq != self.tree.size:
                verdict.add(self.tree.size, None, f"the leaves from here to {seq - 1} are missing")
                self.tree.size, self._diverged = seq, True
            if problem is not None:
                verdict.add(seq, event_id, problem)
            chain = chain_hash(chain, leaf, seq)
            if chain != linked:
                verdict.add(seq, event_id, "the chain of hashes breaks here")
                chain = linked
            if self._diverged:
                self.tree.size += 1
            else:
                append(leaf)
            if head := due.get(seq + 1):
                self._check_head(head, chain)
            for head in noted.get(seq + 1, ()):
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


def _check_tail(tx: Connection, verdict: Verdict) -> int:
    """What waits for its seal must already be what was written. Returns how many entries the index has for it."""
    last, indexed = "", 0
    while rows := tx.execute(_WAITING, {"last": last, "count": PAGE}).all():
        span = {"first": rows[0].event_id, "last": rows[-1].event_id}
        found = tx.execute(_WAITING_INDEX, span).all()
        entries = index_of(found)
        for row in rows:
            verdict.unsealed += 1
            if problem := _problem(row, entries.get(row.event_id, set()), "written"):
                verdict.add(None, row.event_id, f"{problem}; it was not sealed yet")
        last, indexed = span["last"], indexed + len(found)
    return indexed


_tail = audit_tail.c
_WAITING = (
    select(_tail.event_id, _tail.leaf_hash, audit_event)
    .outerjoin(audit_event, audit_event.c.id == _tail.event_id)
    .where(_tail.event_id > bindparam("last"))
    .order_by(_tail.event_id)
    .limit(bindparam("count"))
)
_WAITING_INDEX = (
    select(search_index.c.resource_id, search_index.c.param, search_index.c.value)
    .join(audit_tail, _tail.event_id == search_index.c.resource_id)
    .where(search_index.c.resource_type == "AuditEvent")
    .where(_tail.event_id >= bindparam("first"), _tail.event_id <= bindparam("last"))
)


def _check_index(db: Database, verdict: Verdict) -> None:
    """The index has entries that no event read accounts for: name those of events that are not there at all."""
    index = search_index.c
    named = select(index.resource_id).distinct().where(index.resource_type == "AuditEvent")
    named = named.where(~select(audit_event.c.id).where(audit_event.c.id == index.resource_id).exists())
    with db.snapshot() as tx:
        for event_id in tx.execute(named.order_by(index.resource_id).limit(MOST_PROBLEMS)).scalars():
            verdict.add(None, event_id, "the search index names this event, which is not in the log")


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
