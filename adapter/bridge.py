"""The running DermBridge: what every use case is handed, opened once by the edge that starts it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from adapter.db.engine import Database
from adapter.errors import Misconfigured
from adapter.records.blob_store import LocalBlobStore
from adapter.records.keys import open_key_ring
from adapter.records.vault import Vault
from adapter.settings import Settings, environment


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Bridge:
    """Settings, database, photos and the clock. Immutable; `close` ends it."""

    settings: Settings
    db: Database
    vault: Vault
    now: Callable[[], datetime] = utc_now

    def close(self) -> None:
        self.db.close()


def open_bridge(settings: Settings, *, now: Callable[[], datetime] = utc_now) -> Bridge:
    """Open database, keys and blob store under the settings' data directory. Raises Misconfigured."""
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise Misconfigured(f"data_dir {settings.data_dir} cannot be made: {error.strerror}") from None
    db = Database(settings.database, connections=max(8, 32 // settings.processes))
    store = LocalBlobStore(settings.data_dir / "blobs")
    keys = open_key_ring(settings.data_dir, data_exists=bool(store.list_ids(limit=1)), environ=environment())
    return Bridge(settings, db, Vault(store, keys), now)
