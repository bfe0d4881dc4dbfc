"""Sealed objects: the bytes of one photo, encrypted in chunks, so that any range can be read and any change is seen.

A sealed object is a 44-byte header and then chunks. All numbers are unsigned and big-endian.

    offset  bytes  header
         0      8  magic, ASCII "DermBlob"
         8      4  format version, 1
        12      4  chunk size C: clear bytes per chunk, 1 to 16,777,216 (written as 262,144)
        16      8  clear size S: bytes of the whole clear object
        24     16  object id, the UUID as bytes (RFC 9562)
        40      4  nonce prefix, random

    offset           bytes   chunk i = 0 .. n-1, where n = max(1, ceil(S / C))
    44 + i * (C+16)  L + 16  AES-256-GCM of clear bytes [i*C, i*C + L), L = min(C, S - i*C); the tag is the last 16
                             nonce (12)            nonce prefix, then i as 8 bytes
                             associated data (41)  SHA-256 of the 44 header bytes, then i as 8 bytes,
                                                   then one byte: 1 for chunk n-1, else 0

The object ends after chunk n-1. An empty object has one chunk of zero clear bytes. Each object has its own random
256-bit data key, never used for anything else, hence a nonce never repeats under a key. The data key is not in the
file: it lies, wrapped, in the object's database row (see `keys`). Any change to header or chunk, any chunk missing,
moved, added or taken from another object, makes authentication fail.

AES-GCM: NIST SP 800-38D. The chunk construction follows STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015).
"""

from __future__ import annotations

import hashlib
import secrets
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from adapter.errors import DermBridgeError

MAGIC = b"DermBlob"
FORMAT_VERSION = 1
CHUNK_SIZE = 256 * 1024
MAX_CHUNK_SIZE = 16 * 1024 * 1024
TAG_SIZE = 16
KEY_SIZE = 32
# Chunks fetched by one read (8 MiB): few requests to a remote store, bounded memory.
CHUNKS_PER_READ = 32

_HEADER = struct.Struct(">8sIIQ16s4s")
HEADER_SIZE = _HEADER.size
_NONCE = struct.Struct(">4sQ")
_ASSOCIATED = struct.Struct(">32sQB")


class DamagedBlob(DermBridgeError):
    """A sealed object is not what was written: altered, cut, exchanged, or opened with another key."""

    def __init__(self, object_id: str, reason: str) -> None:
        super().__init__(
            f"The stored object {object_id} is damaged or not its own ({reason}); nothing of it is shown. "
            "Restore this object from the backup of the blob store."
        )
        self.object_id = object_id


