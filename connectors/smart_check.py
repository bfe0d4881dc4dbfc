"""What a FHIR destination says of identification (SMART configuration) and really does with searches, held against the
profile.

http://hl7.org/fhir/smart-app-launch/conformance.html. A claim that is missing is no finding: many servers leave it out.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

from connectors.contract import DeliveryError, Finding
from connectors.fhir_copies import RESOURCE_TYPE
from connectors.fhir_server import FhirServer
from connectors.kinds import FhirR4Profile
from mappings.terms import URI

OAUTH: Final = frozenset({"client_secret_basic", "client_secret_post", "private_key_jwt"})


def check_smart(profile: FhirR4Profile, server: FhirServer) -> list[Finding]:
    """What the SMART configuration says against the profile's `auth`; nothing where there is none to read."""
    auth = profile.auth
    if auth.kind not in OAUTH:
        return []
    try:
        said = server.smart_configuration()
    except DeliveryError as error:
        return [Finding("SMART configuration", "warning", str(error), "See whether base_url is the FHIR base address.")]
    findings = []
    if auth.token_url and said.get("token_endpoint") not in {None, auth.token_url}:
        remedy = "Take auth.token_url out of the profile, unless you were given another one on purpose."
        findings.append(Finding("token endpoint", "warning", "the destination names another one", remedy))
    methods = said.get("token_endpoint_auth_methods_supported")
    if isinstance(methods, list) and auth.kind not in methods:
        told = f"{auth.kind} is not among {', '.join(map(str, methods))}"
        findings.append(Finding("token endpoint", "warning", told, "Set auth.kind to one of them."))
    algorithms = said.get("token_endpoint_auth_signing_alg_values_supported")
    if auth.kind == "private_key_jwt" and isinstance(algorithms, list) and not _signs(auth.algorithm, algorithms):
        told = f"signatures: {auth.algorithm or 'RS384 or ES384'} is not among {', '.join(map(str, algorithms))}"
        findings.append(Finding("token endpoint", "warning", told, "Set auth.algorithm to one of them."))
    return findings or ([Finding("SMART configuration", "ok", "agrees with the profile")] if said else [])


def _signs(algorithm: str, offered: list[Any]) -> bool:
    return algorithm in offered if algorithm else bool({"RS384", "ES384"} & set(map(str, offered)))


def check_searches(profile: FhirR4Profile, server: FhirServer) -> list[Finding]:
    """A number nobody bears must find nobody: some servers leave out what they do not understand and answer with all.

    A search of this kind is what stands between a replay and a second copy.
    """
    nobody = {"system": URI, "value": f"urn:uuid:{uuid.uuid4()}"}
    kinds = [RESOURCE_TYPE[route] for route in profile.routes] if profile.look_by == "identifier" else []
    findings = []
    for kind in ["Patient", *kinds]:
        subject = f"searching {kind} by identifier"
        try:
            found = server.search(kind, {"identifier": f"{nobody['system']}|{nobody['value']}"})
        except DeliveryError as error:
            findings.append(Finding(subject, "error" if kind == "Patient" else "warning", str(error), error.remedy))
            continue
        if found:
            remedy = "The server ignores this parameter. We compare each answer ourselves, so nothing is filed wrongly."
            findings.append(Finding(subject, "warning", "a number nobody bears finds somebody", remedy))
        else:
            findings.append(Finding(subject, "ok", "a number nobody bears finds nobody"))
    return findings
