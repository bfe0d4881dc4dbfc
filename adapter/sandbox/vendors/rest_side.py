"""The proprietary routes of a simulated vendor, matched against its behaviour's table."""

from __future__ import annotations

import base64
import json
import re
from email import message_from_bytes
from email.policy import HTTP
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from adapter.sandbox.vendors.behaviour import RestRoute
from adapter.sandbox.vendors.engine import Document, Request, Response, at, refused

if TYPE_CHECKING:
    from adapter.sandbox.vendors.engine import Vendor

_BIRTH_DATE = re.compile(r'"[^"]*<(?:year|month|day)>[^"]*"')  # as a template has it


def respond(vendor: Vendor, request: Request) -> Response:
    """The first route that fits answers; what was put under a signed address is read there by anybody."""
    if request.method == "GET" and request.path in vendor.kept:
        return Response(200, vendor.kept[request.path], {"Content-Type": "image/jpeg"})
    for route in vendor.behaviour.rest:
        if route.method == request.method and (found := _match(route.path, request.path)):
            return _act(vendor, route, request, found | request.query)
    return Response(404)


def _match(pattern: str, path: str) -> dict[str, str] | None:
    expression = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern)
    found = re.fullmatch(expression, path)
    return None if found is None else {name: unquote(value) for name, value in found.groupdict().items()} | {"_": ""}


def _act(vendor: Vendor, route: RestRoute, request: Request, known: dict[str, Any]) -> Response:  # noqa: PLR0911
    mrn = _number(known.get(route.mrn, ""))
    if route.does == "find-patient":
        if mrn not in vendor.patients:
            return Response(
                route.status, _filled(route.item or "[]", known).encode(), {"Content-Type": "application/json"}
            )
        if not (born := vendor.patients[mrn]):
            route = route.model_copy(update={"answer": _BIRTH_DATE.sub('""', route.answer)})
        return _said(route, known | {"mrn": mrn} | dict(zip(("year", "month", "day"), born.split("-"), strict=False)))
    if route.does == "say":
        return _said(route, known | {"address": vendor.address, "id": vendor.new_id()})
    if route.does == "keep-bytes":
        vendor.kept[request.path] = request.body
        return Response(200)
    if route.does == "list":
        held = [each for each in vendor.documents.values() if each.mrn == mrn and each.active]
        if not held and route.empty:
            return refused(route.empty)
        items = ", ".join(_filled(route.item, {"id": each.document_id, "name": each.name}) for each in held)
        return _said(route, known | {"items": items})
    if route.does in {"read", "delete"}:
        document = vendor.documents.get(known["document"])
        if document is None or not document.active:
            return Response(404)
        if route.does == "delete":
            document.active = False
            return Response(200)
        return Response(200, document.content, {"Content-Type": document.content_type})
    return _store(vendor, route, request, known, mrn)


def _store(vendor: Vendor, route: RestRoute, request: Request, known: dict[str, Any], mrn: str) -> Response:
    """File a document; as some vendors do, also under a patient nobody knows."""
    fields, content, content_type = _parts(request, route.file) if route.file else (json.loads(request.body), b"", "")
    if route.does == "store-kept":
        mrn = _number(str(at(fields, route.mrn)))
        content_type = str(at(fields, "content.0.attachment.contentType"))
        content = vendor.kept.get(urlsplit(str(at(fields, "content.0.attachment.url"))).path, b"")
    missing = any(at(fields, name) in {None, ""} for name in route.required)
    if missing or not content or (route.accepts and content_type not in route.accepts):
        return refused(route.refusal)
    document_id = vendor.new_id()
    name = str(at(fields, route.name) or fields.get("filename", ""))
    vendor.documents[document_id] = Document(document_id, mrn, content, content_type, name)
    return _said(route, known | {"id": document_id})


def _parts(request: Request, file: str) -> tuple[dict[str, str], bytes, str]:
    """Form fields (the file's own name as `filename`), the file and its type."""
    if request.headers.get("content-type", "").startswith("application/json"):
        told = json.loads(request.body)
        return told, base64.b64decode(str(at(told, file) or "")), "image/jpeg"
    head = b"Content-Type: " + request.headers.get("content-type", "").encode() + b"\r\n\r\n"
    fields: dict[str, str] = {}
    content, content_type = b"", ""
    for part in message_from_bytes(head + request.body, policy=HTTP).iter_parts():
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        if name == file:
            content, content_type = payload, part.get_content_type()
            fields["filename"] = part.get_filename() or ""
        else:
            fields[str(name)] = payload.decode()
    return fields, content, content_type


def _number(text: str) -> str:
    """The patient number in an id or a reference."""
    return text.rpartition("/")[2].removeprefix("pat-")


def _said(route: RestRoute, known: dict[str, Any]) -> Response:
    return Response(route.status, _filled(route.answer, known).encode(), {"Content-Type": "application/json"})


def _filled(template: str, known: dict[str, Any]) -> str:
    """`template` with `<name>` replaced; JSON has braces of its own."""
    return re.sub(r"<(\w+)>", lambda found: str(known.get(found[1], "")), template)
