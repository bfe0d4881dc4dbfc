"""How fast a destination is spoken to: per minute, per day, at once, and not at all while it asked for a pause.

What was sent is counted in a `Tally`: in this process, or, where several workers share an allowance, in the database
(adapter/delivery/allowance.py). Of a shared one about a second's worth is taken at a time, so that counting costs one
commit a second, not one a request; what a crash leaves unused is lost, never more is sent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from connectors.contract import DeliveryError, Grant, Retry, Rule, Tally, utc_now
from connectors.knobs import Counted, Limits
from connectors.signals import seconds_to_minute

AT_ONCE: Final = 20  # requests of this process, where the profile says nothing
PATIENCE: Final = 2.0  # seconds; a longer wait belongs to the delivery queue
DAY: Final = 86_400  # seconds
MIDNIGHT_MARGIN: Final = 60  # seconds: their clock is not ours
Slots = Mapping[tuple[int, int], int]
"""(span in seconds, number of the span since 1970) -> how much was sent in it."""


def grant(rules: Sequence[Rule], slots: Slots, now: float, weight: int, wanted: int) -> Grant:
    """What the rules leave of `wanted`. Pure."""
    room, wait = wanted, 0.0
    for rule in rules:
        left, until = _room(rule, slots, now, weight)
        room, wait = min(room, left), max(wait, until)
    return Grant(room) if wait <= 0 else Grant(0, wait)


def _room(rule: Rule, slots: Slots, now: float, weight: int) -> tuple[int, float]:
    """How much one rule leaves, and, if that is less than `weight`, the seconds until it is enough."""
    begin = now - now % rule.seconds if rule.fixed else now - rule.seconds
    counted = sorted(
        (number * rule.span, used)
        for (span, number), used in slots.items()
        if span == rule.span and (number + 1) * span > begin
    )
    left = rule.at_most - sum(used for _, used in counted)
    if left >= weight:
        return left, 0.0
    if rule.fixed:
        return left, begin + rule.seconds - now + (MIDNIGHT_MARGIN if rule.seconds == DAY else 0)
    for start, used in counted:
        left += used
        if left >= weight:
            return 0, start + rule.span + rule.seconds - now
    return 0, float(rule.seconds)


class OwnTally(Tally):
    """Counted in this process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots: dict[tuple[int, int], int] = {}
        self._paused_until = 0.0

    def take(self, rules: Sequence[Rule], now: float, weight: int, wanted: int) -> Grant:
        """As the protocol says, but never more than is needed now."""
        with self._lock:
            if now < self._paused_until:
                return Grant(0, self._paused_until - now)
            oldest = {rule.span: now - rule.seconds - rule.span for rule in rules}
            self._slots = {key: used for key, used in self._slots.items() if key[0] * key[1] >= oldest.get(key[0], now)}
            given = grant(rules, self._slots, now, weight, weight)
            for span in oldest if given.granted else ():
                key = (span, int(now // span))
                self._slots[key] = self._slots.get(key, 0) + given.granted
            return given

    def pause(self, until: float) -> None:
        with self._lock:
            self._paused_until = max(self._paused_until, until)


def own_tally(_name: str) -> Tally:
    """For a process that speaks to a destination alone."""
    return OwnTally()


class Pace:
    """One destination's allowance. Thread-safe."""

    def __init__(
        self,
        limits: Limits,
        *,
        now: Callable[[], datetime] = utc_now,
        sleep: Callable[[float], None] = time.sleep,
        tally: Tally | None = None,
        zone: str = "UTC",
    ) -> None:
        self._limits = limits
        self.now = now
        self._sleep = sleep
        self._tally: Tally = tally or OwnTally()
        self._zone = zone
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(limits.at_once or AT_ONCE)
        self._paused_until = 0.0
        self._in_hand, self._until = 0, 0.0  # taken from the tally and not yet used, and for how long that is good

    @contextmanager
    def turn(self, kind: Counted = "read", counts: int = 1) -> Iterator[None]:
        """Wait for a turn, briefly; `kind` is a name of `limits.weights`, and it `counts` so often. Raises
        DeliveryError saying when to come again."""
        weight = self._limits.weights.get(kind, 1) * counts
        while (wait := self._take(weight)) > 0:
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
            self._in_hand, self._paused_until = 0, max(self._paused_until, now + wait)
        if self._rules(now):  # where there are none nobody asks the tally: each worker finds out by itself
            self._tally.pause(now + wait)
        return wait

    def _take(self, weight: int) -> float:
        """0 when one may be sent now (and counts it), else the seconds to wait."""
        with self._lock:
            now = self.now().timestamp()
            if now < self._paused_until:
                return self._paused_until - now
            if self._in_hand < weight or now >= self._until:
                if not (rules := self._rules(now)):
                    return 0.0
                seconds_worth = max((rule.at_most // rule.seconds for rule in rules), default=0)
                given = self._tally.take(rules, now, weight, max(weight, seconds_worth))
                if not given.granted:
                    return given.wait
                self._in_hand, self._until = given.granted, now // 1 + 1
            self._in_hand -= weight
            return 0.0

    def _rules(self, now: float) -> list[Rule]:
        limits, per_minute = self._limits, self._limits.per_minute
        if limits.off_peak is not None:
            here = datetime.fromtimestamp(now, ZoneInfo(self._zone)).time()
            begins, ends = limits.off_peak.begins, limits.off_peak.ends
            is_off_peak = begins <= here < ends if begins < ends else here >= begins or here < ends
            per_minute = limits.off_peak.per_minute if is_off_peak else per_minute
        minute = [Rule(60, per_minute, fixed=limits.window == "minute")] if per_minute else []
        return minute + ([Rule(DAY, limits.per_day, fixed=True)] if limits.per_day else [])
