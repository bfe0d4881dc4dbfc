"""Child processes bounded in time and memory, for work on untrusted bytes: a hostile photo costs one child, not the
service.

A thread cannot be stopped inside a decoder, a process can: the child arms its own alarm for each call and dies of it.
It starts with an empty environment, so it never holds a key, a database address or a token. It is nice, unless somebody
waits for it: a photo that arrives comes before the thumbnail of the last one.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from adapter import errors
from adapter.errors import BadInput, DermBridgeError, Unavailable, Unprocessable

Json = dict[str, Any]
Task = Callable[[Json, list[bytes]], tuple[Json, Sequence[bytes]]]
"""What a child does: (request, contents) -> (answer, contents). What it refuses it raises as a BadInput."""

_ROOT = Path(__file__).parents[1]
_FRAME = struct.Struct(">Q")
_MAX_FRAME = 1 << 30
_GONE = (EOFError, BrokenPipeError, ValueError, LookupError)
_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)
_OUT_OF_MEMORY = 3  # exit status; Python's own for an error is 1, and 2 for wrong arguments
_PATIENCE_SECONDS = 5.0
_THREADS = "2"
_TRIES = 2


class BoundedChild:
    """Runs one task, `module:function`, in a child that is started when needed, serves many calls, and is replaced when
    it dies.

    `seconds` is processor time per call, `memory` bytes of address space, `nice` how far it stands back (nice(1)). One
    call at a time; others wait for it.
    """

    def __init__(self, task: str, *, seconds: float, memory: int, nice: int = 10) -> None:
        self._arguments = [task, str(seconds), str(memory), str(nice)]
        self._limits: dict[int | None, str] = {
            -signal.SIGPROF: f"takes more than {seconds:g} s of processor time",
            _OUT_OF_MEMORY: f"needs more than {memory >> 20} MiB of memory",
        }
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def call(self, request: Json, *contents: bytes) -> tuple[Json, list[bytes]]:
        """Raises what the task refuses, Unprocessable for what exceeds a limit or crashes the child, saying which, and
        Unavailable when the machine killed the child, and then another."""
        with self._lock:
            answer, made = self._answer(request, contents)
        if "refusal" in answer:
            refusal = getattr(errors, answer["refusal"], None)
            raise (refusal if isinstance(refusal, type) and issubclass(refusal, DermBridgeError) else BadInput)(
                answer["message"]
            )
        return answer, made

    def start(self) -> None:
        """Starts the child ahead of its first call, unless it runs or is busy; waits for nothing."""
        if self._lock.acquire(blocking=False):
            try:
                self._child = self._child or self._start()
            finally:
                self._lock.release()

    def close(self) -> None:
        """Ends the child; it may be called again."""
        with self._lock:
            self._stop()

    def __del__(self) -> None:
        self._stop()

    def _answer(self, request: Json, contents: Sequence[bytes]) -> tuple[Json, list[bytes]]:
        for _ in range(_TRIES):
            with ExitStack() as broken:
                broken.callback(self._stop)  # what is left of an answer in the pipe would be the next one's
                try:
                    answer = self._ask(request, contents)
                except _GONE as error:
                    if (status := self._exit_status()) not in _FROM_OUTSIDE:
                        raise Unprocessable(self._blame(status)) from error
                else:
                    broken.pop_all()
                    return answer
        raise Unavailable(
            "This machine ended the decoding of photos, twice; it may be short of memory. It is no fault of the photo: "
            "try again in a minute."
        )

    def _exit_status(self) -> int | None:
        """How the child ended (negative: by which signal); None while it goes on, and its answer made no sense."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._child.wait(_PATIENCE_SECONDS) if self._child else None
        return None

    def _blame(self, status: int | None) -> str:
        """Why this photo could not be decoded, and what to do. Who kills from outside, as a machine out of memory does,
        blames no photo."""
        if over := self._limits.get(status):
            return f"Decoding this photo {over}, the limit for one photo. Export it again as a smaller JPEG."
        if status is not None and status < 0:
            return (
                f"This photo crashed the decoder ({signal.Signals(-status).name}): it is damaged, or made to do so. "
                "Export it again from where it came; open it nowhere else if you do not know from where."
            )
        return (
            "The decoder failed on this photo by an error of its own, which is in the log. Export it again as JPEG; if "
            "that fails too, report it with that line of the log."
        )

    def _ask(self, request: Json, contents: Sequence[bytes]) -> tuple[Json, list[bytes]]:
        if self._child is not None and self._child.poll() is not None:
            self._stop()  # it died between two calls: no fault of what is asked now
        self._child = self._child or self._start()
        to_child, from_child = self._child.stdin, self._child.stdout
        if to_child is None or from_child is None:
            raise EOFError
        _send(to_child, request, contents)
        return _receive(from_child)

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - our own interpreter and module, no shell
            [sys.executable, "-m", "adapter.bounded", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": _THREADS, "OPENBLAS_NUM_THREADS": _THREADS},
            cwd="/",
        )

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            with contextlib.suppress(BrokenPipeError):
                child.communicate()


def _send(stream: IO[bytes], about: Json, contents: Sequence[bytes]) -> None:
    for frame in (json.dumps(about).encode(), _FRAME.pack(len(contents)), *contents):
        stream.write(_FRAME.pack(len(frame)))
        stream.write(frame)
    stream.flush()


def _receive(stream: IO[bytes]) -> tuple[Json, list[bytes]]:
    """EOFError when the other side is gone."""
    about: Json = json.loads(_frame(stream))
    (count,) = _FRAME.unpack(_frame(stream))
    return about, [_frame(stream) for _ in range(count)]


def _frame(stream: IO[bytes]) -> bytes:
    (length,) = _FRAME.unpack(_exactly(stream, _FRAME.size))
    if length > _MAX_FRAME:
        raise EOFError
    return _exactly(stream, length)


def _exactly(stream: IO[bytes], length: int) -> bytes:
    content = stream.read(length)
    if len(content) != length:
        raise EOFError
    return content


# --- the child ------------------------------------------------------------------------------------------------------


def _serve(name: str, seconds: float, memory: int, nice: int) -> None:
    """One call after the other until the parent closes the pipe."""
    module, _, function = name.partition(":")
    task: Task = getattr(import_module(module), function)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # the service was killed: nobody wants the answer
    os.nice(nice)
    while True:
        try:
            request, contents = _receive(sys.stdin.buffer)
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            answer, made = task(request, contents)
        except BadInput as error:
            answer, made = {"refusal": type(error).__name__, "message": str(error)}, ()
        except MemoryError:
            os._exit(_OUT_OF_MEMORY)  # at once: what is left may not do for more
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send(sys.stdout.buffer, answer, made)


if __name__ == "__main__":
    _serve(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
