"""A new file written durably; a large one past the page cache, where the file system takes that (O_DIRECT, open(2)).

The copy of a photo in the page cache costs more processor time than its encryption, and several times that on a
virtual machine whose host has to find the memory first; it also drives out the database. Thumbnails stay: they are read
again and again.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

BLOCK = 4096  # direct writes begin and end at one, in the file and in memory
WINDOW = 4 * 2**20  # bytes of one write; each writing thread keeps as many
LARGE = 2**20
_DIRECT = getattr(os, "O_DIRECT", 0)  # Linux only

_own = threading.local()


def write_synced(path: Path, pieces: Iterable[bytes]) -> None:
    """On the disk on return, but for its name. Raises OSError; what stands at `path` then is unfinished."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for filled in _windows(pieces):
            blocks = len(filled) // BLOCK * BLOCK if len(filled) >= LARGE else 0
            _write(descriptor, filled[:blocks], _DIRECT)
            _write(descriptor, filled[blocks:], 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """What was made, renamed or removed in it stays so. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _windows(pieces: Iterable[bytes]) -> Iterator[memoryview]:
    """The pieces in the thread's window, given whenever it is full and at their end."""
    if not hasattr(_own, "window"):
        _own.window = memoryview(mmap.mmap(-1, WINDOW))  # begins at a page
    window, at = _own.window, 0
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            some = rest[: WINDOW - at]
            window[at : at + len(some)] = some
            at, rest = at + len(some), rest[len(some) :]
            if at == WINDOW:
                yield window
                at = 0
    yield window[:at]


def _write(descriptor: int, rest: memoryview, flag: int) -> None:
    """What cannot go past the cache goes through it."""
    with suppress(OSError):  # a file system without it
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flag)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except OSError as refused:
            if refused.errno != errno.EINVAL or not flag:
                raise
            flag = 0
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flag)
