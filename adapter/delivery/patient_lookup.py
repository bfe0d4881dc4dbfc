"""Destinations asked who a patient is; what connectors raise becomes errors of ours here."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from adapter import governance
from adapter.access import SYSTEM
from adapter.bridge import Bridge
from adapter.delivery.destinations import Destinations, known_profiles
from adapter.errors import NotFound, Unavailable, Unprocessable
from adapter.settings import Settings
from connectors.contract import DeliveryError, Retry
from connectors.patients_found import Found, Match, Sought, find_profile

__all__ = ["AskedEhr", "Found", "Match", "ask_destination", "asked_ehrs", "look_up"]


@dataclass(frozen=True)
class AskedEhr:
    """Whose word it is: `iss` is its FHIR base URL, `identifier_systems` what it is trusted for (empty: all)."""

    name: str
    iss: str
    identifier_systems: tuple[str, ...]


def asked_ehrs(settings: Settings) -> dict[str, AskedEhr]:
    """The destinations that can be asked, by name: those whose profile has `patient_lookup.ways`."""
    profiles = {name: find_profile(profile) for name, profile in known_profiles(settings).items()}
    return {
        name: AskedEhr(name, profile.base_url, profile.patient.identifier_systems)
        for name, profile in profiles.items()
        if profile is not None
    }


def ask_destination(destinations: Destinations, name: str, given: Mapping[str, Any], at: datetime | None) -> Found:
    """Who is meant by `given` (system, value, family, given, birthDate, gender), and their visit at that time.

    Raises Unavailable when it is worth asking later, Unprocessable when something must be changed first, NotFound
    when this destination is asked nothing any more, Misconfigured.
    """
    query = destinations.patients(name)
    if query is None:
        raise NotFound(f"destination {name!r} is not asked for patients; see [patient_lookup] of its profile")
    told = {key: str(given.get(key) or "") for key in ("system", "value", "family", "given", "gender")}
    try:
        return query.find(Sought(**told, birth_date=str(given.get("birthDate") or "")), at)
    except DeliveryError as error:
        kind = Unprocessable if error.retry is Retry.NEVER else Unavailable
        raise kind(f"{error} {error.remedy}") from error


def look_up(bridge: Bridge, name: str, given: Mapping[str, Any], at: datetime | None = None) -> Found:
    """An engineer tries it: `ask_destination`, with the questions in the audit log. Raises as that does."""
    with closing(Destinations(bridge)) as destinations:
        found = ask_destination(destinations, name, given, at)
    with bridge.db.transaction() as tx:
        for asked in found.asked:
            governance.audit(tx, bridge, "patient-query", SYSTEM, query=asked, recipient=name, detail="by command line")
    return found
