"""Keys: wrapping binds to its row, rotation loses nothing, and a careless key file stops the start."""

from __future__ import annotations

import base64
import multiprocessing
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.errors import Misconfigured
from adapter.records.keys import (
    KeyRing,
    KeyWrapper,
    PatientKey,
    UnwrapFailed,
    new_patient_key,
    open_key_ring,
    wrapped_version,
)
from adapter.records.sealing import seal

ROW, OTHER_ROW = "01993a3f-5c00-7abc-8def-0123456789ab", "01993a3f-5c00-7abc-8def-0123456789ac"


def first_start(data_dir: Path) -> KeyRing:
    return open_key_ring(data_dir, data_exists=False, environ={})


def later_start(data_dir: Path) -> KeyRing:
    return open_key_ring(data_dir, data_exists=True, environ={})


def entry(version: int, key: bytes) -> str:
    return f"{version}:{base64.b64encode(key).decode()}"


def from_environment(*entries: str) -> KeyRing:
    return open_key_ring(Path("/nowhere"), data_exists=True, environ={"DERMBRIDGE_KEK": " ".join(entries)})


WRAPPERS: dict[str, Callable[[], KeyWrapper]] = {
    "ring": lambda: from_environment(entry(1, secrets.token_bytes(32))),
    "patient key": new_patient_key,
}


@pytest.fixture(params=WRAPPERS.values(), ids=list(WRAPPERS))
def wrapper(request: pytest.FixtureRequest) -> KeyWrapper:
    made: KeyWrapper = request.param()
    return made


# --- wrapping


def test_a_wrapped_key_comes_back_and_no_two_wrappings_are_alike(wrapper: KeyWrapper) -> None:
    key = secrets.token_bytes(32)
    one, two = wrapper.wrap(key, ROW), wrapper.wrap(key, ROW)
    assert wrapper.unwrap(one, ROW) == wrapper.unwrap(two, ROW) == key
    assert one != two
    assert key not in one


def test_a_wrapped_key_moved_to_another_row_does_not_open(wrapper: KeyWrapper) -> None:
    wrapped = wrapper.wrap(secrets.token_bytes(32), ROW)
    with pytest.raises(UnwrapFailed, match=OTHER_ROW):
        wrapper.unwrap(wrapped, OTHER_ROW)


def test_a_wrapped_key_with_any_bit_flipped_or_any_end_cut_does_not_open(wrapper: KeyWrapper) -> None:
    wrapped = wrapper.wrap(secrets.token_bytes(32), ROW)
    damaged = [wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :] for at in range(len(wrapped))]
    damaged += [wrapped[:length] for length in range(len(wrapped))] + [wrapped + b"\0"]
    for case in damaged:
        with pytest.raises(UnwrapFailed):
            wrapper.unwrap(case, ROW)


@given(st.binary(max_size=100))
def test_arbitrary_bytes_do_not_open(noise: bytes) -> None:
    for make in WRAPPERS.values():
        with pytest.raises(UnwrapFailed):
            make().unwrap(noise, ROW)


def test_another_patients_key_or_another_ring_opens_nothing() -> None:
    data_key, patient = secrets.token_bytes(32), new_patient_key()
    with pytest.raises(UnwrapFailed):
        new_patient_key().unwrap(patient.wrap(data_key, ROW), ROW)
    ring = WRAPPERS["ring"]()
    with pytest.raises(UnwrapFailed):
        WRAPPERS["ring"]().unwrap(ring.wrap(patient.key, ROW), ROW)


def test_only_whole_keys_are_wrapped(wrapper: KeyWrapper) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        wrapper.wrap(b"a photo, by mistake", ROW)


def test_no_key_shows_in_a_repr() -> None:
    key = secrets.token_bytes(32)
    text = repr(from_environment(entry(1, key))) + repr(PatientKey(key))
    assert "hidden" in text
    for form in (repr(key), key.hex(), base64.b64encode(key).decode()):
        assert form not in text


# --- rotation


def test_after_a_rotation_new_keys_carry_the_new_version_and_old_ones_still_open(tmp_path: Path) -> None:
    ring = first_start(tmp_path)
    key = secrets.token_bytes(32)
    old = ring.wrap(key, ROW)
    assert (ring.rotate(), ring.version) == (2, 2)
    new = ring.wrap(key, ROW)
    assert (wrapped_version(old), wrapped_version(new)) == (1, 2)
    for again in (ring, later_start(tmp_path)):
        assert again.unwrap(old, ROW) == again.unwrap(new, ROW) == key


def test_a_running_process_opens_what_another_wrapped_after_a_rotation(tmp_path: Path) -> None:
    running, other = first_start(tmp_path), later_start(tmp_path)
    other.rotate()
    key = secrets.token_bytes(32)
    assert running.unwrap(other.wrap(key, ROW), ROW) == key
    assert running.version == 2


def test_a_version_that_is_nowhere_is_named_with_what_to_restore() -> None:
    key = secrets.token_bytes(32)
    wrapped = from_environment(entry(7, key)).wrap(key, ROW)
    with pytest.raises(UnwrapFailed, match=r"version 7 .*restore"):
        from_environment(entry(6, key)).unwrap(wrapped, ROW)


def test_a_version_relabelled_as_another_does_not_open() -> None:
    key = secrets.token_bytes(32)
    ring = from_environment(entry(1, key), entry(2, key))
    wrapped = ring.wrap(key, ROW)
    with pytest.raises(UnwrapFailed):
        ring.unwrap(wrapped[:1] + (1).to_bytes(4, "big") + wrapped[5:], ROW)


