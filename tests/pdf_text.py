"""What stands written in a PDF of ours, as a reader that selects it would get it: one font, of 16-bit codes (PDF 1.7,
9.10.3)."""

from __future__ import annotations

import re
import zlib

_ESCAPED = {b"\\r": b"\r", b"\\n": b"\n", b"\\(": b"(", b"\\)": b")", b"\\\\": b"\\"}


def pdf_text(pdf: bytes) -> str:
    """Line by line."""
    streams = [_opened(found[1]) for found in re.finditer(rb"stream\n(.*?)\nendstream", pdf, re.DOTALL)]
    letters = {
        int(code, 16): chr(int(letter, 16))
        for stream in streams
        for code, letter in re.findall(rb"<([0-9A-F]{4})> <([0-9A-F]{4})>", stream)
    }
    written = [one for stream in streams for one in re.findall(rb"Td \((.*?)\) Tj", stream, re.DOTALL)]
    return "\n".join(_read(one, letters) for one in written)


def _opened(stream: bytes) -> bytes:
    try:
        return zlib.decompress(stream)
    except zlib.error:  # a photo, or the table of letters
        return stream if b"begincmap" in stream else b""


def _read(codes: bytes, letters: dict[int, str]) -> str:
    plain = re.sub(rb"\\[rn()\\]", lambda found: _ESCAPED[found[0]], codes)
    return "".join(letters[int.from_bytes(plain[at : at + 2], "big")] for at in range(0, len(plain), 2))
