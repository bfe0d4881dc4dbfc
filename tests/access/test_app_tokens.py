"""Codes and tokens of apps that people launched: bound, used once, ended; and which app it is that asks."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from adapter.access.clients import Asking
from adapter.access.jwks import PublishedKeys
from adapter.access.sessions import NOBODY
from adapter.access.token_endpoint import TokenEndpoint
from adapter.access.tokens import tokens_in_force
from adapter.db.tables import app_grant, session
from adapter.errors import Unavailable
from adapter.records import create_all
from tests.access.apps import (
    APP,
    BACK,
    EHRS,
    FHIR,
    NORTH,
    VERIFIER,
    WHO,
    Site,
    code_for,
    exchange,
    refresh,
    site,
    tokens,
)
from tests.access.conftest import Serve, photo
from tests.access.machines import Machine
from tests.conftest import Clock

__all__ = ["site"]

SECRET = "s" * 32


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
    (event,) = site.events("app-ended")
    assert "a refresh token came twice" in str(event)


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
    assert site.events("app-ended") == []  # nobody stole anything
    assert refresh(site.client, offline["refresh_token"]).status_code == 200


def listed(site: Site) -> list[dict[str, Any]]:
    """As `dermbridge token list` shows them."""
    with site.bridge.db.snapshot() as tx:
        return tokens_in_force(tx, now=site.bridge.now())


def test_an_administrator_who_ends_a_session_ends_its_apps_and_may_end_each(site: Site) -> None:
    browser, administrator = site.sign_in(), site.staff("administrator", None)
    offline = "launch/patient patient/Media.rs offline_access"
    first, second = (tokens(site.client, browser, scope=offline)["access_token"] for _ in range(2))
    page = administrator.get(f"/sessions?user={NORTH}/Practitioner/clinician").text
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


def test_nothing_is_issued_or_ended_that_the_audit_log_was_not_told(site: Site) -> None:
    def fails(*_told: object) -> None:
        raise Unavailable("the audit log cannot be written")

    def asking(**form: str) -> Asking:
        return Asking({"client_id": "app"} | form)

    silent = TokenEndpoint(site.bridge, PublishedKeys(httpx.Client()), fails)
    browser = site.sign_in()
    bound = {"redirect_uri": BACK, "code_verifier": VERIFIER}
    code = code_for(browser)
    with pytest.raises(Unavailable):
        silent.issue(asking(grant_type="authorization_code", code=code, **bound))
    granted = exchange(site.client, code).json()  # as if it had never been tried
    with pytest.raises(Unavailable):
        silent.issue(asking(grant_type="refresh_token", refresh_token=granted["refresh_token"]))
    renewed = refresh(site.client, granted["refresh_token"]).json()
    with pytest.raises(Unavailable):  # the old one comes twice, which would end everything
        silent.issue(asking(grant_type="refresh_token", refresh_token=granted["refresh_token"]))
    with pytest.raises(Unavailable):
        silent.revoke(asking(token=renewed["access_token"]))
    assert site.status(renewed["access_token"]) == 200
    assert len([one for one in site.events("110122") if "app" in str(one["agent"])]) == 2


def test_the_same_reference_at_another_ehr_is_another_person(site: Site) -> None:
    browser, namesake = site.sign_in(), site.sign_in(ehr="https://south.example/fhir")
    granted = tokens(site.client, browser)
    (app_ends,) = re.findall(r'action="(/sessions/apps/[^"]+)"', browser.get("/sessions").text)
    (own_ends,) = re.findall(r'action="(/sessions/\w{64}/end)"', browser.get("/sessions").text)
    assert len(re.findall(r'action="/sessions/', namesake.get("/sessions").text)) == 1  # the one that looks
    assert {namesake.post(app_ends).status_code, namesake.post(own_ends).status_code} == {403}
    assert site.status(granted["access_token"]) == 200


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
        site.client, code_for(site.sign_in(), client_id="secret", scope=WHO), client_id="secret", client_secret=SECRET
    ).json()
    for token in (granted["access_token"], granted["refresh_token"]):
        found = site.client.post("/auth/introspect", data={"token": token}, auth=("secret", SECRET)).json()
        assert found["active"] and (found["patient"], found["client_id"]) == ("p1", "secret")
        assert found["fhirUser"].startswith(f"{FHIR}/Practitioner/")
    public = site.client.post("/auth/introspect", data={"token": token, "client_id": "app"})
    assert public.json()["error"] == "unauthorized_client"


def test_no_app_gets_a_token_without_a_person(confidential: tuple[Site, Machine]) -> None:
    site, holder = confidential
    form = {"grant_type": "client_credentials", "scope": "patient/*.rs"}
    keyed = site.client.post("/auth/token", data=holder.form(site.bridge, **form))
    assert keyed.json()["error"] == "invalid_scope"
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
