"""An app is launched by a person: what it gets, and everything it does not."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from adapter.access import Actor
from adapter.access.handoff import PHONE_SCOPES
from adapter.access.policy import grants_of
from adapter.access.sessions import COOKIE, NOBODY, cookie_name, start_session
from adapter.access.tokens import tokens_in_force
from adapter.bridge import Bridge
from adapter.db.tables import app_grant, session
from adapter.records import create_all, find_where
from tests.access.apps import (
    APP,
    BACK,
    FHIR,
    OTHER,
    asked,
    bearer,
    code_for,
    decide,
    exchange,
    patients_offered,
    refresh,
    tokens,
    told,
)
from tests.access.conftest import Serve, photo
from tests.access.machines import Machine
from tests.conftest import Clock
from tests.web.conftest import Browser, visit

SECRET = "s" * 32


class Site(NamedTuple):
    bridge: Bridge
    client: httpx.Client

    def sign_in(self, role: str = "clinician", *patients: str | None, **more: Any) -> Browser:
        """A browser with a session for each of these charts; without one in none."""
        scopes, rights = grants_of(role)
        actor = Actor("person", f"Practitioner/{role}", "Dr. Inés Rivera", role, scopes, rights)
        client = httpx.Client(transport=self.client._transport, base_url="http://testserver")
        for patient_id in patients or ("p1",):
            person = replace(actor, patient_id=patient_id, ehr="https://north.example/fhir", **more)
            with self.bridge.db.transaction() as tx:
                cookie, opened = start_session(tx, person, at=self.bridge.now(), lifetime=timedelta(hours=1))
            client.cookies.set(cookie_name(person, https=False), cookie)
        return Browser(client, opened.csrf)

    def staff(self, role: str, patient_id: str | None = NOBODY, **more: Any) -> Browser:
        actor = Actor("person", f"Person/{role}", "Quinn", role, *grants_of(role), patient_id=patient_id, **more)
        with self.bridge.db.transaction() as tx:
            cookie, opened = start_session(tx, actor, at=self.bridge.now(), lifetime=timedelta(hours=1))
        client = httpx.Client(transport=self.client._transport, base_url="http://testserver", cookies={COOKIE: cookie})
        return Browser(client, opened.csrf)

    def status(self, token: str, path: str = "/fhir/Media/m1") -> int:
        return self.client.get(path, headers=bearer(token)).status_code

    def settings(self, **changed: Any) -> None:
        """What an operator has changed since."""
        object.__setattr__(self.bridge, "settings", self.bridge.settings.model_copy(update=changed))

    def events(self, kind: str) -> list[dict[str, Any]]:
        with self.bridge.db.snapshot() as tx:
            events = [one.resource for one in find_where(tx, "AuditEvent")]
        return [one for one in events if any(code["code"] == kind for code in one.get("subtype", []))]


EHRS = [{"name": "North", "iss": "https://north.example/fhir", "client_id": "dermbridge"}]


@pytest.fixture
def site(serve: Serve) -> Site:
    return Site(*serve(clients=[APP.model_dump(), OTHER.model_dump()], ehrs=EHRS))


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
    granted = tokens(site.client, site.sign_in())
    keys = KeySet.import_key_set(site.client.get("/.well-known/jwks.json").json())
    claims = jwt.decode(granted["id_token"], keys, algorithms=["RS256"]).claims
    assert (claims["iss"], claims["aud"], claims["nonce"]) == ("http://127.0.0.1:8000", "app", "n-1")
    assert claims["fhirUser"].startswith(f"{FHIR}/Practitioner/")
    read = site.client.get(f"/fhir/Practitioner/{claims['sub']}", headers=bearer(granted["access_token"]))
    assert read.json()["name"] == [{"text": "Dr. Inés Rivera"}]
    assert tokens(site.client, site.sign_in("photographer"))["scope"] != granted["scope"]  # another person's


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
    from adapter.access import policy

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


def test_who_sees_every_chart_opens_an_app_from_any(site: Site) -> None:
    administrator = site.staff("administrator", None)
    launch = opened(site, administrator, "p2")
    granted = tokens(site.client, administrator, None, launch=launch, scope=EHR_LAUNCH)
    assert granted["patient"] == "p2" and site.status(granted["access_token"]) == 404


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
        ({"prompt": "none"}, "consent_required"),
    ],
)
def test_a_request_out_of_order_goes_back_with_its_error(changed: dict[str, Any], error: str, site: Site) -> None:
    assert told(site.sign_in().get("/auth/authorize", params=asked(**changed)))["error"] == error


def test_a_parameter_given_twice_is_refused(site: Site) -> None:
    doubled = [*asked().items(), ("scope", "patient/*.rs")]
    assert site.sign_in().get("/auth/authorize", params=doubled).status_code == 400


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


# --- codes and refresh tokens ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {"code_verifier": "w" * 43},
        {"code_verifier": "short"},
        {"redirect_uri": "https://app.example/other?x=1"},
        {"client_id": "other"},
    ],
)
def test_a_code_is_bound_to_its_request_and_of_no_use_once_it_was_tried_wrongly(
    changed: dict[str, Any], site: Site
) -> None:
    code = code_for(site.sign_in())
    assert exchange(site.client, code, **changed).json()["error"] == "invalid_grant"
    assert exchange(site.client, code).json()["error"] == "invalid_grant"
    assert len(site.events("app-ended")) == 1


def test_a_code_that_comes_twice_ends_what_it_gave(site: Site) -> None:
    code = code_for(site.sign_in())
    granted = exchange(site.client, code).json()
    assert site.status(granted["access_token"]) == 200
    assert exchange(site.client, code).json()["error"] == "invalid_grant"
    assert site.status(granted["access_token"]) == 401
    assert refresh(site.client, granted["refresh_token"]).json()["error"] == "invalid_grant"
    assert len(site.events("app-ended")) == 1


def test_of_many_who_come_at_once_with_one_code_or_refresh_token_one_is_served(site: Site) -> None:
    def served(ask: Callable[[], httpx.Response]) -> list[httpx.Response]:
        with ThreadPoolExecutor(4) as threads:
            answers = [one.result() for one in [threads.submit(ask) for _ in range(4)]]
        assert sorted(one.status_code for one in answers) == [200, 400, 400, 400]
        return [one for one in answers if one.status_code == 200]

    code = code_for(site.sign_in())
    (served_once,) = served(lambda: exchange(site.client, code))
    assert site.status(served_once.json()["access_token"]) == 401  # who was it?
    token = tokens(site.client, site.sign_in())["refresh_token"]
    (rotated,) = served(lambda: refresh(site.client, token))
    assert site.status(rotated.json()["access_token"]) == 401


def test_a_code_ends_after_a_minute(site: Site, clock: Clock) -> None:
    code = code_for(site.sign_in())
    clock.advance(seconds=60)
    assert exchange(site.client, code).json()["error"] == "invalid_grant"


def test_refresh_tokens_rotate_and_one_that_comes_twice_ends_all(site: Site, clock: Clock) -> None:
    first = tokens(site.client, site.sign_in())
    clock.advance(minutes=15)
    assert site.status(first["access_token"]) == 401
    second = refresh(site.client, first["refresh_token"]).json()
    assert (second["patient"], site.status(second["access_token"])) == ("p1", 200)
    assert refresh(site.client, first["refresh_token"]).json()["error"] == "invalid_grant"
    assert site.status(second["access_token"]) == 401
    assert refresh(site.client, second["refresh_token"]).json()["error"] == "invalid_grant"
    assert len(site.events("app-ended")) == 1


def test_a_refresh_asks_for_less_but_never_for_more(site: Site) -> None:
    first = tokens(site.client, site.sign_in())
    assert refresh(site.client, first["refresh_token"], scope="patient/*.cruds").json()["error"] == "invalid_scope"
    less = refresh(site.client, first["refresh_token"], scope="patient/Patient.r").json()
    assert site.status(less["access_token"]) == 403


def test_anothers_refresh_token_is_of_no_use_and_stays_good(site: Site) -> None:
    first = tokens(site.client, site.sign_in())
    stolen = refresh(site.client, first["refresh_token"], client_id="other")
    assert stolen.json()["error"] == "invalid_grant"
    assert refresh(site.client, first["refresh_token"]).status_code == 200


def test_a_public_app_need_not_say_who_it_is_to_refresh_but_one_with_a_secret_must_prove_it(
    confidential: tuple[Site, Machine],
) -> None:
    site, _ = confidential
    browser = site.sign_in()
    public = tokens(site.client, browser)
    form = {"grant_type": "refresh_token", "refresh_token": public["refresh_token"]}
    assert site.client.post("/auth/token", data=form).status_code == 200
    held = exchange(site.client, code_for(browser, client_id="secret"), client_id="secret", client_secret=SECRET).json()
    form["refresh_token"] = held["refresh_token"]
    assert site.client.post("/auth/token", data=form).json()["error"] == "invalid_client"


def test_without_a_scope_for_it_there_is_no_refresh_token(site: Site) -> None:
    assert "refresh_token" not in tokens(site.client, site.sign_in(), scope="launch/patient patient/Media.rs")


# --- how it ends ----------------------------------------------------------------------------------------------------


def test_online_access_ends_when_the_person_logs_out_and_offline_access_does_not(site: Site) -> None:
    browser = site.sign_in()
    online = tokens(site.client, browser)
    offline = tokens(site.client, browser, scope="launch/patient patient/Media.rs offline_access")
    browser.post("/logout")
    assert (site.status(online["access_token"]), site.status(offline["access_token"])) == (401, 200)
    assert refresh(site.client, online["refresh_token"]).json()["error"] == "invalid_grant"
    assert refresh(site.client, offline["refresh_token"]).status_code == 200


def listed(site: Site) -> list[dict[str, Any]]:
    """As `dermbridge token list` shows them."""
    with site.bridge.db.snapshot() as tx:
        return tokens_in_force(tx, now=site.bridge.now())


def test_an_administrator_who_ends_a_session_ends_its_apps_and_may_end_each(site: Site) -> None:
    browser, administrator = site.sign_in(), site.staff("administrator", None)
    offline = "launch/patient patient/Media.rs offline_access"
    first, second = (tokens(site.client, browser, scope=offline)["access_token"] for _ in range(2))
    page = administrator.get("/sessions?user=Practitioner/clinician").text
    assert "Lesion Tracker" in page and "See and search photos" in page
    with site.bridge.db.snapshot() as tx:
        newest = tx.execute(app_grant.select().order_by(app_grant.c.id.desc())).first()
        ends = [row.id for row in tx.execute(session.select()) if "Practitioner/clinician" in row.actor]
    assert newest is not None
    assert site.staff("clinician", NOBODY).post(f"/sessions/apps/{newest.id}/end").status_code == 403
    assert administrator.post(f"/sessions/apps/{newest.id}/end").status_code == 303
    assert (site.status(first), site.status(second)) == (200, 401)
    assert len(listed(site)) == 1
    administrator.post(f"/sessions/{ends[0]}/end")
    assert site.status(first) == 401 and listed(site) == []
    assert len(site.events("app-ended")) == 1


def test_online_access_outlasts_an_idle_page_but_not_the_session(site: Site, clock: Clock) -> None:
    browser = site.sign_in()
    granted = tokens(site.client, browser)
    clock.advance(minutes=20)
    assert browser.get("/patients/p1").status_code == 401
    granted = refresh(site.client, granted["refresh_token"]).json()
    assert site.status(granted["access_token"]) == 200
    clock.advance(minutes=41)
    assert refresh(site.client, granted["refresh_token"]).json()["error"] == "invalid_grant"


def test_offline_access_ends_when_staff_do_not_treat_the_patient_any_more(site: Site, clock: Clock) -> None:
    with site.bridge.db.transaction() as tx:
        took = photo("taken", "p1", operator={"reference": "Person/clinician"})
        create_all(tx, [took], at=site.bridge.now())
    granted = tokens(site.client, site.staff("clinician"), scope="launch/patient patient/Media.rs offline_access")
    granted = refresh(site.client, granted["refresh_token"]).json()
    site.settings(treating_days=0)
    clock.advance(days=1)
    assert refresh(site.client, granted["refresh_token"]).json()["error"] == "invalid_grant"


def test_offline_access_ends_when_the_ehr_or_its_role_does(site: Site) -> None:
    granted = tokens(site.client, site.sign_in(), scope="launch/patient patient/Media.rs offline_access")
    site.settings(ehrs=())
    assert refresh(site.client, granted["refresh_token"]).json()["error"] == "invalid_grant"
    assert site.status(granted["access_token"]) == 401


def test_offline_access_ends_after_its_days(site: Site, clock: Clock) -> None:
    granted = tokens(site.client, site.sign_in(), scope="launch/patient patient/Media.rs offline_access")
    for _ in range(2):
        clock.advance(days=14)
        granted = refresh(site.client, granted["refresh_token"]).json()
    clock.advance(days=2)
    assert refresh(site.client, granted["refresh_token"]).json()["error"] == "invalid_grant"


def test_revoking_a_refresh_token_ends_everything_and_only_by_its_own_app(site: Site) -> None:
    granted = tokens(site.client, site.sign_in())
    form = {"token": granted["refresh_token"]}
    assert site.client.post("/auth/revoke", data=form | {"client_id": "other"}).status_code == 200
    assert site.status(granted["access_token"]) == 200
    assert site.client.post("/auth/revoke", data=form | {"client_id": "app"}).status_code == 200
    assert site.status(granted["access_token"]) == 401


# --- who the app is -------------------------------------------------------------------------------------------------


@pytest.fixture
def confidential(serve: Serve) -> tuple[Site, Machine]:
    holder = Machine("keyed", scope="patient/*.cruds", more={"redirect_uris": (BACK,)})
    secret = APP.model_copy(update={"client_id": "secret"}).model_dump() | {"client_secret": SECRET}
    return Site(*serve(clients=[secret, holder.registration.model_dump(), APP.model_dump()], ehrs=EHRS)), holder


def test_an_app_with_a_secret_proves_itself_with_it(confidential: tuple[Site, Machine]) -> None:
    site, _ = confidential
    browser = site.sign_in()
    for wrong in ({}, {"client_secret": "x" * 32}):
        refused = exchange(site.client, code_for(browser, client_id="secret"), client_id="secret", **wrong)
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
    posted = exchange(site.client, code_for(browser, client_id="secret"), client_id="secret", client_secret=SECRET)
    assert posted.status_code == 200
    form = {"grant_type": "authorization_code", "code": code_for(browser, client_id="secret")}
    form |= {"redirect_uri": BACK, "code_verifier": "v" * 43}
    assert site.client.post("/auth/token", data=form, auth=("secret", SECRET)).status_code == 200


def test_an_app_with_a_key_proves_itself_with_it(confidential: tuple[Site, Machine]) -> None:
    site, holder = confidential
    code = code_for(site.sign_in(), client_id="keyed")
    assert exchange(site.client, code, client_id="keyed").json()["error"] == "invalid_client"
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": BACK, "code_verifier": "v" * 43}
    assert site.client.post("/auth/token", data=holder.form(site.bridge, **form)).status_code == 200


def test_introspection_tells_a_confidential_client_the_launch_context(confidential: tuple[Site, Machine]) -> None:
    site, _ = confidential
    granted = exchange(
        site.client, code_for(site.sign_in(), client_id="secret"), client_id="secret", client_secret=SECRET
    ).json()
    for token in (granted["access_token"], granted["refresh_token"]):
        found = site.client.post("/auth/introspect", data={"token": token}, auth=("secret", SECRET)).json()
        assert found["active"] and (found["patient"], found["client_id"]) == ("p1", "secret")
        assert found["fhirUser"].startswith(f"{FHIR}/Practitioner/")
    public = site.client.post("/auth/introspect", data={"token": token, "client_id": "app"})
    assert public.json()["error"] == "unauthorized_client"


def test_no_app_gets_a_token_without_a_person(confidential: tuple[Site, Machine]) -> None:
    site, _ = confidential
    form = {"grant_type": "client_credentials", "scope": "patient/*.rs"}
    assert site.client.post("/auth/token", data=form | {"client_id": "app"}).json()["error"] == "unauthorized_client"
    assert site.client.post("/auth/token", data=form, auth=("secret", SECRET)).json()["error"] == "unauthorized_client"


def test_a_browser_app_may_call_from_where_it_is_registered(site: Site) -> None:
    preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    for path in ("/auth/token", "/fhir/Media"):
        assert (
            site.client.options(path, headers=preflight).headers["access-control-allow-origin"] == "https://app.example"
        )
    stranger = site.client.options("/auth/token", headers=preflight | {"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in stranger.headers


def test_the_database_holds_no_code_and_no_token(site: Site) -> None:
    code = code_for(site.sign_in())
    granted = exchange(site.client, code).json()
    with site.bridge.db.snapshot() as tx:
        kept = str(tx.execute(app_grant.select()).all())
    assert not any(word in kept for word in (code, granted["refresh_token"], granted["access_token"]))
