"""An app registered with the service under test, and people who let it in."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from adapter.access import Actor
from adapter.access.oauth import s256
from adapter.access.policy import grants_of
from adapter.access.sessions import COOKIE, NOBODY, cookie_name, start_session
from adapter.bridge import Bridge
from adapter.governance import settle
from adapter.records import find_where
from adapter.settings import Client
from tests.access.conftest import Serve
from tests.web.conftest import Browser

VERIFIER = "v" * 43
BACK = "https://app.example/back"
NORTH = "https://north.example/fhir"
FHIR = "http://127.0.0.1:8000/fhir"
SCOPE = "launch/patient online_access patient/Media.crs patient/Patient.r"
WHO = f"openid fhirUser {SCOPE}"  # with an id_token, whose key costs a moment to make
APP = Client(
    client_id="app",
    name="Lesion Tracker",
    scope="patient/*.cruds user/*.cruds offline_access",
    launch_url="https://app.example/launch",
    redirect_uris=(BACK, "https://app.example/other?x=1"),
)
OTHER = APP.model_copy(update={"client_id": "other", "name": "Other App"})


def asked(**changed: str | None) -> dict[str, str]:
    """The parameters of an authorize request in order, but for what is changed or None."""
    params = {
        "response_type": "code",
        "client_id": "app",
        "redirect_uri": BACK,
        "scope": SCOPE,
        "state": "s-1",
        "aud": FHIR,
        "nonce": "n-1",
        "code_challenge": s256(VERIFIER),
        "code_challenge_method": "S256",
    } | changed
    return {name: value for name, value in params.items() if value is not None}


def told(answer: httpx.Response) -> dict[str, str]:
    """What the app finds in the address it is called back at."""
    assert answer.status_code in (302, 303), answer.text
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}


def decide(browser: Browser, patient: str | None = "p1", decision: str = "allow", **changed: str | None) -> Any:
    """The person looks at the page and decides."""
    fields = {"request": urlencode(asked(**changed)), "decision": decision} | ({"patient": patient} if patient else {})
    return browser.post("/auth/authorize/decision", fields)


def code_for(browser: Browser, patient: str | None = "p1", **changed: str | None) -> str:
    return told(decide(browser, patient, "allow", **changed))["code"]


def exchange(client: httpx.Client, code: str, **changed: str | None) -> httpx.Response:
    form = {
        "grant_type": "authorization_code",
        "client_id": "app",
        "code": code,
        "redirect_uri": BACK,
        "code_verifier": VERIFIER,
    } | changed
    return client.post("/auth/token", data={name: value for name, value in form.items() if value is not None})


def refresh(client: httpx.Client, token: str, **changed: str) -> httpx.Response:
    form = {"grant_type": "refresh_token", "client_id": "app", "refresh_token": token}
    return client.post("/auth/token", data=form | changed)


def tokens(client: httpx.Client, browser: Browser, patient: str | None = "p1", **changed: str | None) -> dict[str, Any]:
    answer = exchange(client, code_for(browser, patient, **changed))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def patients_offered(page: str) -> list[str]:
    return re.findall(r'name="patient" value="([^"]+)"', page)


class Site(NamedTuple):
    bridge: Bridge
    client: httpx.Client

    def sign_in(self, role: str = "clinician", *patients: str | None, **more: Any) -> Browser:
        """A browser with a session for each of these charts; without one in none."""
        scopes, rights = grants_of(role)
        actor = Actor("person", f"Practitioner/{role}", "Dr. Inés Rivera", role, scopes, rights)
        client = httpx.Client(transport=self.client._transport, base_url="http://testserver")
        for patient_id in patients or ("p1",):
            person = replace(actor, **{"patient_id": patient_id, "ehr": NORTH} | more)
            person = replace(person, id=f"{person.ehr}/{actor.id}")
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
        settle(self.bridge)
        with self.bridge.db.snapshot() as tx:
            events = [one.resource for one in find_where(tx, "AuditEvent")]
        return [one for one in events if any(code["code"] == kind for code in one.get("subtype", []))]


EHRS = [{"name": "North", "iss": NORTH, "client_id": "dermbridge"}]


@pytest.fixture
def site(serve: Serve) -> Site:
    return Site(*serve(clients=[APP.model_dump(), OTHER.model_dump()], ehrs=EHRS))
