"""Row and object ids: UUID version 7 (RFC 9562 section 5.7), so that new rows land at the end of an index.

Layout, most significant bit first: 48 bits Unix milliseconds, 4 bits version, 12 bits counter (RFC 9562 section 6.2
method 1, seeded below half so that it has room to rise), 2 bits variant, 62 random bits. The random bits are new for
every id: a forked or a second process never repeats one, and nobody can guess the next.
"""

from __future__ import annotations

import os
import struct
import threading
import time
import uuid
from datetime import datetime

COUNTER_MAX = 0xFFF


class _Clock:
    """The last (millisecond, counter) handed out, and the millisecond it was asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked = self._millisecond = -1
        self._counter = 0

    def tick(self, asked: int, *, never_back: bool) -> tuple[int, int]:
        with self._lock:
            if asked != self._asked and not (never_back and asked <= self._millisecond):
                self._millisecond, self._counter = asked, _random_bits() >> 51
            elif self._counter < COUNTER_MAX:
                self._counter += 1
            else:
                # Thousands of ids in one millisecond: run ahead of it (RFC 9562 section 6.2, counter rollover).
                self._millisecond, self._counter = self._millisecond + 1, 0
            self._asked = asked
            return self._millisecond, self._counter


_pool: list[int] = []
os.register_at_fork(after_in_child=_pool.clear)


def _random_bits() -> int:
    """62 bits, of many read at once: each read lets other threads go first, which costs more than the id."""
    while True:
        try:
            return _pool.pop()
        except IndexError:
            _pool.extend(one >> 2 for one in struct.unpack("512Q", os.urandom(4096)))


# Apart, so that ids made for another time (an import of old photos, a test) do not drag the running clock along.
_running = _Clock()
_stated = _Clock()


def first_id(at: datetime) -> str:
    """The lowest id that `new_id` can give at that time: where a range of ids since then begins."""
    return str(uuid.UUID(int=int(at.timestamp() * 1000) << 80 | 0x7 << 76 | 0b10 << 62))


def new_id(now: datetime | None = None) -> str:
    """A fresh UUIDv7 in canonical lower-case text; text order is time order.

    Without `now`, ids rise strictly within the process, even if the system clock is set back. With `now` (aware),
    the id carries that time, and ids asked for the same `now` in a row rise strictly.
    """
    if now is None:
        millisecond, counter = _running.tick(time.time_ns() // 1_000_000, never_back=True)
    else:
        if now.tzinfo is None:
            raise ValueError("An id needs an aware time; pass a datetime with a time zone.")
        millisecond, counter = _stated.tick(int(now.timestamp() * 1000), never_back=False)
    number = millisecond << 80 | 0x7 << 76 | counter << 64 | 0b10 << 62 | _random_bits()
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
