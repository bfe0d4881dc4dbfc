"""What was kept comes out, whole and in order, whatever ends in between; what was refused does not."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from adapter.db import spool
from adapter.db.spool import Spool

ALL = 1_000_000


@pytest.fixture
def kept(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def take(one: Spool, most: int = ALL) -> list[bytes]:
    found: list[bytes] = []
    one.move(bytes, found.extend, most)
    return found


def content(file: Path) -> bytes:
    return file.read_bytes().rstrip(b"\0")


def files(one: Spool) -> list[Path]:
    return sorted(one.folder.iterdir())


def test_lines_come_out_once_and_in_order(kept: Spool) -> None:
    kept.keep([b"1", b"2"])
    kept.keep([b"", "3 ö".encode()])
    assert take(kept, 3) == [b"1", b"2", b"", "3 ö".encode()]
    kept.keep([b"4"])
    assert take(kept) == [b"4"]
    assert take(kept) == []


def test_without_anything_kept_there_is_nothing(kept: Spool) -> None:
    assert (take(kept), kept.damaged(), kept.folder.exists()) == ([], [], False)


def test_what_could_not_be_moved_comes_again_and_what_was_moved_does_not(kept: Spool) -> None:
    kept.keep([b"1", b"2", b"3"])
    moved: list[bytes] = []

    def move(lines: list[bytes]) -> None:
        if b"3" in lines:
            raise ZeroDivisionError
        moved.extend(lines)

    with pytest.raises(ZeroDivisionError):
        kept.move(bytes, move, 2)
    assert (moved, take(kept)) == ([b"1", b"2"], [b"3"])


def test_who_moves_ends_with_what_there_was_however_fast_more_comes(kept: Spool) -> None:
    kept.keep([b"1", b"2", b"3"])
    told: list[list[bytes]] = []

    def move(lines: list[bytes]) -> None:
        told.append(lines)
        kept.keep(lines)

    kept.move(bytes, move, 2)
    assert told == [[b"1", b"2"], [b"3"]]
    assert take(kept) == [b"1", b"2", b"3"]


def test_a_damaged_line_hides_no_line_behind_it_and_is_told_at_once(kept: Spool) -> None:
    kept.keep([b"1", b"2", b"3"])
    (file,) = files(kept)
    file.write_bytes(file.read_bytes().replace(b" 1", b" x"))
    assert take(kept, 2) == [b"2", b"3"]
    assert kept.damaged() == [file.name]


def test_a_line_that_cannot_be_read_holds_up_no_other(kept: Spool) -> None:
    kept.keep([b"1", b"no number", b"3"])
    kept.close()
    (file,) = files(kept)
    numbers: list[int] = []
    kept.move(int, numbers.extend, ALL)
    assert (numbers, kept.damaged()) == ([1, 3], [f"{file.name}.damaged"])


def test_what_was_overwritten_with_zeros_is_told_and_hides_nothing(kept: Spool) -> None:
    kept.keep([b"first", b"second", b"third"])
    kept.close()
    (file,) = files(kept)
    file.write_bytes(file.read_bytes().replace(b"second", bytes(6)))
    assert take(kept) == [b"first", b"third"]
    assert kept.damaged() == [f"{file.name}.damaged"]


@pytest.mark.parametrize("how", ["delete", "move away", "replace"])
def test_a_file_taken_away_while_it_is_written_loses_nothing(kept: Spool, tmp_path: Path, how: str) -> None:
    kept.keep([b"1"])
    (file,) = files(kept)
    if how == "move away":
        file.rename(tmp_path / "elsewhere")
    else:
        file.unlink()
    if how == "replace":
        file.write_bytes(b"")
    kept.keep([b"2"])
    kept.keep([b"3"])
    assert take(kept) == [b"1", b"2", b"3"]


def test_a_folder_taken_away_while_it_is_written_to_loses_nothing(kept: Spool) -> None:
    kept.keep([b"1"])
    shutil.rmtree(kept.folder)
    kept.keep([b"2"])
    assert take(kept) == [b"1", b"2"]


def test_another_process_takes_what_this_one_keeps_and_this_one_goes_on(kept: Spool) -> None:
    other = Spool(kept.folder)
    kept.keep([b"1"])
    assert take(other) == [b"1"]
    kept.keep([b"2"])
    assert take(other) == [b"2"]
    assert take(kept) == [b"1", b"2"]  # told again: it is for whoever moves lines to know them
    assert len(files(kept)) == 1  # it may still grow


def test_a_file_ends_when_it_is_large_and_goes_when_it_was_moved(kept: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "ENOUGH", 100)
    for n in range(30):
        kept.keep([b"line %d" % n])
    assert len(files(kept)) > 3 and {one.stat().st_size for one in files(kept)} == {100}
    assert take(kept, 7) == [b"line %d" % n for n in range(30)]
    assert len(files(kept)) <= 1
    kept.close()
    take(kept)
    assert files(kept) == []


def test_a_file_is_for_its_owner_alone(kept: Spool) -> None:
    kept.keep([b"1"])
    assert [one.stat().st_mode & 0o777 for one in (kept.folder, *files(kept))] == [0o700, 0o600]


def _keep_until_killed(folder: Path, told: Connection) -> None:
    one, n = Spool(folder), 0
    while True:
        one.keep([b"%d" % n, b"x" * 3000])
        told.send(n)
        n += 1


def test_a_killed_process_loses_nothing_that_it_said_was_kept(kept: Spool) -> None:
    fork = multiprocessing.get_context("fork")
    for _ in range(5):
        mine, theirs = fork.Pipe()
        child = fork.Process(target=_keep_until_killed, args=(kept.folder, theirs), daemon=True)
        child.start()
        while mine.recv() < 20:
            pass
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        theirs.close()
        last = 20
        try:
            while True:
                last = mine.recv()
        except EOFError:
            pass
        numbers = [int(line) for line in take(kept) if not line.startswith(b"x")]
        assert numbers == list(range(len(numbers))) and len(numbers) > last
        assert files(kept) == []


def test_half_a_line_was_told_to_nobody_and_is_passed_over(kept: Spool) -> None:
    kept.keep([b"1"])
    kept.close()
    (file,) = files(kept)
    file.write_bytes(content(file) + b"0badc0de hal" + bytes(100))
    assert (take(kept), files(kept), kept.damaged()) == ([b"1"], [], [])


def test_a_file_of_nothing_but_half_a_line_goes(kept: Spool) -> None:
    kept.keep([b"1"])
    kept.close()
    (file,) = files(kept)
    file.write_bytes(b"0badc0de hal")
    assert (take(kept), files(kept)) == ([], [])


def test_a_file_cut_back_after_it_was_read_goes(kept: Spool) -> None:
    """As the disk gets full in the middle of several lines, and another process was quick."""
    kept.keep([b"1"])
    kept.keep([b"2"])
    take(kept)
    (file,) = files(kept)
    kept.close()
    os.truncate(file, len(content(file)) // 2)
    assert (take(kept), files(kept)) == ([], [])


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_what_the_disk_refuses_is_not_kept_and_the_next_is(kept: Spool) -> None:
    kept.keep([b"1"])
    with files_of_at_most(len(content(files(kept)[0])) + 20), pytest.raises(OSError, match="too large"):
        kept.keep([b"2", b"refused" * 10])
    kept.keep([b"3"])
    assert take(kept) == [b"1", b"3"]


def test_a_full_disk_is_not_filled_with_files(kept: Spool) -> None:
    with files_of_at_most(1000):
        for _ in range(3):
            with pytest.raises(OSError, match="too large"):
                kept.keep([b"1"])
    assert files(kept) == []
    kept.keep([b"2"])
    assert take(kept) == [b"2"]


def test_more_at_once_than_a_file_holds_is_kept(kept: Spool) -> None:
    lines = [b"%d" % n * 700 for n in range(2000)]
    kept.keep([b"first"])
    kept.keep(lines)
    assert take(kept) == [b"first", *lines]


def test_a_line_that_is_not_what_was_kept_is_told_and_its_file_stays(kept: Spool) -> None:
    kept.keep([b"first", b"second", b"third"])
    kept.close()
    (file,) = files(kept)
    file.write_bytes(file.read_bytes().replace(b"second", b"sEcond"))
    assert take(kept) == [b"first", b"third"]
    assert kept.damaged() == [one.name for one in files(kept)] == [f"{file.name}.damaged"]
    assert take(Spool(kept.folder)) == []
