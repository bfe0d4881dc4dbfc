"""A throw-away PostgreSQL for the tests, or the one `DATABASE_URL` names.

The server listens on a unix socket in its own temporary folder (no port, no clash), skips fsync (nothing of it outlives
the test run) and belongs to an unprivileged account when the tests run as root, which PostgreSQL refuses to serve.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

DEBIAN_INSTALLATIONS = Path("/usr/lib/postgresql")
UNPRIVILEGED_ACCOUNTS = ("postgres", "nobody")
OPTIONS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "listen_addresses=", "max_connections=60")


def find_postgresql() -> Path | None:
    """Folder that holds `initdb` and `pg_ctl`: the newest of Debian's, else the one on PATH."""
    by_age = sorted(DEBIAN_INSTALLATIONS.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if by_age:
        return by_age[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path and shutil.which("pg_ctl") else None


def postgresql_server() -> Iterator[str]:
    """Yield one `postgresql+psycopg://` URL of an empty database; stop and delete the server afterwards.

    Raises LookupError when DATABASE_URL is unset and no server is installed, RuntimeError with the server's own words
    when it does not start.
    """
    if url := os.environ.get("DATABASE_URL"):
        yield re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql+psycopg://", url)
        return
    programs = find_postgresql()
    if programs is None:
        raise LookupError("no PostgreSQL server here: install one (apt-get install postgresql) or set DATABASE_URL")
    account = find_account()
    folder = Path(tempfile.mkdtemp(prefix="dermbridge-pg-", dir="/tmp"))  # a socket's path may not exceed 107 bytes
    if account:
        shutil.chown(folder, account)
    cluster, log = folder / "cluster", folder / "log"
    try:
        _run(
            programs / "initdb",
            "-D",
            cluster,
            "-U",
            "dermbridge",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
            as_=account,
        )
        options = " ".join(f"-c {option}" for option in OPTIONS)
        start = (
            programs / "pg_ctl",
            "-D",
            cluster,
            "-l",
            log,
            "-w",
            "-t",
            "60",
            "start",
            "-o",
            f"{options} -k {folder}",
        )
        _run(*start, as_=account, log=log)
        yield f"postgresql+psycopg://dermbridge@/postgres?host={folder}"
    finally:
        if (cluster / "postmaster.pid").exists():
            _run(programs / "pg_ctl", "-D", cluster, "-m", "immediate", "-w", "stop", as_=account)
        shutil.rmtree(folder, ignore_errors=True)


def find_account() -> str | None:
    """The account to run the server as when we are root; None when we are somebody already."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in UNPRIVILEGED_ACCOUNTS if name in known)


def _run(*command: str | Path, as_: str | None, log: Path | None = None) -> None:
    """Run a server program; RuntimeError with its output, taken from a file: a server would keep a pipe open."""
    group = pwd.getpwnam(as_).pw_gid if as_ else None
    with tempfile.TemporaryFile() as output:
        outcome = subprocess.run(
            [str(word) for word in command],
            user=as_,
            group=group,
            extra_groups=[group] if group else None,
            cwd="/",
            stdout=output,
            stderr=output,
            check=False,
        )
        if outcome.returncode:
            output.seek(0)
            words = output.read().decode(errors="replace") + (log.read_text() if log and log.exists() else "")
            raise RuntimeError(f"{command[0]} failed:\n{words}")
