"""/auth/authorize: a person decides whether an app may act for them, for which patient and with which scopes.

SMART App Launch 2.2, standalone launch (https://hl7.org/fhir/smart-app-launch/app-launch.html). Until the person has
decided nothing is kept: the page carries the app's request, which is checked again with the decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from adapter import governance
from adapter.access import has_right
from adapter.access.app_grants import give_code
from adapter.access.app_launch import Launched, granting_sessions, launched, needs_patient
from adapter.access.authorization import answer_to, check_request, get_app
from adapter.access.clients import OAuthError
from adapter.access.ehr_grants import keep_alive
from adapter.access.granting import granted_to_app
from adapter.access.id_tokens import subject_of
from adapter.access.launch_word import find_opened_chart, launch_word
from adapter.access.relationship import can_open_charts, patients_treated
from adapter.access.sessions import NOBODY, Session
from adapter.bridge import Bridge
from adapter.errors import BadInput, Forbidden, NotFound
from adapter.records import Stored, create_all, find, find_all
from adapter.records.patient_lookup import find_patients, recent_patients
from adapter.settings import Client
from adapter.web.bodies import Form, parse_query
from adapter.web.gate import actor_of, get_patient, session_of
from adapter.web.headers import content_policy
from adapter.web.launch import AUTHORIZE, open_sessions
from adapter.web.pages import Web
from adapter.web.patient_card import patient_card
from adapter.web.scope_words import told_in_words

LISTED = 25
_WHOSE = {None: "every patient you may see", NOBODY: "no patient, since no chart is open"}


class _Asked(NamedTuple):
    """An app's request that was found in order; `sessions` of who decides, empty when nobody is signed in.

    `opened_in` is the patient from whose chart the app was opened; None in a standalone launch.
    """

    client: Client
    params: dict[str, str]
    sessions: list[Session]
    opened_in: str | None

    @property
    def wanted(self) -> str:
        """The scopes asked for; `launch` is none where no chart was open."""
        asked = self.params.get("scope", "").split()
        return " ".join(one for one in asked if one != "launch" or self.opened_in)

    def scopes(self) -> frozenset[str]:
        """What would be granted. Raises OAuthError."""
        return granted_to_app(self.client, self.wanted, self.sessions[0].actor.scopes)


def authorize(web: Web, request: Request) -> Response:
    """GET /auth/authorize (RFC 6749 section 4.1.1 with PKCE): sign in, or decide."""
    params = _params(request.query_params.multi_items())
    search = params.pop("q", "").strip()[:200]
    client = get_app(_clients(web.bridge), params)
    try:
        asked = _checked(web, request, client, params)
        if params.get("prompt") == "none":
            code = "consent_required" if asked.sessions else "login_required"
            raise OAuthError(code, "a person must decide")
        page = _decision_page(web, request, asked, search) if asked.sessions else _sign_in_page(web, request, asked)
    except OAuthError as error:
        return _back(web, params, error=error.code, error_description=str(error))
    return _framed_by_nobody(page, params["redirect_uri"])


def decide(web: Web, request: Request, form: Form) -> Response:
    """POST /auth/authorize/decision: request (the app's, as a query), decision (allow or deny) and patient."""
    params = _params(parse_query(form.get("request")))
    client = get_app(_clients(web.bridge), params)
    try:
        asked = _checked(web, request, client, params)
        if not asked.sessions:
            raise Forbidden("only a person decides about apps, at the desk; sign in and start the app again")
        code = _decided(web.bridge, asked, form)
    except OAuthError as error:
        return _back(web, params, error=error.code, error_description=str(error))
    return _back(web, params, code=code)


def _checked(web: Web, request: Request, client: Client, params: dict[str, str]) -> _Asked:
    """Raises OAuthError."""
    check_request(params, fhir_base=f"{web.bridge.settings.base_url}/fhir")
    signed_in = [one for one in open_sessions(web.bridge, request).values() if _goes_on(web, one)]
    sessions, opened_in = granting_sessions(signed_in), None
    if sessions and params.get("launch"):
        opened_in = find_opened_chart(web.bridge, params["launch"], sessions[0].actor)
        if opened_in is None:
            raise OAuthError("invalid_request", "this launch is too old or another person's; open the app again")
    return _Asked(client, params, sessions, opened_in)


def _goes_on(web: Web, session: Session) -> bool:
    """Whether the EHR stands behind it still: nobody has asked, at a page that is open to who is not signed in."""
    sealed = session.ehr_grant

    def ended(tx: Connection) -> None:
        governance.audit(tx, web.bridge, "auto-logoff", session.actor)

    return sealed is None or keep_alive(web.bridge, web.http, session.id, sealed, ended=ended)


def _decided(bridge: Bridge, asked: _Asked, form: Form) -> str:
    """The code. Raises OAuthError when the person said no, OutOfReach for a patient who is not theirs to open."""
    client, now = asked.client, bridge.now()
    patient_id = asked.opened_in or (form.get("patient") if needs_patient(asked.wanted) else None)
    if form.get("decision") != "allow":
        with bridge.db.transaction() as tx:
            detail = f"app {client.client_id} was refused"
            governance.audit(tx, bridge, "app-authorized", asked.sessions[0].actor, outcome="4", detail=detail)
        raise OAuthError("access_denied", "the person said no")
    if patient_id == "":
        raise BadInput("choose a patient first; go back and choose one")
    scopes = asked.scopes()
    with bridge.db.transaction() as tx:
        found = launched(
            tx,
            bridge,
            asked.sessions,
            patient_id=patient_id,
            client_id=client.client_id,
            offline="offline_access" in scopes,
            in_visit=asked.opened_in is not None,
        )
        scopes -= frozenset() if found.is_offline else {"offline_access"}
        scope = " ".join(sorted(scopes | _identified(tx, bridge, found, scopes)))
        kept = ("redirect_uri", "code_challenge", "nonce")
        code = give_code(
            tx,
            client_id=client.client_id,
            actor=found.actor,
            scope=scope,
            session_id=found.session.id,
            is_offline=found.is_offline,
            request={name: asked.params[name] for name in kept if name in asked.params},
            at=now,
            expires_at=found.expires_at,
        )
        detail = f"app {client.client_id} may: {scope}"
        patient = found.actor.patient_id or None
        governance.audit(tx, bridge, "app-authorized", found.session.actor, patient_id=patient, detail=detail)
    return code


def _identified(tx: Connection, bridge: Bridge, found: Launched, scopes: frozenset[str]) -> frozenset[str]:
    """The scope to read who the person is, whose Practitioner is kept here from now on (SMART, scope fhirUser)."""
    if "fhirUser" not in scopes:
        return frozenset()
    actor, subject = found.actor, subject_of(found.actor)
    bridge.db.lock(tx, f"Practitioner/{subject}")
    if find(tx, "Practitioner", subject) is None:
        known_as = {"system": actor.ehr or bridge.settings.base_url, "value": actor.id.removeprefix(f"{actor.ehr}/")}
        practitioner = {"resourceType": "Practitioner", "id": subject, "active": True, "identifier": [known_as]}
        create_all(tx, [practitioner | {"name": [{"text": actor.display}]}], at=bridge.now())
        governance.audit(tx, bridge, "create", actor, references=[f"Practitioner/{subject}/_history/1"])
    return frozenset({f"user/Practitioner.r?_id={subject}"})


def open_app(web: Web, request: Request) -> Response:
    """GET /patients/{id}/apps/{client_id}: an app, told from which chart it is opened (EHR launch)."""
    bridge, actor = web.bridge, actor_of(request)
    if session_of(request) is None:
        raise Forbidden("only a person opens an app")
    with bridge.db.snapshot() as tx:
        patient = get_patient(tx, actor, request.path_params["id"])
    client = _clients(bridge).get(request.path_params["client_id"])
    if client is None or client.launch_url is None:
        raise NotFound("there is no such app; apps are registered under [[clients]] with their launch_url")
    told = {"iss": f"{bridge.settings.base_url}/fhir", "launch": launch_word(bridge, actor, patient.id)}
    joint = "&" if urlsplit(client.launch_url).query else "?"
    return RedirectResponse(f"{client.launch_url}{joint}{urlencode(told)}", 303)


# --- the pages ------------------------------------------------------------------------------------------------------


def _sign_in_page(web: Web, request: Request, asked: _Asked) -> Response:
    settings, then = web.bridge.settings, f"{AUTHORIZE}?{urlencode(asked.params)}"
    ways = [(one.name, "/login", {"at": one.name}) for one in settings.staff_logins]
    ways += [(one.name, "/launch", {"iss": one.iss}) for one in settings.ehrs]
    shown = [{"label": name, "href": f"{path}?{urlencode(given | {'then': then})}"} for name, path, given in ways]
    return web.render(request, "authorize_sign_in.html", "Sign in", app=asked.client.name, ways=shown)


def _decision_page(web: Web, request: Request, asked: _Asked, search: str) -> Response:
    """Raises OAuthError when nothing could be granted."""
    bridge, actor, scopes = web.bridge, asked.sessions[0].actor, asked.scopes()
    choosing = needs_patient(asked.wanted) or asked.opened_in is not None
    everybody = asked.opened_in is None and actor.patient_id is None and has_right(actor, "launch-any-patient")
    patients = _patients(bridge, asked, search) if choosing else []
    today = bridge.now().astimezone(bridge.settings.zone).date()
    if patients:
        references = [one.version_reference for one in patients]
        query = "Patient, those an app may be launched for"
        governance.audit_look(bridge, actor, patient_id=None, references=references, query=query)
    offline = "offline_access" in scopes and actor.emergency is None
    return web.render(
        request,
        "authorize.html",
        f"{asked.client.name} asks for access",
        nav=[],
        app=asked.client.name,
        host=urlsplit(asked.params["redirect_uri"]).netloc or urlsplit(asked.params["redirect_uri"]).scheme,
        says=told_in_words(scopes),
        lasts=bridge.settings.app_offline_days if offline else None,
        choosing=choosing,
        whose=_WHOSE.get(actor.patient_id, "the patient whose chart is open"),
        searching=choosing and everybody,
        query=search,
        patients=[patient_card(one, today) for one in patients],
        params=asked.params,
        asked=urlencode(asked.params),
    )


def _patients(bridge: Bridge, asked: _Asked, search: str) -> list[Stored]:
    """From whose chart the app was opened; or else whose is open in this browser, and whose may be opened besides."""
    actor = asked.sessions[0].actor
    ids = [one.actor.patient_id for one in asked.sessions if one.actor.patient_id]
    governance.settle(bridge)
    with bridge.db.snapshot() as tx:
        if asked.opened_in:
            return list(find_all(tx, "Patient", [asked.opened_in]).values())
        if can_open_charts(actor):
            ids += patients_treated(tx, bridge, actor, limit=LISTED)
        if actor.patient_id is None and has_right(actor, "launch-any-patient"):
            if search:
                return find_patients(tx, search, limit=LISTED)
            ids += recent_patients(tx, actor.id, limit=LISTED)
        known = find_all(tx, "Patient", dict.fromkeys(ids))
    return [known[one] for one in dict.fromkeys(ids) if one in known]


def _framed_by_nobody(page: Response, redirect_uri: str) -> Response:
    """In no frame, so that nobody is tricked into a click; and Chromium holds a form to its redirects as well."""
    parts = urlsplit(redirect_uri)
    target = f"{parts.scheme}://{parts.netloc}" if parts.netloc else f"{parts.scheme}:"
    page.headers["Content-Security-Policy"] = content_policy(form_action=target)
    return page


def _back(web: Web, params: dict[str, str], **answer: str) -> Response:
    address = answer_to(params, iss=web.bridge.settings.base_url, **answer)
    return RedirectResponse(address, 303, {"Cache-Control": "no-store"})


def _clients(bridge: Bridge) -> dict[str, Client]:
    return {client.client_id: client for client in bridge.settings.clients}


def _params(given: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Each once, and none without a value (RFC 6749 section 3.1). Raises BadInput."""
    if len({name for name, _ in given}) < len(given):
        raise BadInput("a parameter of this request was given twice; the app must be mended")
    return {name: value for name, value in given if value}
