"""What is said about a photo beside it, in words: on a PDF page, in a note, in a message.

Two identifiers of the patient stand on every page that leaves (name or MRN, and birth date), since a page that was
misfiled must be recognisable as such.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import tzinfo
from typing import Any

from mappings.fhir_time import told_in
from mappings.photos_to_picture import VISIT_SHEETS, derivation_of
from mappings.terms import PHOTO_VIEW

Resource = Mapping[str, Any]


def caption(media: Resource, zone: tzinfo) -> list[str]:
    """Lines such as `Site: Skin of cheek, left`; only what is known, times in `zone`."""
    views = media.get("view", {}).get("coding", [])
    lines = {
        "Site": media.get("bodySite", {}).get("text"),
        "View": next((c["code"] for c in views if c.get("system") == PHOTO_VIEW), None),
        "Taken": told_in(str(media.get("createdDateTime", "")), zone),
        "Device": media.get("deviceName"),
        "Note": "; ".join(note["text"] for note in media.get("note", []) if "text" in note) or None,
    }
    return [f"{name}: {value}" for name, value in lines.items() if value]


def patient_line(patient: Resource, parts: Collection[str] = ("name", "number", "birthDate")) -> str:
    """`Doe, Jane | MRN 4711 | born 1970-01-01`; only what is known, and of that the parts asked for."""
    name: Resource = next(iter(patient.get("name", [])), {})
    family, given = name.get("family"), " ".join(name.get("given", []))
    number = next((i["value"] for i in patient.get("identifier", []) if i.get("value") and i.get("use") != "old"), None)
    known = {
        "name": name.get("text") or ", ".join(filter(None, [family, given])),
        "number": number and f"MRN {number}",
        "birthDate": patient.get("birthDate") and f"born {patient['birthDate']}",
    }
    return " | ".join(text for part, text in known.items() if text and part in parts)


def title(media: Resource) -> str:
    """A short heading for lists in the EHR."""
    site = media.get("bodySite", {}).get("text")
    match derivation_of(media):
        case None:
            kind = "Clinical photograph"
        case sheet if sheet in VISIT_SHEETS:
            kind = "Clinical photographs of a visit"
        case _:
            kind = "Comparison of clinical photographs"
    return f"{kind}, {site}" if site else kind
