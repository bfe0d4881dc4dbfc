"""A Patient as the pages show one: banner, lists."""

from __future__ import annotations

from datetime import date
from typing import Any

from adapter.records import Resource, Stored
from mappings.terms import IDENTIFIER_TYPE, has_code

SEXES = {"male": "Male", "female": "Female", "other": "Other"}


def patient_card(patient: Stored, today: date) -> dict[str, Any]:
    """The `patient` of base.html."""
    resource = patient.resource
    born = _full_date(resource.get("birthDate"))
    return {
        "id": patient.id,
        "name": patient_name(resource),
        "birth_date": born,
        "age": age(born, today) if born else "",
        "sex": SEXES.get(resource.get("gender", ""), "Not known"),
        "mrn": mrn(resource) or "not known",
        "href": f"/patients/{patient.id}",
        "alert": _alert(resource),
    }


def patient_name(resource: Resource) -> str:
    """`LINDQVIST, Åsa Marie`, as charts write it."""
    names = resource.get("name", [])
    name = next((one for one in names if one.get("use") == "official"), names[0] if names else {})
    family, given = name.get("family", "").upper(), " ".join(name.get("given", []))
    return ", ".join(filter(None, [family, given])) or name.get("text") or "Name not known"


def mrn(resource: Resource) -> str | None:
    """The medical record number, or else the first identifier that is still in use."""
    current = [one for one in resource.get("identifier", []) if one.get("use") != "old" and one.get("value")]
    typed = [one for one in current if has_code([one.get("type", {})], IDENTIFIER_TYPE, "MR")]
    return next((str(one["value"]) for one in typed + current), None)


def age(born: date, today: date) -> str:
    """Years; months below two years, days below a month."""
    months = (today.year - born.year) * 12 + today.month - born.month - (today.day < born.day)
    if months >= 24:
        return f"{months // 12} y"
    return f"{months} mo" if months > 0 else f"{max((today - born).days, 0)} d"


def _full_date(text: str | None) -> date | None:
    return date.fromisoformat(text) if text and len(text) == 10 else None


def _alert(resource: Resource) -> str | None:
    if resource.get("deceasedDateTime") or resource.get("deceasedBoolean"):
        return " ".join(["deceased", resource.get("deceasedDateTime", "")[:10]]).strip()
    return None if resource.get("active", True) else "record not in use"
