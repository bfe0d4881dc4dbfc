"""Captures over HTTP: POST a photo, follow it, and its bytes as original, clean copy, display and thumbnail."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from adapter import governance
from adapter.access import check_right, check_scope
from adapter.bridge import Bridge
from adapter.capture.receive import Upload, capture_status, original_blob_id, receive
from adapter.errors import BadInput, NotFound
from adapter.fhir_api.exchange import json_object
from adapter.records import Stored
from adapter.records.binaries import find_rendition, open_binary
from adapter.records.vault import iter_range
from adapter.web.bodies import FORM_OVERHEAD, content_type_of, parse_multipart, read_body
from adapter.web.gate import actor_of, get_photo, session_of
from adapter.web.pages import Web
from adapter.web.photo_card import SHOWN_BY_BROWSERS
from adapter.work import find_dead_reason

_DIGEST = re.compile(r"(?:^|[,\s])sha-256=:([A-Za-z0-9+/]{43}=):")
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_KEPT_PRIVATE = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, no-store",
    "Accept-Ranges": "bytes",
}


@dataclass(frozen=True)
class Content:
    """Bytes of a photo ready to be sent; `iter(start, stop)` gives them in pieces, also after the transaction."""

    content_type: str
    size: int
    etag: str
    iter: Callable[[int, int], Iterator[bytes]]


async def post_capture(web: Web, request: Request) -> Response:
    """201 with Location, 202 when held, 200 when this photo was stored before (design page, section 6)."""
    actor = actor_of(request)
    check_scope(actor, "c", "Media")  # before a body is taken in
    body = await read_body(request, web.bridge.settings.max_capture_bytes + FORM_OVERHEAD)
    upload = _read_upload(request, body)
    answer = await run_in_threadpool(receive, web.bridge, actor, upload)
    return JSONResponse(answer.body, answer.status, {"Location": f"/captures/{answer.id}"})


def _read_upload(request: Request, body: bytes) -> Upload:
    metadata = request.headers.get("dermbridge-metadata", "")
    if content_type_of(request) == "multipart/form-data":
        sent = parse_multipart(request.headers["content-type"], body)
        parts = {part.name: part for part in sent}
        if "image" not in parts:
            raise BadInput("the multipart body has no part 'image'")
        if len(parts) < len(sent):
            raise BadInput("a part of the multipart body comes twice; send each photo in a request of its own")
        body = parts["image"].content
        described = _json_object(parts["metadata"].content) if "metadata" in parts else _from_header(metadata)
    else:
        described = _from_header(metadata)
    return Upload(
        data=body,
        metadata=described,
        idempotency_key=request.headers.get("idempotency-key"),
        digest=_digest(request.headers.get("repr-digest")),
        source="web" if session_of(request) else "api",
    )


def _from_header(text: str) -> dict[str, Any]:
    """JSON in base64url, since names may hold any letter and headers may not."""
    if not text:
        return {}
    try:
        return _json_object(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except ValueError:  # binascii.Error, or letters beyond ASCII
        raise BadInput("the header DermBridge-Metadata is not base64url") from None


def _json_object(raw: bytes) -> dict[str, Any]:
    return json_object(raw, "the capture metadata")


def _digest(header: str | None) -> bytes | None:
    """SHA-256 of a Repr-Digest (RFC 9530); other algorithms are left alone. Raises BadInput when it is malformed."""
    if header is None or "sha-256=" not in header:
        return None
    match = _DIGEST.search(header)
    if match is None:
        raise BadInput("Repr-Digest must look like sha-256=:BASE64:")
    return base64.b64decode(match[1])


# --- reading --------------------------------------------------------------------------------------------------------


def get_capture(web: Web, request: Request) -> Response:
    bridge, actor = web.bridge, actor_of(request)
    with bridge.db.snapshot() as tx:
        media, patient_id = get_photo(tx, actor, "r", request.path_params["id"])
        status = capture_status(tx, media.id)
    governance.audit_look(bridge, actor, patient_id=patient_id, references=[media.version_reference], detail="status")
    return JSONResponse(status)


def get_bytes(web: Web, request: Request) -> Response:
    """One of `CONTENTS` of a photo. The read is in the audit log before the first byte leaves."""
    bridge, actor, name = web.bridge, actor_of(request), request.path_params["content"]
    if name not in CONTENTS:
        raise NotFound(f"a photo has {', '.join(CONTENTS)}")
    if name == "original":
        check_right(actor, "original")
    with bridge.db.snapshot() as tx:
        media, patient_id = get_photo(tx, actor, "r", request.path_params["id"])
        content = CONTENTS[name](tx, bridge, media)
    governance.audit_look(bridge, actor, patient_id=patient_id, references=[media.version_reference], detail=name)
    if request.headers.get("if-none-match", "") in (content.etag, "*"):  # seen all the same
        return Response(status_code=304, headers=_KEPT_PRIVATE | {"ETag": content.etag})
    return _answer(request, content)


def _original(tx: Connection, bridge: Bridge, media: Stored) -> Content:
    blob = bridge.vault.open(tx, original_blob_id(tx, media.id))
    content_type = media.resource["content"]["contentType"]
    return Content(content_type, blob.size, f'"{media.id}-original"', lambda start, stop: iter_range(blob, start, stop))


def _rendition(*preferred: str | None) -> Callable[[Connection, Bridge, Stored], Content]:
    """The first of these that exists; while a rendition is still being made, a larger one stands in."""

    def content(tx: Connection, bridge: Bridge, media: Stored) -> Content:
        for rendition in preferred:
            row = find_rendition(tx, media.reference, rendition)
            if row is not None and (row.content_type in SHOWN_BY_BROWSERS or rendition == preferred[0]):
                opened = open_binary(tx, bridge.vault, row)
                return Content(row.content_type, opened.size, f'"{row.sha256}"', opened.iter)
        why_never = find_dead_reason(tx, f"render:{media.id}")
        raise NotFound(why_never or "this view of the photo is being made; ask again in a moment")

    return content


CONTENTS: dict[str, Callable[[Connection, Bridge, Stored], Content]] = {
    "original": _original,
    "clean": _rendition(None),
    "display": _rendition("display", None),
    "thumbnail": _rendition("thumbnail", "display", None),
}


def _answer(request: Request, content: Content) -> Response:
    headers = _KEPT_PRIVATE | {"ETag": content.etag, "Content-Type": content.content_type}
    start, stop, status = 0, content.size, 200
    if span := _wanted_range(request, content):
        start, stop, status = *span, 206
        if start >= stop:
            return Response(status_code=416, headers=_KEPT_PRIVATE | {"Content-Range": f"bytes */{content.size}"})
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{content.size}"
    headers["Content-Length"] = str(stop - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    return StreamingResponse(content.iter(start, stop), status, headers)


def _wanted_range(request: Request, content: Content) -> tuple[int, int] | None:
    """[start, stop) of a single byte range (RFC 9110 section 14), empty when it lies outside; None for the whole."""
    match = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if match is None or not any(match.groups()) or request.headers.get("if-range", content.etag) != content.etag:
        return None
    first, last = match.groups()
    if not first:
        return max(0, content.size - int(last)), content.size
    if last and int(last) < int(first):
        return None  # RFC 9110: an invalid range is ignored
    return int(first), min(int(last) + 1, content.size) if last else content.size
