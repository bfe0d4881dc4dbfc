"""DermBridge's own FHIR server: which types allow what, and which use case a write belongs to."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version

from adapter import governance
from adapter.bridge import Bridge
from adapter.fhir_api.binary import BINARY_TYPES
from adapter.fhir_api.comparing import compare_operation
from adapter.fhir_api.cors import origins_of
from adapter.fhir_api.definitions import by_type
from adapter.fhir_api.intake import PICTURE_TYPES, create_consent, create_photo
from adapter.fhir_api.patient_feed import OPERATION, process_message
from adapter.fhir_api.server import FhirServer, Operation
from mappings.canonical_resources import canonical_resources

READ = frozenset({"read", "vread", "history-instance", "search-type"})
INTERACTIONS = {
    "Media": READ | {"create"},
    "Consent": READ | {"create"},
    "BodyStructure": READ | {"create", "update"},
    "Observation": READ,
    "Patient": READ | {"update-by-identifier"},
    "Encounter": READ,
    "Provenance": READ,
    "AuditEvent": READ,
    "Practitioner": READ,
    "Organization": READ,
    "Device": READ,
    "DocumentReference": READ,
    "Binary": frozenset({"read", "create"}),
}


def fhir_server(bridge: Bridge) -> FhirServer:
    """The server behind /fhir. Photos and consents are created through their use cases; nothing here updates them."""
    return FhirServer(
        bridge=bridge,
        interactions=INTERACTIONS,
        operations={
            ("Media", "$compare"): compare_operation(bridge),
            (None, "$process-message"): Operation(partial(process_message, bridge), OPERATION, affects_state=True),
        },
        creators={"Media": create_photo, "Consent": create_consent},
        binary_types={kind: magic for kind, magic in BINARY_TYPES.items() if kind in PICTURE_TYPES},
        definitions=by_type(canonical_resources()),
        audit=governance.fhir_audit(bridge),
        refused=partial(governance.audit_refusal, bridge),
        settle=partial(governance.settle, bridge),
        page_secret=bridge.vault.derive_secret("fhir page links"),
        base_url=f"{bridge.settings.base_url}/fhir",
        description=f"Clinical photographs of {bridge.settings.site_name}",
        version=version("dermbridge"),
        cors=bool(origins_of(bridge.settings)),
    )
