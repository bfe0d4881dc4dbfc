"""Lines kept durably in files beside an SQLite database, until they are moved into it many at a time.

A commit costs several times what appending to a file does, and makes every connection forget what it had read. The
files lie on the database's own disk, so they are as safe as it is; PostgreSQL may lie elsewhere, and has none.

Each process that keeps lines has a file of its own, locked for as long as more may come (flock(2)); each line stands
behind its CRC-32. Any process may move them. Whoever does must know one that comes again, as it may after a crash.

A file is filled with zeros when it is begun: what replaces them needs no entry in the journal of the file system, which
costs as much as the write. So lines end at the first zero.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from adapter.durable_file import sync_folder

log = structlog.get_logger()

ENOUGH = 2**20  # bytes of one file, more only where one batch is larger: bounds what is read again after a crash
_DAMAGED = ".damaged"
_sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)  # macOS has none


class Spool:
    """The files of one database. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._keeping = threading.Lock()
        self._file: int | None = None
        self._name = folder
        self._size = 0
        self._moving = threading.Lock()
        self._moved: dict[Path, int] = {}

    def keep(self, lines: Iterable[bytes]) -> None:
        """On the disk on return. Raises OSError; then none of them counts. A line is given without its end."""
        data = b"".join(b"%08x %b\n" % (zlib.crc32(line), line) for line in lines)
        with self._keeping:
            if self._size + len(data) > ENOUGH:
                self._end()
            try:
                file = self._begin() if self._file is None else self._file
                _write(file, data, self._size)
                _sync(file)
            except OSError:
                self._give_up()
                raise
            self._size += len(data)

    @contextmanager
    def moving(self, most: int) -> Iterator[tuple[list[bytes], bool]]:
        """(at most so many lines that were not moved, whether there may be more), oldest first of each file.

        They are moved when no error leaves. What is kept meanwhile is no reason to say that there is more: who moves
        until there is none would never end while others look.
        """
        with self._moving:
            found: list[bytes] = []
            files = self._files()
            reached = {file: self._moved.get(file, 0) for file in files}
            read = []
            for file in files:
                with suppress(FileNotFoundError):  # another process was quicker
                    found += self._read(file, reached, most - len(found))
                read.append(file)
                if len(found) == most:  # however many files wait, only these are opened
                    break
            lines = [line for one in found if (line := _checked(one)) is not None]
            yield lines, len(found) == most
            self._moved = reached
            for file in read:
                with suppress(FileNotFoundError):
                    self._remove_moved(file)

    def damaged(self) -> list[str]:
        """Names of files with lines that are not what was kept; they stay for somebody to look at."""
        return sorted(one.name for one in self._every() if one.suffix == _DAMAGED)

    def close(self) -> None:
        with self._keeping:
            self._end()

    def _begin(self) -> int:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._name = self.folder / f"{time.time_ns():020}-{os.getpid()}"
        self._file = os.open(self._name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        _write(self._file, bytes(ENOUGH), 0)
        os.fsync(self._file)
        for folder in (self.folder, self.folder.parent):
            sync_folder(folder)
        return self._file

    def _give_up(self) -> None:
        """Take back what was written of it, as far as the disk lets us: nobody will be told that it was kept."""
        if self._file is not None:
            with suppress(OSError):
                if self._size:
                    os.ftruncate(self._file, self._size)
                else:
                    self._name.unlink()
        self._end()

    def _end(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file, self._size = None, 0

    def _every(self) -> list[Path]:
        try:
            return sorted(self.folder.iterdir())
        except FileNotFoundError:
            return []

    def _files(self) -> list[Path]:
        return [one for one in self._every() if one.suffix != _DAMAGED]

    def _read(self, file: Path, reached: dict[Path, int], most: int) -> list[bytes]:
        with file.open("rb") as opened:
            opened.seek(reached[file])
            found = _whole(opened.read())[:most]
        reached[file] += sum(len(one) + 1 for one in found)
        return found

    def _remove_moved(self, file: Path) -> None:
        """A file to which nothing more comes, and of which everything was moved."""
        with file.open("rb") as opened:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            data = opened.read()
            lines = _whole(data)
            if not data or sum(len(line) + 1 for line in lines) > self._moved[file]:
                return  # just begun, or not all moved
            if any(_checked(line) is None for line in lines):
                log.error("spool.damaged", file=file.name)
                file.rename(file.with_name(file.name + _DAMAGED))
            else:
                file.unlink()
            del self._moved[file]


def _whole(data: bytes) -> list[bytes]:
    """The lines before the zeros. Half a line was told to nobody: its writer was killed, or is still at it."""
    end = data.find(b"\0")
    return data[: end if end >= 0 else None].split(b"\n")[:-1]


def _checked(kept: bytes) -> bytes | None:
    """The line behind its checksum; None when it is not what was kept."""
    checksum, _, line = kept.partition(b" ")
    return line if checksum == b"%08x" % zlib.crc32(line) else None


def _write(file: int, data: bytes, at: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, at)
        rest, at = rest[written:], at + written