class Reader(Protocol):
    """Where sealed bytes come from."""

    def read_range(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop), fewer where the object ends before stop."""
        ...


@dataclass(frozen=True)
class Layout:
    """What a header says, and where it puts each chunk."""

    chunk_size: int
    size: int
    object_id: uuid.UUID
    nonce_prefix: bytes

    @property
    def header(self) -> bytes:
        return _HEADER.pack(MAGIC, FORMAT_VERSION, self.chunk_size, self.size, self.object_id.bytes, self.nonce_prefix)

    @property
    def chunk_count(self) -> int:
        return max(1, -(-self.size // self.chunk_size))

    @property
    def cipher_size(self) -> int:
        return HEADER_SIZE + self.size + self.chunk_count * TAG_SIZE

    def cipher_offset(self, index: int) -> int:
        """Where chunk `index` starts; for the count of chunks, where the object ends."""
        return min(HEADER_SIZE + index * (self.chunk_size + TAG_SIZE), self.cipher_size)

    def binding(self, header_hash: bytes, index: int) -> tuple[bytes, bytes]:
        """Nonce and associated data of chunk `index`."""
        is_last = index == self.chunk_count - 1
        return _NONCE.pack(self.nonce_prefix, index), _ASSOCIATED.pack(header_hash, index, is_last)


@dataclass(frozen=True)
class Sealed:
    """A sealed object about to be written; iterating gives the header, then each encrypted chunk.

    Iterating again gives the same bytes again, so a failed write can simply be repeated.
    """

    data_key: bytes = field(repr=False)
    layout: Layout
    clear: memoryview = field(repr=False)

    @property
    def size(self) -> int:
        """Clear bytes."""
        return self.layout.size

    @property
    def cipher_size(self) -> int:
        """Bytes that iterating gives in all."""
        return self.layout.cipher_size

    def __iter__(self) -> Iterator[bytes]:
        layout, step = self.layout, self.layout.chunk_size
        header_hash = hashlib.sha256(layout.header).digest()
        gcm = AESGCM(self.data_key)
        yield layout.header
        for index in range(layout.chunk_count):
            nonce, associated = layout.binding(header_hash, index)
            yield gcm.encrypt(nonce, self.clear[index * step : (index + 1) * step], associated)


def seal(data: bytes | memoryview, object_id: str) -> Sealed:
    """Seal `data` under a fresh data key; nothing is encrypted before the result is iterated.

    `object_id` is a UUID as text. Raises ValueError for a writable memoryview: if its bytes changed between two
    iterations, two texts would be encrypted under one nonce. Promise not to change them with `.toreadonly()`.
    """
    clear = memoryview(data).cast("B")
    if not clear.readonly:
        raise ValueError("Sealing needs bytes that cannot change; pass bytes or memoryview(...).toreadonly().")
    layout = Layout(CHUNK_SIZE, clear.nbytes, uuid.UUID(object_id), secrets.token_bytes(4))
    return Sealed(secrets.token_bytes(KEY_SIZE), layout, clear)


class OpenBlob:
    """A sealed object opened for reading; every byte it gives has been authenticated.

    `size` (clear bytes) is the header's word until the first chunk has been read, which authenticates the header.
    """

    def __init__(self, reader: Reader, data_key: bytes, object_id: str) -> None:
        self._reader = reader
        self._object_id = object_id
        header = reader.read_range(0, HEADER_SIZE)
        self._layout = self._parse(header)
        self._header_hash = hashlib.sha256(header).digest()
        self._gcm = AESGCM(data_key)
        self.size = self._layout.size

    def read(self, start: int, stop: int) -> bytes:
        """Clear bytes [start, stop), clipped to the object, from the chunks that hold them and no others.

        Raises DamagedBlob. An empty range reads nothing.
        """
        if not 0 <= start <= stop:
            raise ValueError(f"A byte range needs 0 <= start <= stop, not {start} to {stop}.")
        stop = min(stop, self.size)
        if start >= stop:
            return b""
        step = self._layout.chunk_size
        first, after = start // step, (stop - 1) // step + 1
        clear = list(self._decrypt(first, after))
        clear[-1] = clear[-1][: stop - (after - 1) * step]
        clear[0] = clear[0][start - first * step :]
        return clear[0] if len(clear) == 1 else b"".join(clear)

    def iter_chunks(self) -> Iterator[bytes]:
        """The whole object in order, chunk by chunk, in bounded memory; bytes after its end count as damage.

        Raises DamagedBlob at the first chunk that is not authentic; what came before it was.
        """
        yield from self._decrypt(0, self._layout.chunk_count)
        if self._reader.read_range(self._layout.cipher_size, self._layout.cipher_size + 1):
            raise self._damaged("bytes follow its end")

    def _decrypt(self, first: int, after: int) -> Iterator[bytes]:
        for start in range(first, after, CHUNKS_PER_READ):
            yield from self._decrypt_span(start, min(start + CHUNKS_PER_READ, after))

    def _decrypt_span(self, first: int, after: int) -> Iterator[bytes]:
        offsets = [self._layout.cipher_offset(index) for index in range(first, after + 1)]
        cipher = memoryview(self._reader.read_range(offsets[0], offsets[-1]))
        if len(cipher) != offsets[-1] - offsets[0]:
            raise self._damaged("it is cut short")
        for index, (start, stop) in enumerate(pairwise(offsets), first):
            nonce, associated = self._layout.binding(self._header_hash, index)
            try:
                yield self._gcm.decrypt(nonce, cipher[start - offsets[0] : stop - offsets[0]], associated)
            except InvalidTag:
                raise self._damaged(f"chunk {index} is not authentic") from None

    def _parse(self, header: bytes) -> Layout:
        if len(header) != HEADER_SIZE:
            raise self._damaged("its header is cut short")
        magic, version, chunk_size, size, object_id, nonce_prefix = _HEADER.unpack(header)
        if magic != MAGIC:
            raise self._damaged("it does not start with DermBlob")
        if version != FORMAT_VERSION:
            raise self._damaged(f"format version {version} is unknown, this release reads {FORMAT_VERSION}")
        if not 0 < chunk_size <= MAX_CHUNK_SIZE:
            raise self._damaged(f"chunk size {chunk_size} is out of range")
        if object_id != uuid.UUID(self._object_id).bytes:
            raise self._damaged("it belongs to another object")
        return Layout(chunk_size, size, uuid.UUID(bytes=object_id), nonce_prefix)

    def _damaged(self, reason: str) -> DamagedBlob:
        return DamagedBlob(self._object_id, reason)


def open_sealed(reader: Reader, data_key: bytes, object_id: str) -> OpenBlob:
    """Open a sealed object; reads the header only. Raises DamagedBlob when it is not this object's."""
    return OpenBlob(reader, data_key, object_id)
