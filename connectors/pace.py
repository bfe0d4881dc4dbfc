"""How fast a destination is spoken to: per minute, per day, at once, and not at all while it asked for a pause.

Counted in this process: several workers share a destination's allowance by halving it in the profile.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

from connectors.contract import DeliveryError, Retry, utc_now
from connectors.knobs import Limits
from connectors.signals import seconds_to_midnight, seconds_to_minute

PATIENCE: Final = 2.0  # seconds; a longer wait belongs to the delivery queue


class Pace:
    """One destination's allowance. Thread-safe."""

    def __init__(
        self, limits: Limits, *, now: Callable[[], datetime] = utc_now, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._limits = limits
        self.now = now
        self._sleep = sleep
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(limits.at_once)
        self._sent: deque[float] = deque()  # times of the last minute
        self._day, self._today = 0, 0
        self._paused_until = 0.0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn, briefly. Raises DeliveryError saying when to come again."""
        while (wait := self._take()) > 0:
            if wait > PATIENCE:
                raise DeliveryError(
                    "The destination's allowance is used up for now.",
                    remedy="Nothing to do: it is tried again when there is room (`limits` of the profile).",
                    retry=Retry.LATER,
                    retry_after=wait,
                )
            self._sleep(wait)
        with self._slots:
            yield

    def pause(self, asked: float | None) -> float:
        """The destination said it is busy: how long nobody shall ask, in seconds."""
        now = self.now().timestamp()
        minute = seconds_to_minute(datetime.fromtimestamp(now, UTC)) if self._limits.window == "minute" else None
        wait = asked if asked is not None else minute or self._limits.pause_seconds
        with self._lock:
            self._paused_until = max(self._paused_until, now + wait)
        return wait

    def _take(self) -> float:
        """0 when one may be sent now (and counts it), else the seconds to wait."""
        with self._lock:
            now = self.now().timestamp()
            wait = max(self._paused_until - now, self._minute(now), self._daily(now))
            if wait <= 0:
                self._sent.append(now)
                self._today += 1
            return wait

    def _minute(self, now: float) -> float:
        fixed = self._limits.window == "minute"
        begin = now - now % 60 if fixed else now - 60
        while self._sent and self._sent[0] < begin:
            self._sent.popleft()
        if self._limits.per_minute is None or len(self._sent) < self._limits.per_minute:
            return 0.0
        return 60 - now % 60 if fixed else self._sent[0] + 60 - now

    def _daily(self, now: float) -> float:
        day = int(now // 86_400)
        if day != self._day:
            self._day, self._today = day, 0
        if self._limits.per_day is None or self._today < self._limits.per_day:
            return 0.0
        return seconds_to_midnight(datetime.fromtimestamp(now, UTC))
