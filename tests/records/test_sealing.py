"""Sealed objects: every range comes back, every change is seen, and the format stays what it was."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from adapter.records.sealing import (
    CHUNK_SIZE,
    HEADER_SIZE,
    TAG_SIZE,
    DamagedBlob,
    Layout,
    OpenBlob,
    Sealed,
    open_sealed,
    seal,
)

OBJECT_ID = "01993a3f-5c00-7abc-8def-0123456789ab"
OTHER_ID = "01993a3f-5c00-7abc-8def-0123456789ac"
VECTOR = Path(__file__).parents[1] / "data" / "sealing" / "v1.dermblob"
VECTOR_KEY = bytes(range(32))
VECTOR_CLEAR = b"Forty clear bytes in two chunks and more"
VECTOR_LAYOUT = Layout(16, 40, uuid.UUID(OBJECT_ID), b"\xa0\xa1\xa2\xa3")


class Memory:
    """A reader over bytes that remembers what was asked of it."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.asked: list[tuple[int, int]] = []

    def read_range(self, start: int, stop: int) -> bytes:
        self.asked.append((start, stop))
        return self.content[start:stop]


def sealed_small(clear: bytes, chunk_size: int, object_id: str = OBJECT_ID) -> Sealed:
    layout = Layout(chunk_size, len(clear), uuid.UUID(object_id), secrets.token_bytes(4))
    return Sealed(secrets.token_bytes(32), layout, memoryview(clear))


def opened(sealed: Sealed, content: bytes | None = None) -> OpenBlob:
    return open_sealed(Memory(b"".join(sealed) if content is None else content), sealed.data_key, OBJECT_ID)


