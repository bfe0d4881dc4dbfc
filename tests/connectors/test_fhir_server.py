"""Reading bytes back in every form servers keep them, and searching so that the answer can be believed."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from connectors.contract import DeliveryError
from connectors.fhir_batch import search_token
from connectors.fhir_server import FhirServer
from connectors.http import Http
from connectors.kinds import FhirR4Profile
from connectors.knobs import Timeouts

BASE = "https://ehr.example/fhir"
PHOTO = b"\xff\xd8 bytes \xff\xd9"
IN_JSON = {"resourceType": "Binary", "contentType": "image/jpeg", "data": base64.b64encode(PHOTO).decode()}


class Bearer:
    def authorization(self) -> str | None:
        return "Bearer t"

    def secret_headers(self) -> dict[str, str]:
        return {}

    def renew(self) -> bool:
        return False


class Server:
    """Answers by path; keeps what it was asked."""

    def __init__(self, **answers: httpx.Response) -> None:
        self.answers = {path.replace("__", "/"): answer for path, answer in answers.items()}
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answers[request.url.path.strip("/")]


def open_server(server: Any, **changes: Any) -> FhirServer:
    profile = FhirR4Profile.model_validate({"name": "x", "kind": "fhir-r4", "base_url": BASE} | changes)
    transport, once = httpx.MockTransport(server), Timeouts(attempts=1)
    http = Http(transport, BASE, timeouts=once, authoriser=Bearer())
    return FhirServer(profile, http, Http(transport, BASE, timeouts=once))


def raw(content: bytes = PHOTO, content_type: str = "image/jpeg") -> httpx.Response:
    return httpx.Response(200, content=content, headers={"Content-Type": content_type})


def as_json(resource: Any) -> httpx.Response:
    return httpx.Response(200, json=resource, headers={"Content-Type": "application/fhir+json"})


@pytest.mark.parametrize("url", ["Binary/1", f"{BASE}/Binary/1"])
@pytest.mark.parametrize("answer", [raw(), as_json(IN_JSON)], ids=["raw", "json"])
def test_a_binary_is_read_raw_or_as_json(url: str, answer: httpx.Response) -> None:
    server = Server(fhir__Binary__1=answer)
    attachment = {"url": url, "contentType": "image/jpeg"}
    assert open_server(server).download(attachment, limit=100) == PHOTO
    assert server.requests[0].headers["accept"].startswith("image/jpeg")


def test_a_server_that_only_speaks_json_is_asked_again() -> None:
    def strict(request: httpx.Request) -> httpx.Response:
        return as_json(IN_JSON) if request.headers["accept"] == "application/fhir+json" else httpx.Response(406)

    assert open_server(strict).download({"url": "Binary/1"}, limit=100) == PHOTO


def test_inline_data_needs_no_request() -> None:
    assert open_server(Server()).download({"data": IN_JSON["data"]}, limit=100) == PHOTO
    assert open_server(Server()).download({"data": "no base64!"}, limit=100) is None


def test_a_signed_address_of_a_named_host_is_read_without_our_token() -> None:
    server = Server(b__1=raw())
    opened = open_server(server, attachment_hosts=["storage.example"])
    assert opened.download({"url": "https://storage.example/b/1?Signature=x"}, limit=100) == PHOTO
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize(
    "url", ["https://storage.example/b/1", "http://169.254.169.254/latest", "file:///etc/passwd", "//evil.example/x"]
)
def test_an_address_elsewhere_is_not_followed(url: str) -> None:
    server = Server()
    assert open_server(server).download({"url": url}, limit=100) is None
    assert not server.requests


def test_bytes_that_are_gone_are_none() -> None:
    server = Server(fhir__Binary__1=httpx.Response(410))
    assert open_server(server).download({"url": "Binary/1"}, limit=100) is None


def test_what_a_search_returns_is_believed_only_if_it_bears_the_identifier() -> None:
    """Some servers ignore parameters they do not know, and answer with everybody."""
    identifier = {"system": "urn:x", "value": "1"}
    ours = {"resourceType": "Patient", "id": "a", "identifier": [identifier | {"use": "official"}]}
    others = [
        {"resourceType": "Patient", "id": "b", "identifier": [{"system": "urn:x", "value": "2"}]},
        {"resourceType": "Patient", "id": "c"},
        {"resourceType": "OperationOutcome", "id": "d", "identifier": [identifier]},
    ]
    bundle = {"resourceType": "Bundle", "entry": [{"resource": each} for each in (*others, ours)]}
    found = open_server(Server(fhir__Patient=as_json(bundle))).find_by_identifier("Patient", identifier)
    assert [each["id"] for each in found] == ["a"]


def test_a_posted_search_keeps_the_identifier_out_of_the_address() -> None:
    server = Server(fhir__Patient___search=as_json({"resourceType": "Bundle"}))
    server.answers = {"fhir/Patient/_search": as_json({"resourceType": "Bundle"})}
    assert open_server(server, search="post").find_by_identifier("Patient", {"system": "urn:x", "value": "A,1"}) == []
    request = server.requests[0]
    assert not request.url.query
    assert parse_qs(request.content.decode())["identifier"] == ["urn:x|A\\,1"]


def test_characters_that_mean_something_in_a_search_are_escaped() -> None:
    assert search_token({"system": "urn:x", "value": r"a,b|c$d\e"}) == r"urn:x|a\,b\|c\$d\\e"


def test_an_update_names_the_version_it_replaces_and_a_stale_one_is_told() -> None:
    server = Server(fhir__Media__1=httpx.Response(412))
    current = {"resourceType": "Media", "id": "1", "meta": {"versionId": "4"}}
    with pytest.raises(DeliveryError, match="HTTP 412"):
        open_server(server).update({"resourceType": "Media"}, current)
    assert server.requests[0].headers["if-match"] == 'W/"4"'


@pytest.mark.parametrize(("offered", "header"), [(True, "identifier=urn:ietf:rfc:3986|urn:uuid:1"), (False, None)])
def test_a_create_is_conditional_where_the_profile_says_so(offered: bool, header: str | None) -> None:
    server = Server(fhir__Media=httpx.Response(200, headers={"Location": "Media/1"}))
    identifier = {"system": "urn:ietf:rfc:3986", "value": "urn:uuid:1"}
    opened = open_server(server, conditional_create=offered)
    stored = opened.create({"resourceType": "Media"}, unless=identifier)
    assert server.requests[0].headers.get("if-none-exist") == header
    assert stored.created is not offered  # 200 means "it was there" only when we asked


def test_an_entry_of_a_transaction_without_a_status_has_that_of_the_whole_and_keeps_its_location() -> None:
    entry = {"response": {"location": "Media/7/_history/1"}}
    server = Server(fhir=as_json({"resourceType": "Bundle", "type": "transaction-response", "entry": [entry]}))
    stored = open_server(server, write_by="transaction").create({"resourceType": "Media"})
    assert (stored.id, stored.version) == ("7", "1")
