"""One service as several processes, since one interpreter keeps one core busy: forked before anything is opened, equal
but for the first, and ended together.

The parent serves nobody: it waits. A process that something killed is replaced; one that ended by itself has said why,
so the others are ended and its exit code is passed on. When the parent dies, however, the others die at once: nobody
would be there to end them.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import structlog

log = structlog.get_logger()

RESTART_SECONDS = 1.0  # between being killed and being replaced
END_SECONDS = 15.0  # for what is in hand, before a process that was asked to end is killed
_ENDS = (signal.SIGINT, signal.SIGTERM)


class Member:
    """This process among those of its service. `number` is 0 for the first, which also does what only one may do."""

    def __init__(self, number: int, bells: list[tuple[int, int]]) -> None:
        self.number = number
        self._bells = bells

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


ALONE = Member(0, [])


def fork_processes(count: int) -> Member:
    """Returns in each of `count` processes. The parent, which must not have threads, never returns: it exits with 0
    when it was asked to end, else with the code of the process that ended by itself. One process is no other than this.
    """
    return ALONE if count == 1 else _Parent([_bell() for _ in range(count)]).run()


def _bell() -> tuple[int, int]:
    listening, ringing = os.pipe()
    os.set_blocking(ringing, False)
    return listening, ringing


class _Parent:
    def __init__(self, bells: list[tuple[int, int]]) -> None:
        self._bells = bells
        self._numbers: dict[int, int] = {}  # by process id
        self._lifeline = os.pipe()  # ends with the parent, whatever kills it
        self._is_ending = False
        self._exit_code = 0

    def run(self) -> Member:
        for asked in _ENDS:
            signal.signal(asked, lambda *_: self._end())
        for number in range(len(self._bells)):
            if member := self._fork(number):
                return member
        while self._numbers:
            process, status = os.wait()
            if process not in self._numbers:  # the first process of a container inherits strangers
                continue
            if member := self._ended(self._numbers.pop(process), status):
                return member
        sys.exit(self._exit_code)

    def _fork(self, number: int) -> Member | None:
        """A Member in the new process, None in the parent."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)  # until it is known whom to end, and here what that means
        if process := os.fork():
            self._numbers[process] = number
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
            return None
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
        os.close(self._lifeline[1])
        threading.Thread(target=_die_with_parent, args=(self._lifeline[0],), name="lifeline", daemon=True).start()
        return Member(number, self._bells)

    def _ended(self, number: int, status: int) -> Member | None:
        code = os.waitstatus_to_exitcode(status)
        if self._is_ending:
            return None
        if code < 0:
            log.error("process.killed", number=number, signal=-code)
            time.sleep(RESTART_SECONDS)
            return None if self._is_ending else self._fork(number)
        self._exit_code = code
        self._end()
        return None

    def _end(self) -> None:
        self._is_ending = True
        for process in self._numbers:
            os.kill(process, signal.SIGTERM)
        signal.signal(signal.SIGALRM, lambda *_: self._kill())
        signal.setitimer(signal.ITIMER_REAL, END_SECONDS)

    def _kill(self) -> None:
        for process in self._numbers:
            os.kill(process, signal.SIGKILL)


def _die_with_parent(lifeline: int) -> None:
    os.read(lifeline, 1)
    os._exit(1)