def decode_by_hand(blob: bytes, key: bytes) -> bytes:
    """A reader written from the format's description alone."""
    assert blob[0:8] == b"DermBlob"
    assert int.from_bytes(blob[8:12], "big") == 1
    chunk_size = int.from_bytes(blob[12:16], "big")
    size = int.from_bytes(blob[16:24], "big")
    prefix = blob[40:44]
    header_hash = hashlib.sha256(blob[:44]).digest()
    count = max(1, (size + chunk_size - 1) // chunk_size)
    clear, at = b"", 44
    for index in range(count):
        length = min(chunk_size, size - index * chunk_size) + 16
        counter = index.to_bytes(8, "big")
        last = b"\x01" if index == count - 1 else b"\x00"
        clear += AESGCM(key).decrypt(prefix + counter, blob[at : at + length], header_hash + counter + last)
        at += length
    assert at == len(blob)
    return clear


# --- the format cannot drift


def test_the_committed_vector_still_opens_and_is_still_what_sealing_writes() -> None:
    blob = VECTOR.read_bytes()
    assert b"".join(Sealed(VECTOR_KEY, VECTOR_LAYOUT, memoryview(VECTOR_CLEAR))) == blob
    assert open_sealed(Memory(blob), VECTOR_KEY, OBJECT_ID).read(0, 40) == VECTOR_CLEAR
    assert decode_by_hand(blob, VECTOR_KEY) == VECTOR_CLEAR


def test_a_full_size_object_still_has_the_digest_of_format_version_1() -> None:
    clear = bytes(range(251)) * 2400
    layout = Layout(CHUNK_SIZE, len(clear), uuid.UUID(OBJECT_ID), b"\xa0\xa1\xa2\xa3")
    digest = hashlib.sha256(b"".join(Sealed(VECTOR_KEY, layout, memoryview(clear)))).hexdigest()
    assert digest == "426e1a318bf74c0feb1426e3b1c4bda927ab3ee5d6101c24f32810eb8d598b5f"


@pytest.mark.parametrize("size", [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 2 * CHUNK_SIZE, 700_001])
def test_what_seal_writes_is_read_by_a_reader_written_from_the_description(size: int) -> None:
    clear = secrets.token_bytes(size)
    sealed = seal(clear, OBJECT_ID)
    blob = b"".join(sealed)
    assert (len(blob), sealed.size) == (sealed.cipher_size, size)
    assert decode_by_hand(blob, sealed.data_key) == clear
    assert b"".join(open_sealed(Memory(blob), sealed.data_key, OBJECT_ID).iter_chunks()) == clear


# --- any size, any range


@given(st.data())
def test_any_range_of_any_size_is_the_slice_of_the_original(data: st.DataObject) -> None:
    chunk_size = data.draw(st.integers(1, 20))
    near_boundary = st.builds(lambda n, d: max(0, n * chunk_size + d), st.integers(0, 80), st.integers(-1, 1))
    clear = secrets.token_bytes(data.draw(near_boundary | st.integers(0, 500)))
    blob = opened(sealed_small(clear, chunk_size))
    for _ in range(5):
        start, stop = sorted((data.draw(st.integers(0, 600)), data.draw(st.integers(0, 600))))
        assert blob.read(start, stop) == clear[start:stop]
    assert (b"".join(blob.iter_chunks()), blob.size) == (clear, len(clear))


def test_a_range_touches_only_the_chunks_that_hold_it() -> None:
    clear = secrets.token_bytes(10 * CHUNK_SIZE)
    sealed = seal(clear, OBJECT_ID)
    reader = Memory(b"".join(sealed))
    blob = open_sealed(reader, sealed.data_key, OBJECT_ID)
    reader.asked.clear()
    assert blob.read(3 * CHUNK_SIZE + 5, 5 * CHUNK_SIZE) == clear[3 * CHUNK_SIZE + 5 : 5 * CHUNK_SIZE]
    step = CHUNK_SIZE + TAG_SIZE
    assert reader.asked == [(HEADER_SIZE + 3 * step, HEADER_SIZE + 5 * step)]


@pytest.mark.parametrize(("start", "stop"), [(-1, 4), (5, 4)])
def test_a_range_that_is_none_is_refused(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="byte range"):
        opened(sealed_small(b"12345678", 4)).read(start, stop)


# --- keys, nonces, inputs


def test_every_object_has_its_own_key_and_nonce_prefix_and_iterating_again_gives_the_same_bytes() -> None:
    one, two = seal(b"same", OBJECT_ID), seal(b"same", OBJECT_ID)
    assert one.data_key != two.data_key
    assert b"".join(one) != b"".join(two)
    assert b"".join(one) == b"".join(one)


def test_bytes_that_can_still_change_are_refused_unless_promised() -> None:
    upload = bytearray(b"photo")
    with pytest.raises(ValueError, match="cannot change"):
        seal(memoryview(upload), OBJECT_ID)
    sealed = seal(memoryview(upload).toreadonly(), OBJECT_ID)
    assert opened(sealed).read(0, 5) == b"photo"


def test_neither_key_nor_clear_bytes_show_in_a_repr() -> None:
    sealed = seal(b"a very private mole", OBJECT_ID)
    assert repr(sealed.data_key) not in repr(sealed)
    assert "mole" not in repr(sealed)
    assert "memory" not in repr(sealed)
    assert sealed.data_key.hex() not in repr(vars(opened(sealed)))


# --- tampering: 3 chunks of 16, 16 and 8 clear bytes

CLEAR = bytes(range(40))
CHUNK = 16 + TAG_SIZE
FIELDS = {"magic": 0, "version": 8, "chunk size": 12, "size": 16, "object id": 24, "nonce prefix": 40}


def assert_nothing_comes_out(sealed: Sealed, blob: bytes, *, chunk: int | None = None) -> None:
    """The whole object never comes out; of single chunks, at most the untouched ones (all but `chunk`)."""
    with pytest.raises(DamagedBlob, match=OBJECT_ID):
        b"".join(opened(sealed, blob).iter_chunks())
    for index in range(3) if chunk is None else [chunk]:
        with pytest.raises(DamagedBlob, match=OBJECT_ID):
            opened(sealed, blob).read(index * 16, index * 16 + 1)


@pytest.mark.parametrize("at", [offset + extra for offset in FIELDS.values() for extra in range(4)])
def test_a_flipped_bit_anywhere_in_the_header_opens_nothing(at: int) -> None:
    sealed = sealed_small(CLEAR, 16)
    blob = bytearray(b"".join(sealed))
    blob[at] ^= 1
    assert_nothing_comes_out(sealed, bytes(blob))


@given(st.integers(HEADER_SIZE, HEADER_SIZE + 40 + 3 * TAG_SIZE - 1), st.integers(0, 7))
def test_a_flipped_bit_in_a_chunk_or_its_tag_is_damage(at: int, bit: int) -> None:
    sealed = sealed_small(CLEAR, 16)
    blob = bytearray(b"".join(sealed))
    blob[at] ^= 1 << bit
    assert_nothing_comes_out(sealed, bytes(blob), chunk=(at - HEADER_SIZE) // CHUNK)


@settings(max_examples=200)
@given(st.data())
def test_any_other_bytes_are_damage_and_never_output(data: st.DataObject) -> None:
    sealed = sealed_small(CLEAR, 16)
    good = b"".join(sealed)
    start, stop = sorted((data.draw(st.integers(0, len(good))), data.draw(st.integers(0, len(good)))))
    blob = good[:start] + data.draw(st.binary(max_size=70)) + good[stop:]
    if blob != good:
        with pytest.raises(DamagedBlob):
            b"".join(opened(sealed, blob).iter_chunks())
        for at in range(40):
            try:
                assert opened(sealed, blob).read(at, at + 1) == CLEAR[at : at + 1]
            except DamagedBlob as damage:
                assert damage.object_id == OBJECT_ID


@pytest.mark.parametrize("length", range(HEADER_SIZE + 40 + 3 * TAG_SIZE))
def test_an_object_cut_anywhere_is_damage(length: int) -> None:
    sealed = sealed_small(CLEAR, 16)
    with pytest.raises(DamagedBlob, match=OBJECT_ID):
        b"".join(opened(sealed, b"".join(sealed)[:length]).iter_chunks())


@pytest.mark.parametrize(
    ("at", "reason"), [(0, "DermBlob"), (11, "format version 0 is unknown"), (12, "chunk size .* out of range")]
)
def test_a_header_that_cannot_be_read_is_refused_at_opening_with_its_reason(at: int, reason: str) -> None:
    sealed = sealed_small(CLEAR, 16)
    blob = bytearray(b"".join(sealed))
    blob[at] ^= 1
    with pytest.raises(DamagedBlob, match=reason):
        opened(sealed, bytes(blob))


REARRANGED: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "chunks swapped": lambda p: [p[0], p[2], p[1], p[3]],
    "chunk repeated": lambda p: [p[0], p[1], p[1], p[3]],
    "last chunk moved forward": lambda p: [p[0], p[1], p[3]],
    "chunk dropped": lambda p: [p[0], p[2], p[3]],
    "chunk appended": lambda p: [*p, p[3]],
    "a byte appended": lambda p: [*p, b"\0"],
}


@pytest.mark.parametrize("change", REARRANGED.values(), ids=REARRANGED.keys())
def test_rearranged_chunks_are_damage(change: Callable[[list[bytes]], list[bytes]]) -> None:
    sealed = sealed_small(CLEAR, 16)
    with pytest.raises(DamagedBlob, match=OBJECT_ID):
        b"".join(opened(sealed, b"".join(change(list(sealed)))).iter_chunks())


@pytest.mark.parametrize("size", [32, 16, 0])
def test_an_object_cut_at_a_chunk_with_its_size_rewritten_is_damage(size: int) -> None:
    """The forger knows the format but not the key."""
    sealed = sealed_small(CLEAR, 16)
    blob = b"".join(sealed)
    forged = blob[:16] + size.to_bytes(8, "big") + blob[24 : HEADER_SIZE + max(1, size // 16) * CHUNK]
    with pytest.raises(DamagedBlob):
        b"".join(opened(sealed, forged).iter_chunks())


def test_a_header_that_claims_an_absurd_size_is_damage_and_costs_no_memory() -> None:
    sealed = sealed_small(CLEAR, 16)
    blob = b"".join(sealed)
    for claimed in (2**63, 2**64 - 1):
        with pytest.raises(DamagedBlob):
            next(opened(sealed, blob[:16] + claimed.to_bytes(8, "big") + blob[24:]).iter_chunks())


def test_a_chunk_of_another_object_under_the_same_key_is_damage() -> None:
    one = sealed_small(CLEAR, 16)
    other = Sealed(one.data_key, Layout(16, 40, uuid.UUID(OTHER_ID), one.layout.nonce_prefix), one.clear)
    for index in (1, 2, 3):
        pieces = list(one)
        pieces[index] = list(other)[index]
        assert_nothing_comes_out(one, b"".join(pieces), chunk=index - 1)


def test_another_objects_file_is_refused_even_with_its_key() -> None:
    other = sealed_small(CLEAR, 16, OTHER_ID)
    with pytest.raises(DamagedBlob, match=f"{OBJECT_ID}.*another object"):
        open_sealed(Memory(b"".join(other)), other.data_key, OBJECT_ID)
    renamed = bytearray(b"".join(other))
    renamed[24:40] = uuid.UUID(OBJECT_ID).bytes
    assert_nothing_comes_out(other, bytes(renamed))


def test_a_wrong_key_opens_nothing() -> None:
    sealed = sealed_small(CLEAR, 16)
    blob = open_sealed(Memory(b"".join(sealed)), secrets.token_bytes(32), OBJECT_ID)
    for start in (0, 16, 32):
        with pytest.raises(DamagedBlob, match=OBJECT_ID):
            blob.read(start, start + 1)


def test_an_empty_object_is_authenticated_when_read_as_a_whole() -> None:
    sealed = sealed_small(b"", 16)
    assert b"".join(opened(sealed).iter_chunks()) == b""
    with pytest.raises(DamagedBlob):
        b"".join(opened(sealed, b"".join(sealed)[:-1]).iter_chunks())


def test_damage_in_the_middle_of_a_range_gives_none_of_the_range() -> None:
    sealed = sealed_small(CLEAR, 16)
    blob = bytearray(b"".join(sealed))
    blob[HEADER_SIZE + CHUNK] ^= 1
    damaged = opened(sealed, bytes(blob))
    assert damaged.read(0, 16) == CLEAR[:16]
    with pytest.raises(DamagedBlob, match="chunk 1"):
        damaged.read(0, 40)
