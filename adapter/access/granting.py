"""Which of the scopes that a client asks for it is granted: never more than its registration, nor, for an app that acts
for a person, than that person's own.

That is looked at again whenever a token is used: what a role has lost since, no app keeps (policy.still_granted).
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from adapter.access.authorization import CONTEXT
from adapter.access.clients import OAuthError
from adapter.access.scopes import RIGHT, find_grant, grants_in, is_narrowed, meet, parse_scopes
from adapter.errors import BadInput, Misconfigured
from adapter.settings import Client

SHORTEST_SECRET = 32
_THIS_MACHINE = ("127.0.0.1", "::1", "localhost")
_UNASKED = CONTEXT - {"offline_access"}  # what every app may have; to go on without the person must be registered
PEOPLE = ("patient", "user")


def check_clients(clients: Sequence[Client]) -> None:
    """What settings alone cannot tell. Raises Misconfigured."""
    for client in clients:
        levels: tuple[str, ...] = ("system/", "right/") if client.has_key else ()
        levels += ("patient/", "user/") if client.redirect_uris else ()
        try:
            scopes = _of_records(client.scope, client)
        except BadInput as error:
            raise _misconfigured(client, f"scope: {error}") from None
        if foreign := [one for one in sorted(scopes) if not one.startswith(levels)]:
            raise _misconfigured(client, f"scope: {foreign[0]} is not for it; it may have {' or '.join(levels)}…")
        if client.client_secret and len(client.client_secret.get_secret_value()) < SHORTEST_SECRET:
            raise _misconfigured(client, f"client_secret: take {SHORTEST_SECRET} random letters or more")
        if client.launch_url and not client.redirect_uris:
            raise _misconfigured(client, "launch_url: an app that is opened also needs redirect_uris")
        for address in filter(None, (*client.redirect_uris, client.launch_url)):
            parts = urlsplit(address)
            if "#" in address or (parts.scheme == "http" and parts.hostname not in _THIS_MACHINE):
                raise _misconfigured(client, f"{address} must be https, and without a fragment")


def granted_to_machine(client: Client, asked: str) -> frozenset[str]:
    """What of `asked` the registration allows, each scope as it was asked or not at all (RFC 6749 section 3.3).

    Raises OAuthError when nothing is left.
    """
    registered, granted = _of_records(client.scope, client), set()
    for scope in asked.split() or client.scope.split():
        try:
            (one,) = parse_scopes(scope)
        except BadInput:
            continue
        grant = find_grant(one)
        if grant is not None and grant.level in PEOPLE:
            continue
        if one in registered if RIGHT.match(one) else grant is not None and is_narrowed(grant, registered):
            granted.add(one)
    if not granted:
        raise OAuthError("invalid_scope", "none of these scopes is granted to this client")
    return frozenset(granted)


def granted_to_app(client: Client, asked: str, own: frozenset[str]) -> frozenset[str]:
    """What of `asked` the registration allows and the person's `own` scopes hold; trimmed where that is less.

    Raises OAuthError when no scope is left.
    """
    registered = grants_in(_of_records(client.scope, client))
    granted = {one for one in asked.split() if one in _UNASKED or (one in CONTEXT and one in client.scope.split())}
    for wanted in grants_in(_readable(asked)):
        if wanted.level in PEOPLE:
            allowed = meet(wanted, (one for one in registered if one.level == wanted.level))
            met = {str(one) for narrowed in allowed for one in meet(narrowed, grants_in(own))}
            granted |= {one for one in met if find_grant(one)}  # together they may ask more than we look at
    if not granted or (granted <= CONTEXT and not set(asked.split()) <= CONTEXT):
        raise OAuthError("invalid_scope", "none of these scopes is granted to this app for this person")
    return frozenset(granted)


def _of_records(scope: str, client: Client) -> frozenset[str]:
    """Without the words about context that an app may be registered for."""
    context = CONTEXT if client.redirect_uris else frozenset[str]()
    return parse_scopes(" ".join(one for one in scope.split() if one not in context))


def _readable(asked: str) -> frozenset[str]:
    """Those we know and could enforce; others are left out (RFC 6749 section 3.3)."""
    found: set[str] = set()
    for one in asked.split():
        try:
            found |= parse_scopes(one)
        except BadInput:
            continue
    return frozenset(found)


def _misconfigured(client: Client, problem: str) -> Misconfigured:
    return Misconfigured(f"[[clients]] {client.client_id}: {problem}")
