"""Who was turned away because its certificate is not one of ours: into the audit log, as ATNA wants it.

(IHE ITI TF-1 9.4.2.2, Node Authentication Failure; DICOM 110126.) Once a minute for each address, with how many tries
there were meanwhile: a scanner must not fill the log.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

from adapter.access import Actor
from adapter.bridge import Bridge
from adapter.governance import audit

QUIET = timedelta(minutes=1)
MOST_ADDRESSES = 1000


class Strangers:
    """Called with the address of a stranger and the reason, from any thread."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._told: dict[str, tuple[datetime, int]] = {}  # address -> when last, how many since
        self._lock = threading.Lock()

    def __call__(self, address: str, reason: str) -> None:
        since = self._due(address, self._bridge.now())
        if since is None:
            return
        nobody = Actor("machine", "Device/unknown", "no known certificate", "machine", address=address)
        more = f"; {since} more since the last entry" if since else ""
        with self._bridge.db.transaction() as tx:
            audit(
                tx,
                self._bridge,
                "node-authentication-failed",
                nobody,
                outcome="8",
                detail=f"MLLP over TLS: {reason}{more}",
            )

    def _due(self, address: str, now: datetime) -> int | None:
        """How often it was turned away without a word since the last one; None when this is to be counted only."""
        with self._lock:
            last, since = self._told.get(address, (None, 0))
            if last is not None and now < last + QUIET:
                self._told[address] = last, since + 1
                return None
            if len(self._told) >= MOST_ADDRESSES:
                self._told.clear()
            self._told[address] = now, 0
            return since
