"""The ways into an EHR: one row for each kind of destination, naming its profile, its connector and its preview.

A row names modules and loads none: a site that only writes folders needs no HTTP client, one without a PACS no DICOM.
A package outside of this one adds rows by entry points of the group `dermbridge.routes`, whose name is the kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Route:
    """`module:name` of a `connectors.every_kind.Profile`, of a `connectors.contract.Connector`, and of a function of
    parcel and profile that tells what would go out, as pairs of where and what."""

    profile: str
    connector: str
    preview: str


_KINDS: Final = "connectors.kinds"
_PREVIEW: Final = "connectors.preview"
ROUTES: Final[Mapping[str, Route]] = {
    "directory": Route(f"{_KINDS}:DirectoryProfile", "connectors.directory:Directory", f"{_PREVIEW}:folder"),
    "fhir-r4": Route(f"{_KINDS}:FhirR4Profile", "connectors.fhir_r4:FhirR4", f"{_PREVIEW}:fhir_requests"),
    "rest": Route(f"{_KINDS}:RestProfile", "connectors.rest:Rest", f"{_PREVIEW}:steps"),
    "hl7v2": Route(f"{_KINDS}:Hl7v2Profile", "connectors.hl7v2:Hl7v2", f"{_PREVIEW}:message"),
    "dicomweb": Route(f"{_KINDS}:DicomWebProfile", "connectors.dicomweb:DicomWeb", f"{_PREVIEW}:instance"),
    "dicom-cstore": Route(f"{_KINDS}:DimseProfile", "connectors.dimse:Dimse", f"{_PREVIEW}:instance"),
    "hand-off": Route(f"{_KINDS}:HandOffProfile", "connectors.hand_off:HandOff", f"{_PREVIEW}:link"),
    "ehr": Route(f"{_KINDS}:EhrProfile", "connectors.in_order:InOrder", f"{_PREVIEW}:preview"),
}


def find_route(kind: object) -> Route | None:
    """The row of a kind, ours or of an installed package."""
    return ROUTES.get(str(kind)) or _installed().get(str(kind))


def kinds() -> list[str]:
    """Every kind there is a row for."""
    return sorted({*ROUTES, *_installed()})


def load(name: str) -> Any:
    """What `module:name` names."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


@cache
def _installed() -> dict[str, Route]:
    return {each.name: each.load() for each in entry_points(group="dermbridge.routes")}
