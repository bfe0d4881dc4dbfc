"""The FHIR R4 interactions a destination is asked for: search, read, create, update, Binary up and down, and several
looks at once.

http://hl7.org/fhir/R4/http.html
"""

from __future__ import annotations

import base64
import binascii
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

from connectors.answers import Answer, check_answer, find_id
from connectors.contract import DeliveryError, Retry
from connectors.fhir_batch import DOING, Ahead, Look, entry_answer, search_path, search_token
from connectors.fhir_shapes import get_entries, get_resource, is_shaped, no_fhir
from connectors.http import FHIR_JSON, Http
from connectors.kinds import FhirR4Profile
from connectors.outward import has_identifier

Resource = dict[str, Any]

PAGES: Final = 50  # of one patient's documents, looked through before anything is said not to be there


@dataclass(frozen=True, slots=True)
class Stored:
    """What a write left behind. `id` is None when the server did not say (202, mediated review)."""

    id: str | None
    version: str | None
    created: bool
    resource: Resource


class FhirServer:
    """One FHIR R4 server. Every method raises DeliveryError."""

    def __init__(self, profile: FhirR4Profile, http: Http, bare: Http) -> None:
        self._profile = profile
        self._http = http
        self._bare = bare  # without authorization, for addresses that are not below base_url
        self._here = threading.local()

    @contextmanager
    def asked_together(self, looks: Sequence[Look]) -> Iterator[None]:
        """Within, what this thread asks of `looks` has been asked by one batch, which never raises by itself."""
        self._here.ahead = ahead = Ahead(looks)
        try:
            ahead.fill(self._send_batch(ahead))
        except DeliveryError as error:
            ahead.fail(error)
        try:
            yield
        finally:
            del self._here.ahead

    def _send_batch(self, ahead: Ahead) -> Answer:
        sent, headers = ahead.bundle(), {"Content-Type": FHIR_JSON}
        return self._http.request(
            "POST", "", doing=DOING, write=False, counts=len(ahead), content=sent, headers=headers
        )

    def _answered(self, path: str) -> Answer | None:
        ahead: Ahead | None = getattr(self._here, "ahead", None)
        return ahead.take(path) if ahead else None

    def capabilities(self) -> Resource:
        return self._http.request("GET", "metadata", doing="Reading the CapabilityStatement", write=False).resource()

    def smart_configuration(self) -> Resource:
        """Empty where there is none."""
        answer = self._http.request(
            "GET",
            ".well-known/smart-configuration",
            doing="Reading the SMART configuration",
            write=False,
            accepted=frozenset({404, 405}),
            headers={"Accept": "application/json"},
        )
        return answer.resource() if answer.status < 300 else {}

    def find_by_identifier(self, resource_type: str, identifier: Mapping[str, Any]) -> list[Resource]:
        """All resources of the type that really bear `identifier`."""
        found = self.search(resource_type, {"identifier": search_token(identifier)}, doing="by identifier")
        return [each for each in found if has_identifier(each, identifier)]

    def search(
        self, resource_type: str, parameters: Mapping[str, str], *, doing: str = "by identifier"
    ) -> list[Resource]:
        """The resources on the first page of a search."""
        return get_entries(self._searched(resource_type, parameters, doing), resource_type, doing=f"Searching {doing}")

    def search_all(self, resource_type: str, parameters: Mapping[str, str]) -> list[Resource]:
        """The resources on all pages: to say that something is not there, none may be left out.

        Raises DeliveryError beyond `PAGES` pages, and when the next one is not below base_url.
        """
        found: list[Resource] = []
        for number, page in enumerate(self.pages(resource_type, parameters)):
            if number > PAGES:
                raise _too_long(resource_type)
            found += page
        return found

    def pages(self, resource_type: str, parameters: Mapping[str, str]) -> Iterator[list[Resource]]:
        """The resources of each page, asked for one after the other.

        Raises DeliveryError, also when the next page is not below base_url.
        """
        doing = "of a patient"
        answer = self._searched(resource_type, parameters, doing)
        while True:
            yield get_entries(answer, resource_type, doing=f"Searching {doing}")
            links = {each.get("relation"): str(each.get("url", "")) for each in answer.resource().get("link", [])}
            if not (following := links.get("next")):
                return
            if not self._http.is_ours(self._http.absolute(following)):
                raise _too_long(resource_type)
            answer = self._http.request("GET", following, doing=f"Searching {resource_type} {doing}", write=False)

    def _searched(self, resource_type: str, parameters: Mapping[str, str], doing: str) -> Answer:
        doing, path = f"Searching {resource_type} {doing}", search_path(resource_type, parameters)
        method, sent = "GET", dict[str, Any]()
        answered = self._answered(path)
        if self._profile.search == "post":
            method, path, sent = "POST", f"{resource_type}/_search", {"data": dict(parameters)}
        return self._http.request(method, path, doing=doing, write=False, type_level=True, answered=answered, **sent)

    def find(self, resource_type: str, resource_id: str) -> Resource | None:
        """The current version; None when it is not there or was deleted."""
        doing, path = f"Reading {resource_type}", f"{resource_type}/{resource_id}"
        answered, gone = self._answered(path), frozenset({404, 410})
        answer = self._http.request("GET", path, doing=doing, write=False, accepted=gone, answered=answered)
        return get_resource(answer, resource_type, doing=doing) if answer.status < 300 else None

    def create(self, body: Resource, *, unless: Mapping[str, Any] | None = None) -> Stored:
        """Create `body`; with `unless` (an identifier), and if the destination offers it, only when none bears it."""
        headers = self._write_headers()
        condition = ""
        if unless is not None and self._profile.conditional_create:
            condition = "identifier=" + quote(search_token(unless), safe=":/|.-_~")
        kind = body["resourceType"]
        doing = f"Creating {kind}"
        if self._profile.write_by == "transaction":
            bundle = _transaction(body, condition)
            answer = self._http.request("POST", "", doing=doing, write=True, json=bundle, headers=headers)
            answer = _first_of(answer)
            check_answer(answer, doing=doing, write=True, type_level=True)
        else:
            headers |= {"If-None-Exist": condition} if condition else {}
            answer = self._http.request(
                "POST", kind, doing=doing, write=True, type_level=True, json=body, headers=headers
            )
        return _stored(answer, kind, created=not (condition and answer.status == 200))

    def update(self, body: Resource, current: Resource) -> Stored:
        """Replace `current` by `body`, unless somebody changed it since we read it (If-Match)."""
        headers = self._write_headers()
        if version := current.get("meta", {}).get("versionId"):
            headers["If-Match"] = f'W/"{version}"'
        kind, resource_id = body["resourceType"], current["id"]
        body = body | {"id": resource_id}
        path = f"{kind}/{resource_id}"
        answer = self._http.request("PUT", path, doing=f"Updating {kind}", write=True, json=body, headers=headers)
        stored = _stored(answer, kind, created=False)
        return Stored(resource_id, stored.version, created=False, resource=stored.resource)

    def upload(self, content: bytes, content_type: str, patient: str) -> str:
        """Create a Binary readable by whoever may read `patient` (a reference) and return its id."""
        raw = self._profile.binary_upload == "raw"
        headers = self._write_headers()
        if raw:
            headers |= {"Content-Type": content_type, "X-Security-Context": patient}
            sent: dict[str, Any] = {"content": content}
        else:
            text = base64.b64encode(content).decode()
            context = {"reference": patient}
            sent = {"json": {"resourceType": "Binary", "contentType": content_type, "securityContext": context}}
            sent["json"]["data"] = text
        doing = f"Creating Binary ({self._profile.binary_upload})"
        answer = self._http.request("POST", "Binary", doing=doing, write=True, headers=headers, **sent)
        stored = _stored(answer, "Binary", created=True)
        if stored.id is None:
            raise DeliveryError(
                "The destination accepted the Binary without saying its id.",
                remedy='Set binary_upload = "inline" in the profile, then replay.',
                retry=Retry.NEVER,
            )
        return stored.id

    def write_bytes(self, path: str, content: bytes, content_type: str) -> None:
        """Write the bytes of an attachment into the resource that is there."""
        doing = "Writing the photo into its resource"
        headers = self._write_headers() | {"Content-Type": content_type}
        self._http.request("POST", path, doing=doing, write=True, content=content, headers=headers)

    def download(self, attachment: Mapping[str, Any], *, limit: int) -> bytes | None:
        """The bytes an Attachment means, at most about `limit` of them; None when it means none we may fetch.

        Follows inline data, a Binary below base_url (raw or JSON), and the signed addresses of `attachment_hosts`;
        those never see our authorization and never leave this method.
        """
        if "data" in attachment:
            return _decoded(attachment["data"])
        if not isinstance(attachment.get("url"), str) or not self.may_download(attachment):
            return None
        url = self._http.absolute(attachment["url"])
        ours = self._http.is_ours(url)
        wanted = f"{attachment.get('contentType', '*/*')}, */*;q=0.5"
        answer = (self._http if ours else self._bare).request(
            "GET",
            url,
            doing="Reading the photo back",
            write=False,
            headers={"Accept": wanted},
            limit=limit * 4 // 3 + 4096,
            accepted=frozenset({404, 406, 410}),
        )
        if ours and answer.status == 406:
            answer = self._http.request(
                "GET", url, doing="Reading the photo back", write=False, limit=limit * 4 // 3 + 4096
            )
        if answer.status >= 300:
            return None
        body = answer.resource() if "json" in answer.headers.get("content-type", "") else {}
        return _decoded(body["data"]) if body.get("resourceType") == "Binary" and "data" in body else answer.content

    def may_download(self, attachment: Mapping[str, Any]) -> bool:
        """Whether its address is below base_url or of one of `attachment_hosts`: no record sends us anywhere else."""
        try:
            url = self._http.absolute(str(attachment.get("url", "")))
            return self._http.is_ours(url) or urlsplit(url).hostname in self._profile.attachment_hosts
        except ValueError:  # no address at all
            return False

    def _write_headers(self) -> dict[str, str]:
        prefer = {"Prefer": self._profile.prefer} if self._profile.prefer else {}
        return {"Content-Type": FHIR_JSON} | prefer


