"""Whose turn it is to write, among the processes that share an SQLite file.

SQLite lets writers sleep past each other until one of them starves, and its versions before 3.51.3 can corrupt a WAL
that two connections reset at once (https://sqlite.org/wal.html#walresetbug): who writes, or checkpoints, has the turn.
"""

from __future__ import annotations

import fcntl
import os
import time

from adapter.errors import Unavailable

PATIENCE_SECONDS = 10
POLL_SECONDS = 0.0005  # how late a process notices that it may; a commit takes about as long


class Turn:
    """A lock between processes, first come first served; whoever ends without giving it back has given it back.

    flock(2) knows neither a queue nor a time limit. Only who holds `next` may wait for the turn itself, so that a
    process which writes without pause cannot come first again and again.
    """

    def __init__(self, database: str | None) -> None:
        """`database` is the path of the file; None: it lives in memory, where nobody else writes."""
        names = [f"{database}.{name}" for name in ("next", "turn")] if database else []
        self._files = [os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) for name in names]

    def take(self, asked_at: float) -> None:
        """Raises Unavailable when another process does not give it back in time: `PATIENCE_SECONDS` after somebody
        asked for it, on the monotonic clock, so that those who stood in line behind him do not wait as long again.
        """
        if self._files:
            following, turn = self._files
            _lock(following, asked_at)
            try:
                _lock(turn, asked_at)
            finally:
                fcntl.flock(following, fcntl.LOCK_UN)

    def is_wanted(self) -> bool:
        """Whether another process waits for it. For whoever has it."""
        if not self._files:
            return False
        try:
            fcntl.flock(self._files[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._files[0], fcntl.LOCK_UN)
        return False

    def give_back(self) -> None:
        if self._files:
            fcntl.flock(self._files[1], fcntl.LOCK_UN)

    def close(self) -> None:
        while self._files:
            os.close(self._files.pop())


def _lock(file: int, asked_at: float) -> None:
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > asked_at + PATIENCE_SECONDS:
                raise Unavailable("another process keeps the database busy; send it again later") from None
            time.sleep(POLL_SECONDS)
