"""A small FHIR R4 server in memory on a loopback socket, with the faults real ones have.

`faults` are taken one by one: each entry is (method, path prefix, fault) and acts on the first request it fits.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Resource = dict[str, Any]
LOST = {"lost-before", "lost-after"}


class Ehr:
    """What the server holds and what it was asked."""

    def __init__(self, *, without: tuple[str, ...] = (), strict_binary: bool = False) -> None:
        self.resources: dict[tuple[str, str], Resource] = {}
        self.bytes: dict[str, tuple[str, bytes]] = {}
        self.requests: list[tuple[str, str]] = []
        self.faults: list[tuple[str, str, str]] = []
        self.without = without
        self.strict_binary = strict_binary
        self.corrupt = False
        self.guard = threading.Lock()
        self.url = ""
        self.connectors: list[Any] = []  # closed with the server

    def put(self, resource: Resource) -> Resource:
        kind, resource_id = resource["resourceType"], resource.get("id") or str(len(self.resources) + 1)
        before = self.resources.get((kind, resource_id), {}).get("meta", {}).get("versionId", "0")
        meta = resource.get("meta", {}) | {"versionId": str(int(before) + 1)}
        meta["lastUpdated"] = datetime(2026, 11, 23, 9, 30, tzinfo=UTC).isoformat()
        stored = resource | {"id": resource_id, "meta": meta}
        self.resources[kind, resource_id] = stored
        return stored

    def of_type(self, kind: str) -> list[Resource]:
        return [resource for (each, _), resource in self.resources.items() if each == kind]

    def matching(self, kind: str, query: str) -> list[Resource]:
        system, _, value = parse_qs(query)["identifier"][0].partition("|")
        wanted = {"system": system, "value": value}
        return [r for r in self.of_type(kind) if any(wanted.items() <= i.items() for i in r.get("identifier", []))]

    def writes(self, kind: str) -> int:
        return sum(method in {"POST", "PUT"} and path.split("/")[0] == kind for method, path in self.requests)

    def take_fault(self, method: str, path: str) -> str | None:
        for fault in self.faults:
            if fault[0] == method and path.startswith(fault[1]):
                self.faults.remove(fault)
                return fault[2]
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet, or each answer waits for a delayed ACK
    ehr: Ehr

    def log_message(self, *arguments: Any) -> None:
        pass

    def _do(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        parts = urlsplit(self.path)
        path = parts.path.removeprefix("/fhir/")
        with self.ehr.guard:
            searching = path.endswith("/_search")
            self.ehr.requests.append(("SEARCH" if searching else self.command, path))
            fault = self.ehr.take_fault(self.command, path)
            if fault == "lost-before":
                return self._hang_up()
            if fault and fault.isdigit():
                return self._answer(int(fault), {"resourceType": "OperationOutcome"}, {"Retry-After": "7"})
            if path.split("/")[0] in self.ehr.without:
                return self._answer(404, {"resourceType": "OperationOutcome"})
            query = body.decode() if searching else parts.query
            status, resource, headers = self._act(path, query, body)
            if fault == "lost-after":
                return self._hang_up()
            if fault == "empty":
                resource = None
            return self._answer(status, resource, headers)

    do_GET = do_POST = do_PUT = _do

    def _act(self, path: str, query: str, body: bytes) -> tuple[int, Any, dict[str, str]]:  # noqa: PLR0911
        kind, _, rest = path.partition("/")
        if path == "metadata":
            return 200, _statement(self.ehr), {}
        if self.command == "GET" and kind == "Binary":
            return self._binary(rest)
        if rest == "_search" or (self.command == "GET" and not rest):
            found = [{"resource": resource} for resource in self.ehr.matching(kind, query)]
            return 200, {"resourceType": "Bundle", "type": "searchset", "entry": found}, {}
        if self.command == "GET":
            resource = self.ehr.resources.get((kind, rest))
            return (200, resource, {}) if resource else (404, {"resourceType": "OperationOutcome"}, {})
        if self.command == "PUT":
            version = self.ehr.resources[kind, rest]["meta"]["versionId"]
            if self.headers.get("if-match") not in {None, f'W/"{version}"'}:
                return 412, {"resourceType": "OperationOutcome"}, {}
            return 200, self.ehr.put(json.loads(body)), {}
        return self._create(kind, body)

    def _create(self, kind: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        content_type = self.headers["content-type"]
        if kind == "Binary" and "json" not in content_type:
            if self.ehr.strict_binary:
                return 415, {"resourceType": "OperationOutcome"}, {}
            resource = self.ehr.put({"resourceType": "Binary", "contentType": content_type})
            self.ehr.bytes[resource["id"]] = (content_type, body)
            return 201, None, {"Location": f"{self.ehr.url}/Binary/{resource['id']}/_history/1"}
        if condition := self.headers.get("if-none-exist"):
            found = self.ehr.matching(kind, unquote(condition))
            if found:
                return 200, found[0], {"Location": f"{kind}/{found[0]['id']}"}
        resource = self.ehr.put(json.loads(body))
        if kind == "Binary":
            self.ehr.bytes[resource["id"]] = (resource["contentType"], base64.b64decode(resource.pop("data")))
        return 201, resource, {"Location": f"{kind}/{resource['id']}/_history/1"}

    def _binary(self, binary_id: str) -> tuple[int, Any, dict[str, str]]:
        if binary_id not in self.ehr.bytes:
            return 404, {"resourceType": "OperationOutcome"}, {}
        content_type, content = self.ehr.bytes[binary_id]
        return 200, content[:-1] + b"!" if self.ehr.corrupt else content, {"Content-Type": content_type}

    def _answer(self, status: int, resource: Any, headers: dict[str, str] | None = None) -> None:
        content = resource if isinstance(resource, bytes) else json.dumps(resource).encode() if resource else b""
        self.send_response(status)
        for name, value in ({"Content-Type": "application/fhir+json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def _hang_up(self) -> None:
        self.close_connection = True


def _statement(ehr: Ehr) -> Resource:
    codes = ("create", "read", "update", "search-type")
    kinds = ("Patient", "Encounter", "Binary", "Media", "DocumentReference", "Consent")
    interactions = [{"code": code} for code in codes]
    offered = [
        {"type": kind, "interaction": interactions, "conditionalCreate": True}
        for kind in kinds
        if kind not in ehr.without
    ]
    return {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "rest": [{"resource": offered}]}


@contextmanager
def running(ehr: Ehr) -> Iterator[Ehr]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"ehr": ehr}))
    server.daemon_threads = True
    server.block_on_close = False
    ehr.url = f"http://127.0.0.1:{server.server_port}/fhir"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield ehr
    finally:
        for connector in ehr.connectors:
            connector.close()
        server.shutdown()
        server.server_close()
        thread.join()
