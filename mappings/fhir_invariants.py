"""R4 invariants that matter for what we store, by type, each a function from an object to the rules it breaks.

Source: the `constraint` elements of the R4 definitions; the key of each rule stands in its text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC
from typing import Any, Final

from mappings.fhir_primitives import find_narrative_fault
from mappings.fhir_time import period_bounds
from mappings.terms import Json


def _extension(node: Json) -> Iterator[str]:
    if ("extension" in node) == any(name.lstrip("_").startswith("value") for name in node):
        yield "An extension holds either a value or extensions (ext-1)."


def _attachment(node: Json) -> Iterator[str]:
    if "data" in node and "contentType" not in node:
        yield "An attachment with data needs its contentType (att-1)."


def _period(node: Json) -> Iterator[str]:
    try:
        start, end = period_bounds({key: node[key] for key in ("start", "end") if key in node}, UTC)
    except (ValueError, TypeError):
        return  # the primitive's own fault is reported where it stands
    if start and end and start >= end:
        yield "A period starts before it ends (per-1)."


def _reference(node: Json) -> Iterator[str]:
    if not node.keys() & {"reference", "identifier", "display", "extension"}:
        yield "A reference needs a reference, an identifier or a display."


def _narrative(node: Json) -> Iterator[str]:
    if isinstance(node.get("div"), str) and (fault := find_narrative_fault(node["div"])):
        yield f"{fault} (txt-1)"


def _consent(node: Json) -> Iterator[str]:
    if "policy" not in node and "policyRule" not in node:
        yield "A consent names a policy or a policyRule (ppc-1)."


def _audit_entity(node: Json) -> Iterator[str]:
    if "name" in node and "query" in node:
        yield "An audit entity has a name or a query, not both (sev-1)."


def _contact_point(node: Json) -> Iterator[str]:
    if "value" in node and "system" not in node:
        yield "A contact point with a value needs its system (cpt-2)."


def _quantity(node: Json) -> Iterator[str]:
    if "code" in node and "system" not in node:
        yield "A quantity with a code needs the code's system (qty-3)."


def _patient_contact(node: Json) -> Iterator[str]:
    if not node.keys() & {"name", "telecom", "address", "organization"}:
        yield "A contact needs a name, telecom, address or organization (pat-1)."


def _organization(node: Json) -> Iterator[str]:
    if not node.keys() & {"identifier", "name"}:
        yield "An organization needs an identifier or a name (org-1)."


def _group(node: Json) -> Iterator[str]:
    if "member" in node and node.get("actual") is not True:
        yield "Only an actual group has members (grp-1)."


INVARIANTS: Final[dict[str, Callable[[dict[str, Any]], Iterator[str]]]] = {
    "Extension": _extension,
    "Attachment": _attachment,
    "Period": _period,
    "Reference": _reference,
    "Narrative": _narrative,
    "Consent": _consent,
    "AuditEvent.entity": _audit_entity,
    "ContactPoint": _contact_point,
    "Quantity": _quantity,
    "Patient.contact": _patient_contact,
    "Organization": _organization,
    "Group": _group,
}
