"""Files written past the page cache or through it: the same bytes, whatever their size and the file system."""

from __future__ import annotations

import fcntl
import os
import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from adapter.durable_file import BLOCK, LARGE, WINDOW, write_synced

SHM = Path("/dev/shm")
SIZES = (0, 1, BLOCK, LARGE - 1, LARGE, LARGE + BLOCK - 1, WINDOW, WINDOW + 1, WINDOW + LARGE, 2 * WINDOW + LARGE + 44)


@pytest.fixture(params=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """On tmpfs O_DIRECT is unknown, or means nothing."""
    if request.param == "disk":
        yield tmp_path
    elif not SHM.is_dir():
        pytest.skip("no tmpfs here")
    else:
        with TemporaryDirectory(dir=SHM) as made:
            yield Path(made)


@pytest.mark.parametrize("size", SIZES)
def test_a_file_holds_its_pieces_at_every_size(folder: Path, size: int) -> None:
    content = random.Random(size).randbytes(size)
    write_synced(folder / "photo", [content[at : at + 262_160] for at in range(0, size, 262_160)])
    assert (folder / "photo").read_bytes() == content


def test_one_piece_larger_than_the_window_is_written_whole(tmp_path: Path) -> None:
    content = random.Random(7).randbytes(2 * WINDOW + 5)
    write_synced(tmp_path / "photo", [content])
    assert (tmp_path / "photo").read_bytes() == content


@pytest.mark.parametrize(("size", "is_cached"), [(LARGE, False), (LARGE // 2, True)])
def test_only_what_is_large_goes_past_the_page_cache(tmp_path: Path, size: int, is_cached: bool) -> None:
    write_synced(tmp_path / "photo", [bytes(size)])
    with (tmp_path / "photo").open("rb") as photo:
        try:
            fcntl.fcntl(photo, fcntl.F_SETFL, os.O_DIRECT)
        except OSError:
            pytest.skip("this file system has no O_DIRECT")
        fcntl.fcntl(photo, fcntl.F_SETFL, 0)
        try:
            was_cached = os.preadv(photo.fileno(), [bytearray(BLOCK)], 0, os.RWF_NOWAIT) == BLOCK
        except BlockingIOError:
            was_cached = False
    assert was_cached is is_cached


def test_what_stands_there_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(b"before")
    with pytest.raises(FileExistsError):
        write_synced(tmp_path / "photo", [b"after"])
    assert (tmp_path / "photo").read_bytes() == b"before"
