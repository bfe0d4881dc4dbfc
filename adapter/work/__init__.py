"""Everything that happens later: one durable table of work with leases, order keys and dead letters."""

from adapter.work.loop import Lane, WorkLoop
from adapter.work.queue import (
    LeaseLost,
    Work,
    bury,
    cancel,
    cancel_all,
    claim,
    enqueue,
    enqueue_all,
    finish,
    finish_all,
    postpone,
    revive,
)

__all__ = [
    "Lane",
    "LeaseLost",
    "Work",
    "WorkLoop",
    "bury",
    "cancel",
    "cancel_all",
    "claim",
    "enqueue",
    "enqueue_all",
    "finish",
    "finish_all",
    "postpone",
    "revive",
]
