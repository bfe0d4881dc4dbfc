"""Assigning authorities of HL7 v2 as FHIR identifier systems, by the settings of this site."""

from __future__ import annotations

from collections.abc import Iterable

from adapter.errors import DermBridgeError
from adapter.settings import Settings
from mappings.hl7v2.datatypes import CX


class NotApplied(DermBridgeError):
    """A message that waits in the queue until somebody follows `remedy`. Neither text holds a name or an identifier."""

    def __init__(self, reason: str, *, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


def default_system(settings: Settings) -> str | None:
    """The system meant when CX.4 is empty: `default_authority` through the map, or itself when it is a URI."""
    name = settings.default_authority
    if not name:
        return None
    return settings.identifier_systems.get(name) or (name if ":" in name else None)


def patient_tokens(settings: Settings, identifiers: Iterable[CX]) -> list[tuple[str, str]]:
    """(system, value) of the identifiers whose authority is known. Raises NotApplied when none is."""
    found, unknown = [], []
    for cx in identifiers:
        system = cx.find_system(settings.identifier_systems, default_system(settings))
        if system:
            found.append((system, cx.value))
        else:
            unknown.append(cx.authority.name)
    if not found:
        raise _unknown_authority(next(filter(None, unknown), ""))
    return list(dict.fromkeys(found))


def check_authorities(settings: Settings, prior: Iterable[CX], current: Iterable[CX], field: str) -> None:
    """What changes hands must say whose number it is: every CX of `field`, not only one of them.

    The default authority stands in only where the message names none at all. Raises NotApplied.
    """
    names_none = not any(cx.authority.name for cx in current)
    for cx in prior:
        if cx.find_system(settings.identifier_systems, default_system(settings) if names_none else None):
            continue
        if cx.authority.name:
            raise _unknown_authority(cx.authority.name)
        raise NotApplied(
            f"not applied: {field} does not say whose number it is (CX.4, assigning authority)",
            remedy=f"ask the sender to fill CX.4 of {field} and to send it again, then dismiss this message",
        )


def _unknown_authority(name: str) -> NotApplied:
    if name:
        return NotApplied(
            f"the assigning authority {name[:60]!r} (CX.4) is not known here",
            remedy=f'add {name[:60]!r} = "urn:oid:…" to [identifier_systems] in config/dermbridge.toml, then replay',
        )
    return NotApplied(
        "the patient identifier has no assigning authority (CX.4) and there is no default",
        remedy="set default_authority (and its entry in [identifier_systems]) in config/dermbridge.toml, then replay",
    )
