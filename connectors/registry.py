"""Which class serves which kind of destination. A new kind is a line here and one in `profile.PROFILES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Final, cast

from connectors.contract import Connector
from connectors.profile import Profile, ProfileError

# Imported when first opened: a site that only writes folders needs no HTTP client.
CONNECTORS: Final[Mapping[str, str]] = {
    "directory": "connectors.directory:Directory",
    "fhir-r4": "connectors.fhir_r4:FhirR4",
}


def open_connector(profile: Profile, secrets: Callable[[str], str]) -> Connector:
    """Open the connector of `profile.kind`; `secrets` gives the secret of a name, or raises KeyError or OSError.

    Nothing is sent yet. Raises ProfileError for a kind nobody serves.
    """
    if profile.kind not in CONNECTORS:
        raise ProfileError(f"{profile.name}: no connector serves kind {profile.kind!r}.")
    module, _, name = CONNECTORS[profile.kind].partition(":")
    opened = getattr(import_module(module), name)(profile, secrets)
    return cast(Connector, opened)
