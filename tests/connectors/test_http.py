"""What may be repeated, what may not, and where our authorization goes. Faults are made at the transport."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from connectors.contract import DeliveryError, Retry
from connectors.http import Http
from connectors.knobs import Signal, Timeouts

BASE = "https://ehr.example/fhir"
Handler = Callable[[httpx.Request], httpx.Response]


class Script:
    """Answers in order; an exception is raised instead, as a broken connection would."""

    def __init__(self, *steps: int | Exception | httpx.Response) -> None:
        self.steps = list(steps)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, httpx.Response) else httpx.Response(step, headers={"Retry-After": "0"})


class Bearer:
    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)

    def authorization(self) -> str | None:
        return f"Bearer {self.tokens[0]}"

    def secret_headers(self) -> dict[str, str]:
        return {}

    def renew(self) -> bool:
        self.tokens.pop(0)
        return bool(self.tokens)


def http(script: Handler, **changes: Any) -> Http:
    return Http(httpx.MockTransport(script), BASE, timeouts=Timeouts(), **changes)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_read_is_tried_again_within_the_attempt(status: int) -> None:
    script = Script(status, status, 200)
    assert http(script).request("GET", "metadata", doing="Reading", write=False).status == 200
    assert len(script.requests) == 3


def test_a_read_that_stays_busy_gives_up_after_the_attempts() -> None:
    script = Script(503, 503, 503, 200)
    with pytest.raises(DeliveryError) as error:
        http(script).request("GET", "metadata", doing="Reading", write=False)
    assert (error.value.retry, len(script.requests)) == (Retry.LATER, 3)


def test_a_long_wait_is_left_to_the_queue() -> None:
    script = Script(httpx.Response(429, headers={"Retry-After": "3600"}), 200)
    with pytest.raises(DeliveryError) as error:
        http(script).request("GET", "metadata", doing="Reading", write=False)
    assert (error.value.retry_after, len(script.requests)) == (3600.0, 1)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_write_is_not_repeated_here(status: int) -> None:
    script = Script(status, 201)
    with pytest.raises(DeliveryError):
        http(script).request("POST", "Media", doing="Creating", write=True, json={})
    assert len(script.requests) == 1


def test_a_write_that_never_left_is_tried_again() -> None:
    script = Script(httpx.ConnectError("refused"), 201)
    assert http(script).request("POST", "Media", doing="Creating", write=True, json={}).status == 201


def test_a_destination_that_cannot_be_reached_is_a_matter_of_time() -> None:
    script = Script(*(httpx.ConnectTimeout("slow") for _ in range(3)))
    with pytest.raises(DeliveryError) as error:
        http(script).request("POST", "Media", doing="Creating", write=True, json={})
    assert error.value.retry is Retry.LATER


@pytest.mark.parametrize(
    "lost", [httpx.ReadTimeout, httpx.ReadError, httpx.WriteError, httpx.WriteTimeout, httpx.RemoteProtocolError]
)
def test_a_write_whose_answer_is_lost_is_unknown_and_not_repeated(lost: type[httpx.TransportError]) -> None:
    script = Script(lost("gone"), 201)
    with pytest.raises(DeliveryError) as error:
        http(script).request("POST", "Media", doing="Creating", write=True, json={})
    assert (error.value.retry, len(script.requests)) == (Retry.UNKNOWN, 1)


def test_a_read_whose_answer_is_lost_is_repeated() -> None:
    script = Script(httpx.ReadTimeout("gone"), 200)
    assert http(script).request("GET", "Media/1", doing="Reading", write=False).status == 200


@pytest.mark.parametrize(
    ("signal", "after", "outage"),
    [
        (Signal(status=429, means="later"), 17.0, False),
        (Signal(status=503, means="later"), 17.0, True),
        (Signal(status=503, code="LOCKED", means="later"), 17.0, False),
        (Signal(status=503, means="never"), None, False),
    ],
)
def test_what_a_profile_says_of_an_answer_does_not_hide_when_to_come_again(
    signal: Signal, after: float | None, outage: bool
) -> None:
    busy = httpx.Response(signal.status or 0, headers={"Retry-After": "17"}, json={"code": "LOCKED"})
    with pytest.raises(DeliveryError) as error:
        sender = http(Script(busy), signals=[signal], code_paths=["code"])
        sender.request("POST", "Media", doing="Creating Media", write=True, json={})
    assert (error.value.retry_after, error.value.outage) == (after, outage)


def test_a_refused_token_is_renewed_once_and_the_write_repeated_since_it_was_not_let_in() -> None:
    script = Script(401, 201)
    answer = http(script, authoriser=Bearer("old", "new")).request("POST", "Media", doing="C", write=True, json={})
    assert answer.status == 201
    assert [request.headers["authorization"] for request in script.requests] == ["Bearer old", "Bearer new"]


def test_a_token_refused_twice_is_not_tried_for_ever() -> None:
    script = Script(401, 401, 201)
    with pytest.raises(DeliveryError) as error:
        http(script, authoriser=Bearer("a", "b", "c")).request("GET", "Media/1", doing="Reading", write=False)
    assert (error.value.retry, len(script.requests)) == (Retry.LATER, 2)


def test_every_request_says_who_passes_it_on_and_how_to_find_it_in_both_logs() -> None:
    script = Script(200, 200)
    sender = http(script, headers={"x-practice": "7"})
    for _ in range(2):
        sender.request("GET", "metadata", doing="Reading", write=False)
    first, second = (request.headers for request in script.requests)
    assert (first["x-intermediary"], first["x-practice"]) == ("DermBridge", "7")
    assert first["x-request-id"] != second["x-request-id"]


@pytest.mark.parametrize(
    ("url", "ours"),
    [
        (f"{BASE}/Binary/1", True),
        ("https://ehr.example/fhirmore/Binary/1", False),
        ("https://ehr.example/storage/1", False),
        ("http://ehr.example/fhir/Binary/1", False),
        ("https://ehr.example.evil/fhir/Binary/1", False),
        ("https://ehr.example:8443/fhir/Binary/1", False),
        ("https://ehr.example/fhir/../admin", False),
        ("https://ehr.example/fhir/%2e%2e/admin", False),
    ],
)
def test_only_addresses_below_base_url_are_ours(url: str, ours: bool) -> None:
    assert http(Script()).is_ours(url) is ours


def test_an_answer_longer_than_allowed_is_cut() -> None:
    answer = http(Script(httpx.Response(200, content=b"x" * 5000))).request(
        "GET", "Binary/1", doing="Reading", write=False, limit=100
    )
    assert len(answer.content) == 101


def test_neither_addresses_nor_headers_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    http(Script(200), authoriser=Bearer("t0k3n")).request(
        "GET", "Patient?identifier=urn:x|MRN-77", doing="Searching", write=False
    )
    assert "MRN-77" not in caplog.text and "t0k3n" not in caplog.text
