"""Everything that happens later: one durable table of work with leases, order keys and dead letters."""

from adapter.work.haste import hasten
from adapter.work.loop import Lane, WorkLoop
from adapter.work.queue import (
    LeaseLost,
    Work,
    are_held,
    bury,
    cancel,
    cancel_all,
    check_held,
    claim,
    due_lines,
    enqueue,
    enqueue_all,
    finish,
    finish_all,
    postpone,
    release_expired,
    revive,
)
from adapter.work.standing import Queue, dead_letters, get_dead_letter, queues, waiting

__all__ = [
    "Lane",
    "LeaseLost",
    "Queue",
    "Work",
    "WorkLoop",
    "are_held",
    "bury",
    "cancel",
    "cancel_all",
    "check_held",
    "claim",
    "dead_letters",
    "due_lines",
    "enqueue",
    "enqueue_all",
    "finish",
    "finish_all",
    "get_dead_letter",
    "hasten",
    "postpone",
    "queues",
    "release_expired",
    "revive",
    "waiting",
]
