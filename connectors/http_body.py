"""The body of a request and its Content-Type, from what is to be told: JSON, a form, a form with files, bytes."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

import orjson

_QUOTED: Final = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})  # as browsers do (HTML, multipart/form-data)


def encoded(
    *,
    json: Any = None,
    content: bytes | None = None,
    data: Mapping[str, str | Sequence[str]] | None = None,
    files: Mapping[str, tuple[str, bytes, str]] | None = None,
) -> tuple[bytes, dict[str, str]]:
    """(body, its Content-Type as a header or none). `files`: field -> (file name, bytes, media type)."""
    if files is not None:
        return _multipart(data or {}, files)
    if json is not None:
        return orjson.dumps(json), {"Content-Type": "application/json"}
    if data is not None:
        return urlencode(data, doseq=True).encode(), {"Content-Type": "application/x-www-form-urlencoded"}
    return content or b"", {}


def _multipart(
    fields: Mapping[str, str | Sequence[str]], files: Mapping[str, tuple[str, bytes, str]]
) -> tuple[bytes, dict[str, str]]:
    """RFC 7578."""
    boundary, parts = uuid.uuid4().hex, list[bytes]()
    for name, value in fields.items():
        parts += [f"--{boundary}\r\n{_disposition(name)}\r\n\r\n{value}\r\n".encode()]
    for name, (file_name, content, media_type) in files.items():
        head = f'{_disposition(name)}; filename="{file_name.translate(_QUOTED)}"\r\nContent-Type: {media_type}'
        parts += [f"--{boundary}\r\n{head}\r\n\r\n".encode(), content, b"\r\n"]
    parts += [f"--{boundary}--\r\n".encode()]
    return b"".join(parts), {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def _disposition(name: str) -> str:
    return f'Content-Disposition: form-data; name="{name.translate(_QUOTED)}"'
