"""What a status, a header or an OperationOutcome means for a delivery."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from connectors.answers import Answer, check_answer, find_id, find_retry_after
from connectors.contract import DeliveryError, Retry, RouteRefused

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)


def outcome(*codes: str) -> bytes:
    issues = [{"severity": "error", "code": code, "diagnostics": "Chalmers, Peter, MRN 77"} for code in codes]
    return json.dumps({"resourceType": "OperationOutcome", "issue": issues}).encode()


@pytest.mark.parametrize(
    ("status", "retry"),
    [
        *((status, Retry.NEVER) for status in (301, 400, 403, 404, 405, 410, 413, 415, 422, 501)),
        *((status, Retry.LATER) for status in (401, 409, 412, 429, 503)),
        *((status, Retry.UNKNOWN) for status in (408, 500, 502, 504, 599)),
    ],
)
def test_the_status_of_a_write_says_whether_it_may_be_repeated(status: int, retry: Retry) -> None:
    with pytest.raises(DeliveryError, match=f"HTTP {status}") as error:
        check_answer(Answer(status, {}), doing="Updating Media", write=True)
    assert error.value.retry is retry
    assert error.value.remedy


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
def test_a_read_that_failed_at_the_server_is_never_unknown(status: int) -> None:
    with pytest.raises(DeliveryError) as error:
        check_answer(Answer(status, {}), doing="Reading Media", write=False)
    assert error.value.retry is Retry.LATER


def test_the_reason_tells_issue_codes_and_no_remote_text() -> None:
    answer = Answer(422, {}, outcome("business-rule", "Chalmers", "required"), "r-1")
    with pytest.raises(DeliveryError) as error:
        check_answer(answer, doing="Creating Media", write=True)
    assert str(error.value) == "Creating Media was refused with HTTP 422 (business-rule, required), request r-1."


@pytest.mark.parametrize(("status", "codes"), [(404, ()), (405, ()), (501, ()), (400, ("not-supported",))])
def test_a_type_the_destination_does_not_know_lets_the_next_route_try(status: int, codes: tuple[str, ...]) -> None:
    with pytest.raises(RouteRefused):
        check_answer(Answer(status, {}, outcome(*codes)), doing="Creating Media", write=True, type_level=True)


def test_a_conditional_create_that_met_several_is_for_a_person() -> None:
    with pytest.raises(DeliveryError) as error:
        check_answer(Answer(412, {}), doing="Creating Media", write=True, type_level=True)
    assert error.value.retry is Retry.NEVER


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "120"}, 120.0),
        ({"retry-after": "Mon, 23 Nov 2026 09:31:30 GMT"}, 90.0),
        ({"retry-after": "Mon, 23 Nov 2026 09:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"ratelimit": '"requests";r=59;t=10, "fhirInteractions";r=0;t=60'}, 60.0),
        ({"ratelimit": '"requests";r=5;t=10'}, None),
        ({"ratelimit": "limit=100, remaining=0, reset=40"}, 40.0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "30"}, 30.0),
        ({"ratelimit-remaining": "1", "ratelimit-reset": "30"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait_is_read_from_every_known_header(headers: dict[str, str], seconds: float | None) -> None:
    assert find_retry_after(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("headers", "body", "found"),
    [
        ({"location": "Media/17/_history/2"}, b"", ("17", "2")),
        ({"location": "http://ehr/fhir/Media/17/_history/2"}, b"", ("17", "2")),
        ({"location": "http://ehr/fhir/Media/17", "etag": 'W/"5"'}, b"", ("17", "5")),
        ({"content-location": "/fhir/Media/17"}, b"", ("17", None)),
        ({}, b'{"resourceType": "Media", "id": "17", "meta": {"versionId": "3"}}', ("17", "3")),
        ({"location": "http://ehr/fhir/Observation/9"}, b"", (None, None)),
        ({}, b'{"resourceType": "OperationOutcome", "id": "17"}', (None, None)),
        ({}, b"<html>", (None, None)),
    ],
)
def test_the_id_is_found_wherever_servers_put_it(
    headers: dict[str, str], body: bytes, found: tuple[str | None, str | None]
) -> None:
    assert find_id(Answer(201, headers, body), "Media") == found


@pytest.mark.parametrize(
    ("content", "parsed"),
    [
        (b'\xef\xbb\xbf{"id": "1"}', {"id": "1"}),  # as some write it on Windows
        (b"<html>", None),
        (b"", None),
        (b"[" * 100_000, None),
        (b'"\xff"', None),
    ],
)
def test_a_body_is_json_or_nothing(content: bytes, parsed: object) -> None:
    assert Answer(200, {}, content).parsed() == parsed
