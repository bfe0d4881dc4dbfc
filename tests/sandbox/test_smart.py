"""DermBridge's own SMART client against the sandbox's authorization server, over a socket."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from adapter.access.oauth import take
from adapter.access.smart import LaunchContext, begin_launch, finish_launch, redirect_uri
from adapter.bridge import Bridge

VERIFIER = "v" * 43


def query_of(address: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


def launched(browser: httpx.Client, dermbridge: Bridge, chart: str = "/patients/astrid/launch") -> dict[str, str]:
    """What comes back to DermBridge's callback."""
    sent = query_of(browser.get(chart).headers["location"])
    with httpx.Client() as http:
        address, cookie = begin_launch(dermbridge, http, iss=sent["iss"], launch_token=sent["launch"])
    return query_of(browser.get(address).headers["location"]) | {"cookie": cookie, "authorize": address}


def complete(dermbridge: Bridge, came: dict[str, str]) -> LaunchContext:
    with httpx.Client() as http:
        arrived_at = redirect_uri(dermbridge)
        begun = take(dermbridge, state=came["state"], browser_cookie=came["cookie"], iss=None, arrived_at=arrived_at)
        return finish_launch(dermbridge, http, begun, came["code"])


def code_form(browser: httpx.Client, dermbridge: Bridge) -> dict[str, str]:
    """A form for the token endpoint with a code of our own PKCE pair."""
    asked = query_of(launched(browser, dermbridge)["authorize"])
    asked.pop("launch")
    asked |= {"code_challenge": challenge_of(VERIFIER), "scope": "openid fhirUser"}
    code = query_of(browser.get("/authorize", params=asked).headers["location"])["code"]
    form = {"grant_type": "authorization_code", "code": code, "client_id": "dermbridge"}
    return form | {"redirect_uri": asked["redirect_uri"], "code_verifier": VERIFIER}


def challenge_of(verifier: str) -> str:
    import base64
    import hashlib

    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def test_a_launch_from_the_chart_says_who_which_patient_and_which_visit(
    browser: httpx.Client, dermbridge: Bridge
) -> None:
    context = complete(dermbridge, launched(browser, dermbridge))
    assert context.user_reference == f"{context.ehr.iss}/Practitioner/dr-rivera"
    assert context.user_display == "Dr. Inés Rivera"
    assert context.patient is not None and context.patient["id"] == "astrid"
    assert context.encounter is not None and context.encounter["id"] == "visit-2210"
    assert context.show_banner


def test_a_launch_in_the_frame_needs_no_banner(browser: httpx.Client, dermbridge: Bridge) -> None:
    assert not complete(dermbridge, launched(browser, dermbridge, "/patients/astrid/launch?frame=1")).show_banner


def test_a_standalone_launch_lets_the_user_choose_the_patient(browser: httpx.Client, dermbridge: Bridge) -> None:
    with httpx.Client() as http:
        address, cookie = begin_launch(dermbridge, http, iss=dermbridge.settings.ehrs[0].iss, launch_token=None)
    picker = browser.get(address)
    chosen = next(part for part in picker.text.split('"') if part.startswith("/authorize?")).replace("&amp;", "&")
    came = query_of(browser.get(chosen).headers["location"]) | {"cookie": cookie}
    assert complete(dermbridge, came).patient is not None


def test_a_code_works_once(browser: httpx.Client, dermbridge: Bridge) -> None:
    form = code_form(browser, dermbridge)
    assert browser.post("/token", data=form).status_code == 200
    replayed = browser.post("/token", data=form)
    assert (replayed.status_code, replayed.json()["error"]) == (400, "invalid_grant")


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({"code_verifier": "w" * 43}, 400, "invalid_grant"),
        ({"redirect_uri": "http://127.0.0.1:8000/other"}, 400, "invalid_grant"),
        ({"client_id": "somebody"}, 401, "invalid_client"),
        ({"client_id": "dermbridge-backend"}, 401, "invalid_client"),
        ({"client_id": "dermbridge-backend", "client_secret": "s3cret"}, 400, "invalid_grant"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
    ],
)
def test_a_code_is_bound_to_its_request(
    browser: httpx.Client, dermbridge: Bridge, change: dict[str, str], status: int, error: str
) -> None:
    answer = browser.post("/token", data=code_form(browser, dermbridge) | change)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


@pytest.mark.parametrize("change", [{"redirect_uri": "http://evil.example/callback"}, {"client_id": "somebody"}])
def test_nobody_is_redirected_to_an_address_that_is_not_registered(
    browser: httpx.Client, dermbridge: Bridge, change: dict[str, str]
) -> None:
    answer = browser.get("/authorize", params=query_of(launched(browser, dermbridge)["authorize"]) | change)
    assert answer.status_code == 400
    assert "location" not in answer.headers


@pytest.mark.parametrize("change", [{"code_challenge_method": "plain"}, {"aud": "http://other/fhir"}, {"scope": "x"}])
def test_a_wrong_request_goes_back_with_an_error(
    browser: httpx.Client, dermbridge: Bridge, change: dict[str, str]
) -> None:
    asked = query_of(launched(browser, dermbridge)["authorize"])
    asked.pop("launch")
    assert "error" in query_of(browser.get("/authorize", params=asked | change).headers["location"])


def test_a_launch_word_works_once(browser: httpx.Client, dermbridge: Bridge) -> None:
    again = browser.get(launched(browser, dermbridge)["authorize"])
    assert query_of(again.headers["location"])["error"] == "invalid_request"
