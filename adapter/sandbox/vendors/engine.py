"""One vendor's system in memory: who its patients are, what was filed, and the faults of a bad day."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import parse_qs, urlsplit

from adapter.sandbox.vendors.behaviour import Behaviour, Refusal

Resource = dict[str, Any]
Kind = Literal[
    "none", "lost-before", "lost-after", "refuse", "busy", "token-expired", "slow", "silent", "nack", "empty-stow"
]
NO: Final = Refusal()
OUTCOME: Final = {"resourceType": "OperationOutcome"}


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong once, on the first fitting request: `method` and the end of its path ("" fits all).

    `refusal` is the answer of `refuse`; `code` MSA-1 or the failure reason (hexadecimal) of
    `nack`; `seconds` the delay of `slow`; `none` lets one pass.
    """

    kind: Kind
    method: str = "POST"
    path: str = ""
    refusal: Refusal = NO
    code: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}


@dataclass(slots=True)
class Response:
    """One HTTP answer."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, status: int, value: Any, **headers: str) -> Response:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return cls(status, json.dumps(value).encode(), {"Content-Type": "application/json"} | named)


@dataclass(slots=True)
class Document:
    """One thing filed: under which patient number, its bytes, whether it still counts."""

    document_id: str
    mrn: str
    content: bytes
    content_type: str
    name: str = ""
    active: bool = True


class Vendor:
    """What the system holds and how it answers; thread-safe through `guard`.

    `patients` maps a patient number to the birth date known there; `visits` a visit number to the patient's; `merged` a
    patient number to that of the survivor.
    """

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.guard = threading.RLock()
        self.patients: dict[str, str] = {}
        self.visits: dict[str, str] = {}
        self.visit_periods: dict[str, dict[str, str]] = {}
        self.merged: dict[str, str] = {}
        self.resources: dict[tuple[str, str], Resource] = {}
        self.binaries: dict[str, tuple[str, bytes]] = {}
        self.documents: dict[str, Document] = {}
        self.rejections: dict[str, Document] = {}
        self.kept: dict[str, bytes] = {}
        self.messages: dict[str, bytes] = {}
        self.searched: dict[str, Response] = {}
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self.address = ""
        self._tokens: dict[str, float] = {}
        self._minute: tuple[int, int] = (0, 0)
        self._last_id = 0

    def admit(self, mrn: str, birth_date: str = "", visit: str = "") -> None:
        """Make a patient, and a visit, known."""
        self.patients[mrn] = birth_date
        if visit:
            self.visits[visit] = mrn

    def merge(self, source: str, target: str) -> None:
        """The patient of one number is that of another from now on."""
        self.merged[source] = target

    def filed(self) -> list[Document]:
        """Everything that counts now, by whatever way it came in."""
        from adapter.sandbox.vendors.fhir_side import filed_resources

        with self.guard:
            return [each for each in self.documents.values() if each.active] + filed_resources(self)

    def new_id(self) -> str:
        self._last_id += 1
        return str(self._last_id)

    def take_fault(self, method: str, path: str, kinds: Iterable[str] = ()) -> Fault | None:
        """The first waiting fault that fits, used up."""
        wanted = set(kinds)
        for fault in self.faults:
            fits = fault.method in {method, ""} and path.rstrip("/").endswith(fault.path)
            if fits and (not wanted or fault.kind in wanted):
                self.faults.remove(fault)
                return fault
        return None

    def respond(self, request: Request) -> Response | None:
        """The answer, or None to hang up."""
        from adapter.sandbox.vendors.unity_side import called

        with self.guard:
            path = called(request) if self.behaviour.unity else request.path
            self.requests.append((request.method, path))
            if request.path.endswith("/oauth2/token"):
                return self._token()
            fault = self.take_fault(request.method, path)
            if fault and fault.kind == "token-expired":
                self._tokens.clear()
            if early := self._before(request, fault):
                return early
            if fault and fault.kind == "lost-before":
                return None
            answer = self._dispatch(request, fault)
            return None if fault and fault.kind == "lost-after" else answer

    def _before(self, request: Request, fault: Fault | None) -> Response | None:
        if self._is_over_limit() or (fault and fault.kind == "busy"):
            return Response.json(429, OUTCOME)
        if self.behaviour.token_seconds is not None and not self._is_authorised(request):
            return Response(401)
        if fault and fault.kind == "refuse":
            return refused(fault.refusal)
        if fault and fault.kind == "slow":
            time.sleep(fault.seconds)
        return None

    def _dispatch(self, request: Request, fault: Fault | None) -> Response:
        from adapter.sandbox.vendors import dicomweb_side, fhir_side, rest_side, unity_side

        behaviour = self.behaviour
        if behaviour.fhir and request.path.startswith(behaviour.fhir.base):
            return fhir_side.respond(self, behaviour.fhir, request)
        if behaviour.dicomweb and request.path.startswith(behaviour.dicomweb.base):
            return dicomweb_side.respond(self, behaviour.dicomweb, request, fault)
        if behaviour.unity and request.path.startswith(behaviour.unity.base):
            return unity_side.respond(self, behaviour.unity, request)
        return rest_side.respond(self, request)

    def _token(self) -> Response:
        seconds = self.behaviour.token_seconds or 300
        said = {
            "access_token": self.new_token(seconds),
            "token_type": "Bearer",
            "expires_in": seconds,
            "scope": "system/*.cruds",
        }
        return Response.json(200, said)

    def new_token(self, seconds: int) -> str:
        token = f"t{self.new_id()}"
        self._tokens[token] = time.monotonic() + seconds
        return token

    def knows_token(self, token: str) -> bool:
        return self._tokens.get(token, 0.0) > time.monotonic()

    def _is_authorised(self, request: Request) -> bool:
        unity = self.behaviour.unity
        elsewhere = ("/kept/", unity.base) if unity else ("/kept/",)  # known by a signature, or in the body
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        return self.knows_token(token) or request.path.startswith(elsewhere)

    def _is_over_limit(self) -> bool:
        if self.behaviour.per_minute is None:
            return False
        minute, count = self._minute
        now = int(time.time() // 60)
        self._minute = (now, count + 1 if minute == now else 1)
        return self._minute[1] > self.behaviour.per_minute


def refused(refusal: Refusal) -> Response:
    """The vendor's way of saying no."""
    if refusal.body:
        return Response(refusal.status, refusal.body.encode(), {"Content-Type": "application/json"})
    coded = {"severity": "error", "code": "processing", "details": {"coding": [{"code": refusal.code}]}}
    return Response.json(refusal.status, OUTCOME | ({"issue": [coded]} if refusal.code else {}))


def at(node: Any, path: str) -> Any:
    """The value at a dotted path; None when it is not there. A list is looked into by its first entry."""
    for name in path.split("."):
        if isinstance(node, list):
            node = node[int(name)] if name.isdigit() and int(name) < len(node) else (node[0] if node else None)
            if name.isdigit():
                continue
        node = node.get(name) if isinstance(node, dict) else None
    return node
