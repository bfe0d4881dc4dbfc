"""The patient's consents at a FHIR destination, so that whoever sees the photo there can see what was agreed."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from connectors.contract import DeliveryError, Parcel, Retry, RouteRefused
from connectors.fhir_identity import Place
from connectors.fhir_server import FhirServer
from connectors.outward import localised
from mappings.terms import CANON, URI

Resource = dict[str, Any]


def file_consents(server: FhirServer, parcel: Parcel, place: Place, references: Mapping[str, str]) -> dict[str, str]:
    """File every consent of the parcel and return our reference -> theirs. Raises DeliveryError."""
    try:
        return {f"Consent/{consent['id']}": _file(server, consent, place, references) for consent in parcel.consents}
    except RouteRefused as error:
        remedy = 'Set consent_strategy = "local-only" in the profile, then replay.'
        raise DeliveryError(str(error), remedy=remedy, retry=error.retry) from error


def _file(server: FhirServer, consent: Mapping[str, Any], place: Place, references: Mapping[str, str]) -> str:
    identifier = consent_identifier(consent, place.patient)
    body = localised(consent, references)
    body["identifier"] = [*body.get("identifier", []), identifier]
    filed = server.find_by_identifier("Consent", identifier)
    if not filed:
        stored = server.create(body, unless=identifier)
        if stored.id is None:
            remedy = 'Set consent_strategy = "local-only" in the profile, then replay.'
            reason = "The destination accepted the Consent without saying its id."
            raise DeliveryError(reason, remedy=remedy, retry=Retry.NEVER)
        return f"Consent/{stored.id}"
    current = filed[0]
    if any(current.get(name) != value for name, value in body.items() if name != "meta"):
        server.update(body, current)
    return f"Consent/{current['id']}"


def consent_identifier(consent: Mapping[str, Any], patient: str) -> Resource:
    """One consent in one patient's record (RFC 9562, v5), so that it is filed once."""
    name = uuid.uuid5(uuid.NAMESPACE_URL, f"{CANON}/Consent/{consent['id']}#{patient}")
    return {"system": URI, "value": f"urn:uuid:{name}"}