def _rotate(data_dir: str) -> tuple[bytes, bytes]:
    ring = later_start(Path(data_dir))
    ring.rotate()
    key = secrets.token_bytes(32)
    return key, ring.wrap(key, ROW)


def test_processes_that_start_and_rotate_at_once_lose_no_key(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        first = pool.map(_start_and_wrap, [str(tmp_path)] * 4, chunksize=1)
        rotated = pool.map(_rotate, [str(tmp_path)] * 8, chunksize=1)
    ring = later_start(tmp_path)
    assert ring.version == 9
    for key, wrapped in first + rotated:
        assert ring.unwrap(wrapped, ROW) == key


def _start_and_wrap(data_dir: str) -> tuple[bytes, bytes]:
    key = secrets.token_bytes(32)
    return key, first_start(Path(data_dir)).wrap(key, ROW)


@pytest.mark.parametrize("named", [False, True])
def test_keys_given_from_outside_are_rotated_by_an_operator_and_the_message_says_how(
    named: bool, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(entry(3, secrets.token_bytes(32)))
    secret.chmod(0o440)
    environ = {"DERMBRIDGE_KEK_FILE": str(secret)} if named else {"DERMBRIDGE_KEK": secret.read_text()}
    ring = open_key_ring(tmp_path, data_exists=True, environ=environ)
    with pytest.raises(Misconfigured, match=r'"4:".*openssl rand -base64 32'):
        ring.rotate()
    assert not (tmp_path / "keys").exists()


# --- the key file


def test_the_first_start_makes_a_key_file_that_only_its_owner_can_open(tmp_path: Path) -> None:
    first_start(tmp_path)
    file = tmp_path / "keys" / "kek.txt"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert [path.name for path in file.parent.iterdir()] == ["kek.txt"]


def test_a_key_file_keeps_its_mode_through_a_rotation(tmp_path: Path) -> None:
    first_start(tmp_path).rotate()
    assert (tmp_path / "keys" / "kek.txt").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620])
def test_a_key_file_open_to_others_stops_the_start_with_the_chmod_to_run(mode: int, tmp_path: Path) -> None:
    first_start(tmp_path)
    file = tmp_path / "keys" / "kek.txt"
    file.chmod(mode)
    with pytest.raises(Misconfigured, match=f"chmod 600 {file}"):
        later_start(tmp_path)


def test_a_key_folder_open_to_others_stops_the_start_with_the_chmod_to_run(tmp_path: Path) -> None:
    first_start(tmp_path)
    (tmp_path / "keys").chmod(0o755)
    with pytest.raises(Misconfigured, match=f"chmod 700 {tmp_path / 'keys'}"):
        later_start(tmp_path)


def test_a_mounted_secret_that_everybody_can_read_stops_the_start(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(entry(1, secrets.token_bytes(32)))
    secret.chmod(0o444)
    with pytest.raises(Misconfigured, match=f"chmod 600 {secret}"):
        open_key_ring(tmp_path, data_exists=False, environ={"DERMBRIDGE_KEK_FILE": str(secret)})


def test_a_missing_key_file_beside_stored_photos_stops_the_start_and_makes_no_new_key(tmp_path: Path) -> None:
    first_start(tmp_path)
    (tmp_path / "keys" / "kek.txt").unlink()
    with pytest.raises(Misconfigured, match=r"Restore the file from the backup of the keys"):
        later_start(tmp_path)
    assert not (tmp_path / "keys" / "kek.txt").exists()


def test_a_key_file_lost_while_running_is_never_replaced_by_a_new_one(tmp_path: Path) -> None:
    ring = first_start(tmp_path)
    (tmp_path / "keys" / "kek.txt").unlink()
    with pytest.raises(Misconfigured, match="missing"):
        ring.rotate()
    assert not (tmp_path / "keys" / "kek.txt").exists()


GOOD = entry(1, bytes(32))
BAD_TEXTS = {
    "empty": "# only a comment\n",
    "no version": base64.b64encode(bytes(32)).decode(),
    "version zero": entry(0, bytes(32)),
    "short key": entry(1, bytes(31)),
    "not base64": "1:" + "!" * 44,
    "version twice": f"{GOOD}\n{entry(1, bytes(range(32)))}",
    "version too large": entry(2**32, bytes(32)),
}


@pytest.mark.parametrize("text", BAD_TEXTS.values(), ids=BAD_TEXTS.keys())
def test_a_malformed_key_text_is_refused_without_repeating_it(text: str, tmp_path: Path) -> None:
    first_start(tmp_path)
    (tmp_path / "keys" / "kek.txt").write_text(text)
    with pytest.raises(Misconfigured) as refused:
        later_start(tmp_path)
    assert str(tmp_path / "keys" / "kek.txt") in str(refused.value)
    assert not any(word.partition(":")[2] in str(refused.value) for word in text.split() if ":" in word)


# --- all levels together


@pytest.mark.parametrize("size", [0, 5, 700_000])
def test_the_recipe_of_the_documentation_decrypts_a_photo_from_its_rows_and_its_file(size: int) -> None:
    page = (Path(__file__).parents[2] / "docs" / "blob-format.md").read_text()
    recipe: dict[str, Any] = {}
    exec(page.split("```python\n")[1].split("```")[0], recipe)
    kek, patient, clear = secrets.token_bytes(32), new_patient_key(), secrets.token_bytes(size)
    sealed = seal(clear, ROW)
    ring = from_environment(entry(300, kek))
    rows = ("patient-key-7", ring.wrap(patient.key, "patient-key-7"), ROW, patient.wrap(sealed.data_key, ROW))
    file = b"".join(sealed)
    assert recipe["decrypt"](base64.b64encode(kek), *rows, file) == clear
