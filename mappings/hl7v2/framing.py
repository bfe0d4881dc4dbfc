"""MLLP framing, bytes only: `VT message FS CR` in and out.

This layer does not know HL7 beyond the names of the three segments a message or batch may begin with; it is used by
the MLLP server and client and tested by feeding it bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

VT = b"\x0b"
FS = b"\x1c"
CR = b"\r"
ACKNOWLEDGED = b"\x06"
REFUSED = b"\x15"
DEFAULT_MAX_MESSAGE_BYTES = 2 * 1024 * 1024

_MAX_NOISE_BYTES = 4096
_UTF8_BOM = b"\xef\xbb\xbf"
_AFTER_FS = frozenset(b"\r\n\x0b")
_NOISE = b"\r\n\t \x00\xef\xbb\xbf"
_HEADER_SEGMENTS = (b"MSH", b"FHS", b"BHS")
_RESTART = re.compile(rb"\x0b(?:\xef\xbb\xbf)?(?:MSH|FHS|BHS)")


class FramingError(ValueError):
    """The byte stream cannot be cut into messages any more; the connection must be closed. Holds no content."""


def frame(message: bytes) -> bytes:
    """`VT message FS CR` (HL7 v2.9.1 MLLP release 1).

    Raises FramingError when the message holds VT or FS, which MLLP cannot carry (so UTF-16 is not framed safely).
    """
    if VT in message or FS in message:
        raise FramingError("A message that contains the bytes VT or FS cannot be sent over MLLP.")
    return VT + message + FS + CR


class Deframer:
    """Cuts a byte stream into messages, whatever the chunking: `feed` bytes, then iterate `messages()`.

    Tolerated because real senders do it: LF or CR LF after FS, no CR when the next VT follows, a UTF-8 byte order mark
    before or after VT, a missing VT when the block starts with MSH, FHS or BHS, up to 4 KiB of bytes between frames,
    empty frames. Refused with FramingError, since guessing would lose or cut a message: a message above
    `max_message_bytes`, a new message starting before the last one was ended, a block without VT that is no message.
    Messages before the fault have been yielded by then; after it the deframer stays broken.
    """

    def __init__(self, max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES) -> None:
        self._max_message_bytes = max_message_bytes
        self._buffer = bytearray()
        self._start = 0
        self._scanned = 0
        self._fault: FramingError | None = None

    @property
    def is_mid_message(self) -> bool:
        """True when bytes have arrived that no yielded message accounts for."""
        return bool(bytes(self._buffer[self._start : self._start + 64]).strip(_NOISE))

    @property
    def held_bytes(self) -> int:
        """Bytes fed that no yielded message accounts for."""
        return len(self._buffer) - self._start

    @property
    def awaits_cr(self) -> bool:
        """True when the last byte is FS: some senders never send the CR, so the caller may `feed(CR)` after a pause."""
        return self._buffer.endswith(FS)

    def feed(self, chunk: bytes) -> None:
        """Append bytes as they came from the peer."""
        del self._buffer[: self._start]
        self._scanned -= self._start
        self._start = 0
        self._buffer += chunk

    def messages(self) -> Iterator[bytes]:
        """Complete messages, without framing or byte order mark; stopping early loses nothing.

        Raises FramingError (see the class).
        """
        if self._fault:
            raise self._fault
        while (end := self._find_end()) >= 0:
            block = bytes(self._buffer[self._start : end])
            self._start = self._scanned = end + 1
            if message := self._message_in(block):
                yield message
        self._check_pending()

    def _find_end(self) -> int:
        """Index of the FS ending the next block, or -1. An FS inside text (not followed by CR, LF, VT) is content."""
        while (fs := self._buffer.find(FS, self._scanned)) >= 0:
            if fs + 1 == len(self._buffer):
                self._scanned = fs
                return -1
            if self._buffer[fs + 1] in _AFTER_FS:
                return fs
            self._scanned = fs + 1
        self._scanned = len(self._buffer)
        return -1

    def _message_in(self, block: bytes) -> bytes:
        message = self._without_prefix(block)
        if len(message) > self._max_message_bytes:
            raise self._broken(self._too_large())
        if _RESTART.search(message):
            raise self._broken("A new message began before FS CR ended the last one; nothing of the last was accepted.")
        return message

    def _without_prefix(self, block: bytes) -> bytes:
        bare = block.lstrip(_NOISE)
        if bare.startswith(_HEADER_SEGMENTS):
            return bare
        noise, vt, message = block.partition(VT)
        if vt:
            self._check_noise(noise)
            return message.removeprefix(_UTF8_BOM)
        if bare:
            raise self._broken("A block ended by FS CR has no VT and does not begin with MSH, FHS or BHS.")
        return b""

    def _check_pending(self) -> None:
        pending = len(self._buffer) - self._start
        if pending > self._max_message_bytes + _MAX_NOISE_BYTES:
            raise self._broken(self._too_large())
        if pending > _MAX_NOISE_BYTES:
            head = bytes(self._buffer[self._start : self._start + _MAX_NOISE_BYTES])
            if VT not in head and not head.lstrip(_NOISE).startswith(_HEADER_SEGMENTS):
                self._check_noise(head)

    def _check_noise(self, noise: bytes) -> None:
        if len(noise) >= _MAX_NOISE_BYTES:
            raise self._broken(f"More than {_MAX_NOISE_BYTES} bytes arrived outside an MLLP frame.")

    def _too_large(self) -> str:
        return f"The message is larger than the limit of {self._max_message_bytes} bytes (max_message_bytes)."

    def _broken(self, reason: str) -> FramingError:
        self._fault = FramingError(reason)
        return self._fault
