"""What was measured, as Observations beside the picture that tells of it, so that its figures can be worked with."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from connectors.contract import DeliveryError, Parcel, RouteRefused
from connectors.fhir_identity import Place
from connectors.fhir_server import FhirServer
from connectors.outward import localised
from mappings.terms import CANON, URI

Resource = dict[str, Any]
_ERROR = "entered-in-error"


def file_observations(server: FhirServer, parcel: Parcel, place: Place, references: Mapping[str, str]) -> None:
    """Each once, as it is here now. Raises DeliveryError."""
    for observation in parcel.observations:
        identifier = observation_identifier(observation, place.patient)
        body = localised(observation, references) | {"identifier": [identifier]}
        current = _find(server, identifier)
        if current is None and body["status"] != _ERROR:
            server.create(body, unless=identifier)
        elif current is not None and not _is_same(body, current):
            server.update(body, current)


def differing_observations(server: FhirServer, parcel: Parcel, place: Place) -> tuple[str, ...]:
    """A sentence for each that is not there as it is here. Raises DeliveryError."""
    found = ((one, _find(server, observation_identifier(one, place.patient))) for one in parcel.observations)
    return tuple(
        f"Observation {ours['id']}: expected {_told(ours)}, found {_told(theirs) if theirs else 'none'}"
        for ours, theirs in found
        if not (_is_same(ours, theirs) if theirs else ours["status"] == _ERROR)
    )


def take_back_observations(server: FhirServer, parcel: Parcel, place: Place) -> None:
    """Those that do not stand any more; the others are no less true without the picture. Raises DeliveryError."""
    for observation in (one for one in parcel.observations if one["status"] == _ERROR):
        current = _find(server, observation_identifier(observation, place.patient))
        if current is not None and current.get("status") != _ERROR:
            server.update(current | {"status": _ERROR}, current)


def observation_identifier(observation: Mapping[str, Any], patient: str) -> Resource:
    """One measurement in one patient's record (RFC 9562, v5), so that it is filed once."""
    name = uuid.uuid5(uuid.NAMESPACE_URL, f"{CANON}/Observation/{observation['id']}#{patient}")
    return {"system": URI, "value": f"urn:uuid:{name}"}


def _find(server: FhirServer, identifier: Resource) -> Resource | None:
    try:
        return next(iter(server.find_by_identifier("Observation", identifier)), None)
    except RouteRefused as error:
        remedy = "Set observations = false in the profile, then replay."
        raise DeliveryError(str(error), remedy=remedy, retry=error.retry) from error


def _is_same(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Entered in error, whatever else it says; or with the same status and value."""
    return ours["status"] == theirs.get("status") and (ours["status"] == _ERROR or _told(ours) == _told(theirs))


def _told(observation: Mapping[str, Any]) -> str:
    quantity = observation.get("valueQuantity", {})
    return f"{observation.get('status')} {quantity.get('value')} {quantity.get('unit', '')}".strip()
