"""An app is launched by a person: what it gets, for whom, and everything it does not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from adapter.access import policy
from adapter.access.handoff import PHONE_SCOPES
from adapter.records import change, create_all, get, write_all
from tests.access.apps import (
    FHIR,
    WHO,
    Site,
    asked,
    bearer,
    decide,
    exchange,
    patients_offered,
    refresh,
    site,
    tokens,
    told,
)
from tests.conftest import Clock
from tests.web.conftest import Browser, visit

__all__ = ["site"]

# --- what it gets ---------------------------------------------------------------------------------------------------


def test_an_app_reads_and_adds_for_the_patient_that_the_person_chose_and_nothing_else(site: Site) -> None:
    browser = site.sign_in()
    page = browser.get("/auth/authorize", params=asked())
    assert "Lesion Tracker asks for access" in page.text and patients_offered(page.text) == ["p1"]
    answer = told(decide(browser))
    assert (answer["state"], answer["iss"]) == ("s-1", "http://127.0.0.1:8000")
    granted = exchange(site.client, answer["code"]).json()
    assert (granted["patient"], granted["token_type"], granted["expires_in"]) == ("p1", "Bearer", 900)
    assert {"patient/Media.crs", "patient/Patient.r", "launch/patient"} <= set(granted["scope"].split())
    token = granted["access_token"]
    assert [site.status(token, f"/fhir/{path}") for path in ("Media/m1", "Media/m2", "Patient/p2")] == [200, 404, 404]
    assert site.status(token, "/fhir/Encounter/e1") == 403  # not asked for
    found = site.client.get("/fhir/Media", headers=bearer(token)).json()
    assert {one["resource"]["subject"]["reference"] for one in found["entry"]} == {"Patient/p1"}
    of_another = {"resourceType": "Media", "status": "completed", "subject": {"reference": "Patient/p2"}}
    of_another |= {"content": {"contentType": "image/jpeg", "data": "/9j/"}}
    assert site.client.post("/fhir/Media", headers=bearer(token), json=of_another).status_code in (403, 404, 422)


def test_the_id_token_says_who_it_is_to_the_app_alone_and_fhir_user_can_be_read(site: Site) -> None:
    granted = tokens(site.client, site.sign_in(), scope=WHO)
    keys = KeySet.import_key_set(site.client.get("/.well-known/jwks.json").json())
    claims = jwt.decode(granted["id_token"], keys, algorithms=["RS256"]).claims
    assert (claims["iss"], claims["aud"], claims["nonce"]) == ("http://127.0.0.1:8000", "app", "n-1")
    assert claims["fhirUser"].startswith(f"{FHIR}/Practitioner/")
    read = site.client.get(f"/fhir/Practitioner/{claims['sub']}", headers=bearer(granted["access_token"]))
    assert read.json()["name"] == [{"text": "Dr. Inés Rivera"}]
    assert tokens(site.client, site.sign_in("photographer"), scope=WHO)["scope"] != granted["scope"]  # another person's


def test_what_an_app_does_stands_in_the_log_under_the_person_and_the_app(site: Site) -> None:
    browser = site.sign_in()
    site.status(tokens(site.client, browser)["access_token"])
    told(decide(browser, decision="deny"))
    allowed, denied = sorted(site.events("app-authorized"), key=lambda one: one["outcome"])
    assert (allowed["outcome"], denied["outcome"]) == ("0", "4")
    assert "Practitioner/clinician" in str(allowed["agent"]) and "patient/Media.crs" in str(allowed["entity"])
    (read,) = (one for one in site.events("read") if "Media/m1" in str(one.get("entity")))
    assert "Practitioner/clinician" in str(read["agent"][0]) and "'value': 'app'" in str(read["agent"][1])


def test_no_scope_is_granted_beyond_the_registration_and_the_role(site: Site) -> None:
    engineer = site.staff("engineer", None)
    refused = told(decide(engineer, scope="launch/patient patient/Media.rs"))
    assert refused["error"] == "invalid_scope"
    granted = tokens(site.client, engineer, scope="launch/patient patient/*.cruds system/*.rs offline_access what")
    assert set(granted["scope"].split()) == {
        "launch/patient",
        "offline_access",
        "patient/Encounter.rs",
        "patient/Patient.rs",
    }


def test_what_a_role_has_lost_since_no_token_keeps(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tokens(site.client, site.sign_in())["access_token"]
    assert site.status(token) == 200
    monkeypatch.setitem(policy.ROLES, "clinician", ({"user/Patient.rs"}, set()))
    policy.still_granted.cache_clear()
    assert (site.status(token), site.status(token, "/fhir/Patient/p1")) == (403, 200)
    policy.still_granted.cache_clear()


def test_an_app_opens_no_page_and_hands_nothing_to_a_phone(site: Site) -> None:
    token = tokens(site.client, site.sign_in())["access_token"]
    assert {site.status(token, path) for path in ("/patients/p1", "/handoff?patient=p1", "/photos/m1", "/")} == {403}
    assert site.status(token, "/captures/m1") == 404  # let through; no file of m1 is kept here


# --- the person, the patient ----------------------------------------------------------------------------------------


def test_without_a_session_one_is_shown_where_to_sign_in_and_comes_back(site: Site) -> None:
    page = site.client.get("/auth/authorize", params=asked(), headers={"Accept": "text/html"}).text
    assert (
        "Sign in first" in page
        and "/launch?iss=https%3A%2F%2Fnorth.example%2Ffhir&amp;then=%2Fauth%2Fauthorize" in page
    )
    assert told(site.client.get("/auth/authorize", params=asked(prompt="none")))["error"] == "login_required"


def test_only_charts_that_are_open_to_the_person_can_be_chosen(site: Site) -> None:
    browser = site.sign_in("clinician", "p1")
    assert decide(browser, "p2").status_code == 404
    assert decide(browser, "nobody").status_code == 404
    both = site.sign_in("clinician", "p1", "p2")
    assert set(patients_offered(both.get("/auth/authorize", params=asked()).text)) == {"p1", "p2"}
    assert tokens(site.client, both, "p1")["patient"] == "p1"


def test_staff_choose_whom_they_treat_and_administrators_anybody(site: Site) -> None:
    with site.bridge.db.transaction() as tx:
        participant = [{"individual": {"reference": "Person/clinician"}}]
        create_all(tx, [visit("e3", "p2") | {"participant": participant}], at=site.bridge.now())
    clinician, administrator = site.staff("clinician"), site.staff("administrator", None)
    assert patients_offered(clinician.get("/auth/authorize", params=asked()).text) == ["p2"]
    assert decide(clinician, "p1").status_code == 404
    assert site.status(tokens(site.client, clinician, "p2")["access_token"], "/fhir/Media/m2") == 200
    assert patients_offered(administrator.get("/auth/authorize", params=asked(q="1001")).text) == ["p1"]
    assert site.status(tokens(site.client, administrator, "p1")["access_token"], "/fhir/Media/m2") == 404


def test_without_a_patient_to_choose_an_app_reaches_what_the_session_does(site: Site) -> None:
    everybodys = tokens(site.client, site.staff("administrator", None), None, scope="user/Media.rs")
    of_one = tokens(site.client, site.sign_in(), None, scope="user/Media.rs")
    nobodys = tokens(site.client, site.staff("clinician"), None, scope="user/Media.rs")
    assert "patient" not in everybodys
    reached = [site.status(one["access_token"], "/fhir/Media/m2") for one in (everybodys, of_one, nobodys)]
    assert reached == [200, 404, 404]


def test_a_phone_that_was_handed_a_chart_lets_no_app_in(site: Site) -> None:
    phone = site.sign_in("clinician", "p1", scopes=PHONE_SCOPES)
    assert decide(phone).status_code == 403


def test_an_app_gets_nothing_of_what_breaking_the_glass_opens_and_ends_with_it(site: Site, clock: Clock) -> None:
    until = clock() + timedelta(minutes=10)
    browser = site.staff("clinician", "p1", emergency="TREAT", emergency_until=until)
    granted = tokens(site.client, browser, scope="launch/patient patient/Media.rs offline_access")
    assert "offline_access" not in granted["scope"] and granted["expires_in"] == 600
    assert site.status(granted["access_token"], "/fhir/Media/secret") == 404
    assert site.status(granted["access_token"]) == 200
    clock.advance(minutes=10)
    assert site.status(granted["access_token"]) == 401


def test_an_app_let_in_under_broken_glass_ends_with_it_also_before_its_time(site: Site) -> None:
    browser = site.sign_in()
    before = tokens(site.client, browser)["access_token"]
    browser.post("/break-glass", {"reason": "TREAT", "why": "needed for treatment now"})
    under = tokens(site.client, browser)["access_token"]
    assert (site.status(before), site.status(under)) == (200, 200)
    assert browser.post("/break-glass/end").status_code == 303
    assert (site.status(before), site.status(under)) == (200, 401)


def test_opening_another_chart_mends_the_glass_and_ends_what_was_let_in_under_it(site: Site, clock: Clock) -> None:
    with site.bridge.db.transaction() as tx:
        participant = [{"individual": {"reference": "Person/clinician"}}]
        create_all(tx, [visit("e3", "p2") | {"participant": participant}], at=site.bridge.now())
    browser = site.staff("clinician", "p1", emergency="TREAT", emergency_until=clock() + timedelta(minutes=10))
    token = tokens(site.client, browser)["access_token"]
    assert browser.post("/charts/p2/open").status_code == 303
    assert site.status(token) == 401


def test_the_page_is_framed_by_nobody_and_its_form_leads_to_the_app_alone(site: Site) -> None:
    policy = site.sign_in().get("/auth/authorize", params=asked()).headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy and "form-action 'self' https://app.example;" in policy


# --- opened from a chart -----


def opened(site: Site, browser: Browser, patient_id: str = "p1") -> str:
    """The `launch` that the app is given."""
    answer = told(browser.get(f"/patients/{patient_id}/apps/app"))
    assert answer["iss"] == FHIR
    return answer["launch"]


EHR_LAUNCH = "launch patient/Media.rs"


def test_an_app_opened_from_a_chart_is_given_its_patient_and_visit_without_asking(site: Site) -> None:
    browser = site.sign_in("clinician", "p2", "p1", encounter_id="e1")
    launch = opened(site, browser)
    page = browser.get("/auth/authorize", params=asked(launch=launch, scope=EHR_LAUNCH)).text
    assert patients_offered(page) == ["p1"]
    granted = tokens(site.client, browser, "p2", launch=launch, scope=EHR_LAUNCH)  # whatever the form may say
    assert (granted["patient"], granted["encounter"]) == ("p1", "e1")
    assert "encounter" not in tokens(site.client, browser, "p1")  # a standalone launch


@pytest.mark.parametrize(
    ("since", "goes_on"),
    [
        ({}, True),
        ({"period": {"start": "2026-11-23T09:00:00Z", "end": "2026-11-24T09:00:00Z"}}, True),
        ({"period": {"start": "2026-11-23T09:00:00Z", "end": "2026-11-23T10:00:00Z"}}, False),
        ({"status": "finished"}, False),
        ({"status": "entered-in-error"}, False),
        ({"subject": {"reference": "Patient/p2"}}, False),  # told of the wrong patient at first
    ],
)
def test_an_app_that_goes_on_without_its_person_leaves_the_visit_when_it_ends(
    site: Site, clock: Clock, since: dict[str, Any], goes_on: bool
) -> None:
    browser = site.sign_in("clinician", "p1", encounter_id="e1")
    granted = tokens(site.client, browser, launch=opened(site, browser), scope=f"{EHR_LAUNCH} offline_access")
    with site.bridge.db.transaction() as tx:
        before = get(tx, "Encounter", "e1")
        write_all(tx, [change(before, before.resource | since, at=clock.advance(hours=1))])
    renewed = refresh(site.client, granted["refresh_token"]).json()
    assert (renewed["patient"], renewed.get("encounter")) == ("p1", "e1" if goes_on else None)
    clock.advance(hours=11)  # session_hours after the launch, since nobody may say that a visit has ended
    renewed = refresh(site.client, renewed["refresh_token"]).json()
    assert renewed["patient"] == "p1" and "encounter" not in renewed


def test_who_sees_every_chart_opens_an_app_from_any_and_with_no_other_patients_visit(site: Site) -> None:
    administrator = site.sign_in("administrator", None, encounter_id="e1")  # launched where p1 was open
    visits = {}
    for patient_id in ("p1", "p2"):
        launch = opened(site, administrator, patient_id)
        granted = tokens(site.client, administrator, None, launch=launch, scope=EHR_LAUNCH)
        assert granted["patient"] == patient_id
        visits[patient_id] = granted.get("encounter")
    assert visits == {"p1": "e1", "p2": None} and site.status(granted["access_token"]) == 404


def test_a_launch_is_of_use_to_who_opened_it_and_for_minutes(site: Site, clock: Clock) -> None:
    browser, colleague = site.sign_in(), site.sign_in("photographer")
    launch = opened(site, browser)
    for wrong in (launch, "x" + launch[1:], "nonsense", ""):
        answer = colleague.get("/auth/authorize", params=asked(launch=wrong, scope=EHR_LAUNCH))
        assert answer.status_code == 200 if wrong == "" else told(answer)["error"] == "invalid_request"
    clock.advance(minutes=10)
    assert told(browser.get("/auth/authorize", params=asked(launch=launch)))["error"] == "invalid_request"


def test_another_patients_chart_opens_no_app(site: Site) -> None:
    assert site.sign_in().get("/patients/p2/apps/app").status_code == 404
    assert site.sign_in().get("/patients/p1/apps/nobody").status_code == 404
    assert "Lesion Tracker" in site.sign_in().get("/patients/p1").text


# --- requests out of order ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed", [{"client_id": "stranger"}, {"redirect_uri": "https://app.example/back/"}, {"redirect_uri": None}]
)
def test_nobody_is_sent_to_an_address_that_is_not_registered(changed: dict[str, Any], site: Site) -> None:
    browser = site.sign_in()
    assert browser.get("/auth/authorize", params=asked(**changed)).status_code == 400
    assert decide(browser, **changed).status_code == 400


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"aud": "https://elsewhere.example/fhir"}, "invalid_request"),
        ({"state": None}, "invalid_request"),
        ({"scope": "launch/patient system/*.rs"}, "invalid_scope"),
        ({"scope": "launch/patient patient/Media.rs?created=soon"}, "invalid_scope"),
        ({"prompt": "none"}, "consent_required"),
    ],
)
def test_a_request_out_of_order_goes_back_with_its_error(changed: dict[str, Any], error: str, site: Site) -> None:
    assert told(site.sign_in().get("/auth/authorize", params=asked(**changed)))["error"] == error


def test_a_parameter_given_twice_is_refused(site: Site) -> None:
    doubled = [*asked().items(), ("scope", "patient/*.rs")]
    assert site.sign_in().get("/auth/authorize", params=doubled).status_code == 400


def test_a_parameter_without_a_value_is_as_none_at_all(site: Site) -> None:
    browser = site.sign_in()
    assert browser.get("/auth/authorize", params=asked(aud="", resource=FHIR)).status_code == 200
    granted = exchange(site.client, told(decide(browser, nonce=""))["code"], client_secret="").json()
    again = refresh(site.client, granted["refresh_token"], scope="").json()
    assert again["scope"] == granted["scope"] and site.status(again["access_token"]) == 200


def test_what_no_database_keeps_is_refused_wherever_it_comes(site: Site) -> None:
    clinician, administrator = site.sign_in(), site.staff("administrator", None)
    answers = [
        decide(clinician, "p\0"),
        decide(clinician, scope="openid \0"),
        administrator.get("/auth/authorize", params=asked(q="\0")),
        administrator.get("/patients/p%00/apps/app"),
        refresh(site.client, "dbr_\0.x"),
        exchange(site.client, "x", code_verifier="\0"),
    ]
    assert {one.status_code for one in answers} == {400}


def test_a_redirect_address_keeps_its_own_query(site: Site) -> None:
    location = decide(site.sign_in(), redirect_uri="https://app.example/other?x=1").headers["location"]
    assert location.startswith("https://app.example/other?x=1&code=")
