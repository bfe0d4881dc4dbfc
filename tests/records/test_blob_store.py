"""The local blob store: what it acknowledged is there, whatever happens in between."""

from __future__ import annotations

import errno
import os
import random
import secrets
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapter.errors import Conflict, NotFound, Unavailable
from adapter.records.blob_store import BlobStore, LocalBlobStore, StoredBlob
from adapter.records.ids import new_id
from adapter.records.sealing import CHUNK_SIZE, Layout, Sealed, open_sealed, seal

REPOSITORY = Path(__file__).parents[2]
EVER = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "blobs")


def files_under(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


# --- the interface


def test_a_sealed_photo_written_comes_back_whole_and_in_ranges(store: LocalBlobStore) -> None:
    clear, object_id = secrets.token_bytes(3 * CHUNK_SIZE + 17), new_id()
    sealed = seal(clear, object_id)
    store.write(object_id, sealed)
    (file,) = files_under(store.root)
    assert sealed.cipher_size == store.size(object_id) == file.stat().st_size
    blob = open_sealed(StoredBlob(store, object_id), sealed.data_key, object_id)
    assert b"".join(blob.iter_chunks()) == clear
    assert blob.read(CHUNK_SIZE - 3, 2 * CHUNK_SIZE + 3) == clear[CHUNK_SIZE - 3 : 2 * CHUNK_SIZE + 3]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=50), max_size=5), st.integers(0, 300), st.integers(0, 300))
def test_any_range_is_the_slice_of_the_pieces(
    store: LocalBlobStore, pieces: list[bytes], start: int, stop: int
) -> None:
    object_id = new_id()
    store.write(object_id, pieces)
    assert store.read_range(object_id, start, stop) == b"".join(pieces)[start : max(start, stop)]


def test_a_range_far_beyond_the_end_costs_no_memory(store: LocalBlobStore) -> None:
    object_id = new_id()
    store.write(object_id, [b"short"])
    assert store.read_range(object_id, 2, 2**62) == b"ort"


def test_everything_in_the_store_is_for_its_owner_only(store: LocalBlobStore) -> None:
    previous = os.umask(0)
    try:
        store.write(new_id(), [b"x"])
    finally:
        os.umask(previous)
    assert {path.stat().st_mode & 0o077 for path in store.root.rglob("*")} == {0}
    assert store.root.stat().st_mode & 0o777 == 0o700


def test_writing_the_same_bytes_again_changes_nothing(store: LocalBlobStore) -> None:
    object_id = new_id()
    sealed = seal(b"photo" * 100_000, object_id)
    for _ in range(2):
        store.write(object_id, sealed)
    assert len(files_under(store.root)) == 1


def test_other_bytes_never_replace_an_object(store: LocalBlobStore) -> None:
    object_id = new_id()
    store.write(object_id, [b"first"])
    with pytest.raises(Conflict, match=object_id):
        store.write(object_id, [b"other"])
    assert store.read_range(object_id, 0, 9) == b"first"
    assert len(files_under(store.root)) == 1


def test_of_many_threads_writing_one_id_exactly_one_wins(store: LocalBlobStore) -> None:
    object_id, won, start = new_id(), [], threading.Barrier(8)

    def write(number: int) -> None:
        start.wait()
        with suppress(Conflict):
            store.write(object_id, [b"%d" % number] * 5)
            won.append(number)

    threads = [threading.Thread(target=write, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read_range(object_id, 0, 99) == b"%d" % won[0] * 5
    assert len(won) == 1


def test_a_deleted_object_is_gone_and_deleting_again_is_fine(store: LocalBlobStore) -> None:
    object_id = new_id()
    store.write(object_id, [b"x"])
    store.delete(object_id)
    store.delete(object_id)
    store.delete(str(uuid.uuid4()))
    for use in (store.size, lambda name: store.read_range(name, 0, 1)):
        with pytest.raises(NotFound, match=object_id):
            use(object_id)
    assert files_under(store.root) == []


_ID = "0199a3f0-0000-7000-8000-000000000001"


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "a" * 36, _ID.replace("a", "A"), _ID + "\n", "incoming/x"])
def test_only_a_canonical_uuid_is_a_name(store: LocalBlobStore, name: str) -> None:
    for use in (store.size, store.delete, lambda n: store.read_range(n, 0, 1), lambda n: store.write(n, [b""])):
        with pytest.raises(ValueError, match="object id"):
            use(name)


