"""Which class serves which kind of destination. A new kind is a line here and one in `kinds.PROFILES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from importlib import import_module
from typing import Final

from connectors.contract import Connector, Secrets, Tallies, utc_now
from connectors.kinds import Profile, for_consents
from connectors.pace import own_tally
from connectors.profile import ProfileError

# Imported when first opened: a site that only writes folders needs no HTTP client, one without a PACS no DICOM.
CONNECTORS: Final[Mapping[str, str]] = {
    "directory": "connectors.directory:Directory",
    "fhir-r4": "connectors.fhir_r4:FhirR4",
    "rest": "connectors.rest:Rest",
    "hl7v2": "connectors.hl7v2:Hl7v2",
    "dicomweb": "connectors.dicomweb:DicomWeb",
    "dicom-cstore": "connectors.dimse:Dimse",
    "hand-off": "connectors.hand_off:HandOff",
    "ehr": "connectors.in_order:InOrder",
}


def open_connector(
    profile: Profile, secrets: Secrets, now: Callable[[], datetime] = utc_now, tallies: Tallies = own_tally
) -> Connector:
    """Open the connector of `profile.kind`. Nothing is sent yet. Raises ProfileError for a kind nobody serves."""
    if profile.kind not in CONNECTORS:
        raise ProfileError(f"{profile.name}: no connector serves kind {profile.kind!r}.")
    module, _, name = CONNECTORS[profile.kind].partition(":")
    opened: Connector = getattr(import_module(module), name)(profile, secrets, now, tallies)
    if getattr(profile, "consent_strategy", "") != "document":
        return opened
    from connectors.consents_first import ConsentsFirst

    return ConsentsFirst(opened, open_connector(for_consents(profile), secrets, now, tallies))
