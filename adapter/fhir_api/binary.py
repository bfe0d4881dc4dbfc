"""Binary: bytes by default, the JSON form when asked (http://hl7.org/fhir/R4/binary.html).

A Binary is as visible as its security context, and is served so that no browser runs anything in it.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select

from adapter.access import check_scope
from adapter.errors import BadInput, Forbidden, OutOfReach, TooLarge, UnsupportedMedia
from adapter.fhir_api.answers import json_answer
from adapter.fhir_api.exchange import Access, Answer, Request, http_date, is_unchanged
from adapter.fhir_api.reads import patients_within, reach_of
from adapter.records.binaries import POSTED, BinaryRow, OpenBinary, create_binary, get_binary, open_binary, whole_blob
from adapter.records.confinement import is_within
from adapter.records.ids import new_id
from adapter.records.search_parameters import TABLES
from adapter.records.vault import SealedBlob
from mappings.fhir_time import fhir_instant

if TYPE_CHECKING:
    from adapter.fhir_api.server import FhirServer

BINARY_TYPES: dict[str, tuple[int, bytes]] = {  # what is taken, and the bytes it must show: (offset, magic)
    "image/jpeg": (0, b"\xff\xd8\xff"),
    "image/png": (0, b"\x89PNG\r\n\x1a\n"),
    "image/webp": (8, b"WEBP"),
    "image/heic": (4, b"ftyp"),
    "video/mp4": (4, b"ftyp"),
    "application/pdf": (0, b"%PDF-"),
    "application/dicom": (128, b"DICM"),
}
_SUFFIXES = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp", "image/heic": "heic"}
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, no-store",
    "Accept-Ranges": "bytes",
}


@dataclass(frozen=True)
class Upload:
    """Bytes that are durable already, not yet owned by a row."""

    sealed: SealedBlob
    content_type: str
    security_context: str | None


# --- read -----------------------------------------------------------------------------------------------------------


def read_binary(server: FhirServer, tx: Connection, request: Request, _prepared: Any) -> Answer:
    row = get_binary(tx, request.segments[1])
    patient_id = check_context(server, tx, request, row)
    shown = (row.security_context,) if row.security_context.startswith(("Media/", "Consent/")) else ()
    access = Access("read", (f"Binary/{row.id}", *shown), patient_id)  # who saw a photo is asked by its Media
    etag = 'W/"1"' if request.wants_json else f'"{row.sha256}"'
    headers = _SAFE | {"ETag": etag, "Last-Modified": http_date(row.created_at)}
    if is_unchanged(request, etag, row.created_at):
        return Answer(304, headers=headers, accesses=(access,))
    opened = open_binary(tx, server.bridge.vault, row)
    if request.wants_json:
        return json_answer(200, _as_resource(row, opened.read()), headers=headers, accesses=(access,))
    return _bytes_answer(request, row, opened, headers, access)


def check_context(server: FhirServer, tx: Connection, request: Request, row: BinaryRow) -> str | None:
    """The patient whose bytes they are. Raises NotFound or Forbidden as reading the context itself would."""
    resource_type, _, resource_id = row.security_context.partition("/")
    if resource_type in TABLES:
        check_scope(request.caller, "r", resource_type, some=True)
        reached = reach_of(server, tx, request).holds("r", resource_type, resource_id)
    else:
        reached = request.caller.patient_id is None and not row.security_context  # pictures have addresses of their own
    if not reached:
        raise OutOfReach(f"there is no Binary/{row.id}", reference=row.security_context or None)
    return _patient_of_context(tx, row.security_context)


def _bytes_answer(
    request: Request, row: BinaryRow, opened: OpenBinary, headers: dict[str, str], access: Access
) -> Answer:
    name = f"{row.id}.{_SUFFIXES.get(row.content_type, 'bin')}"
    headers = headers | {"Content-Type": row.content_type, "Content-Disposition": f"inline; filename={name}"}
    if row.security_context:
        headers["X-Security-Context"] = row.security_context
    span = _wanted_range(request, opened.size, headers["ETag"])
    if span is None:
        headers["Content-Length"] = str(opened.size)
        return Answer(200, headers=headers, accesses=(access,), stream=opened.iter(0, opened.size))
    start, stop = span
    if start >= stop:
        return Answer(416, headers={"Content-Range": f"bytes */{opened.size}", **_SAFE}, accesses=(access,))
    headers["Content-Length"] = str(stop - start)
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{opened.size}"
    return Answer(206, headers=headers, accesses=(access,), stream=opened.iter(start, stop))


def _wanted_range(request: Request, size: int, etag: str) -> tuple[int, int] | None:
    """[start, stop) of a single byte range (RFC 9110 section 14), empty when it lies outside; None for the whole."""
    match = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if match is None or not any(match.groups()) or request.headers.get("if-range", etag) != etag:
        return None
    first, last = match.groups()
    if not first:
        return (max(0, size - int(last)), size) if int(last) else (size, size)
    if last and int(last) < int(first):
        return None  # RFC 9110: an invalid range is ignored
    return int(first), min(int(last) + 1, size) if last else size


def _as_resource(row: BinaryRow, content: bytes) -> dict[str, Any]:
    resource: dict[str, Any] = {
        "resourceType": "Binary",
        "id": row.id,
        "meta": {"versionId": "1", "lastUpdated": fhir_instant(row.created_at)},
        "contentType": row.content_type,
    }
    if row.security_context:
        resource["securityContext"] = {"reference": row.security_context}
    return resource | {"data": base64.b64encode(content).decode()}


# --- create ---------------------------------------------------------------------------------------------------------


def read_upload(server: FhirServer, request: Request) -> Upload:
    """Bytes of a raw or a JSON body, checked and sealed before the transaction begins."""
    context: str | None
    if request.has_json_body:
        resource = request.json()
        server.check_resource(resource)
        content_type, context = resource["contentType"], resource.get("securityContext", {}).get("reference")
        try:
            content = base64.b64decode(resource.get("data", ""), validate=True)
        except binascii.Error:
            raise BadInput("Binary.data is not base64", issue_type="value", expression="Binary.data") from None
    else:
        content_type, context, content = request.content_type, request.headers.get("x-security-context"), request.body
    _check_content(server, content_type, content)
    return Upload(server.bridge.vault.seal(content), content_type, context)


def create_from_upload(server: FhirServer, tx: Connection, request: Request, prepared: Any) -> Answer:
    upload: Upload = prepared
    context = _own_context(server, tx, request, upload.security_context)
    at = server.bridge.now()
    patient_id = _patient_of_context(tx, context)
    sealed, content_type = upload.sealed, upload.content_type
    server.bridge.vault.keep(tx, sealed, content_type=content_type, patient_id=patient_id, at=at)
    binary_id = request.assigned_id or new_id()
    row = whole_blob(sealed, binary_id=binary_id, content_type=content_type, security_context=context, at=at)
    create_binary(tx, replace(row, rendition=POSTED))
    headers = {
        "Location": f"{server.base_url}/Binary/{row.id}/_history/1",
        "ETag": 'W/"1"',
        "Last-Modified": http_date(at),
    }
    return Answer(201, headers=headers, accesses=(Access("create", (f"Binary/{row.id}",), patient_id),))


def _own_context(server: FhirServer, tx: Connection, request: Request, context: str | None) -> str:
    """A caller confined to a patient can only add bytes about that patient."""
    reference = (context or "").removeprefix(f"{server.base_url}/").partition("/_history/")[0]
    if not reference and request.caller.patient_id:
        return f"Patient/{request.caller.patient_id}"
    if len(reference) > 128:
        raise BadInput("the security context must be a reference of this server, such as Media/1")
    within = patients_within(tx, request)
    if within is not None and not is_within(tx, *_split(reference), within):
        raise Forbidden("this session may write only about the patient it was launched for")
    return reference


def _split(reference: str) -> tuple[str, str]:
    resource_type, _, resource_id = reference.partition("/")
    return resource_type, resource_id


def _patient_of_context(tx: Connection, reference: str) -> str | None:
    resource_type, resource_id = _split(reference)
    if resource_type == "Patient":
        return resource_id
    table = TABLES.get(resource_type)
    if table is None or "patient" not in table.c:
        return None
    return tx.execute(select(table.c.patient).where(table.c.id == resource_id)).scalar()


def _check_content(server: FhirServer, content_type: str, content: bytes) -> None:
    """Raises UnsupportedMedia for a type that is not taken, BadInput for bytes that are not of their type."""
    if content_type not in server.binary_types:
        raise UnsupportedMedia(f"send one of {', '.join(server.binary_types)}")
    if len(content) > server.bridge.settings.max_capture_bytes:
        raise TooLarge(f"a Binary may have at most {server.bridge.settings.max_capture_bytes} bytes")
    offset, magic = server.binary_types[content_type]
    if not content or content[offset : offset + len(magic)] != magic:
        raise BadInput(f"the bytes are not {content_type}", issue_type="value")
