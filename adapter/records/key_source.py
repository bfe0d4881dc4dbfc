"""Where the key-encryption keys come from: the environment, or a file in the data directory made on first start.

Both hold the same text: entries `VERSION:KEY`, the version a positive number, the key 32 bytes in base64, separated
by white space; `#` starts a comment line.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from adapter.durable_file import sync_folder
from adapter.errors import Misconfigured

VARIABLE = "DERMBRIDGE_KEK"
FILE_NAME = "kek.txt"
_BANNER = (
    "# DermBridge key-encryption keys. Without this file no photo can be opened;\n"
    "# with it, the database and the blob store, all can.\n"
    "# Back it up, apart from the database and the photos.\n"
)


class KeySource(Protocol):
    """Loads all versions, and adds one where that is possible. Both give every version and raise Misconfigured."""

    @property
    def where(self) -> str:
        """For messages."""
        ...

    def load(self) -> dict[int, bytes]: ...

    def add(self) -> dict[int, bytes]: ...


def find_key_source(data_dir: Path, *, data_exists: bool, environ: Mapping[str, str]) -> KeySource:
    """`DERMBRIDGE_KEK`, else the file that `DERMBRIDGE_KEK_FILE` names, else `keys/kek.txt` in the data directory.

    `data_exists`: wrapped keys are stored already, so a missing file is a loss to repair, not a first start.
    """
    if text := environ.get(VARIABLE):
        return GivenKeys(text)
    if named := environ.get(f"{VARIABLE}_FILE"):
        return GivenFile(Path(named))
    return OwnFile(data_dir / "keys" / FILE_NAME, may_create=not data_exists)


class GivenKeys:
    """Keys in an environment variable."""

    where = VARIABLE

    def __init__(self, text: str) -> None:
        self._text = text

    def load(self) -> dict[int, bytes]:
        return _parse(self._text, self.where)

    def add(self) -> dict[int, bytes]:
        raise _only_an_operator_adds(self.where, self.load())


class GivenFile:
    """Keys in a file that something else mounts, such as a container secret; its group may read it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.where = str(path)

    def load(self) -> dict[int, bytes]:
        return _read(self._path, forbidden=0o007)

    def add(self) -> dict[int, bytes]:
        raise _only_an_operator_adds(self.where, self.load())


class OwnFile:
    """Keys in a file of its own, mode 0600, created when `may_create` in a folder of mode 0700."""

    def __init__(self, path: Path, *, may_create: bool) -> None:
        self._path = path
        self._may_create = may_create
        self.where = str(path)

    def load(self) -> dict[int, bytes]:
        if self._may_create and not self._path.exists():
            self._create()
        keys = _read(self._path, forbidden=0o077)
        _check_private(self._path.parent, forbidden=0o077)
        self._may_create = False  # from now on a missing file is a loss
        return keys

    def add(self) -> dict[int, bytes]:
        self.load()  # refuses first if the file, or the folder to lock, is lost
        with self._locked():
            keys = self.load()
            keys[max(keys) + 1] = secrets.token_bytes(32)
            self._replace(keys)
            return keys

    def _create(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            if not self._path.exists():
                self._replace({1: secrets.token_bytes(32)})

    def _replace(self, keys: Mapping[int, bytes]) -> None:
        """Durable, and never half a file: temporary file, fsync, rename, fsync of the folder."""
        temporary = self._path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(_BANNER)
            file.writelines(f"{version}:{base64.b64encode(key).decode()}\n" for version, key in keys.items())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        for folder in (self._path.parent, self._path.parent.parent):
            sync_folder(folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time: two that add the same version would lose one of the two keys, already in use."""
        descriptor = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _read(path: Path, forbidden: int) -> dict[int, bytes]:
    try:
        _check_private(path, forbidden)
        return _parse(path.read_text("ascii", "replace"), str(path))
    except FileNotFoundError:
        raise Misconfigured(
            f"The key-encryption keys are missing: no file {path}. Stored photos cannot be opened without them, and "
            f"a new key would not help. Restore the file from the backup of the keys, run `chmod 600 {path}`, and "
            f"start again; or set {VARIABLE}."
        ) from None
    except OSError as error:
        raise Misconfigured(
            f"The key-encryption keys in {path} cannot be read ({error.strerror}); give the file to the user that "
            "runs DermBridge."
        ) from error


def _check_private(path: Path, forbidden: int) -> None:
    mode = path.stat().st_mode
    if mode & forbidden:
        wanted = "700" if stat.S_ISDIR(mode) else "600"
        raise Misconfigured(f"Others may open {path}, which holds keys: run `chmod {wanted} {path}`.")


def _only_an_operator_adds(where: str, keys: Mapping[int, bytes]) -> Misconfigured:
    return Misconfigured(
        f"The key-encryption keys come from {where}, which DermBridge does not change. Append to it, after a space, "
        f'"{max(keys) + 1}:" and the output of `openssl rand -base64 32`, and restart every process.'
    )


def _parse(text: str, where: str) -> dict[int, bytes]:
    entries = [entry for line in text.splitlines() if not line.startswith("#") for entry in line.split()]
    keys: dict[int, bytes] = {}
    for entry in entries:
        version, _, encoded = entry.partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            key = b""
        # No part of the entry goes into the message: it may be a key.
        if not version.isdecimal() or not 0 < int(version) < 2**32 or len(key) != 32 or int(version) in keys:
            raise Misconfigured(
                f"Entry {len(keys) + 1} of {where} is not VERSION:KEY with a version of its own and 32 bytes in "
                'base64; make one with `echo "1:$(openssl rand -base64 32)"`.'
            )
        keys[int(version)] = key
    if not keys:
        raise Misconfigured(f"{where} holds no key-encryption key; restore it from the backup of the keys.")
    return keys
