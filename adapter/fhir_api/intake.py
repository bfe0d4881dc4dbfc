"""Photos and consents that a client creates at /fhir: handed to the use cases that the pages use, with their rules.

A Media brings its picture as `content.data` (base64), or as `content.url` of a Binary posted just before; that Binary
becomes the sealed original and is gone, since as posted it still holds what a clean copy leaves out.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any

from sqlalchemy import Connection, delete, select

from adapter import consent
from adapter.capture.receive import Upload, receive
from adapter.consent import POLICY_URI, ConsentForm, seal_evidence
from adapter.db.tables import binary, blob
from adapter.errors import BadInput, NotFound, Unprocessable
from adapter.fhir_api import writes
from adapter.fhir_api.answers import written_answer
from adapter.fhir_api.binary import check_context
from adapter.fhir_api.exchange import Access, Answer, Request
from adapter.fhir_api.server import FhirServer
from adapter.records import Resource, Stored, get, new_id
from adapter.records.binaries import POSTED, BinaryRow, get_binary, open_binary
from adapter.records.confinement import patient_of
from mappings.fhir_time import span
from mappings.media_to_capture import consent_to_form, media_to_capture

PICTURE_TYPES = frozenset({"image/jpeg", "image/png", "image/webp", "image/heic"})


def create_photo(server: FhirServer, request: Request) -> Answer:
    """POST /fhir/Media: 201, or 200 with the Media that the same identifier, condition or content made before."""
    resource = writes.read_body(server, request)
    if existing := _existing(server, request):
        return _known(server, request, existing)
    try:
        metadata = media_to_capture(resource)
    except ValueError as error:
        raise Unprocessable(str(error)) from None
    picture, posted = _picture(server, request, resource.get("content", {}))
    upload = Upload(picture, metadata, idempotency_key=_key(request, metadata), source="fhir")
    answer = receive(server.bridge, request.caller, upload)
    with server.bridge.db.transaction() as tx:
        stored = get(tx, "Media", answer.id)
        if posted is not None:
            _discard(tx, posted)
            gone = Access("delete", (f"Binary/{posted.id}",), patient_of(stored.resource))
            server.audit(tx, [gone], request.caller, request_id=request.request_id)
    if answer.status == 200:
        return _known(server, request, stored)
    return written_answer(request, 201, stored, server.base_url)


def create_consent(server: FhirServer, request: Request) -> Answer:
    """POST /fhir/Consent: one use, permitted or denied; evidence as `sourceAttachment.data`."""
    resource = writes.read_body(server, request)
    if existing := _existing(server, request):
        return _known(server, request, existing)
    bridge = server.bridge
    form = _form(server, resource)
    source = resource.get("sourceAttachment", {})
    evidence = seal_evidence(bridge, _decoded(source["data"]), source.get("contentType")) if "data" in source else None
    with bridge.db.transaction() as tx:
        stored = consent.record(tx, bridge, request.caller, form, source=evidence)[0]
    return written_answer(request, 201, stored, server.base_url)


def _existing(server: FhirServer, request: Request) -> Stored | None:
    if "if-none-exist" not in request.headers:
        return None
    with server.bridge.db.transaction() as tx:
        return writes.find_existing(server, tx, request)


def _known(server: FhirServer, request: Request, stored: Stored) -> Answer:
    """200 with what there is already; being told of it is an access."""
    access = Access("read", (stored.version_reference,), patient_of(stored.resource))
    with server.bridge.db.transaction() as tx:
        server.audit(tx, [access], request.caller, request_id=request.request_id)
    return written_answer(request, 200, stored, server.base_url)


def _key(request: Request, metadata: Resource) -> str | None:
    """The same condition or identifier is the same photo, whoever sends it twice and however close together."""
    named = [f"{one['system']}|{one['value']}" for one in metadata.get("identifiers", [])]
    told = request.headers.get("if-none-exist") or next(iter(named), None)
    return f"fhir:{hashlib.sha256(told.encode()).hexdigest()}" if told else None


def _picture(server: FhirServer, request: Request, content: Resource) -> tuple[bytes, BinaryRow | None]:
    """(bytes, the Binary they were posted as). Raises Unprocessable or NotFound."""
    if "data" in content:
        return _decoded(content["data"]), None
    reference = str(content.get("url", "")).removeprefix(f"{server.base_url}/").partition("/_history/")[0]
    if not reference.startswith("Binary/"):
        raise Unprocessable("send the picture as Media.content.data, or as the url of a Binary posted here before")
    with server.bridge.db.snapshot() as tx:
        try:
            row = get_binary(tx, reference.removeprefix("Binary/"))
            check_context(server, tx, request, row)
        except NotFound:
            raise Unprocessable(f"there is no {reference} here; post the picture first, then its Media") from None
        if row.security_context.partition("/")[0] not in ("", "Patient") or row.rendition != POSTED:
            raise Unprocessable(f"{reference} is part of another record; post the picture of this one")
        return open_binary(tx, server.bridge.vault, row).read(), row


def _discard(tx: Connection, posted: BinaryRow) -> None:
    """With its row goes the key of the blob; the file is swept up by `dermbridge scrub`."""
    tx.execute(delete(binary).where(binary.c.id == posted.id))
    if tx.execute(select(binary.c.id).where(binary.c.blob_id == posted.blob_id).limit(1)).first() is None:
        tx.execute(delete(blob).where(blob.c.id == posted.blob_id))


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except binascii.Error:
        raise BadInput("the data is not base64", issue_type="value") from None


def _form(server: FhirServer, resource: Resource) -> ConsentForm:
    try:
        given = consent_to_form(resource)
    except ValueError as error:
        raise Unprocessable(str(error)) from None
    bridge = server.bridge
    signed_at = span(given.pop("signed_at"), bridge.settings.zone)[0] if given.get("signed_at") else bridge.now()
    organization: Any = next(iter(resource.get("organization", [])), {"display": bridge.settings.site_name})
    policy = next((one["uri"] for one in resource.get("policy", []) if "uri" in one), POLICY_URI)
    given["id"] = given["id"] or new_id(bridge.now())
    given.pop("signed_at", None)
    return ConsentForm(**given, organization=organization, policy_uri=policy, signed_at=signed_at)
