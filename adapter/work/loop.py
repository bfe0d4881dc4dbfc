"""The loop that does the work: one dispatcher, a few threads per lane, one heartbeat.

A handler gets a leased Work and must end it: `finish`, `postpone` or `bury` in the transaction that records its effect.
What it raises unexpectedly is postponed with a growing delay and buried after `ATTEMPTS`, so that a defect stops one
item and is seen, and a crash of the whole process only lets the leases run out. A loop that is stopped waits for
nobody's answer: what does not end soon is put back, and its handler can finish nothing any more.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import attrgetter
from queue import SimpleQueue

import structlog
from sqlalchemy import Connection

from adapter.db.engine import Database, batches
from adapter.errors import DermBridgeError, Unavailable
from adapter.work.queue import LEASE, LeaseLost, Work, bury, claim, due_lines, extend, postpone, release_expired

log = structlog.get_logger()

Handler = Callable[[Work], None]
ATTEMPTS = 12
REMEDY = "look into the log for this work id, mend the cause, then replay it"
POLL_SECONDS = 0.5
RELEASE = timedelta(seconds=1)  # between looks for leases that ended
PATIENCE_SECONDS = 2  # with a database that does not answer
GRACE_SECONDS = 3  # for what is in hand when the loop is stopped
STOPPED = "the worker was stopped before this was done"
PAUSE_SECONDS = 0.01  # between looks: many commits in a row are one reason to look


def back_off(attempts: int) -> timedelta:
    """5 s, 10 s, 20 s … at most 6 h, with 20 % jitter so that a revived destination is not stormed."""
    seconds = min(5 * 2 ** max(attempts - 1, 0), 6 * 3600)
    return timedelta(seconds=seconds * random.uniform(0.8, 1.2))  # noqa: S311 (not a secret)


@dataclass(frozen=True)
class Lane:
    """How one kind of work is done: its handler, how many at once, and whether a dead item blocks its order keys.

    `threads` are those of each destination: one that never answers keeps nobody else's work waiting. `room` says how
    many may be begun there now, when that is not for the threads alone to say, and `at_once` how many may be in the
    hands of all workers together.
    `claims` is how many are leased by one claim, which is a commit of its own: for short work more than `threads`.
    Work leased by a process that dies waits for its lease to end, so long work is claimed one for each thread.
    `together` does what one claim leased and returns what it left to `handler`; when it raises, each of them is
    handled by itself, as far as it is still held. `at_a_time` says how many of a destination one thread is given for
    it; without, all.
    """

    handler: Handler
    threads: int = 1
    dead_blocks: bool = False
    claims: int = 0
    together: Callable[[Sequence[Work]], Sequence[Work]] | None = None
    at_a_time: Callable[[str], int] | None = None
    room: Callable[[str], int | None] | None = None
    at_once: Callable[[str], int | None] | None = None
    set_aside: Callable[[Connection, Work, str, str | None], None] | None = None
    """Writes down with it why an item waits after an error of ours, or with a remedy why it is done no more."""


Line = tuple[str, str]
"""A kind and a destination: what waits there is done in its own threads."""


class WorkLoop:
    """Runs lanes until stopped. `run_until_idle` does everything due now, in the calling thread (commands, tests)."""

    def __init__(
        self,
        db: Database,
        lanes: Mapping[str, Lane],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        lease: timedelta = LEASE,
    ) -> None:
        self._db = db
        self._lanes = lanes
        self._now = now
        self._lease = lease
        self._release_at = datetime.min.replace(tzinfo=UTC)
        self._stop = threading.Event()
        self._in_hand: dict[int, Work] = {}
        self._guard = threading.Condition()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._threads = [
            threading.Thread(target=self._dispatch, name="work", daemon=True),
            threading.Thread(target=self._heartbeat, name="work-heartbeat", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begin nothing more, give what is in hand `GRACE_SECONDS` to end, and put back what does not."""
        self._stop.set()
        self._db.wake()
        for thread in self._threads:
            thread.join()
        with self._guard:
            self._guard.wait_for(lambda: not self._in_hand, GRACE_SECONDS)
            left = list(self._in_hand.values())
        self._put_back(left)

    def run_until_idle(self) -> int:
        """Do all due work here and now; returns how many items were handled."""
        handled = 0
        while taken := [
            item for line in self._due() for item in self._claim(line, max(16, self._lanes[line[0]].claims))
        ]:
            for _, items in groupby(taken, key=lambda item: (item.kind, item.destination)):
                for some in self._shares(list(items)):
                    self._do_all(some)
            handled += len(taken)
        return handled

    def _dispatch(self) -> None:
        crews: dict[Line, _Crew] = {}
        try:
            while not self._stop.is_set():
                seen = self._db.commits
                try:
                    claimed = [self._fill(line, crews) for line in self._due()]
                except Unavailable as error:  # a restarted server, a full disk: it comes back, and so does this
                    log.error("work.no_database", exc_info=error)
                    self._stop.wait(PATIENCE_SECONDS)
                    continue
                if not any(claimed):
                    self._db.wait_for_commit(seen, POLL_SECONDS)
                    self._stop.wait(PAUSE_SECONDS)
        finally:
            for crew in crews.values():
                crew.dismiss()

    def _due(self) -> list[Line]:
        now = self._now()
        if now >= self._release_at:
            release_expired(self._db, now=now)
            self._release_at = now + RELEASE
        return due_lines(self._db, self._lanes, now=now)

    def _claim(self, line: Line, room: int) -> list[Work]:
        """Up to `room` items of this line, or as many as its lane lets begin."""
        kind, destination = line
        if room > 0 and (ask := self._lanes[kind].room) and (limit := ask(destination)) is not None:
            room = min(room, limit)
        if room <= 0:
            return []
        at_once = bound(destination) if (bound := self._lanes[kind].at_once) else None
        return claim(self._db, kind, destination, limit=room, now=self._now(), lease=self._lease, at_once=at_once)

    def _room(self, line: Line) -> int:
        """How much a claim of this line may take now; 0 while every thread of it is busy."""
        lane = self._lanes[line[0]]
        with self._guard:
            in_hand = sum((item.kind, item.destination) == line for item in self._in_hand.values())
        refilled = lane.claims // 2 if lane.at_a_time else lane.threads
        return max(lane.claims, lane.threads) - in_hand if in_hand < refilled else 0

    def _fill(self, line: Line, crews: dict[Line, _Crew]) -> bool:
        """Claim as much as the line has room for; True when something was claimed."""
        lane = self._lanes[line[0]]
        taken = self._claim(line, self._room(line))
        if not taken:
            return False
        if line not in crews:
            crews[line] = _Crew("work-" + "-".join(filter(None, line)), lane.threads, self._begin)
        with self._guard:
            self._in_hand.update({item.id: item for item in taken})
        for items in self._shares(taken):
            crews[line].give(items)
        return True

    def _shares(self, taken: Sequence[Work]) -> Iterable[Sequence[Work]]:
        """What one claim leased, as threads are given it."""
        lane = self._lanes[taken[0].kind]
        if lane.together is None:
            return batches(taken, 1)
        return batches(taken, lane.at_a_time(taken[0].destination)) if lane.at_a_time else [taken]

    def _heartbeat(self) -> None:
        while not self._stop.wait(self._lease.total_seconds() / 3):
            with self._guard:
                held = list(self._in_hand.values())
            if held:
                try:
                    extend(self._db, held, now=self._now(), lease=self._lease)
                except Unavailable as error:  # who loses a lease by it finishes nothing
                    log.error("work.no_database", exc_info=error)

    def _begin(self, items: Sequence[Work]) -> None:
        """What a thread of a line is given; nothing is begun any more once the loop is stopped."""
        if self._stop.is_set():
            self._put_back(items)
        else:
            self._do_all(items)

    def _do_all(self, items: Sequence[Work]) -> None:
        """Leased by one claim and of one kind: together where the lane can, else one by one."""
        left = items
        together = self._lanes[items[0].kind].together
        if together and len(items) > 1:
            try:
                left = together(items)
            except Exception as error:  # each by itself tells which of them it is, and sets that one aside
                log.warning("work.not_together", kind=items[0].kind, items=len(items), exc_info=error)
        self._let_go(set(map(attrgetter("id"), items)) - set(map(attrgetter("id"), left)))
        for item in left:
            self._do(item)
        self._db.wake()

    def _do(self, item: Work) -> None:
        try:
            self._lanes[item.kind].handler(item)
        except LeaseLost:
            log.warning("work.lease_lost", work=item.id, kind=item.kind)
        except Exception as error:  # outermost edge: one item must not stop the others
            log.error("work.failed", work=item.id, kind=item.kind, error=type(error).__name__, exc_info=error)
            self._set_aside(item, error)
        finally:
            self._let_go([item.id])
            self._db.wake()

    def _let_go(self, ids: Iterable[int]) -> None:
        with self._guard:
            for work_id in ids:
                self._in_hand.pop(work_id, None)
            self._guard.notify_all()

    def _put_back(self, items: Iterable[Work]) -> None:
        """For whoever comes next. A handler that is still at it loses its lease by this."""
        for item in items:
            log.info("work.put_back", work=item.id, kind=item.kind)
            self._leave(item, STOPPED, wait=timedelta(0))
            self._let_go([item.id])

    def _set_aside(self, item: Work, error: Exception) -> None:
        reason = str(error) if isinstance(error, DermBridgeError) else f"internal error ({type(error).__name__})"
        self._leave(item, reason, wait=back_off(item.attempts), remedy=REMEDY if item.attempts >= ATTEMPTS else None)

    def _leave(self, item: Work, reason: str, *, wait: timedelta, remedy: str | None = None) -> None:
        """Done later, or with a remedy not at all until somebody saw to it."""
        lane = self._lanes[item.kind]
        try:
            with self._db.transaction() as tx:
                if remedy:
                    bury(tx, item, reason=reason, remedy=remedy, blocks=lane.dead_blocks)
                else:
                    postpone(tx, item, due_at=self._now() + wait, reason=reason)
                if lane.set_aside:
                    lane.set_aside(tx, item, reason, remedy)
        except LeaseLost:
            log.warning("work.lease_lost", work=item.id, kind=item.kind)
        except Unavailable as unavailable:  # its lease runs out, then it is done again
            log.error("work.no_database", work=item.id, kind=item.kind, exc_info=unavailable)


class _Crew:
    """The threads of one line, hired as they are needed. Daemons: one that waits for an answer keeps no process."""

    def __init__(self, name: str, size: int, do: Callable[[Sequence[Work]], None]) -> None:
        self._name = name
        self._size = size
        self._do = do
        self._hired = 0
        self._given: SimpleQueue[Sequence[Work] | None] = SimpleQueue()

    def give(self, items: Sequence[Work]) -> None:
        self._given.put(items)
        if self._hired < self._size:
            self._hired += 1
            threading.Thread(target=self._work, name=f"{self._name}-{self._hired}", daemon=True).start()

    def dismiss(self) -> None:
        """Each goes home once what was given before is done."""
        for _ in range(self._hired):
            self._given.put(None)

    def _work(self) -> None:
        while (items := self._given.get()) is not None:
            self._do(items)
