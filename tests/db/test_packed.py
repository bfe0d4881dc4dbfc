"""Packed text comes back as it was, and damage to it is an error, never other text."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.db import packed
from adapter.db.packed import pack, unpack

WORDS_1 = "9e6e4519cc28e1e1f6506bf0bb5accffa9181ef1d943a7c6fc324d78104f7a0e"
STORED = "01c35f5721159bb500"


@given(st.text())
def test_text_comes_back_as_it_was(text: str) -> None:
    assert unpack(pack(text)) == text.encode()


def test_long_text_beyond_the_words_comes_back_as_it_was() -> None:
    text = "".join(map(str, range(20_000)))
    assert unpack(pack(text)) == text.encode()


def test_what_was_packed_before_can_still_be_read() -> None:
    assert hashlib.sha256(packed._WORDS[1]).hexdigest() == WORDS_1
    assert unpack(bytes.fromhex(STORED)) == b'{"resourceType":"AuditEvent","action":"R"}'


@pytest.mark.parametrize(
    "damaged", [b"", b"\x00", b"\x02abc", pack("a photo")[:-1], pack("a photo") + b"x", b"\x01\xff\xff"]
)
def test_damage_is_an_error(damaged: bytes) -> None:
    with pytest.raises(ValueError, match="packed text"):
        unpack(damaged)
