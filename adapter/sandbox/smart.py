"""SMART App Launch 2.2 as the EHR's authorization server (https://hl7.org/fhir/smart-app-launch/app-launch.html).

authorization_code with PKCE S256 for people, client_credentials with a secret for the back end; id_token RS256. Codes
are used once and only by whom they were made for; a redirect goes only to the registered address.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlencode

from joserfc import jwt
from joserfc.errors import JoseError

from adapter.access import Actor
from adapter.access.jwks import claims_of, read_keys
from adapter.errors import BadInput
from adapter.sandbox.ehr import PEOPLE, SandboxEhr
from adapter.sandbox.grants import Client, Code, Grants, Launch, granted_scope

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
ID_TOKEN_SECONDS = 300
STYLE = {  # as assets/styles/sandbox.css
    "color_background": "#f7f8fa",
    "color_text": "#16162a",
    "color_highlight": "#45446f",
    "dim_border_radius": "2px",
    "dim_font_size": "14px",
    "dim_spacing_size": "12px",
    "font_family_body": "Tahoma, Verdana, 'DejaVu Sans', sans-serif",
}
CAPABILITIES = (
    "launch-ehr launch-standalone authorize-post client-public client-confidential-symmetric sso-openid-connect "
    "client-confidential-asymmetric permission-online "
    "context-banner context-style context-ehr-patient context-ehr-encounter context-standalone-patient "
    "permission-patient permission-user permission-v1 permission-v2"
)


class OAuthError(ValueError):
    """An error of RFC 6749: `code` is its registered word, the message what to change."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def smart_configuration(ehr: SandboxEhr) -> dict[str, Any]:
    origin, base = ehr.settings.origin, ehr.settings.fhir_base
    return {
        "issuer": base,
        "jwks_uri": f"{origin}/jwks.json",
        "authorization_endpoint": f"{origin}/authorize",
        "token_endpoint": f"{origin}/token",
        "revocation_endpoint": f"{origin}/revoke",
        "authorization_response_iss_parameter_supported": True,
        "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
        "response_types_supported": ["code"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "private_key_jwt"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "scopes_supported": ["openid", "fhirUser", "launch", "launch/patient", "patient/*.rs", "system/*.crus"],
        "capabilities": CAPABILITIES.split(),
    }


def check_redirect(grants: Grants, params: Mapping[str, str]) -> Client:
    """The client of an authorize request. Raises BadInput, which is shown here: an unknown address is never redirected
    to (RFC 9700 section 4.1)."""
    client = grants.clients.get(params.get("client_id", ""))
    if client is None or client.redirect_uri is None:
        raise BadInput("this client is not registered with the sandbox; check client_id")
    if params.get("redirect_uri") != client.redirect_uri:
        raise BadInput("this redirect_uri is not the registered one; it must match to the letter")
    return client


def check_request(ehr: SandboxEhr, params: Mapping[str, str]) -> None:
    """Raises OAuthError, which goes back to the client."""
    if params.get("response_type") != "code":
        raise OAuthError("unsupported_response_type", "response_type must be code")
    if params.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(params.get("code_challenge", "")):
        raise OAuthError("invalid_request", "PKCE is required: send code_challenge with code_challenge_method=S256")
    signs_in_only = set(params.get("scope", "").split()) <= {"openid", "profile", "fhirUser"}
    if not signs_in_only and params.get("aud", params.get("resource", "")).rstrip("/") != ehr.settings.fhir_base:
        raise OAuthError("invalid_request", "aud must be the FHIR base address of this EHR")
    if not params.get("state"):
        raise OAuthError("invalid_request", "state is required")


def needs_patient(params: Mapping[str, str]) -> bool:
    """Whether the user must choose a patient first (standalone launch)."""
    return "launch" not in params and "launch/patient" in params.get("scope", "").split()


def authorize(ehr: SandboxEhr, grants: Grants, client: Client, params: Mapping[str, str], user_id: str) -> str:
    """The address to send the browser back to, with a code. Raises OAuthError."""
    launch: Launch | None = None
    if "launch" in params:
        launch = grants.launches.take(params["launch"])
        if launch is None or launch.user_id != user_id:
            raise OAuthError("invalid_request", "this launch is unknown, used or another user's; open the app again")
    scope = granted_scope(client, params.get("scope", ""))
    if not scope:
        raise OAuthError("invalid_scope", "none of these scopes can be granted")
    code = Code(
        client.client_id,
        params["redirect_uri"],
        params["code_challenge"],
        params.get("nonce"),
        scope,
        user_id,
        launch,
    )
    return back(params, code=grants.codes.give(code), iss=ehr.settings.fhir_base)


def back(params: Mapping[str, str], **answer: str) -> str:
    return f"{params['redirect_uri']}?{urlencode(answer | {'state': params.get('state', '')})}"


# --- token endpoint -------------------------------------------------------------------------------------------------


def token(ehr: SandboxEhr, grants: Grants, form: Mapping[str, str], authorization: str | None) -> dict[str, Any]:
    """The token response. Raises OAuthError (invalid_client: 401, the others: 400)."""
    client = _authenticated(ehr, grants, form, authorization)
    match form.get("grant_type"):
        case "refresh_token":
            return _refresh(grants, client, form)
        case "authorization_code":
            return _exchange(ehr, grants, client, form)
        case "client_credentials":
            return _for_machine(grants, client, form.get("scope"))
    raise OAuthError("unsupported_grant_type", "grant_type must be authorization_code or client_credentials")


def revoke(ehr: SandboxEhr, grants: Grants, form: Mapping[str, str], authorization: str | None) -> None:
    """RFC 7009, for refresh tokens: a word that is none of the client's is left alone. Raises OAuthError."""
    client = _authenticated(ehr, grants, form, authorization)
    held = grants.refreshes.find(form.get("token", ""))
    if held is not None and held.client_id == client.client_id:
        grants.refreshes.take(form["token"])


def _authenticated(ehr: SandboxEhr, grants: Grants, form: Mapping[str, str], authorization: str | None) -> Client:
    if "client_assertion" in form:
        return _by_key(ehr, grants, form["client_assertion"])
    client_id, secret = form.get("client_id", ""), form.get("client_secret")
    if authorization is not None:
        kind, _, encoded = authorization.partition(" ")
        try:
            pair = base64.b64decode(encoded, validate=True).decode() if kind.lower() == "basic" else ""
        except (binascii.Error, UnicodeDecodeError):
            pair = ""
        client_id, secret = (unquote(part) for part in pair.partition(":")[::2])
    client = grants.clients.get(client_id)
    known = client is not None and (
        client.secret is None and client.jwks is None
        if secret is None
        else secrets.compare_digest((client.secret or "").encode(), secret.encode()) and client.secret is not None
    )
    if client is None or not known:
        raise OAuthError("invalid_client", "this client is unknown or its secret is wrong")
    return client


def _by_key(ehr: SandboxEhr, grants: Grants, assertion: str) -> Client:
    client_id, at = str(claims_of(assertion).get("iss")), ehr.bridge.now().timestamp()
    client = grants.clients.get(client_id)
    if client is None or client.jwks is None:
        raise OAuthError("invalid_client", "this client is not registered with a key")
    try:
        claims = jwt.decode(assertion, read_keys(dict(client.jwks), client_id), algorithms=["RS384", "ES384"]).claims
    except (JoseError, ValueError):
        raise OAuthError("invalid_client", "the assertion's signature does not verify") from None
    if claims.get("sub") != client_id or claims.get("aud") != f"{ehr.settings.origin}/token" or not claims.get("jti"):
        raise OAuthError("invalid_client", "the assertion is not for this token endpoint")
    if not at < claims.get("exp", 0) <= at + ID_TOKEN_SECONDS:
        raise OAuthError("invalid_client", "the assertion must end within five minutes")
    return client


def _exchange(ehr: SandboxEhr, grants: Grants, client: Client, form: Mapping[str, str]) -> dict[str, Any]:
    code = grants.codes.take(form.get("code", ""))
    verifier = form.get("code_verifier", "")
    if code is None or (code.client_id, code.redirect_uri) != (client.client_id, form.get("redirect_uri")):
        raise OAuthError("invalid_grant", "this code is unknown, used, expired or was made for another client")
    if not _VERIFIER.fullmatch(verifier) or not secrets.compare_digest(_s256(verifier), code.challenge):
        raise OAuthError("invalid_grant", "code_verifier does not fit the code_challenge")
    asked = code.scope.split()
    answer: dict[str, Any] = _bearer(grants, _person(code), code.scope)
    answer["smart_style_url"] = f"{ehr.settings.origin}/smart-style.json"
    if "online_access" in asked:
        answer["refresh_token"] = grants.refreshes.give(code)
    if "openid" in asked:
        answer["id_token"] = _id_token(ehr, grants, code)
    if code.launch is not None:
        answer |= {"patient": code.launch.patient_id, "need_patient_banner": code.launch.need_patient_banner}
        answer |= {"encounter": code.launch.encounter_id} if code.launch.encounter_id else {}
    return answer


def _refresh(grants: Grants, client: Client, form: Mapping[str, str]) -> dict[str, Any]:
    """Rotation: the old word is of no use from now on; signing off has ended it already."""
    code = grants.refreshes.take(form.get("refresh_token", ""))
    if code is None or code.client_id != client.client_id:
        raise OAuthError("invalid_grant", "this refresh token is unknown, used or ended with the user's session")
    return _bearer(grants, _person(code), code.scope) | {"refresh_token": grants.refreshes.give(code)}


def _for_machine(grants: Grants, client: Client, asked: str | None) -> dict[str, Any]:
    if client.secret is None or "system" not in client.levels:
        raise OAuthError("unauthorized_client", "this client is not registered for client_credentials")
    scope = granted_scope(client, asked if asked is not None else "system/*.crus")
    if not scope:
        raise OAuthError("invalid_scope", "none of these scopes can be granted")
    actor = Actor("machine", f"Device/{client.client_id}", client.client_id, "machine", frozenset(scope.split()))
    return _bearer(grants, actor, scope)


def _bearer(grants: Grants, actor: Actor, scope: str) -> dict[str, Any]:
    seconds = int(grants.tokens.lifetime.total_seconds())
    return {"access_token": grants.tokens.give(actor), "token_type": "Bearer", "expires_in": seconds, "scope": scope}


def _person(code: Code) -> Actor:
    """Confined to the patient of the launch; `fhirUser` includes reading who one is (SMART, scopes for identity)."""
    scopes = frozenset(code.scope.split())
    person, launch = PEOPLE[code.user_id], code.launch
    return Actor(
        kind="person",
        id=person.reference,
        display=person.name,
        role=person.role,
        scopes=scopes | ({"user/Practitioner.r"} if "fhirUser" in scopes else frozenset()),
        # Without a launch there is no patient in context, and patient/ scopes then open nobody's record.
        patient_id=launch.patient_id if launch else "",
        encounter_id=launch.encounter_id if launch else None,
    )


def _id_token(ehr: SandboxEhr, grants: Grants, code: Code) -> str:
    now, person = int(ehr.bridge.now().timestamp()), PEOPLE[code.user_id]
    claims: dict[str, Any] = {
        "iss": ehr.settings.fhir_base,
        "sub": person.id,
        "aud": code.client_id,
        "iat": now,
        "exp": now + ID_TOKEN_SECONDS,
    }
    claims |= {"nonce": code.nonce} if code.nonce else {}
    if "fhirUser" in code.scope.split():
        claims["fhirUser"] = f"{ehr.settings.fhir_base}/{person.reference}"
    return jwt.encode({"alg": "RS256", "kid": grants.key.kid}, claims, grants.key, algorithms=["RS256"])


def _s256(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
