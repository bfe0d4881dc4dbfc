"""Decoding in a child process bounded in time and memory: a hostile photo costs one child, not the service.

A thread cannot be stopped inside a decoder, a process can: the child arms its own alarm for each photo and dies of it.
It starts with an empty environment, so it never holds a key, a database address or a token. It is nice: a photo that
arrives comes before the thumbnail of the last one.
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
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from adapter.capture.inspection import MAX_PIXELS
from adapter.capture.renditions import DEFAULT_SIZES, Rendition, render
from adapter.errors import BadInput, TooLarge, Unprocessable, UnsupportedMedia

_ROOT = Path(__file__).parents[2]
_FRAME = struct.Struct(">Q")
_MAX_FRAME = 1 << 30
_REFUSALS = {error.__name__: error for error in (Unprocessable, TooLarge, UnsupportedMedia)}


class BoundedRenderer:
    """Renders in one child process, which is started when needed, serves many photos, and is replaced when it dies.

    `seconds` is processor time per photo, `memory` bytes of address space. One photo at a time per renderer; one per
    worker thread.
    """

    def __init__(self, *, seconds: float = 20, memory: int = 3 << 30) -> None:
        self._arguments = [str(seconds), str(memory)]
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def render(
        self, data: bytes, sizes: Mapping[str, int] = DEFAULT_SIZES, *, max_pixels: int = MAX_PIXELS
    ) -> dict[str, Rendition]:
        """Like `renditions.render`; a photo that exceeds the limits or kills the decoder raises Unprocessable too."""
        with self._lock:
            try:
                return self._ask(data, json.dumps({"sizes": dict(sizes), "max_pixels": max_pixels}).encode())
            except (EOFError, BrokenPipeError, ValueError, LookupError) as error:
                self._stop()
                raise Unprocessable(
                    "Decoding this photo takes more time or memory than any photo should. Export it again."
                ) from error

    def close(self) -> None:
        """Ends the child; the renderer may be used again."""
        with self._lock:
            self._stop()

    def __enter__(self) -> BoundedRenderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._stop()  # one renderer per worker thread: its child ends with that thread

    def _ask(self, data: bytes, request: bytes) -> dict[str, Rendition]:
        self._child = self._child or self._start()
        to_child, from_child = self._child.stdin, self._child.stdout
        if to_child is None or from_child is None:
            raise EOFError
        _send(to_child, request)
        _send(to_child, data)
        answer = json.loads(_receive(from_child))
        if "refusal" in answer:
            raise _REFUSALS.get(answer["refusal"], BadInput)(answer["message"])
        return {name: Rendition(_receive(from_child), *about) for name, about in answer["renditions"].items()}

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - our own interpreter and module, no shell
            [sys.executable, "-m", "adapter.capture.bounded", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": str(_ROOT)},
            cwd="/",
        )

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            with contextlib.suppress(BrokenPipeError):
                child.communicate()


def _send(stream: IO[bytes], content: bytes) -> None:
    stream.write(_FRAME.pack(len(content)))
    stream.write(content)
    stream.flush()


def _receive(stream: IO[bytes]) -> bytes:
    """One frame; EOFError when the other side is gone."""
    (length,) = _FRAME.unpack(_exactly(stream, _FRAME.size))
    if length > _MAX_FRAME:
        raise EOFError
    return _exactly(stream, length)


def _exactly(stream: IO[bytes], length: int) -> bytes:
    content = stream.read(length)
    if len(content) != length:
        raise EOFError
    return content


def _serve(seconds: float, memory: int) -> None:
    """The child: one photo after the other until its parent closes the pipe."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    os.nice(10)
    while True:
        try:
            request = json.loads(_receive(sys.stdin.buffer))
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, seconds)
        _answer(_receive(sys.stdin.buffer), request)
        signal.setitimer(signal.ITIMER_PROF, 0)


def _answer(data: bytes, request: dict[str, Any]) -> None:
    try:
        found = render(data, request["sizes"], max_pixels=request["max_pixels"])
    except BadInput as error:
        _send(sys.stdout.buffer, json.dumps({"refusal": type(error).__name__, "message": str(error)}).encode())
        return
    about = {name: (one.content_type, one.width, one.height) for name, one in found.items()}
    _send(sys.stdout.buffer, json.dumps({"renditions": about}).encode())
    for one in found.values():
        _send(sys.stdout.buffer, one.content)


if __name__ == "__main__":
    _serve(float(sys.argv[1]), int(sys.argv[2]))
