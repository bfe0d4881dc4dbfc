"""One FHIR server: which types allow what is data, what a write means belongs to the use case that hands in a writer.

A request is checked (type offered, interaction offered, scope granted), its body validated outside any transaction,
then handled: writes with their audit in one transaction; reads in a snapshot, their audit durable before the answer
leaves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
from sqlalchemy import Connection

from adapter.access import Actor, check_scope
from adapter.access.policy import Letter
from adapter.bridge import Bridge
from adapter.errors import DermBridgeError, NotAllowed, NotFound
from adapter.fhir_api import binary, patient_feed, reads, writes
from adapter.fhir_api.answers import error_answer, json_answer
from adapter.fhir_api.bundle import process_bundle
from adapter.fhir_api.capability import capability_statement
from adapter.fhir_api.definitions import Definitions, answer_definition
from adapter.fhir_api.exchange import Access, Answer, Request
from adapter.records.extraction import Resource
from adapter.records.paging import PageCodec
from mappings.fhir_check import InvalidResource, check_resource


class Audit(Protocol):
    """Records what one request did, in the caller's transaction; a search may touch fifty patients at once.

    Without one it only looked: durable when this returns.
    """

    def __call__(self, tx: Connection | None, accesses: Sequence[Access], actor: Actor, *, request_id: str) -> None: ...


@dataclass(frozen=True)
class Operation:
    """A `$` operation: handles the request itself, transactions, rights and audit included."""

    handle: Callable[[Request], Answer]
    definition: str
    affects_state: bool = False


@dataclass(frozen=True)
class Interaction:
    """`letter` is the scope it needs; `prepare` runs before any transaction."""

    letter: Letter
    handle: Callable[[Any, Connection, Request, Any], Answer]
    writes: bool = False
    prepare: Callable[[Any, Request], Any] = lambda _server, _request: None


INTERACTIONS: dict[str, Interaction] = {
    "read": Interaction("r", reads.read),
    "vread": Interaction("r", reads.vread),
    "history-instance": Interaction("r", reads.read_history),
    "search-type": Interaction("s", reads.search_type),
    "create": Interaction("c", writes.create, True, writes.read_body),
    "update": Interaction("u", writes.update, True, writes.read_body),
    "delete": Interaction("d", writes.delete, True),
    "update-by-identifier": Interaction("u", patient_feed.put_patient, True, patient_feed.read_named),
}
BINARY_INTERACTIONS: dict[str, Interaction] = {
    "read": Interaction("r", binary.read_binary),
    "create": Interaction("c", binary.create_from_upload, True, binary.read_upload),
}


@dataclass(frozen=True)
class FhirServer:
    """`interactions`: type -> codes of http://hl7.org/fhir/R4/valueset-type-restful-interaction.html, besides
    `update-create` where a client may choose an id, and `update-by-identifier` for a patient feed. `writers` replace
    plain storing for (type, create | update | delete); `operations` are found by (type or None, `$name`);
    `definitions` are our own canonical resources by type. `creators` answer a POST to their type themselves,
    transactions and audit included. `refused` is told every error that somebody known is answered with. `settle` brings
    the audit log up to date before it is read.
    """

    bridge: Bridge
    interactions: Mapping[str, frozenset[str]]
    audit: Audit
    page_secret: bytes = field(repr=False)
    base_url: str
    refused: Callable[[Actor, Exception, str], None] = lambda _actor, _error, _asked: None
    settle: Callable[[], None] = lambda: None
    description: str = "Clinical photographs"
    version: str | None = None
    cors: bool = False
    writers: Mapping[tuple[str, str], writes.Writer] = field(default_factory=dict)
    operations: Mapping[tuple[str | None, str], Operation] = field(default_factory=dict)
    if_match_required: frozenset[str] = frozenset({"Media", "Consent"})
    creators: Mapping[str, Callable[[FhirServer, Request], Answer]] = field(default_factory=dict)
    definitions: Definitions = field(default_factory=dict)
    binary_types: Mapping[str, tuple[int, bytes]] = field(default_factory=lambda: binary.BINARY_TYPES)
    check_resource: Callable[[Resource], None] = check_resource
    codec: PageCodec = field(init=False)
    _statement: Answer = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "codec", PageCodec(self.page_secret, self.bridge.now))
        statement = capability_statement(self)
        etag = f'W/"{hashlib.sha256(orjson.dumps(statement)).hexdigest()[:16]}"'
        object.__setattr__(self, "_statement", json_answer(200, statement, headers={"ETag": etag}))

    def answer(self, request: Request) -> Answer:
        """Every expected error as an OperationOutcome; in a thread, never in the event loop."""
        try:
            return self._answer(request)
        except (DermBridgeError, InvalidResource) as error:
            if request.actor is not None:
                self.refused(request.actor, error, f"{request.method} /{'/'.join(request.segments[:2])}")
            return error_answer(error)

    def _answer(self, request: Request) -> Answer:
        if not (request.segments[:1] == ("Binary",) and request.method in ("GET", "HEAD")):
            request.check_acceptable()
        if request.segments == ("metadata",) and request.method in ("GET", "HEAD"):
            known = request.headers.get("if-none-match") == self._statement.headers["ETag"]
            return Answer(304, headers=self._statement.headers) if known else self._statement
        if request.segments and request.segments[-1].startswith("$"):
            return self._operate(request)
        if request.segments[:1] and request.segments[0] in self.definitions:
            return answer_definition(self.definitions, request, self.base_url)
        if not request.segments and request.method == "POST":
            _ = request.caller
            return process_bundle(self, request)
        return self.perform(request)

    def perform(self, request: Request, tx: Connection | None = None, prepared: Any = None) -> Answer:
        """One interaction; in `tx` when it is part of a transaction Bundle. Raises DermBridgeError, InvalidResource."""
        interaction = self._interaction(request)
        if interaction is INTERACTIONS["create"] and (creator := self.creators.get(request.segments[0])):
            if tx is not None:
                raise NotAllowed(f"post a {request.segments[0]} by itself or in a batch, not in a transaction")
            return creator(self, request)
        if prepared is None:
            prepared = interaction.prepare(self, request)
        if tx is not None:
            return self._audited(tx, request, interaction.handle(self, tx, request, prepared))
        if interaction.writes:
            with self.bridge.db.transaction() as writing:
                return self._audited(writing, request, interaction.handle(self, writing, request, prepared))
        self.settle_for(request)
        with self.bridge.db.snapshot() as reading:
            answer = interaction.handle(self, reading, request, prepared)
        return self._audited(None, request, answer)

    def prepare(self, request: Request) -> Any:
        """What `perform` does before its transaction: check the rights, validate the body, seal bytes."""
        return self._interaction(request).prepare(self, request)

    def settle_for(self, request: Request) -> None:
        """Outside a transaction, before `request` reads the log."""
        if request.segments[:1] == ("AuditEvent",):
            self.settle()

    def check_interaction(self, request: Request, code: str, resource_type: str) -> None:
        """Raises NotFound for a type not served, NotAllowed, NotAuthenticated or Forbidden."""
        caller = request.caller
        if resource_type not in self.interactions:
            raise NotFound("resources of this type are not served here", issue_type="not-supported")
        if code not in self.interactions[resource_type]:
            raise NotAllowed(f"{code} is not offered for {resource_type}")
        some = resource_type != "Binary"  # of a Binary its security context decides, not its own content
        check_scope(caller, INTERACTIONS[code].letter, resource_type, some=some)

    def _interaction(self, request: Request) -> Interaction:
        code = _interaction_code(request)
        resource_type = request.segments[0]
        self.check_interaction(request, code, resource_type)
        offered = BINARY_INTERACTIONS if resource_type == "Binary" else INTERACTIONS
        if code not in offered:
            raise NotAllowed(f"{code} is not offered for {resource_type}")
        return offered[code]

    def _audited(self, tx: Connection | None, request: Request, answer: Answer) -> Answer:
        self.audit(tx, answer.accesses, request.caller, request_id=request.request_id)
        return answer

    def _operate(self, request: Request) -> Answer:
        owner = request.segments[0] if len(request.segments) > 1 else None
        operation = self.operations.get((owner, request.segments[-1]))
        _ = request.caller
        if operation is None:
            raise NotFound("there is no such operation; see metadata for those offered", issue_type="not-supported")
        if request.method != "POST" and (request.method != "GET" or operation.affects_state):
            raise NotAllowed("call this operation with POST")
        return operation.handle(request)


_ADDRESSES = {  # what follows the base, `*` for a type, id or version
    ("GET", "*"): "search-type",
    ("POST", "*/_search"): "search-type",
    ("POST", "*"): "create",
    ("GET", "*/*"): "read",
    ("PUT", "*"): "update-by-identifier",
    ("PUT", "*/*"): "update",
    ("DELETE", "*/*"): "delete",
    ("GET", "*/*/_history"): "history-instance",
    ("GET", "*/*/_history/*"): "vread",
}


def _interaction_code(request: Request) -> str:
    """Raises NotFound when the path is not of FHIR, NotAllowed when the method does not fit the path."""
    method = "GET" if request.method == "HEAD" else request.method
    shape = "/".join(one if one in ("_search", "_history") else "*" for one in request.segments)
    if code := _ADDRESSES.get((method, shape)):
        return code
    if any(shape == known for _, known in _ADDRESSES):
        raise NotAllowed(f"{request.method} is not offered at this address")
    raise NotFound("there is nothing at this address; see metadata for what is served")
