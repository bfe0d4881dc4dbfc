"""SMART App Launch 2.2 as a client (https://hl7.org/fhir/smart-app-launch/): launch, callback, context.

`begin_launch` answers the EHR's launch (or starts a standalone one) with the address to send the browser to;
`finish_launch` turns the code that comes back into a verified `LaunchContext`. Which local patient and session that
means is decided by the caller. Nothing is fetched from an `iss` that is not configured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx

from adapter.access.actor import LONGEST_ID
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
from adapter.access.scopes import grants_for, parse_scopes
from adapter.bridge import Bridge
from adapter.errors import BadInput, Forbidden, Unavailable
from adapter.settings import Ehr

STAFF_TYPES = ("Practitioner", "PractitionerRole", "Person")
FHIR_USER_TYPES = (*STAFF_TYPES, "Patient", "RelatedPerson")


@dataclass(frozen=True)
class EhrGrant:
    """What lets us ask again, and end it: kept sealed with the session (access.ehr_grants)."""

    iss: str
    token_endpoint: str
    refresh_token: str = field(repr=False)
    expires_at: datetime
    revocation_endpoint: str | None = None


@dataclass(frozen=True)
class LaunchContext:
    """What the EHR vouched for; `patient` and `encounter` are its own FHIR resources, read with the granted token.

    `intent` says what the user wants to do, `style_url` how it looks.
    """

    ehr: Ehr
    user_reference: str
    user_display: str
    patient: dict[str, Any] | None
    encounter: dict[str, Any] | None
    show_banner: bool
    intent: str | None = None
    style_url: str | None = None
    grant: EhrGrant | None = None


def get_ehr(bridge: Bridge, iss: str) -> Ehr:
    """The registration of an EHR. Raises Forbidden for any other `iss`, without asking it anything."""
    for ehr in bridge.settings.ehrs:
        if ehr.iss == iss.rstrip("/"):
            return ehr
    raise Forbidden("this EHR is not registered here; add its FHIR base address under [[ehrs]] in dermbridge.toml")


def begin_launch(
    bridge: Bridge, http: httpx.Client, *, iss: str, launch_token: str | None, then: str | None = None
) -> Begun:
    """`then` is the page of ours to go on to; None: that of the chart. Raises Forbidden or Unavailable."""
    ehr = get_ehr(bridge, iss)
    return begin(
        bridge,
        registration_of(bridge, ehr),
        _discover(http, ehr),
        scope=ehr.scope if launch_token else ehr.scope.replace("launch ", "launch/patient ", 1),
        kept={"iss": ehr.iss, "then": then},
        more={"aud": ehr.iss} | ({"launch": launch_token} if launch_token else {}),
    )


def finish_launch(bridge: Bridge, http: httpx.Client, request: Mapping[str, Any], code: str) -> LaunchContext:
    """Exchange the code and verify who came; `request` is what `oauth.take` gave. Raises Forbidden or Unavailable."""
    ehr, now = get_ehr(bridge, request["iss"]), bridge.now()
    registration = registration_of(bridge, ehr)
    answer = exchange(http, registration, request, code_grant(request, code), now)
    claims = verified_claims(http, registration, request, answer.get("id_token"), now)
    user = user_reference(ehr, claims)
    read = _Reader(http, ehr, answer["access_token"], _granted(answer.get("scope")))
    return LaunchContext(
        ehr=ehr,
        user_reference=user,
        user_display=read.display_of(user),
        patient=read.patient(answer.get("patient")),
        encounter=read.encounter(answer),
        show_banner=answer.get("need_patient_banner", True) is not False,
        intent=answer["intent"] if isinstance(answer.get("intent"), str) else None,
        style_url=answer["smart_style_url"] if isinstance(answer.get("smart_style_url"), str) else None,
        grant=_grant_of(request, answer, now),
    )


def registration_of(bridge: Bridge, ehr: Ehr) -> Registration:
    return Registration(
        ehr.name,
        ehr.client_id,
        redirect_uri(bridge, ehr.callback),
        ehr.client_secret,
        ehr.private_key,
        ehr.key_id,
    )


def redirect_uri(bridge: Bridge, callback: str | None = None) -> str:
    return f"{bridge.settings.base_url}/callback{f'/{callback}' if callback else ''}"


def _discover(http: httpx.Client, ehr: Ehr) -> dict[str, Any]:
    configuration = get_json(http, f"{ehr.iss}/.well-known/smart-configuration", ehr.name)
    if "S256" not in configuration.get("code_challenge_methods_supported", []):
        raise Unavailable(f"{ehr.name} does not announce PKCE with S256; a launch without it would not be safe")
    configuration["issuer"] = _issuer(configuration, ehr)
    if not configuration.get("jwks_uri"):
        configuration["jwks_uri"] = _openid_configuration(http, configuration, ehr).get("jwks_uri")
    names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
    check_endpoints(configuration, names, asked=ehr.iss, whose=ehr.name)
    return configuration


def _issuer(configuration: Mapping[str, Any], ehr: Ehr) -> str:
    """Who must have signed the id_token: as registered, as stated, and the same where it is both. Raises Forbidden."""
    registered, stated = ehr.issuer, configuration.get("issuer")
    if not (registered or stated):
        raise Forbidden(f"{ehr.name} does not state its issuer; name the iss of its id_tokens as issuer in [[ehrs]]")
    if registered and stated and registered != stated:
        raise Forbidden(f"{ehr.name} states another issuer than the one in [[ehrs]]; ask its operator which is right")
    return str(registered or stated)


def _openid_configuration(http: httpx.Client, configuration: Mapping[str, Any], ehr: Ehr) -> dict[str, Any]:
    """Where the keys are, by the issuer's own document, which must be the issuer's (OpenID Connect Discovery 4.3)."""
    issuer: str = configuration["issuer"]
    check_endpoints(configuration, ("issuer",), asked=ehr.iss, whose=ehr.name)
    found = get_json(http, f"{issuer.rstrip('/')}/.well-known/openid-configuration", ehr.name)
    if found.get("issuer") != issuer:
        raise Forbidden(f"the OpenID configuration of {ehr.name} is another issuer's; it must be put right")
    return found


def user_reference(ehr: Ehr, claims: Mapping[str, Any]) -> str:
    """The user's absolute reference, for two EHRs may both have Practitioner/17, from `fhirUser`; or one from `sub`
    where it names none that could be kept. Raises Forbidden."""
    reference = str(claims.get("fhirUser") or claims.get("profile") or "").removeprefix(f"{ehr.iss}/")
    resource_type, _, rest = reference.partition("/")
    if resource_type in FHIR_USER_TYPES and rest and resource_type not in STAFF_TYPES:
        raise Forbidden("DermBridge is for staff; patients and their relatives cannot sign in here")
    named = resource_type in STAFF_TYPES and rest and "/" not in rest
    absolute = f"{ehr.iss}/{reference}"
    return absolute if named and len(absolute) <= LONGEST_ID else person_reference(ehr.iss, claims["sub"])


def role_of(ehr: Ehr, user_reference: str) -> str:
    """What the EHR's registration gives this person; its table names them as the EHR does, without the address."""
    return ehr.roles.get(user_reference.removeprefix(f"{ehr.iss}/"), ehr.default_role)