def test_pages_of_ids_cover_the_store_once_in_rising_order(store: LocalBlobStore) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    ids = sorted(new_id(start + timedelta(hours=9 * step)) for step in range(40))
    ids += sorted(new_id(start + timedelta(days=900)) for _ in range(20))  # all in one folder
    ids.append(str(uuid.UUID(int=2**128 - 1)))
    for object_id in random.sample(ids, len(ids)):
        store.write(object_id, [b"x"])
    (store.root / "0199").mkdir(exist_ok=True)
    (store.root / "incoming" / "leftover").touch()
    pages: list[str] = []
    while page := store.list_ids(after=pages[-1] if pages else "", limit=7):
        assert len(page) <= 7
        pages += page
    assert pages == ids
    assert store.list_ids() == ids


def test_the_local_store_has_the_shape_that_other_stores_must_have(store: LocalBlobStore) -> None:
    other: BlobStore = store
    assert other.list_ids(limit=1) == []


# --- no clear text


def test_no_part_of_the_original_is_in_any_file_even_while_writing(store: LocalBlobStore) -> None:
    clear, object_id = secrets.token_bytes(CHUNK_SIZE + 20_000), new_id()
    wanted = {clear[at : at + 16] for at in range(0, len(clear), 16)}

    def assert_hidden() -> None:
        for path in files_under(store.root):
            content = path.read_bytes()
            assert wanted.isdisjoint(content[at : at + 16] for at in range(len(content)))

    def watched(pieces: Sealed) -> Iterator[bytes]:
        for piece in pieces:
            yield piece
            assert len(files_under(store.root)) == 1
            assert_hidden()

    store.write(object_id, watched(seal(clear, object_id)))
    assert_hidden()
    store.write(new_id(), [b"?" + clear])  # the search does find clear text
    with pytest.raises(AssertionError):
        assert_hidden()


# --- durability: the order of system calls


