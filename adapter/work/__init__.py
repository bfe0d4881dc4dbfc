"""Everything that happens later: one durable table of work with leases, order keys and dead letters."""

from adapter.work.haste import hasten
from adapter.work.loop import Lane, WorkLoop
from adapter.work.queue import (
    IS_HELD,
    LeaseLost,
    Work,
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
    finish_held,
    holding,
    postpone,
    release_expired,
    revive,
)
from adapter.work.standing import Queue, dead_letters, get_dead_letter, queues, waiting

__all__ = [
    "IS_HELD",
    "Lane",
    "LeaseLost",
    "Queue",
    "Work",
    "WorkLoop",
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
    "finish_held",
    "get_dead_letter",
    "hasten",
    "holding",
    "postpone",
    "queues",
    "release_expired",
    "revive",
    "waiting",
]