def _granted(scope: object) -> frozenset[str]:
    """The scopes as granted, v1 spelled as v2; what is not about records stays as it is."""
    granted: set[str] = set()
    for one in str(scope or "").split():
        try:
            granted |= parse_scopes(one)
        except BadInput:
            granted.add(one)
    return frozenset(granted)


def _fhir_context(answer: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    found = answer.get("fhirContext")
    return tuple(one for one in found if isinstance(one, dict)) if isinstance(found, list) else ()


def _grant_of(request: Mapping[str, Any], answer: Mapping[str, Any], now: datetime) -> EhrGrant | None:
    if not isinstance(answer.get("refresh_token"), str):
        return None
    return EhrGrant(
        request["iss"],
        request["token_endpoint"],
        answer["refresh_token"],
        now + lifetime_of(answer),
        request.get("revocation_endpoint"),
    )


def lifetime_of(answer: Mapping[str, Any]) -> timedelta:
    """Of an access token; five minutes where the EHR does not say."""
    seconds = answer.get("expires_in")
    return timedelta(seconds=min(seconds, 86_400) if isinstance(seconds, (int, float)) and seconds > 0 else 300)


@dataclass(frozen=True)
class _Reader:
    """Reads at the EHR what the token was granted for, and nothing else."""

    http: httpx.Client
    ehr: Ehr
    access_token: str
    scopes: frozenset[str]

    def patient(self, patient_id: object) -> dict[str, Any] | None:
        """Raises Forbidden when the EHR names a patient whose record it does not let us read."""
        if not patient_id:
            return None
        if not grants_for(self.scopes, "r", "Patient"):
            raise Forbidden(f"{self.ehr.name} did not grant patient/Patient.r, so it is not known whose chart this is")
        return self.read("Patient", str(patient_id))

    def encounter(self, answer: Mapping[str, Any]) -> dict[str, Any] | None:
        """The visit in context; without the scope to read it, photos go without a visit."""
        named = [str(answer["encounter"])] if answer.get("encounter") else []
        references = (str(one.get("reference", "")) for one in _fhir_context(answer))
        named += [one.removeprefix("Encounter/") for one in references if one.startswith("Encounter/")]
        return self.read("Encounter", named[0]) if named and grants_for(self.scopes, "r", "Encounter") else None

    def read(self, resource_type: str, resource_id: str) -> dict[str, Any]:
        url = f"{self.ehr.iss}/{resource_type}/{resource_id.removeprefix(f'{resource_type}/')}"
        headers = {"Authorization": f"Bearer {self.access_token}", "Accept": "application/fhir+json"}
        resource = get_json(self.http, url, f"{self.ehr.name} ({resource_type})", headers)
        if resource.get("resourceType") != resource_type:
            raise Unavailable(f"{self.ehr.name} would not show its {resource_type}")
        return resource

    def display_of(self, reference: str) -> str:
        """A person's name for pages and audit; the reference itself where the EHR will not say."""
        base = f"{self.ehr.iss}/"
        if not reference.startswith(base):
            return reference
        resource_type, _, resource_id = reference.removeprefix(base).partition("/")
        try:
            name = (self.read(resource_type, resource_id).get("name") or [{}])[0]
        except Unavailable:
            return reference
        return name.get("text") or " ".join([*name.get("prefix", []), *name.get("given", []), name.get("family", "")])