def _too_long(resource_type: str) -> DeliveryError:
    return DeliveryError(
        f"The patient's {resource_type} list is longer than can be looked through.",
        remedy="Narrow it by look_parameters of the profile, such as a category or a date, then replay.",
        retry=Retry.NEVER,
    )


def _transaction(body: Resource, condition: str) -> Resource:
    request = {"method": "POST", "url": body["resourceType"]} | ({"ifNoneExist": condition} if condition else {})
    entry = {"fullUrl": f"urn:uuid:{uuid.uuid4()}", "resource": body, "request": request}
    return {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}


def _first_of(answer: Answer) -> Answer:
    """What a transaction-response says of its only entry (http://hl7.org/fhir/R4/http.html#transaction-response)."""
    bundle = answer.resource()
    entry: Resource = next(iter(bundle.get("entry", [])), {}) if is_shaped(bundle) else {}
    response = {"status": str(answer.status)} | entry.get("response", {})  # what it does not say is the whole's
    return entry_answer(entry | {"response": response}, answer) or answer


def _stored(answer: Answer, kind: str, *, created: bool) -> Stored:
    resource_id, version = find_id(answer, kind)
    body = answer.resource()
    if resource_id is None and not body and answer.content.strip():
        raise no_fhir(kind, f"Writing {kind}", answer, Retry.UNKNOWN)
    return Stored(resource_id, version, created, body if body.get("resourceType") == kind and is_shaped(body) else {})


def _decoded(data: object) -> bytes | None:
    try:
        return base64.b64decode(str(data), validate=True)
    except (binascii.Error, ValueError):
        return None
