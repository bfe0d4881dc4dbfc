"""Text kept deflated against words it is known to share: an AuditEvent of 1.7 kB takes some 150 bytes.

What is hashed, served and exported is the text; only the column is packed. A packed text is one byte that says which
words were used, then a raw deflate stream (RFC 1951) with them as preset dictionary. Words are never changed, since
what is stored needs them: better ones come under the next number.
"""

from __future__ import annotations

import zlib
from importlib.resources import files

from sqlalchemy import Dialect, LargeBinary, TypeDecorator

_WORDS = {1: (files("adapter.db") / "packed_words_1.txt").read_bytes()}
_NEWEST = max(_WORDS)
_WINDOW = 14  # 16 KiB: the words fit
_PRIMED = zlib.compressobj(3, zlib.DEFLATED, -_WINDOW, zdict=_WORDS[_NEWEST])  # copied: reading the words costs more


def pack(text: str) -> bytes:
    deflate = _PRIMED.copy()
    return bytes((_NEWEST,)) + deflate.compress(text.encode()) + deflate.flush()


def unpack(packed: bytes) -> bytes:
    """The text in UTF-8. Raises ValueError for anything that `pack` did not make."""
    try:
        inflate = zlib.decompressobj(-_WINDOW, _WORDS[packed[0]])
        text = inflate.decompress(packed[1:])
    except (IndexError, KeyError, zlib.error):
        raise ValueError("this is no packed text") from None
    if not inflate.eof or inflate.unused_data:
        raise ValueError("this packed text was cut off or continued")
    return text


class Packed(TypeDecorator[str]):
    """A text column that is kept packed."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Dialect) -> bytes | None:
        return None if value is None else pack(value)

    def process_result_value(self, value: bytes | None, _dialect: Dialect) -> str | None:
        return None if value is None else unpack(value).decode()
