"""Lines kept durably in files beside an SQLite database, until they are moved into it many at a time.

A commit costs several times what appending to a file does, and makes every connection forget what it had read. The
files lie on the database's own disk, so they are as safe as it is; PostgreSQL may lie elsewhere, and has none.

Each process that keeps lines has a file of its own, locked for as long as more may come (flock(2)); each line stands
behind its CRC-32. Any process may move them. Whoever does must know one that comes again, as it may after a crash.

A file is filled with zeros when it is begun: what replaces them needs no entry in the journal of the file system, which
costs as much as the write. So lines end at the first zero as long as more may come, then at the last.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar

import structlog

from adapter.durable_file import sync_folder

log = structlog.get_logger()

ENOUGH = 2**20  # bytes of one file, more only where one batch is larger: bounds what is read again after a crash
_DAMAGED = ".damaged"
T = TypeVar("T")
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
        self._wrong: set[Path] = set()

    def keep(self, lines: Iterable[bytes]) -> None:
        """On the disk on return. Raises OSError; then none of them counts. A line is given without its end."""
        data = b"".join(b"%08x %b\n" % (zlib.crc32(line), line) for line in lines)
        with self._keeping:
            if self._size + len(data) > ENOUGH:
                self._end()
            try:
                self._append(data)
            except OSError:
                self._give_up()
                raise

    def move(self, read: Callable[[bytes], T], into: Callable[[list[T]], None], most: int) -> None:
        """Everything kept before this to `into`, at most so many lines at a time, oldest first of each file.

        They are moved once `into` returns. `read` raises ValueError for a line that nobody can have kept. Raises
        OSError when a file cannot be read.
        """
        with self._moving:
            files = self._files()
            self._moved = {file: self._moved.get(file, 0) for file in files}
            waiting = self._waiting(files, read)
            while some := list(islice(waiting, most)):
                into([told for _, _, found in some for told in found])
                for file, size, _ in some:
                    self._moved[file] += size
            for file in files:
                self._remove_moved(file)

    def damaged(self) -> list[str]:
        """Names of files with lines that are not what was kept; they stay for somebody to look at."""
        return sorted(one.name for one in self._every() if one.suffix == _DAMAGED or one in self._wrong)

    def close(self) -> None:
        with self._keeping:
            self._end()

    def _append(self, data: bytes) -> None:
        file = self._begin() if self._file is None else self._file
        _write(file, data, self._size)
        _sync(file)
        self._size += len(data)
        if not self._is_there(file):
            log.error("spool.removed", file=self._name.name)
            kept = os.pread(file, self._size, 0)
            self._end()
            self._append(kept)

    def _is_there(self, file: int) -> bool:
        """Or did somebody delete, move or replace it, so that nobody would find what comes into it?"""
        try:
            return os.path.samestat(self._name.stat(), os.fstat(file))
        except FileNotFoundError:
            return False

    def _begin(self) -> int:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._name = self.folder / f"{time.time_ns():020}-{os.getpid()}"
        self._file = os.open(self._name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
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

    def _waiting(self, files: Iterable[Path], read: Callable[[bytes], T]) -> Iterator[tuple[Path, int, list[T]]]:
        """(file, bytes of the line in it, what it says: nothing when it is not what was kept). One file at a time."""
        for file in files:
            for line in self._lines(file):
                told: list[T] = []
                try:
                    told.append(read(_checked(line)))
                except ValueError:
                    self._wrong.add(file)
                yield file, len(line) + 1, told

    def _lines(self, file: Path) -> list[bytes]:
        """Those that were not moved. Half a line was told to nobody: its writer was killed, or is still at it."""
        try:
            with file.open("rb") as opened:
                has_ended = _has_ended(opened)
                opened.seek(self._moved[file])
                data = opened.read()
        except FileNotFoundError:  # another process was quicker
            return []
        return (data.rstrip(b"\0") if has_ended else data.partition(b"\0")[0]).split(b"\n")[:-1]

    def _remove_moved(self, file: Path) -> None:
        """A file to which nothing more comes, and of which everything was moved."""
        try:
            with file.open("rb") as opened:
                just_begun = not os.fstat(opened.fileno()).st_size
                if just_begun or not _has_ended(opened) or self._lines(file):
                    return
                if file in self._wrong:
                    log.error("spool.damaged", file=file.name)
                    file.rename(file.with_name(file.name + _DAMAGED))
                else:
                    file.unlink()
        except FileNotFoundError:  # another process was quicker
            pass
        except OSError as error:  # moved all the same; whoever moves next tries again
            log.error("spool.not_removed", file=file.name, error=str(error))


def _has_ended(opened: BinaryIO) -> bool:
    """Whether its writer has closed it, or is no more."""
    try:
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _checked(kept: bytes) -> bytes:
    """The line behind its checksum. Raises ValueError when it is not what was kept."""
    checksum, _, line = kept.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(line):
        raise ValueError("this is not what was kept")
    return line


def _write(file: int, data: bytes, at: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, at)
        rest, at = rest[written:], at + written
