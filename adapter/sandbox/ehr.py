"""The sandbox EHR as a value: its settings, records, people and FHIR server; `open_ehr` makes and seeds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from adapter.bridge import Bridge, open_bridge, utc_now
from adapter.db.schema import prepare
from adapter.fhir_api import FhirServer
from adapter.governance import fhir_audit
from adapter.records import Resource, create_all, find
from adapter.sandbox.patient_operations import patient_operations
from adapter.settings import Settings

MRN_SYSTEM = "urn:oid:2.16.840.1.113883.19.5"
VISIT_SYSTEM = "urn:oid:2.16.840.1.113883.19.5.1"
AUTHORITY = "HOSP"

_READ = frozenset({"read", "vread", "history-instance", "search-type"})
_WRITE = _READ | {"create", "update"}
INTERACTIONS = {
    "Media": _WRITE,
    "DocumentReference": _WRITE,
    "Consent": _WRITE,
    "Binary": frozenset({"read", "create"}),
    "Patient": _READ,
    "Encounter": _READ,
    "Practitioner": _READ,
}


@dataclass(frozen=True)
class SandboxSettings:
    """Where the sandbox listens and keeps its records, and where it finds DermBridge.

    With `client_jwks` DermBridge proves itself by its key (private_key_jwt), with `client_secret` by that; with neither
    it is a public client. A `backend_secret` of None is generated on first
    start into ``backend.secret`` (see `Clients`).
    """

    data_dir: Path
    http_host: str = "127.0.0.1"
    http_port: int = 8001
    dermbridge_url: str = "http://127.0.0.1:8000"
    mllp_host: str = "127.0.0.1"
    mllp_port: int = 2575
    client_id: str = "dermbridge"
    client_secret: str | None = field(default=None, repr=False)
    client_jwks: Mapping[str, Any] | None = None
    backend_client_id: str = "dermbridge-backend"
    backend_secret: str | None = field(default=None, repr=False)

    @property
    def origin(self) -> str:
        return f"http://{self.http_host}:{self.http_port}"

    @property
    def fhir_base(self) -> str:
        return f"{self.origin}/fhir"

    @property
    def redirect_uri(self) -> str:
        return f"{self.dermbridge_url.rstrip('/')}/callback"

    @property
    def dermbridge_origin(self) -> str:
        parts = urlsplit(self.dermbridge_url)
        return f"{parts.scheme}://{parts.netloc}"


@dataclass(frozen=True)
class Person:
    """Somebody who can sign on; `id` is that of the Practitioner."""

    id: str
    prefix: str
    given: str
    family: str
    role: str

    @property
    def reference(self) -> str:
        return f"Practitioner/{self.id}"

    @property
    def name(self) -> str:
        return " ".join(part for part in (self.prefix, self.given, self.family) if part)


PEOPLE = {
    one.id: one
    for one in (
        Person("dr-rivera", "Dr.", "Inés", "Rivera", "Dermatologist"),
        Person("pat-photo", "", "Pat", "Photo", "Clinical photographer"),
        Person("ivy-engineer", "", "Ivy", "Engineer", "Integration engineer"),
        Person("quinn-privacy", "", "Quinn", "Privacy", "Privacy officer"),
    )
}


@dataclass(frozen=True)
class SandboxEhr:
    settings: SandboxSettings
    bridge: Bridge
    fhir: FhirServer


def open_ehr(settings: SandboxSettings, *, now: Callable[[], datetime] = utc_now) -> SandboxEhr:
    """Open (at first: create and seed) the sandbox's own records. Raises Misconfigured."""
    core = Settings(data_dir=settings.data_dir, http_host=settings.http_host, http_port=settings.http_port)
    bridge = open_bridge(core, now=now)
    prepare(bridge.db)
    _seed(bridge)
    server = FhirServer(
        bridge,
        INTERACTIONS,
        fhir_audit(bridge),
        page_secret=bridge.vault.derive_secret("sandbox page tokens"),
        base_url=settings.fhir_base,
        description="Larkfield Hospital (sandbox EHR)",
        operations=patient_operations(bridge),
    )
    return SandboxEhr(settings, bridge, server)


def new_patient(patient_id: str, mrn: str, *, family: str, given: str, birth_date: str, gender: str) -> Resource:
    return {
        "resourceType": "Patient",
        "id": patient_id,
        "active": True,
        "identifier": [{"use": "official", "system": MRN_SYSTEM, "value": mrn}],
        "name": [{"use": "official", "family": family, "given": given.split()}],
        "gender": gender,
        "birthDate": birth_date,
    }


def new_encounter(encounter_id: str, number: str, patient_id: str, *, at: datetime) -> Resource:
    """An ambulatory visit that began `at` and is still open."""
    return {
        "resourceType": "Encounter",
        "id": encounter_id,
        "identifier": [{"system": VISIT_SYSTEM, "value": number}],
        "status": "in-progress",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
        "subject": {"reference": f"Patient/{patient_id}"},
        "period": {"start": at.astimezone(UTC).isoformat(timespec="seconds")},
    }


def _seed(bridge: Bridge) -> None:
    """Staff, and two invented patients with a visit each, unless they are there."""
    at = bridge.now()
    with bridge.db.transaction() as tx:
        if find(tx, "Practitioner", "dr-rivera") is not None:
            return
        staff = [_practitioner(one) for one in PEOPLE.values()]
        patients = [
            new_patient(
                "astrid", "4711-0815", family="Lindqvist", given="Åsa Märta", birth_date="1961-03-12", gender="female"
            ),
            new_patient(
                "jose", "4711-0816", family="Núñez Šimić", given="José", birth_date="1984-11-02", gender="male"
            ),
        ]
        visits = [
            new_encounter(f"visit-{number}", f"V-{number}", patient["id"], at=at)
            for number, patient in enumerate(patients, 2210)
        ]
        create_all(tx, [*staff, *patients, *visits], at=at)


def _practitioner(one: Person) -> Resource:
    name = {"family": one.family, "given": [one.given]} | ({"prefix": [one.prefix]} if one.prefix else {})
    return {"resourceType": "Practitioner", "id": one.id, "active": True, "name": [name | {"text": one.name}]}
