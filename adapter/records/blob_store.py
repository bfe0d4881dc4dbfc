"""Where sealed bytes lie: one small interface, and a local folder that keeps what it has acknowledged.

The store knows nothing of keys or clear bytes. A written object is on the disk, under its name, complete, or the
write has raised; an object never changes once written. Layout of the folder: `0199/a3f/<id>` by the first 7 hex
digits of a UUIDv7, which are its time in steps of 17.5 minutes: a folder holds what arrived together, backups find
new objects in a few folders, and path order is id order as in an S3 listing. `incoming/` holds unfinished writes.
"""

from __future__ import annotations

import filecmp
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from adapter.durable_file import sync_folder, write_synced
from adapter.errors import Conflict, NotFound, Unavailable

_OBJECT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KNOWN_FOLDERS_MAX = 4096


class BlobStore(Protocol):
    """Write-once objects named by UUID. Methods raise NotFound, Conflict, or Unavailable when the store fails."""

    def write(self, object_id: str, pieces: Iterable[bytes]) -> None:
        """Durable on return. Writing identical bytes again changes nothing; other bytes raise Conflict."""
        ...

    def read_range(self, object_id: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop), fewer where the object ends before stop."""
        ...

    def size(self, object_id: str) -> int: ...

    def delete(self, object_id: str) -> None:
        """Durable on return; an absent object is fine."""
        ...

    def list_ids(self, after: str = "", limit: int = 1000) -> list[str]:
        """Up to `limit` ids greater than `after`, rising; fewer than `limit` means the end."""
        ...


@dataclass(frozen=True)
class StoredBlob:
    """One object of a store, as the reader that `sealing.open_sealed` wants."""

    store: BlobStore
    object_id: str

    def read_range(self, start: int, stop: int) -> bytes:
        return self.store.read_range(self.object_id, start, stop)


class LocalBlobStore:
    """Objects as files below `root`, readable by their owner only.

    Order of a write: temporary file, fsync, link to its name (fails if taken), fsync of the folder. A crash at any
    moment leaves the object absent or complete. Threads and processes may share a root. Needs a file system with
    hard links.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._incoming = root / "incoming"
        self._durable_folders: set[Path] = set()
        with _store_trouble("be opened"):
            self._make_durable(self._incoming)

    def write(self, object_id: str, pieces: Iterable[bytes]) -> None:
        final = self._path(object_id)
        temporary = self._incoming / f"{object_id}.{secrets.token_hex(8)}"
        with _store_trouble("take an object"):
            self._make_durable(final.parent)
            try:
                write_synced(temporary, pieces)
                try:
                    # Not a rename: that would replace an object whose key is already in use.
                    os.link(temporary, final)
                except FileExistsError:
                    _check_same(final, temporary)
                sync_folder(final.parent)
            finally:
                with suppress(OSError):  # what stays behind is found by sweep
                    temporary.unlink()

    def read_range(self, object_id: str, start: int, stop: int) -> bytes:
        with self._opened(object_id) as descriptor:
            # Clipped first, because pread allocates what it is asked for.
            wanted = min(stop, os.fstat(descriptor).st_size) - start
            return os.pread(descriptor, wanted, start) if wanted > 0 else b""

    def size(self, object_id: str) -> int:
        with self._opened(object_id) as descriptor:
            return os.fstat(descriptor).st_size

    def delete(self, object_id: str) -> None:
        path = self._path(object_id)
        with _store_trouble("delete an object"):
            with suppress(FileNotFoundError):
                path.unlink()
            with suppress(FileNotFoundError):
                # Even if the file was gone: who removed it may have crashed before this.
                sync_folder(path.parent)

    def list_ids(self, after: str = "", limit: int = 1000) -> list[str]:
        found: list[str] = []
        with _store_trouble("be listed"):
            for folder in self._folders_from(after):
                found += (name for name in _sorted_names(folder) if name > after and _OBJECT_ID.fullmatch(name))
                if len(found) >= limit:
                    break
        return found[:limit]

    def sweep(self, older_than: datetime) -> list[str]:
        """Remove unfinished writes last touched before `older_than`; gives their file names.

        Choose a time longer ago than any write takes (an hour); a live write that is swept raises Unavailable.
        """
        removed = []
        with _store_trouble("be swept"):
            for name in _sorted_names(self._incoming):
                path = self._incoming / name
                with suppress(FileNotFoundError):  # finished meanwhile
                    if path.stat().st_mtime < older_than.timestamp():
                        path.unlink()
                        removed.append(name)
        return removed

    def _path(self, object_id: str) -> Path:
        if not _OBJECT_ID.fullmatch(object_id):
            raise ValueError(f"{object_id!r} is not an object id; ids are UUIDs in lower case.")
        return self.root / object_id[:4] / object_id[4:7] / object_id

    @contextmanager
    def _opened(self, object_id: str) -> Iterator[int]:
        with _store_trouble("be read"):
            try:
                descriptor = os.open(self._path(object_id), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise NotFound(f"The blob store has no object {object_id}.") from None
            try:
                yield descriptor
            finally:
                os.close(descriptor)

    def _folders_from(self, after: str) -> Iterator[Path]:
        for upper in _sorted_names(self.root):
            if len(upper) == 4 and upper >= after[:4]:
                for lower in _sorted_names(self.root / upper):
                    if upper + lower >= after[:7]:
                        yield self.root / upper / lower

    def _make_durable(self, folder: Path) -> None:
        """Create `folder`, its name synced in its parent, and the same for each folder from the root down.

        Folders found are synced too, once per process: whoever made them may have crashed before doing so.
        """
        if folder in self._durable_folders:
            return
        if folder != self.root:
            self._make_durable(folder.parent)
        _make_folder(folder)
        if len(self._durable_folders) >= _KNOWN_FOLDERS_MAX:
            self._durable_folders.clear()
        self._durable_folders.add(folder)


def _check_same(path: Path, written: Path) -> None:
    """Raise Conflict unless the file holds what was just written."""
    if not filecmp.cmp(path, written, shallow=False):
        raise Conflict(f"The blob store holds another object {path.name}; write this one under a new id.")


def _make_folder(folder: Path) -> None:
    if not folder.parent.exists():
        _make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    sync_folder(folder.parent)


def _sorted_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def _store_trouble(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"The blob store cannot {what} ({error.strerror}). Try again; if it stays so, an operator must check "
            "space, permissions and health of its disk."
        ) from error
