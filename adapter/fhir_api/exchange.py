"""A FHIR request and its answer apart from HTTP, so that an entry of a Bundle is handled like a request of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl

import orjson

from adapter.access import Actor
from adapter.errors import BadInput, NotAcceptable, NotAuthenticated, UnsupportedMedia
from adapter.records.extraction import Resource

FHIR_JSON = "application/fhir+json"
_JSON = frozenset({FHIR_JSON, "application/json", "text/json"})
_JSON_FORMATS = _JSON | {"json"}
_ANY = frozenset({"*/*", "application/*"})
MOST_PARAMS = 200


@dataclass(frozen=True)
class Request:
    """`segments` is the path below the base; header names are in lower case.

    `assigned_id`: the id of a resource to create, when other entries of its Bundle refer to it already.
    """

    method: str
    segments: tuple[str, ...]
    params: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    actor: Actor | None = None
    request_id: str = ""
    assigned_id: str | None = None

    @property
    def caller(self) -> Actor:
        if self.actor is None:
            raise NotAuthenticated("send an access token: Authorization: Bearer …")
        return self.actor

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def param(self, name: str) -> str | None:
        return next((value for key, value in self.params if key == name), None)

    @cached_property
    def preferences(self) -> frozenset[str]:
        """What `Prefer` holds: return=minimal, handling=lenient, …"""
        return frozenset(part.strip() for part in self.headers.get("prefer", "").replace(";", ",").split(","))

    def check_acceptable(self) -> None:
        """Raises NotAcceptable unless FHIR JSON of version 4.0 will do."""
        asked = self.param("_format")
        offered = [asked] if asked else self.headers.get("accept", "*/*").split(",")
        kinds = [_media_type(one) for one in offered]
        if not any((kind in _JSON_FORMATS | _ANY) and version in ("", "4.0") for kind, version in kinds):
            raise NotAcceptable("only application/fhir+json; fhirVersion=4.0 is offered")

    @property
    def wants_json(self) -> bool:
        """Of a Binary: its JSON form rather than its bytes."""
        first = self.param("_format") or self.headers.get("accept", "*/*").split(",")[0]
        return _media_type(first)[0] in _JSON_FORMATS

    @property
    def has_json_body(self) -> bool:
        """Of a Binary: it is sent as a resource, not as bytes."""
        return self.content_type in _JSON

    def json(self) -> Resource:
        """The body as a JSON object. Raises UnsupportedMedia, BadInput."""
        if self.content_type not in _JSON:
            raise UnsupportedMedia("send the body as application/fhir+json")
        return json_object(self.body, "the body")


def parse_params(text: str) -> list[tuple[str, str]]:
    """The parameters of a search: a query or a form. Raises BadInput."""
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_PARAMS)
    except ValueError:
        raise BadInput(f"a search takes up to {MOST_PARAMS} parameters", issue_type="too-costly") from None


DEEPEST = 50  # R4 resources reach about 20 levels; deeper ones are made to exhaust whoever walks them


def json_object(raw: bytes, what: str) -> Resource:
    """A JSON object from outside, not nested deeper than anything in FHIR. Raises BadInput naming `what` it is."""
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise BadInput(f"{what} is not JSON", issue_type="structure") from None
    if not isinstance(found, dict):
        raise BadInput(f"{what} is not a JSON object", issue_type="structure")
    level: list[Any] = [found]
    for _ in range(DEEPEST):
        inner = (one.values() if isinstance(one, dict) else one for one in level)
        level = [value for values in inner for value in values if isinstance(value, (dict, list))]
        if not level:
            return found
    raise BadInput(f"{what} is nested deeper than {DEEPEST} levels", issue_type="too-costly")


@dataclass(frozen=True)
class Access:
    """One line for the audit log: what was done to which records of one patient (or of none).

    `event` is read, query, create, update or delete; `query` is the search as understood, in clear.
    """

    event: str
    references: tuple[str, ...] = ()
    patient_id: str | None = None
    query: str | None = None


@dataclass(frozen=True)
class Answer:
    """`body` is JSON text; a Binary has `stream` and a Content-Length among its headers instead."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    accesses: tuple[Access, ...] = ()
    stream: Iterator[bytes] | None = None


def http_date(at: datetime) -> str:
    return format_datetime(at.astimezone(UTC).replace(microsecond=0), usegmt=True)


def is_unchanged(request: Request, etag: str, modified_at: datetime) -> bool:
    """Whether `If-None-Match`, or without it `If-Modified-Since`, says the caller has this already (RFC 9110 13.2)."""
    if known := request.headers.get("if-none-match"):
        return known.strip() == "*" or etag in (one.strip() for one in known.split(","))
    since = request.headers.get("if-modified-since")
    if since is None:
        return False
    try:
        return modified_at.replace(microsecond=0) <= parsedate_to_datetime(since).astimezone(UTC)
    except (ValueError, TypeError):
        return False  # RFC 9110: an invalid date is ignored


def _media_type(text: str) -> tuple[str, str]:
    """(type, fhirVersion); a `+` that became a space in a query string is read as `+`."""
    kind, *parameters = (part.strip() for part in text.split(";"))
    values = dict(one.partition("=")[::2] for one in parameters)
    if values.get("q") in ("0", "0.0", "0.00", "0.000"):
        return "", ""
    return kind.lower().replace(" ", "+"), values.get("fhirVersion", "").strip('"')
