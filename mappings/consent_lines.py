"""What a Consent says, in a few words for people: beside a photo, or on a page of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import tzinfo
from typing import Any

from mappings.fhir_time import told_in

Resource = Mapping[str, Any]

_EFFECT = {"permit": "permitted", "deny": "refused"}


def consent_line(consent: Resource, zone: tzinfo) -> str:
    """`Consent: permitted, 2026-11-20, for treatment`; only what is known, never who said it."""
    provision: Resource = consent.get("provision", {})
    effect = _EFFECT.get(str(provision.get("type", "permit")), "recorded")
    told = effect if consent.get("status") == "active" else f"{effect}, {consent.get('status', 'status unknown')}"
    purposes = ", ".join(_texts(provision.get("purpose", [])))
    parts = (told, told_in(str(consent.get("dateTime", "")), zone)[:10], purposes and f"for {purposes}")
    return "Consent: " + ", ".join(part for part in parts if part)


def consent_lines(consent: Resource, zone: tzinfo) -> list[str]:
    """Everything a page says about it; only what is known, times in `zone`."""
    provision: Resource = consent.get("provision", {})
    period: Resource = provision.get("period", {})
    lines = {
        "Decision": _EFFECT.get(str(provision.get("type", "permit")), "recorded"),
        "Status": consent.get("status"),
        "Given": told_in(str(consent.get("dateTime", "")), zone),
        "Scope": "; ".join(_texts([consent.get("scope", {})])),
        "Category": "; ".join(_texts(consent.get("category", []))),
        "Purpose": ", ".join(_texts(provision.get("purpose", []))),
        "Valid": " to ".join(told_in(str(period[name]), zone)[:10] for name in ("start", "end") if name in period),
        "Policy": str(consent.get("policyRule", {}).get("text", "")),
        "Record": f"Consent/{consent.get('id')}",
    }
    return [f"{name}: {value}" for name, value in lines.items() if value]


def _texts(concepts: Sequence[Resource]) -> list[str]:
    """Of CodeableConcepts and Codings: the text, else the display, else the code."""
    found = []
    for concept in concepts:
        coding: Resource = next(iter(concept.get("coding", [])), concept)
        found.append(str(concept.get("text") or coding.get("display") or coding.get("code") or ""))
    return [each for each in found if each]
