"""Every route against everybody who may not use it; a route without a row here fails.

A row says who may (`who`, in the chart of p1 where `in_chart`), at which address, and which role may not. The owner is
let through on the same address, so that a refusal is never just a page that does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import urlencode

import httpx
import pytest
from sqlalchemy import insert
from starlette.routing import Mount

from adapter.access import Actor
from adapter.access.policy import grants_of
from adapter.access.sessions import COOKIE, end_session, start_session
from adapter.access.tokens import issue_token, revoke_token
from adapter.bridge import Bridge
from adapter.db import tables
from adapter.fhir_api.offered import INTERACTIONS
from adapter.records import create_all
from adapter.web.routes import is_public
from mappings.comparison_to_observation import View, comparison_to_observation
from tests.access.apps import APP, asked
from tests.access.conftest import Serve, photo
from tests.conftest import Clock
from tests.fhir_api.conftest import InProcess
from tests.web.conftest import Browser


@dataclass(frozen=True)
class Row:
    """`not_role`: a role that is refused although signed in; None where every role may. `fields`: what a form sends."""

    address: str
    who: str = "clinician"
    in_chart: bool = True
    not_role: str | None = "engineer"
    fields: tuple[tuple[str, str], ...] = ()
    somebody_elses: bool = True  # a clinician in the chart of p2 is refused
    holds: bool = True  # False: nothing but a redirect to another route of ours, or what is the same for everybody


ANY = {"not_role": None, "somebody_elses": False}
OPERATOR = {"who": "engineer", "in_chart": False, "not_role": "clinician"}
TRIAGE = {"who": "photographer", "in_chart": False, "not_role": "clinician"}
AUDITOR = {"who": "privacy-officer", "in_chart": False, "not_role": "administrator"}
PAIR = (("left", "m1"), ("right", "overview"))
ASKED = urlencode(asked())
LINE = '{"kind": "length", "points": [[1, 1], [40, 40]], "version": 1}'

ROWS: dict[tuple[str, str], Row] = {
    ("GET", "/fhir"): Row("/fhir/Media/m1"),
    ("GET", "/fhir/{path:path}"): Row("/fhir/Media/m1/_history"),
    ("POST", "/captures"): Row("/captures?patient=p1", somebody_elses=False),
    ("GET", "/patients/{id}/events"): Row("/patients/p1/events"),
    ("GET", "/"): Row("/", **ANY),
    ("GET", "/style.css"): Row("/style.css", **ANY),
    ("GET", "/break-glass"): Row("/break-glass", **ANY),
    ("GET", "/charts"): Row("/charts", not_role="administrator", somebody_elses=False),
    ("POST", "/charts/{id}/open"): Row("/charts/p1/open", somebody_elses=False),
    ("POST", "/break-glass"): Row("/break-glass", fields=(("reason", "TREAT"),), somebody_elses=False),
    ("POST", "/break-glass/end"): Row("/break-glass/end", **ANY),
    ("POST", "/logout"): Row("/logout", **ANY),
    ("GET", "/patients/{id}"): Row("/patients/p1"),
    ("GET", "/patients/{id}/elsewhere"): Row("/patients/p1/elsewhere"),
    ("POST", "/patients/{id}/elsewhere"): Row("/patients/p1/elsewhere"),
    ("GET", "/patients/{id}/apps/{client_id}"): Row("/patients/p1/apps/app", not_role=None),
    ("GET", "/patients/{id}/consents"): Row("/patients/p1/consents"),
    ("POST", "/patients/{id}/consents"): Row("/patients/p1/consents"),
    ("GET", "/consents/{id}"): Row("/consents/c1"),
    ("GET", "/consents/{id}/evidence"): Row("/consents/c1/evidence"),
    ("POST", "/consents/{id}/withdraw"): Row("/consents/c1/withdraw"),
    ("GET", "/photos/{id}"): Row("/photos/m1"),
    ("POST", "/photos/{id}"): Row("/photos/m1"),
    ("GET", "/photos/{id}/scale"): Row("/photos/m1/scale"),
    ("GET", "/photos/{id}/outline"): Row("/photos/m1/outline?x=1&y=1"),
    ("GET", "/photos/{id}/normalised"): Row("/photos/m1/normalised"),
    ("GET", "/photos/{id}/measurements"): Row("/photos/m1/measurements"),
    ("POST", "/photos/{id}/measurements"): Row("/photos/m1/measurements", fields=(("drawn", LINE), ("keep", "1"))),
    ("POST", "/photos/{id}/measurements/{measurement}/withdraw"): Row(
        "/photos/m1/measurements/none/withdraw", fields=(("why", "drawn on the wrong lesion"),)
    ),
    ("GET", "/lesions/{id}"): Row("/lesions/l1"),
    ("GET", "/card.pdf"): Row("/card.pdf", **ANY, holds=False),
    ("GET", "/handoff"): Row("/handoff?patient=p1", not_role=None),
    ("GET", "/capture"): Row("/capture?patient=p1"),
    ("GET", "/compare"): Row("/compare?media=m1&media=overview"),
    ("POST", "/compare"): Row("/compare", not_role=None, somebody_elses=False, holds=False),
    ("GET", "/comparison"): Row("/comparison?media=m1&media=overview"),
    ("POST", "/comparison"): Row("/comparison", fields=(*PAIR, ("points", "[[[1, 1], [1, 1]]]"))),
    ("POST", "/comparison/take-back"): Row("/comparison/take-back", fields=PAIR),
    ("POST", "/saved-comparisons"): Row("/saved-comparisons", fields=(("media", "m1"), ("version", "1"))),
    ("GET", "/saved-comparisons/{id}"): Row("/saved-comparisons/o1"),
    ("GET", "/saved-comparisons/{id}/{form}"): Row("/saved-comparisons/o1/gif"),
    ("POST", "/saved-comparisons/{id}/send"): Row("/saved-comparisons/o1/send"),
    ("POST", "/saved-comparisons/{id}/withdraw"): Row("/saved-comparisons/o1/withdraw"),
    ("GET", "/comparisons/{id}/tiles"): Row("/comparisons/none/tiles"),
    ("GET", "/comparisons/{id}/tiles/{ticket}/{level}/{column}/{row}"): Row("/comparisons/none/tiles/none/0/0/0"),
    ("GET", "/comparisons/{id}/normalised"): Row("/comparisons/none/normalised"),
    ("GET", "/comparisons/{id}/{picture}"): Row("/comparisons/none/overlay"),
    ("GET", "/captures/{id}"): Row("/captures/m1"),
    ("GET", "/captures/{id}/tiles"): Row("/captures/m1/tiles"),
    ("GET", "/captures/{id}/tiles/{ticket}/{level}/{column}/{row}"): Row("/captures/m1/tiles/none/0/0/0"),
    ("GET", "/captures/{id}/{content}"): Row("/captures/m1/display"),
    ("GET", "/deliveries"): Row(
        "/deliveries", who="engineer", in_chart=False, not_role="photographer-without-chart", somebody_elses=False
    ),
    ("POST", "/deliveries/{id}/send-again"): Row("/deliveries/d1/send-again", not_role="privacy-officer"),
    ("POST", "/deliveries/{id}/hold"): Row("/deliveries/d1/hold", not_role="privacy-officer"),
    ("POST", "/deliveries/{id}/looked"): Row("/deliveries/d1/looked", not_role="privacy-officer"),
    ("POST", "/deliveries/destinations/{name}"): Row(
        "/deliveries/destinations/none", fields=(("say", "stop"),), **OPERATOR
    ),
    ("GET", "/worklist"): Row("/worklist", **TRIAGE),
    ("POST", "/worklist/photos/{id}"): Row("/worklist/photos/m1", fields=(("patient", "p1"), ("version", "1"))),
    ("POST", "/worklist/photos/{id}/ask"): Row("/worklist/photos/waiting/ask", **TRIAGE),
    ("POST", "/worklist/adt/{id}/replay"): Row("/worklist/adt/a1/replay", **OPERATOR),
    ("POST", "/worklist/adt/{id}/dismiss"): Row("/worklist/adt/a1/dismiss", **OPERATOR),
    ("GET", "/refile"): Row("/refile?media=m1"),
    ("POST", "/refile"): Row("/refile", fields=(("media", "m1"), ("reason", "taken of somebody else"))),
    ("GET", "/admin"): Row("/admin", **OPERATOR),
    ("POST", "/admin/destinations/{name}/check"): Row("/admin/destinations/none/check", **OPERATOR),
    ("POST", "/admin/work/{id}/replay"): Row("/admin/work/1/replay", **OPERATOR),
    ("GET", "/sessions"): Row("/sessions", **ANY),
    ("POST", "/sessions/{id}/end"): Row(
        "/sessions/s1/end", who="administrator", in_chart=False, not_role="privacy-officer", somebody_elses=False
    ),
    ("POST", "/sessions/apps/{id}/end"): Row(
        "/sessions/apps/g1/end", who="administrator", in_chart=False, not_role="privacy-officer", somebody_elses=False
    ),
    ("POST", "/auth/authorize/decision"): Row(
        "/auth/authorize/decision",
        not_role=None,  # with fewer scopes of their own they grant fewer: tests/access/test_app_launch.py
        fields=(("request", ASKED), ("decision", "allow"), ("patient", "p1")),
    ),
    ("GET", "/audit"): Row("/audit", **AUDITOR),
    ("GET", "/audit.csv"): Row("/audit.csv", **AUDITOR),
    ("GET", "/imports"): Row("/imports", **TRIAGE),
    ("GET", "/imports/{id}"): Row("/imports/i1", **TRIAGE),
    ("GET", "/jobs"): Row("/jobs", somebody_elses=False),
    ("POST", "/jobs"): Row("/jobs", fields=(("operation", "assign"), ("patient", "p1"), ("media", "m1"))),
    ("GET", "/jobs/{id}.json"): Row("/jobs/j1.json"),
    ("GET", "/jobs/{id}"): Row("/jobs/j1"),
    ("POST", "/jobs/{id}/start"): Row("/jobs/j1/start"),
    ("POST", "/jobs/{id}/confirm"): Row("/jobs/j1/confirm", who="administrator", in_chart=False, not_role="clinician"),
    ("POST", "/jobs/{id}/cancel"): Row("/jobs/j1/cancel"),
    ("POST", "/jobs/{id}/undo"): Row("/jobs/j1/undo"),
}
PUBLIC = {  # open on purpose, with what protects each instead
    "/launch": "only registered EHRs; attempts are counted",
    "/callback": "a state that was begun in this browser",
    "/callback/{callback}": "the same",
    "/login": "only configured providers; attempts are counted",
    "/h/{secret}": "a secret that works once, for minutes",
    "/auth/authorize": "says where to sign in; charts are shown to who is signed in: tests/access/test_app_launch.py",
    "/auth/token": "a signed assertion, a secret, or a code or refresh token of one use",
    "/auth/revoke": "a signed assertion, a secret, or the token itself",
    "/auth/introspect": "a signed assertion or a secret",
    "/.well-known/openid-configuration": "describes, holds no data",
    "/healthz": "says nothing",
    "/readyz": "says whether a photo could be stored",
    "/metrics": "this machine, a scope or a right: tests/web/test_metrics.py",
    "/openapi.json": "describes, holds no data",
    "/fhir/.well-known/smart-configuration": "describes, holds no data",
    "/.well-known/jwks.json": "public keys",
}
ANSWERED = {200, 303, 400, 409, 422}
NOT_KEPT = (
    "/consents/c1/evidence",
    "/captures/",
    "/comparisons/",
    "/photos/m1/",
)  # the records of this test have no such part
BEYOND_CHARTS = ("/admin", "/audit")  # the installation, and whom a privacy officer must be able to ask about
MANY = ("/fhir", "/fhir/{path:path}")  # every interaction of these has a test of its own below


class Site(NamedTuple):
    bridge: Bridge
    app: Any
    client: httpx.Client

    def sign_in(self, role: str, patient_id: str | None) -> Browser:
        scopes, rights = grants_of(role.removesuffix("-without-chart"))
        actor = Actor("person", f"Practitioner/{role}", role, role, scopes, rights, patient_id=patient_id)
        with self.bridge.db.transaction() as tx:
            cookie, session = start_session(tx, actor, at=self.bridge.now(), lifetime=timedelta(hours=1))
        client = httpx.Client(transport=InProcess(self.app), base_url="http://testserver", cookies={COOKIE: cookie})
        return Browser(client, session.csrf)

    def owner(self, row: Row) -> Browser:
        return self.sign_in(row.who, "p1" if row.in_chart else None)

    def token(self, scope: str) -> dict[str, str]:
        with self.bridge.db.transaction() as tx:
            _, secret = issue_token(tx, name="t", scope=scope, at=self.bridge.now(), lifetime=timedelta(hours=1))
        return {"Authorization": f"Bearer {secret}"}


@pytest.fixture
def site(serve: Serve) -> Site:
    bridge, client = serve(clients=[APP.model_dump()])
    clinician = Actor("person", "Practitioner/clinician", "clinician", "clinician", *grants_of("clinician"))
    at = bridge.now()
    consented = {
        "resourceType": "Consent",
        "id": "c1",
        "status": "active",
        "scope": {"coding": [{"code": "patient-privacy"}]},
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
        "patient": {"reference": "Patient/p1"},
        "dateTime": "2026-11-01",
        "policyRule": {"coding": [{"code": "OPTIN"}]},
        "provision": {"type": "permit", "purpose": [{"code": "TREAT"}]},
    }
    compared = comparison_to_observation(
        None,
        [photo(one, "p1") | {"meta": {"versionId": "1"}} for one in ("m1", "overview")],
        observation_id="o1",
        view=View(),
        note=None,
        performer={"display": "somebody"},
        saved_at=at,
    )
    job = {"id": "j1", "operation": "assign", "actor": clinician.to_json(), "actor_id": clinician.id, "patient": "p1"}
    sent = {"id": "d1", "media_id": "m1", "media_version": 1, "patient": "p1", "destination": "ehr", "state": "failed"}
    with bridge.db.transaction() as tx:
        lesion = {"resourceType": "BodyStructure", "id": "l1", "patient": {"reference": "Patient/p1"}}
        create_all(tx, [consented, compared, lesion], at=at)
        tx.execute(insert(tables.job), job | {"parameters": "{}", "state": "preview", "created_at": at})
        tx.execute(insert(tables.delivery), sent | {"created_at": at, "updated_at": at})
        open_elsewhere = {"id": "s1", "actor": clinician.to_json(), "actor_id": clinician.id, "csrf": "", "seen_at": at}
        tx.execute(insert(tables.session), open_elsewhere | {"created_at": at, "expires_at": at + timedelta(days=1)})
        let_in = {"id": "g1", "client_id": "app", "actor": clinician.to_json(), "actor_id": clinician.id, "scope": ""}
        let_in |= {"session_id": "s1", "is_offline": False, "request": "{}", "code_sha256": "", "created_at": at}
        tx.execute(insert(tables.app_grant), let_in | {"expires_at": at + timedelta(days=1)})
        tx.execute(insert(tables.import_run), {"id": "i1", "folder": "card", "started_at": at})
    return Site(bridge, client._transport._inner.app, client)  # type: ignore[attr-defined]


def ask(client: httpx.Client, method: str, row: Row, headers: dict[str, str] | None = None, csrf: str = "") -> int:
    accept = "application/fhir+json" if row.address.startswith("/fhir") else "text/html"
    headers = {"Accept": accept} | (headers or {})
    if method == "GET":
        return client.get(row.address, headers=headers).status_code
    if row.address.startswith("/captures"):
        sent = {"Content-Type": "image/jpeg"} | ({"X-CSRF-Token": csrf} if csrf else {})
        return client.post(row.address, content=b"\xff\xd8\xff", headers=headers | sent).status_code
    fields: dict[str, str] = dict(row.fields) | ({"csrf_token": csrf} if csrf else {})
    return client.post(row.address, data=fields, headers=headers).status_code


Asked = Callable[[str, Row], int]


def offenders(asked: Asked, allowed: set[int], rows: Callable[[str, Row], object] = lambda *_: True) -> dict[str, int]:
    """Which routes answered otherwise; one service serves them all, which keeps this fast."""
    answers = {f"{key[0]} {key[1]}": asked(key[0], row) for key, row in ROWS.items() if rows(key[0], row)}
    assert answers
    return {route: status for route, status in answers.items() if status not in allowed}


def patterns(site: Site) -> Iterator[tuple[str, str]]:
    for route in site.app.routes:
        if not isinstance(route, Mount):
            for method in (route.methods or set()) - {"HEAD"}:
                if route.path not in MANY or method == "GET":
                    yield method, route.path


def test_every_route_has_a_row_or_is_open_on_purpose(site: Site) -> None:
    served = set(patterns(site))
    without = {one for one in served if one not in ROWS and one[1] not in PUBLIC}
    assert not without, "say in tests/access/test_matrix.py who may use these, or why they are open"
    assert set(ROWS) <= served, "these rows have no route any more"


def test_what_is_open_is_what_the_gate_lets_through(site: Site) -> None:
    for _, pattern in patterns(site):
        address = pattern.replace("{callback}", "x").replace("{secret}", "x")
        assert is_public(address) == (pattern in PUBLIC), pattern


def test_the_one_who_may_is_let_through(site: Site) -> None:
    def asked(method: str, row: Row) -> int:
        owner = site.owner(row)
        status = ask(owner.client, method, row, csrf=owner.csrf)
        return 200 if status == 404 and (method == "POST" or row.address.startswith(NOT_KEPT)) else status

    def ends(_method: str, row: Row) -> bool:
        """An open stream does not, and a comparison needs two real photos: tests/web."""
        return not row.address.endswith("/events") and not row.address.startswith("/comparison?")

    assert offenders(asked, ANSWERED, ends) == {}


def test_nobody_signed_in_is_refused(site: Site) -> None:
    assert offenders(lambda method, row: ask(site.client, method, row), {401}) == {}


def test_an_idle_session_is_refused(site: Site, clock: Clock) -> None:
    def asked(method: str, row: Row) -> int:
        owner = site.owner(row)
        clock.advance(minutes=16)
        return ask(owner.client, method, row, csrf=owner.csrf)

    assert offenders(asked, {401}) == {}


def test_an_ended_session_is_refused(site: Site) -> None:
    def asked(method: str, row: Row) -> int:
        owner = site.owner(row)
        with site.bridge.db.transaction() as tx:
            tx.execute(tables.session.delete())
        return ask(owner.client, method, row, csrf=owner.csrf)

    assert offenders(asked, {401}) == {}


def test_a_session_in_another_patients_chart_is_refused(site: Site) -> None:
    colleague = site.sign_in("clinician", "p2")
    refused = offenders(
        lambda method, row: ask(colleague.client, method, row, csrf=colleague.csrf),
        {403, 404},
        lambda _, row: row.somebody_elses,
    )
    assert refused == {}


def test_whoever_has_the_right_is_refused_too_when_launched_in_another_patients_chart(site: Site) -> None:
    def asked(method: str, row: Row) -> int:
        colleague = site.sign_in(row.who, "p2")
        return ask(colleague.client, method, row, csrf=colleague.csrf)

    def within(_method: str, row: Row) -> bool:
        return row.somebody_elses and not row.address.startswith(BEYOND_CHARTS)

    assert offenders(asked, {403, 404}, within) == {}


def test_a_role_without_the_right_is_refused(site: Site) -> None:
    def asked(method: str, row: Row) -> int:
        outsider = site.sign_in(row.not_role or "", "p1" if row.not_role == "clinician" else None)
        return ask(outsider.client, method, row, csrf=outsider.csrf)

    assert offenders(asked, {403, 404}, lambda _, row: row.not_role) == {}


def test_a_token_with_too_few_scopes_is_refused(site: Site) -> None:
    few = site.token("system/Practitioner.r")
    assert offenders(lambda method, row: ask(site.client, method, row, few), {403, 404}, lambda _, row: row.holds) == {}


def test_a_revoked_or_expired_token_is_refused(site: Site, clock: Clock) -> None:
    everything = "system/*.cruds"
    expired = site.token(everything)
    clock.advance(minutes=61)
    with site.bridge.db.transaction() as tx:
        token_id, secret = issue_token(tx, name="t", scope=everything, at=site.bridge.now())
        revoke_token(tx, token_id, at=site.bridge.now())
    for dead in (expired, {"Authorization": f"Bearer {secret}"}):

        def asked(method: str, row: Row, dead: dict[str, str] = dead) -> int:
            with site.bridge.db.transaction() as tx:
                tx.execute(tables.attempts.delete())  # so many failures would lock this address
            return ask(site.client, method, row, dead)

        assert offenders(asked, {401}) == {}


@pytest.mark.parametrize("how", ["no token", "another site", "a wrong token"])
def test_a_change_from_elsewhere_is_refused(site: Site, how: str) -> None:
    headers = {"Sec-Fetch-Site": "cross-site"} if how == "another site" else {}

    def asked(method: str, row: Row) -> int:
        owner = site.owner(row)
        return ask(owner.client, method, row, headers, csrf="x" * len(owner.csrf) if how == "a wrong token" else "")

    assert offenders(asked, {403}, lambda method, _: method == "POST") == {}


@pytest.mark.parametrize("resource_type", sorted(INTERACTIONS))
def test_no_fhir_type_is_open_without_its_scope(site: Site, resource_type: str) -> None:
    few = site.token("system/Practitioner.r" if resource_type != "Practitioner" else "system/Media.r")
    client, json = site.client, {"Content-Type": "application/fhir+json"}
    asked = {
        "read": client.get(f"/fhir/{resource_type}/m1", headers=few),
        "vread": client.get(f"/fhir/{resource_type}/m1/_history/1", headers=few),
        "history": client.get(f"/fhir/{resource_type}/m1/_history", headers=few),
        "search": client.get(f"/fhir/{resource_type}", headers=few),
        "search by POST": client.post(f"/fhir/{resource_type}/_search", headers=few),
        "create": client.post(f"/fhir/{resource_type}", headers=few | json, json={"resourceType": resource_type}),
        "update": client.put(f"/fhir/{resource_type}/m1", headers=few | json, json={"resourceType": resource_type}),
        "delete": client.delete(f"/fhir/{resource_type}/m1", headers=few),
    }
    assert {name: one.status_code for name, one in asked.items() if one.status_code not in (403, 405)} == {}


def test_a_token_in_the_address_is_refused(site: Site) -> None:
    secret = site.token("system/*.rs")["Authorization"].removeprefix("Bearer ")
    assert site.client.get("/fhir/Media/m1", params={"access_token": secret}).status_code == 400


def test_a_planted_cookie_is_not_taken_over(site: Site) -> None:
    browser = site.owner(ROWS["GET", "/patients/{id}"])
    with site.bridge.db.transaction() as tx:
        end_session(tx, "planted")
    browser.client.cookies.clear()
    browser.client.cookies.set(COOKIE, "planted")
    assert browser.get("/patients/p1").status_code == 401


def test_thirty_wrong_tokens_shut_out_wrong_ones_for_five_minutes_but_no_good_one(site: Site, clock: Clock) -> None:
    good, wrong = site.token("system/Media.r"), {"Authorization": "Bearer dbt_wrong"}
    statuses = {site.client.get("/fhir/Media/m1", headers=wrong).status_code for _ in range(30)}
    assert statuses == {401}
    assert site.client.get("/fhir/Media/m1", headers=wrong).status_code == 429
    assert site.client.get("/fhir/Media/m1", headers=good).status_code == 200
    clock.advance(minutes=6)
    assert site.client.get("/fhir/Media/m1", headers=wrong).status_code == 401
