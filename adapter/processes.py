"""One service as several processes, since one interpreter keeps one core busy: forked before anything is opened, equal
but for the first, and ended together.

The parent serves nobody: it waits. A process that something killed, or told to end, is replaced, after longer and
longer pauses if its replacements do not last either, while the others serve. One of the first that ends by itself with
an error has said why the service cannot run: the others are ended and its exit code is passed on. When the parent dies,
however, the others die at once: nobody would be there to end them.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

log = structlog.get_logger()

RESTART_SECONDS = 1.0  # between the end of a process and its replacement, doubled for each that does not last
RESTART_AT_MOST = 30.0
LASTED_SECONDS = 60.0
END_SECONDS = 15.0  # for what is in hand, before a process that was asked to end is killed
_ENDS = (signal.SIGINT, signal.SIGTERM)
_GONE = 2**32 - 1  # the load of a process that is not there


class Member:
    """This process among those of its service. `number` is 0 for the first, which also does what only one may do."""

    def __init__(self, number: int, bells: list[tuple[int, int]], loads: list[int] | memoryview[int]) -> None:
        self.number = number
        self._bells = bells
        self._loads = loads

    @property
    def is_first(self) -> bool:
        return self.number == 0

    def ring(self) -> None:
        """Let the others know that there is something to look at; waits for nobody."""
        for number, (_, bell) in enumerate(self._bells):
            if number != self.number:
                with suppress(BlockingIOError):  # it has not yet heard the last thousand
                    os.write(bell, b"!")

    def when_rung(self, then: Callable[[], None]) -> None:
        """Call `then` in a thread of its own whenever another process rings, once for all that rang meanwhile."""
        if len(self._bells) > 1:
            threading.Thread(target=self._listen, args=(then,), name="bell", daemon=True).start()

    def _listen(self, then: Callable[[], None]) -> None:
        while os.read(self._bells[self.number][0], 4096):
            then()

    @property
    def first_serves(self) -> bool:
        """Whether the first process has begun to accept (`carry`)."""
        return self._loads[0] != _GONE

    def carry(self, load: int) -> int:
        """Tell the others how much this process carries; returns how much more that is than who carries least."""
        self._loads[self.number] = load
        return load - min(self._loads)


ALONE = Member(0, [], [0])


def fork_processes(count: int) -> Member:
    """Returns in each of `count` processes. The parent, which must not have threads, never returns: it exits with 0
    when it was asked to end, else with the code of the process that ended by itself. One process is no other than this.
    """
    return ALONE if count == 1 else _Parent(count).run()


def _pipe(*, waits_to_read: bool = True) -> tuple[int, int]:
    reading, writing = os.pipe()
    os.set_blocking(reading, waits_to_read)
    os.set_blocking(writing, False)
    return reading, writing


@dataclass
class _Place:
    """Where one process is followed by the next."""

    process: int | None = None
    begun_at: float = 0.0
    due_at: float = 0.0
    pause: float = 0.0

    def put_off(self) -> None:
        lasted = time.monotonic() - self.begun_at >= LASTED_SECONDS
        self.pause = RESTART_SECONDS if lasted or not self.pause else min(2 * self.pause, RESTART_AT_MOST)
        self.due_at = time.monotonic() + self.pause


class _Parent:
    """Signals only wake it: what they ask for is done in its one loop, so that none comes amid a fork or a burial."""

    def __init__(self, count: int) -> None:
        self._bells = [_pipe() for _ in range(count)]
        self._loads = memoryview(mmap.mmap(-1, 4 * count)).cast("I")  # shared by all
        for number in range(count):
            self._loads[number] = _GONE
        self._lifeline = os.pipe()  # ends with the parent, whatever kills it
        self._signals = _pipe(waits_to_read=False)
        self._places = [_Place() for _ in range(count)]
        self._kill_at: float | None = None  # when asked to end
        self._exit_code = 0

    def run(self) -> Member:
        signal.set_wakeup_fd(self._signals[1], warn_on_full_buffer=False)
        for number in (*_ENDS, signal.SIGCHLD):  # whoever started us may have had them ignored
            signal.signal(number, lambda *_: None)
        while self._kill_at is None or any(place.process for place in self._places):
            if member := self._fill():
                return member
            self._wait()
            self._bury()
        sys.exit(self._exit_code)

    def _fill(self) -> Member | None:
        """A Member in a new process, None in the parent."""
        for number, place in enumerate(self._places):
            if self._kill_at is None and place.process is None and place.due_at <= time.monotonic():
                place.begun_at = time.monotonic()
                signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)  # until the child knows what they mean to it
                try:
                    place.process = os.fork()
                except OSError as error:  # the machine has no memory for it now
                    self._put_off(number, error=error.strerror)
                if place.process == 0:
                    return self._begin(number)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
        return None

    def _begin(self, number: int) -> Member:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
        for mine in (self._lifeline[1], *self._signals):
            os.close(mine)
        threading.Thread(target=_die_with_parent, args=(self._lifeline[0],), name="lifeline", daemon=True).start()
        return Member(number, self._bells, self._loads)

    def _wait(self) -> None:
        """Until there is something to do."""
        missing = [place.due_at for place in self._places if place.process is None]
        until = self._kill_at or min(missing, default=None)
        if select.select([self._signals[0]], [], [], max(until - time.monotonic(), 0) if until else None)[0]:
            if not set(_ENDS).isdisjoint(os.read(self._signals[0], 4096)):
                self._end()
        elif self._kill_at:
            self._tell(signal.SIGKILL)
            self._kill_at += END_SECONDS

    def _bury(self) -> None:
        """The first process of a container inherits strangers, and buries them too."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                for number, place in enumerate(self._places):
                    if place.process == ended[0]:
                        place.process, self._loads[number] = None, _GONE
                        self._ended(number, os.waitstatus_to_exitcode(ended[1]))

    def _ended(self, number: int, code: int) -> None:
        if self._kill_at is not None:
            return
        if code > 0 and not self._places[number].pause:
            self._exit_code = code
            self._end()
        else:
            self._put_off(number, signal=max(-code, 0), exit_code=max(code, 0))

    def _put_off(self, number: int, **why: object) -> None:
        place = self._places[number]
        place.put_off()
        log.error("process.ended", number=number, again_in_seconds=place.pause, **why)

    def _end(self) -> None:
        """Once: a process that is told twice may leave out what it does last."""
        if self._kill_at is None:
            self._kill_at = time.monotonic() + END_SECONDS
            self._tell(signal.SIGTERM)

    def _tell(self, number: signal.Signals) -> None:
        for place in self._places:
            if place.process:
                os.kill(place.process, number)


def _die_with_parent(lifeline: int) -> None:
    os.read(lifeline, 1)
    os._exit(1)
