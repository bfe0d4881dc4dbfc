"""Request bodies, held in memory only: a photo must never reach a temporary file in the clear.

Starlette spools multipart parts above 1 MB to disk, so parts are taken from python-multipart's parser directly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect, Request

from adapter.errors import BadInput, TooLarge, UnsupportedMedia

MOST_PARTS = 200
FORM_OVERHEAD = 2**20
STALL_SECONDS = 30.0


@dataclass(frozen=True)
class Part:
    """One part of a multipart body; `filename` None: an ordinary field."""

    name: str
    filename: str | None
    content_type: str
    content: bytes


@dataclass(frozen=True)
class Form:
    """Fields of a form and the files sent with it."""

    fields: tuple[tuple[str, str], ...] = ()
    files: tuple[Part, ...] = ()

    def get(self, name: str, default: str = "") -> str:
        return next((value for key, value in self.fields if key == name), default).strip()

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]

    def file(self, name: str) -> Part | None:
        """The file of that field, None when it was left empty."""
        return next((part for part in self.files if part.name == name and part.content), None)


async def read_body(request: Request, most: int) -> bytes:
    """Raises TooLarge as soon as the limit is passed, BadInput when the sender breaks off."""
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared[:18]) <= most:
        pieces, size, now = [], 0, asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(STALL_SECONDS) as stall:  # however slow, who goes on sending is waited for
                renewed = now()
                async for piece in request.stream():
                    pieces.append(piece)
                    size += len(piece)
                    if size > most:
                        break
                    if now() > renewed + 1:  # a timer for every piece would cost more than taking it in
                        renewed = now()
                        stall.reschedule(renewed + STALL_SECONDS)
                else:
                    return b"".join(pieces)
        except ClientDisconnect:  # as phones do; nobody is left to read the answer
            raise BadInput("the connection ended before the whole request was here; send it again") from None
        except TimeoutError:
            raise BadInput(f"nothing more of this came for {STALL_SECONDS:g} seconds; send it again") from None
    raise TooLarge(f"a request may have at most {most} bytes here")


def content_type_of(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def parse_form(content_type: str, body: bytes) -> Form:
    """Raises BadInput or UnsupportedMedia."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        parts = parse_multipart(content_type, body)
        fields = tuple((part.name, _text(part.content)) for part in parts if part.filename is None)
        return Form(fields, tuple(part for part in parts if part.filename is not None))
    if kind == "application/x-www-form-urlencoded":
        return Form(tuple(parse_query(_text(body))))
    if not body:
        return Form()
    raise UnsupportedMedia("send a form: application/x-www-form-urlencoded or multipart/form-data")


def parse_query(text: str) -> list[tuple[str, str]]:
    """Names and values of an encoded form or query. Raises BadInput."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=5000)
    except ValueError:
        raise BadInput("the form has too many fields") from None
    check_storable(text for pair in pairs for text in pair)
    return pairs


def check_storable(texts: Iterable[str]) -> None:
    """PostgreSQL keeps no U+0000, and no name, number or id has one. Raises BadInput."""
    if any("\x00" in text for text in texts):
        raise BadInput("neither a form nor an address may hold the character U+0000")


@dataclass
class _Collector:
    """Callbacks of the parser; what it has seen so far."""

    parts: list[Part] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    name: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    content: bytearray = field(default_factory=bytearray)
    is_whole: bool = False

    def on_end(self) -> None:
        self.is_whole = True

    def on_part_begin(self) -> None:
        self.headers, self.content = {}, bytearray()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self.name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def on_header_end(self) -> None:
        self.headers[self.name.decode("latin-1").lower()] = self.value.decode("latin-1")
        self.name, self.value = bytearray(), bytearray()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.content += data[start:end]

    def on_part_end(self) -> None:
        if len(self.parts) >= MOST_PARTS:
            raise BadInput(f"a form may have at most {MOST_PARTS} parts")
        _, options = parse_options_header(self.headers.get("content-disposition", ""))
        if b"name" not in options:
            raise BadInput("a part of the form has no name")
        filename = options.get(b"filename")
        self.parts.append(
            Part(
                name=_text(options[b"name"]),
                filename=None if filename is None else _text(filename),
                content_type=self.headers.get("content-type", "").partition(";")[0].strip().lower(),
                content=bytes(self.content),
            )
        )


def parse_multipart(content_type: str, body: bytes) -> list[Part]:
    """The parts of a multipart/form-data body (RFC 7578). Raises BadInput."""
    _, options = parse_options_header(content_type)
    if not (boundary := options.get(b"boundary")):
        raise BadInput("the multipart body names no boundary")
    seen = _Collector()
    names = ("part_begin", "part_data", "part_end", "header_field", "header_value", "header_end", "end")
    callbacks = {f"on_{name}": getattr(seen, f"on_{name}") for name in names}
    try:
        parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError:  # also for a boundary longer than any
        raise BadInput("the multipart body is malformed; send it again") from None
    if not seen.is_whole:  # what is missing may be whose photo it is
        raise BadInput("the multipart body ends before its last boundary; send it again")
    return seen.parts


def _text(raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise BadInput("the form is not UTF-8") from None
    check_storable([text])
    return text
