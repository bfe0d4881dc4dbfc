"""Scrub: what is on disk is what its rows and keys say, and a crash leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from adapter.bridge import Bridge
from adapter.db.tables import blob, patient_key
from adapter.records import new_id
from adapter.records.scrub import ORPHAN_AGE, Findings, scrub

PHOTO = bytes(range(256)) * 3000  # three chunks


def keep(bridge: Bridge) -> str:
    with bridge.db.transaction() as tx:
        sealed = bridge.vault.seal(PHOTO)
        return bridge.vault.keep(tx, sealed, content_type="image/jpeg", patient_id="p1", at=bridge.now())


def scrubbed(bridge: Bridge) -> Findings:
    return scrub(bridge.db, bridge.vault, now=bridge.now())


def file_of(bridge: Bridge, blob_id: str) -> Path:
    return bridge.settings.data_dir / "blobs" / blob_id[:4] / blob_id[4:7] / blob_id


def flip_last_byte(bridge: Bridge, blob_id: str) -> None:
    content = bytearray(file_of(bridge, blob_id).read_bytes())
    content[-1] ^= 1
    file_of(bridge, blob_id).write_bytes(content)


def cut(bridge: Bridge, blob_id: str) -> None:
    file_of(bridge, blob_id).write_bytes(file_of(bridge, blob_id).read_bytes()[:-300_000])


def append(bridge: Bridge, blob_id: str) -> None:
    file_of(bridge, blob_id).write_bytes(file_of(bridge, blob_id).read_bytes() + b"x")


def remove(bridge: Bridge, blob_id: str) -> None:
    file_of(bridge, blob_id).unlink()


def alter_key(bridge: Bridge, blob_id: str) -> None:
    with bridge.db.transaction() as tx:
        tx.execute(update(blob).where(blob.c.id == blob_id).values(wrapped_key=bytes(40)))


def alter_size(bridge: Bridge, blob_id: str) -> None:
    with bridge.db.transaction() as tx:
        tx.execute(update(blob).where(blob.c.id == blob_id).values(size=1))


def test_whole_photos_are_read_and_nothing_is_found(bridge: Bridge) -> None:
    for _ in range(3):
        keep(bridge)
    assert scrubbed(bridge) == Findings(checked=3)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (flip_last_byte, "bytes were altered"),
        (cut, "bytes were altered"),
        (append, "bytes were altered"),
        (remove, "bytes are missing"),
        (alter_key, "key does not open"),
        (alter_size, "another length"),
    ],
)
def test_each_harm_is_found_at_its_photo_and_named(
    bridge: Bridge, harm: Callable[[Bridge, str], None], told: str
) -> None:
    keep(bridge)
    harmed = keep(bridge)
    harm(bridge, harmed)
    ((found, problem),) = scrubbed(bridge).problems
    assert found == harmed
    assert told in problem


def test_a_photo_whose_key_was_destroyed_on_purpose_is_no_damage(bridge: Bridge) -> None:
    keep(bridge)
    with bridge.db.transaction() as tx:
        tx.execute(delete(blob))
        tx.execute(delete(patient_key))
    assert scrubbed(bridge).problems == []


def test_bytes_that_no_row_owns_go_once_they_are_old_enough(bridge: Bridge) -> None:
    kept = keep(bridge)
    old, young = (new_id(bridge.now() - age) for age in (ORPHAN_AGE + timedelta(minutes=1), timedelta(0)))
    for orphan in (old, young):
        bridge.vault.store.write(orphan, [b"left behind by a crash"])
    assert scrubbed(bridge).removed == 1
    assert set(bridge.vault.store.list_ids()) == {kept, young}