class Disk:
    """Watches the calls that change the disk: what would a power cut now lose?"""

    CHANGES = ("open", "write", "fsync", "link", "mkdir", "unlink", "close")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, before: Callable[[str], None] = lambda call: None) -> None:
        self.unsynced_content: set[str] = set()
        self.unsynced_names: set[str] = set()
        self._paths: dict[int, str] = {}
        for call in self.CHANGES:
            monkeypatch.setattr(os, call, self._watched(call, getattr(os, call), before))

    def _watched(self, call: str, real: Callable[..., Any], before: Callable[[str], None]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            before(call)
            result = real(*args, **kwargs)
            getattr(self, f"_{call}", lambda *_: None)(result, *args)
            return result

        return watched

    def _open(self, descriptor: int, path: Any, flags: int, *_: Any) -> None:
        self._paths[descriptor] = str(path)

    def _write(self, _: int, descriptor: int, *__: Any) -> None:
        self.unsynced_content.add(self._paths[descriptor])

    def _fsync(self, _: None, descriptor: int) -> None:
        path = self._paths[descriptor]
        self.unsynced_content.discard(path)
        self.unsynced_names = {name for name in self.unsynced_names if str(Path(name).parent) != path}

    def _link(self, _: None, source: Any, target: Any) -> None:
        assert str(source) not in self.unsynced_content, "a name was given to content that a power cut would lose"
        self.unsynced_names.add(str(target))

    def _mkdir(self, _: None, path: Any, *__: Any) -> None:
        self.unsynced_names.add(str(path))

    def _unlink(self, _: None, path: Any, *__: Any) -> None:
        if "incoming" not in str(path):
            self.unsynced_names.add(str(path))


def test_content_and_every_name_up_to_the_root_are_synced_before_a_write_or_delete_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        store = LocalBlobStore(tmp_path / "new" / "blobs")
        object_id = new_id()
        for _ in range(2):
            store.write(object_id, [b"some", b"bytes"])
            assert (disk.unsynced_content, disk.unsynced_names) == (set(), set())
        store.delete(object_id)
        assert disk.unsynced_names == set()


def test_folders_that_a_crashed_process_left_unsynced_are_synced_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    object_id = new_id()
    LocalBlobStore(tmp_path / "blobs").write(object_id, [b"x"])
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        fan_out = tmp_path / "blobs" / object_id[:4]
        disk.unsynced_names = {str(tmp_path / "blobs"), str(fan_out), str(fan_out / object_id[4:7])}
        LocalBlobStore(tmp_path / "blobs").write(object_id, [b"x"])
        assert disk.unsynced_names == set()


@contextmanager
def failing_at(step: int, monkeypatch: pytest.MonkeyPatch, fail: Callable[[], None]) -> Iterator[list[str]]:
    calls: list[str] = []

    def before(call: str) -> None:
        calls.append(call)
        if len(calls) == step:
            fail()

    with monkeypatch.context() as patch:
        Disk(patch, before)
        yield calls


def test_an_object_is_absent_or_complete_after_the_disk_fails_at_any_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for step in range(1, 100):
        store, object_id = LocalBlobStore(tmp_path / str(step)), new_id()
        with failing_at(step, monkeypatch, fail) as calls, suppress(Unavailable):
            store.write(object_id, [b"some", b"bytes"])
        if len(calls) < step:
            break
        assert_absent_or_complete(store, object_id, b"somebytes")
        store.write(object_id, [b"some", b"bytes"])
        store.sweep(EVER)
        assert [path.name for path in files_under(store.root)] == [object_id]
    assert step > 10


def test_a_full_disk_is_reported_as_try_again_with_its_reason(
    store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, piece: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(Unavailable, match="No space left on device"):
            store.write(new_id(), [b"x"])
    assert files_under(store.root) == []


def test_short_writes_by_the_system_lose_nothing(store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real, object_id = os.write, new_id()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, piece: real(descriptor, piece[:3]))
        store.write(object_id, [b"0123456789"])
    assert store.read_range(object_id, 0, 99) == b"0123456789"


def test_a_source_that_fails_half_way_leaves_nothing(store: LocalBlobStore) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise ValueError("the upload broke off")

    with pytest.raises(ValueError, match="broke off"):
        store.write(new_id(), pieces())
    assert files_under(store.root) == []


# --- kill -9


def assert_absent_or_complete(store: LocalBlobStore, object_id: str, content: bytes) -> None:
    with suppress(NotFound):
        assert store.read_range(object_id, 0, len(content) + 1) == content


def test_an_object_is_absent_or_complete_after_kill_9_before_any_system_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(1, 100):
        store, object_id = LocalBlobStore(tmp_path / str(step)), new_id()
        child = os.fork()
        if child == 0:
            with failing_at(step, monkeypatch, lambda: os.kill(os.getpid(), signal.SIGKILL)):
                store.write(object_id, [b"some", b"bytes"])
            os._exit(0)
        survived = os.waitpid(child, 0)[1] == 0
        assert_absent_or_complete(store, object_id, b"somebytes")
        if survived:
            break
        LocalBlobStore(store.root).write(object_id, [b"some", b"bytes"])
        store.sweep(EVER)
        assert [path.name for path in files_under(store.root)] == [object_id]
    assert step > 10


def photo_of(object_id: str) -> Sealed:
    """A photo, its key and its nonces, all following from the id, so that both processes know them."""
    draw = random.Random(object_id)
    clear = draw.randbytes(draw.choice([10, 5_000, 300_000, 1_500_000]))
    layout = Layout(CHUNK_SIZE, len(clear), uuid.UUID(object_id), draw.randbytes(4))
    return Sealed(draw.randbytes(32), layout, memoryview(clear))


def write_until_killed(root: str) -> None:
    store = LocalBlobStore(Path(root))
    while True:
        object_id = new_id()
        store.write(object_id, photo_of(object_id))
        os.write(1, object_id.encode() + b"\n")


def test_every_acknowledged_photo_survives_kill_9_at_random_moments_and_none_is_half_there(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_blob_store as t; "
    command = [sys.executable, "-c", code + "t.write_until_killed(sys.argv[1])", str(tmp_path / "blobs")]
    acknowledged: set[str] = set()
    for _ in range(4):
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY, text=True) as writer:
            assert writer.stdout
            acknowledged |= {writer.stdout.readline().strip() for _ in range(random.randint(1, 6))}
            with suppress(subprocess.TimeoutExpired):
                writer.wait(random.uniform(0, 0.02))
            writer.kill()
            acknowledged |= {line.strip() for line in writer.stdout if line.endswith("\n")}
    store = LocalBlobStore(tmp_path / "blobs")
    stored = store.list_ids()
    assert acknowledged <= set(stored)
    for object_id in stored:
        sealed = photo_of(object_id)
        blob = open_sealed(StoredBlob(store, object_id), sealed.data_key, object_id)
        assert b"".join(blob.iter_chunks()) == sealed.clear
    store.sweep(EVER)
    assert len(files_under(store.root)) == len(stored)


# --- sweeping


def test_a_sweep_removes_old_unfinished_writes_and_nothing_else(store: LocalBlobStore) -> None:
    kept = new_id()
    store.write(kept, [b"x"])
    now = datetime.now(UTC)
    for name, age in (("old", timedelta(hours=2)), ("young", timedelta(minutes=2))):
        touched = (now - age).timestamp()
        (store.root / "incoming" / name).touch()
        os.utime(store.root / "incoming" / name, (touched, touched))
    assert store.sweep(older_than=now - timedelta(hours=1)) == ["old"]
    assert [path.name for path in files_under(store.root)] == sorted([kept, "young"])


def test_a_write_swept_away_while_running_fails_instead_of_acknowledging(store: LocalBlobStore) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"half"
        assert store.sweep(EVER)

    object_id = new_id()
    with pytest.raises(Unavailable):
        store.write(object_id, pieces())
    with pytest.raises(NotFound):
        store.size(object_id)
