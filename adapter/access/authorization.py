"""The authorize request of an app, as every SMART authorization server must check it: ours and the sandbox EHR's.

RFC 6749 section 4.1, RFC 7636 (PKCE, S256 alone), RFC 9207 (`iss` in the answer), RFC 9700,
https://hl7.org/fhir/smart-app-launch/app-launch.html.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

from adapter.access.clients import OAuthError
from adapter.access.oauth import s256
from adapter.errors import BadInput
from adapter.settings import Client

SIGN_IN_ALONE = frozenset({"openid", "profile", "fhirUser"})
CONTEXT = SIGN_IN_ALONE | {"launch", "launch/patient", "online_access", "offline_access"}
"""Scopes that are not about records."""
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


def get_app(clients: Mapping[str, Client], params: Mapping[str, str]) -> Client:
    """The client of an authorize request. Raises BadInput, which is shown here: nobody is sent to an address that is
    not registered, to the letter (RFC 9700 section 4.1)."""
    client = clients.get(params.get("client_id", ""))
    if client is None or not client.redirect_uris:
        raise BadInput("this app is not registered here; its operator must check client_id")
    if params.get("redirect_uri") not in client.redirect_uris:
        raise BadInput("this redirect_uri is not a registered one of this app; it must match to the letter")
    return client


def check_request(params: Mapping[str, str], *, fhir_base: str) -> None:
    """Raises OAuthError, which goes back to the app."""
    if params.get("response_type") != "code":
        raise OAuthError("unsupported_response_type", "response_type must be code")
    if params.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(params.get("code_challenge", "")):
        raise OAuthError("invalid_request", "PKCE is required: send code_challenge with code_challenge_method=S256")
    signs_in_only = set(params.get("scope", "").split()) <= SIGN_IN_ALONE
    if not signs_in_only and params.get("aud", params.get("resource", "")).rstrip("/") != fhir_base:
        raise OAuthError("invalid_request", f"aud must be the FHIR base address, {fhir_base}")
    if not params.get("state"):
        raise OAuthError("invalid_request", "state is required")


def answer_to(params: Mapping[str, str], *, iss: str, **answer: str) -> str:
    """The address at the app to send the browser back to, with a code or an error."""
    joint = "&" if urlsplit(params["redirect_uri"]).query else "?"
    told = answer | {"iss": iss} | ({"state": params["state"]} if params.get("state") else {})
    return f"{params['redirect_uri']}{joint}{urlencode(told)}"


def fits(challenge: str, verifier: str) -> bool:
    """Whether this is the code_verifier of that code_challenge (RFC 7636 section 4.6)."""
    return bool(_VERIFIER.fullmatch(verifier)) and secrets.compare_digest(s256(verifier), challenge)
