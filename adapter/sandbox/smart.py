"""SMART App Launch 2.2 as the EHR's authorization server (https://hl7.org/fhir/smart-app-launch/app-launch.html).

authorization_code with PKCE S256 for people, client_credentials with a secret for the back end; id_token RS256. Codes
are used once and only by whom they were made for; a redirect goes only to the registered address.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from joserfc import jwt

from adapter.access import Actor
from adapter.access.authorization import answer_to, fits
from adapter.access.clients import Asking, OAuthError
from adapter.sandbox.ehr import PEOPLE, SandboxEhr
from adapter.sandbox.grants import Code, Grants, Launch, granted_scope
from adapter.settings import Client

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
    return answer_to(params, iss=ehr.settings.fhir_base, code=grants.codes.give(code))


# --- token endpoint -------------------------------------------------------------------------------------------------


def token(ehr: SandboxEhr, grants: Grants, asking: Asking) -> dict[str, Any]:
    """The token response. Raises OAuthError (invalid_client: 401, the others: 400)."""
    client, form = grants.register.authenticate(asking), asking.form
    match form.get("grant_type"):
        case "refresh_token":
            return _refresh(grants, client, form)
        case "authorization_code":
            return _exchange(ehr, grants, client, form)
        case "client_credentials":
            return _for_machine(grants, client, form.get("scope"))
    raise OAuthError("unsupported_grant_type", "grant_type must be authorization_code or client_credentials")


def revoke(_ehr: SandboxEhr, grants: Grants, asking: Asking) -> None:
    """RFC 7009, for refresh tokens: a word that is none of the client's is left alone. Raises OAuthError."""
    client, form = grants.register.authenticate(asking), asking.form
    held = grants.refreshes.find(form.get("token", ""))
    if held is not None and held.client_id == client.client_id:
        grants.refreshes.take(form["token"])


def _exchange(ehr: SandboxEhr, grants: Grants, client: Client, form: Mapping[str, str]) -> dict[str, Any]:
    code = grants.codes.take(form.get("code", ""))
    if code is None or (code.client_id, code.redirect_uri) != (client.client_id, form.get("redirect_uri")):
        raise OAuthError("invalid_grant", "this code is unknown, used, expired or was made for another client")
    if not fits(code.challenge, form.get("code_verifier", "")):
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
    if client.client_secret is None or not client.scope.startswith("system/"):
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
