"""The requests of kind `rest` as the profile tells them: templates filled, documents cut into pieces, answers read."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from connectors.answers import Answer
from connectors.contract import DeliveryError, Parcel, Retry, Secrets, SignInAgain
from connectors.kinds import RestProfile
from connectors.parcels import get_content
from connectors.rest_knobs import Asked, Lookup, Step
from connectors.session import Session
from connectors.signals import codes_at
from connectors.templates import filled

Known = Mapping[str, Any]


class Exchange:
    """Requests to one vendor's interface. Every method raises DeliveryError."""

    def __init__(self, profile: RestProfile, session: Session, secrets: Secrets, now: Callable[[], datetime]) -> None:
        self._profile = profile
        self._session = session
        self._secrets = secrets
        self._now = now
        self._signed_in: tuple[datetime, Known] | None = None

    def follow(self, step: Step, known: Known, parcel: Parcel) -> dict[str, Any]:
        """Do one step of filing a document; what is known afterwards."""
        known = dict(known)
        try:
            for more, content in _pieces(step, parcel):
                known |= more
                known |= saved(step, self.run(step, known, doing="Filing the document", content=content, parcel=parcel))
        except DeliveryError as error:
            if step.files or error.retry is not Retry.UNKNOWN:
                raise
            remedy = "Nothing to do: nothing is filed yet, the delivery begins anew."
            raise DeliveryError(str(error), remedy=remedy, retry=Retry.LATER, outage=error.outage) from error
        return known

    def run(
        self,
        asked: Asked,
        known: Known,
        *,
        doing: str,
        accepted: frozenset[int] = frozenset(),
        content: bytes = b"",
        parcel: Parcel | None = None,
    ) -> Answer:
        """Make one request, signed in where the vendor wants that."""
        for last in (False, True):
            try:
                return self._request(asked, {**known, **self.sign_in()}, doing, accepted, content, parcel)
            except SignInAgain:
                self._signed_in = None
                if last:
                    raise
        raise AssertionError

    def sign_in(self) -> Known:
        """What the profile's `sign_in` saves, kept for `sign_in_seconds`; nothing where there is none."""
        step, auth = self._profile.sign_in, self._profile.auth
        if step is None:
            return {}
        ends, kept = self._signed_in or (self._now(), {})
        if ends <= self._now():
            known = {**self._profile.tenant, **self._profile.fields, "client_id": auth.client_id}
            known["secret"] = self._session.credentials.get_secret(auth.secret)
            doing = "Signing in"
            kept = saved(step, self._request(step, known, doing, frozenset(), b"", None, write=False), doing=doing)
            self._signed_in = (self._now() + timedelta(seconds=self._profile.sign_in_seconds), kept)
        return kept

    def _request(
        self,
        asked: Asked,
        known: Known,
        doing: str,
        accepted: frozenset[int],
        content: bytes,
        parcel: Parcel | None,
        *,
        write: bool = True,
    ) -> Answer:
        whole = re.fullmatch(r"\{(\w+)\}", asked.path)
        path = str(known.get(whole[1], "")) if whole else filled(asked.path, known, in_path=True)
        http = self._session.http
        outside = whole is not None and not http.is_ours(http.absolute(path))
        sent = _body(asked, known, content, parcel)
        headers = {"Accept": "application/json, */*;q=0.5"} | filled(asked.headers, known) | sent.pop("headers", {})
        return (self._session.bare if outside else http).request(
            asked.method,
            path,
            doing=doing,
            write=write and asked.method != "GET" and not isinstance(asked, Lookup),
            type_level=asked.method == "POST",
            accepted=accepted,
            limit=self._profile.max_bytes * 4 // 3 + 65_536,
            headers=headers,
            **sent,
        )


def _pieces(step: Step, parcel: Parcel) -> Iterator[tuple[dict[str, Any], bytes]]:
    """What a step is told of each piece it is made for, and the piece: the whole where it is not cut."""
    in_fields = "{base64}" in str(step.fields)
    carries = in_fields or step.body in {"multipart", "bytes"} or step.chunk_bytes is not None
    content = get_content(parcel) if carries else b""
    if step.chunk_bytes is None:
        yield {"base64": base64.b64encode(content).decode()} if in_fields else {}, content
        return
    for offset in range(0, len(content), step.chunk_bytes):
        piece = content[offset : offset + step.chunk_bytes]
        told = {"chunk": base64.b64encode(piece).decode(), "chunk_offset": offset, "chunk_size": len(piece)}
        yield told, piece


def _body(asked: Asked, known: Known, content: bytes, parcel: Parcel | None) -> dict[str, Any]:
    """httpx's arguments for the body."""
    fields = filled(asked.fields, known)
    content_type = parcel.content_type if parcel else "application/octet-stream"
    match asked.body:
        case "multipart":
            assert isinstance(asked, Step)
            file = (filled(asked.file_name, known), content, content_type.partition(";")[0])
            return {"files": {asked.file_field: file}, "data": fields}
        case "json":
            return {"json": fields}
        case "form":
            return {"data": fields}
        case "bytes":
            return {"content": content, "headers": {"Content-Type": content_type}}
    return {}


def saved(step: Step, answer: Answer, *, doing: str = "Filing the document") -> dict[str, str]:
    """What the step saves of its answer. Raises DeliveryError when something of it is not there."""
    found = {name: _said(answer, path) for name, path in step.saves.items()}
    if missing := [name for name, value in found.items() if not value]:
        raise DeliveryError(
            f"{doing}: HTTP {answer.status} brought no {', '.join(missing)}, request {answer.request_id}.",
            remedy="See in the vendor's log what it made of the request, and correct `saves` or `signals`.",
            retry=Retry.UNKNOWN,
        )
    return found


def _said(answer: Answer, path: str) -> str:
    """What an answer says where `saves` looks; empty when it says nothing."""
    kind, _, name = path.partition(":")
    match kind:
        case "location":
            return answer.headers.get("location", "").rstrip("/").rpartition("/")[2]
        case "header":
            return answer.headers.get(name.lower(), "")
        case "text":
            return answer.content.decode("utf-8", "replace").strip()
    return text_at(answer.parsed(), path)


def find_at(node: Any, path: str) -> Any:
    """What stands at a dotted path; None when nothing does."""
    for name in path.split(".") if path else []:
        if isinstance(node, list) and name.isdigit() and int(name) < len(node):
            node = node[int(name)]
        elif isinstance(node, dict):
            node = node.get(name)
        else:
            return None
    return node


def text_at(node: Any, path: str) -> str:
    """The text at `path`; the only one where a list stands on the way; empty when there is none."""
    value = find_at(node, path)
    if isinstance(value, (str, int)):
        return str(value)
    found = codes_at(node, [path])
    return found.pop() if len(found) == 1 else ""


def content_of(step: Step, answer: Answer) -> bytes | None:
    """The document in an answer; None when there is none."""
    if not step.content_path:
        return answer.content
    try:
        return base64.b64decode(text_at(answer.parsed(), step.content_path), validate=True)
    except (binascii.Error, ValueError):
        return None
