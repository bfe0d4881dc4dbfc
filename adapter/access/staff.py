"""Staff sign in outside an EHR, at the hospital's own OpenID Connect provider.

What somebody may do here follows from a claim of the provider (groups, roles) by the table in the settings; who is in
none of its rows is refused. Nobody gets a chart this way: whose role works in one chart opens it by breaking the glass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from adapter.access.actor import Actor
from adapter.access.oauth import (
    Begun,
    Registration,
    begin,
    check_endpoints,
    code_grant,
    exchange,
    person_reference,
    verified_claims,
)
from adapter.access.outbound import get_json
from adapter.access.policy import grants_of
from adapter.access.sessions import NOBODY
from adapter.access.smart import redirect_uri
from adapter.bridge import Bridge
from adapter.errors import Forbidden, NotFound
from adapter.records.extraction import token_value
from adapter.settings import StaffLogin

USERINFO = "userinfo_endpoint"


def get_login(bridge: Bridge, name: str | None) -> StaffLogin:
    """The provider of that name, or the only one. Raises NotFound."""
    logins = bridge.settings.staff_logins
    if name is None and len(logins) == 1:
        return logins[0]
    for login in logins:
        if login.name == name:
            return login
    raise NotFound("no such sign-in is configured; staff sign in through [[staff_logins]] in dermbridge.toml")


def begin_login(bridge: Bridge, http: httpx.Client, login: StaffLogin, then: str = "/") -> Begun:
    """`then` is the page of ours to go on to.

    Raises Unavailable when the provider does not answer or is not who it should be.
    """
    found = get_json(http, f"{login.issuer.rstrip('/')}/.well-known/openid-configuration", login.name)
    if found.get("issuer") != login.issuer:
        raise Forbidden(f"{login.name} names another issuer than the one in the settings; make them equal")
    names = ("authorization_endpoint", "token_endpoint", "jwks_uri", *([USERINFO] if USERINFO in found else []))
    check_endpoints(found, names, asked=login.issuer, whose=login.name)
    kept = {"staff_login": login.name, "then": then, USERINFO: found.get(USERINFO)}
    return begin(bridge, _registration(bridge, login), found, scope=login.scope, kept=kept, more={})


def finish_login(bridge: Bridge, http: httpx.Client, request: Mapping[str, Any], code: str) -> Actor:
    """Who signed in, with the role of their group. Raises Forbidden or Unavailable."""
    login, now = get_login(bridge, request["staff_login"]), bridge.now()
    registration = _registration(bridge, login)
    answer = exchange(http, registration, request, code_grant(request, code), now)
    claims = verified_claims(http, registration, request, answer.get("id_token"), now)
    claims = _completed(http, login, request, claims, answer["access_token"])
    role = _role(login, claims)
    scopes, rights = grants_of(role)
    return Actor(
        kind="person",
        id=person_reference(login.issuer, claims["sub"]),
        display=str(claims.get("name") or claims.get("preferred_username") or claims["sub"])[:200],
        role=role,
        scopes=scopes,
        rights=rights,
        patient_id=None if "launch-any-patient" in rights else NOBODY,
        practitioner=_practitioner(login, claims),
    )


def _completed(
    http: httpx.Client, login: StaffLogin, request: Mapping[str, Any], claims: dict[str, Any], access_token: str
) -> dict[str, Any]:
    """Claims that we need and the id_token leaves out are at the UserInfo endpoint (OpenID Connect Core 5.3, 5.4).

    Raises Forbidden when that speaks of somebody else, Unavailable when it does not answer.
    """
    url, needed = request.get(USERINFO), {login.role_claim, login.practitioner_claim} - {None}
    if not url or needed <= claims.keys():
        return claims
    told = get_json(http, url, login.name, {"Authorization": f"Bearer {access_token}"})
    if told.get("sub") != claims["sub"]:
        raise Forbidden(f"{login.name} answered about somebody else than who signed in; it must be put right")
    return told | claims


def _practitioner(login: StaffLogin, claims: Mapping[str, Any]) -> str | None:
    """The person's number, as visits name those who take part in them."""
    number = claims.get(login.practitioner_claim or "")
    return token_value(str(number), login.practitioner_system) if number else None


def _role(login: StaffLogin, claims: Mapping[str, Any]) -> str:
    """The first row of the settings' table that fits."""
    told = claims.get(login.role_claim, [])
    held = set(map(str, told)) if isinstance(told, list) else {str(told)}
    for group, role in login.roles.items():
        if group in held:
            return role
    raise Forbidden(f"{login.name} knows you, but none of your groups has a role in DermBridge; ask its operator")


def _registration(bridge: Bridge, login: StaffLogin) -> Registration:
    return Registration(login.name, login.client_id, redirect_uri(bridge), login.client_secret)
