"""Nothing of a photo is ever on our disk in the clear: not the original, not the clean copy, not a rendition.

The search is complete, not sampled: every block of 32 bytes of every file is looked up among all positions of what is
known in the clear, so no stretch of 63 bytes or more can hide, wherever it lies.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from adapter.access import SYSTEM
from adapter.app import work_lanes
from adapter.bridge import Bridge
from adapter.capture.receive import Upload, receive
from adapter.db.tables import binary, delivery, work
from adapter.delivery.destinations import Destinations
from adapter.records import create
from adapter.records.binaries import get_binary, open_binary
from adapter.settings import load_settings
from adapter.work import WorkLoop

PHOTOS = Path(__file__).parents[1] / "data" / "photos"
NAMES = ("DSCN0010.jpg", "45-gps_ifd.jpg", "32-lens_data.jpeg", "image01137.jpg")
BLOCK = 32
TELLING = 12  # different byte values that make a block of a photo unlike padding or a table of zeros


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of this process and of the children that decode."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert Path(tempfile.gettempdir()) == folder
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    return tmp_path / "collected"


@pytest.fixture
def delivering(bridge: Bridge, outside: Path) -> Bridge:
    destination = {"name": "archive", "based_on": "directory", "folder": str(outside)}
    settings = load_settings(environment={}, data_dir=bridge.settings.data_dir, destinations=[destination])
    return replace(bridge, settings=settings)


@pytest.mark.parametrize("db_url", ["sqlite"], indirect=True)
def test_no_file_of_ours_holds_any_of_a_photo_in_the_clear(delivering: Bridge, temporary: Path, outside: Path) -> None:
    originals = [(PHOTOS / name).read_bytes() for name in NAMES]
    _capture_and_deliver(delivering, originals)
    clear = [*originals, *_everything_served(delivering)]
    assert len(clear) == 4 * len(NAMES), "original, clean copy, display and thumbnail of each"

    data_dir = delivering.settings.data_dir
    assert {file.suffix for file in data_dir.iterdir()} >= {".sqlite3", ".sqlite3-wal"}
    assert _find_clear([data_dir, temporary], clear) == {}
    delivering.close()  # the write-ahead log goes into the database file
    assert _find_clear([data_dir, temporary], clear) == {}

    assert len(_find_clear([outside], clear)) == len(NAMES), "the search finds what lies where it may"


@pytest.mark.parametrize("hidden", [lambda data: data, base64.b64encode], ids=["as it is", "base64"])
def test_the_search_finds_one_stretch_of_64_bytes_anywhere(tmp_path: Path, hidden: object) -> None:
    assert callable(hidden)
    clear = (PHOTOS / NAMES[0]).read_bytes()
    leak = hidden(clear)[30_001 : 30_001 + 64]
    (tmp_path / "file").write_bytes(bytes(7001) + leak + bytes(999))
    assert _find_clear([tmp_path], [clear]) == {tmp_path / "file": 7008}


def _capture_and_deliver(bridge: Bridge, originals: Iterable[bytes]) -> None:
    """As the service does it: a known patient, captures, then all the work that follows."""
    patient = {"resourceType": "Patient", "id": "p1", "birthDate": "1961-03-12"}
    with bridge.db.transaction() as tx:
        create(tx, patient, at=bridge.now())
    for data in originals:
        receive(bridge, SYSTEM, Upload(data, {"patient": "Patient/p1"}))
    destinations = Destinations(bridge)
    WorkLoop(bridge.db, work_lanes(bridge, destinations), now=bridge.now).run_until_idle()
    destinations.close()
    with bridge.db.snapshot() as tx:
        assert tx.execute(select(work.c.kind, work.c.reason)).all() == []
        assert set(tx.execute(select(delivery.c.state)).scalars()) == {"confirmed"}


def _everything_served(bridge: Bridge) -> list[bytes]:
    with bridge.db.snapshot() as tx:
        ids = tx.execute(select(binary.c.id)).scalars().all()
        return [open_binary(tx, bridge.vault, get_binary(tx, binary_id)).read() for binary_id in ids]


def _find_clear(folders: Iterable[Path], clear: Iterable[bytes]) -> dict[Path, int]:
    """Files that hold a stretch of something clear, also in base64, with the offset of one such block."""
    blocks = {
        block: (file, offset)
        for folder in folders
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        for offset, block in _blocks(file.read_bytes())
    }
    positions = (text[start : start + BLOCK] for text in _spellings(clear) for start in range(len(text) - BLOCK + 1))
    return dict(blocks[block] for block in positions if block in blocks)


def _blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    for offset in range(0, len(data), BLOCK):
        block = data[offset : offset + BLOCK]
        if len(set(block)) >= TELLING:
            yield offset, block


def _spellings(clear: Iterable[bytes]) -> Iterator[bytes]:
    for data in clear:
        yield data
        yield from (base64.b64encode(data[shift:]) for shift in range(3))
