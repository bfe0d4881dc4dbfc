"""A Media as the pages show one: tile, photo page, comparison; and the lists its forms choose from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, tzinfo
from typing import Any

import orjson
from sqlalchemy import Row

from adapter.records import Resource, Stored
from mappings.body_sites import BODY_SITES, SNOMED_LATERALITY, groups
from mappings.canonical_resources import codes_of
from mappings.external_photo import holder_of
from mappings.fhir_time import span
from mappings.photos_to_picture import VISIT_SHEETS, derivation_of
from mappings.terms import BODY_STRUCTURE, IDENTITY_STATE, LATERALITY, PHOTO_LABEL, PHOTO_VIEW, SNOMED, has_code

SHOWN_BY_BROWSERS = frozenset({"image/jpeg", "image/png", "image/webp"})
_SIDES = {code: side for side, code in SNOMED_LATERALITY.items()}


def photo_card(media: Stored, deliveries: Sequence[Row[Any]], zone: tzinfo) -> dict[str, Any]:
    """The `photo` of timeline.html and compare.html."""
    resource = media.resource
    site, laterality = site_of(resource), laterality_of(resource)
    view = code_of(resource.get("view"), PHOTO_VIEW)
    address = f"/captures/{media.id}"
    return {
        "id": media.id,
        "href": f"/photos/{media.id}",
        "thumbnail": f"{address}/thumbnail",
        "display": f"{address}/display",
        "tiles": f"{address}/tiles",
        "taken_at": taken_at(resource, zone),
        "site": site_wording(site) if site else None,
        "laterality": laterality,
        "view": view,
        "view_label": view.capitalize() if view else None,
        "identity": code_of({"coding": resource.get("meta", {}).get("tag", [])}, IDENTITY_STATE),
        "sensitive": has_code(resource.get("meta", {}).get("security"), PHOTO_LABEL, "intimate"),
        "device": resource.get("deviceName"),
        "holder": holder_of(resource),
        "deliveries": [
            {"destination": one.destination, "state": str(one.state), "reason": one.reason} for one in deliveries
        ],
    }


def code_of(concept: Resource | None, system: str) -> str | None:
    codings = (concept or {}).get("coding", [])
    return next((str(one["code"]) for one in codings if one.get("system") == system and "code" in one), None)


def site_of(resource: Resource) -> str | None:
    return code_of(resource.get("bodySite"), SNOMED)


def site_wording(code: str) -> str:
    """`Hand` for "Skin of hand": every site here is skin. An unlisted code as it is."""
    if code not in BODY_SITES:
        return f"SNOMED {code}"
    meaning = BODY_SITES[code].meaning.removeprefix("Skin of ")
    return meaning[:1].upper() + meaning[1:]


def laterality_of(resource: Resource) -> str | None:
    value = _extension(resource, LATERALITY).get("valueCodeableConcept")
    return _SIDES.get(code_of(value, SNOMED) or "")


def photo_label(photo: Stored | None) -> str:
    """`Hand, left`: what a list calls a photo; `Contact sheet` for one of a visit."""
    if photo is None:
        return "Photo"
    if (made := derivation_of(photo.resource)) in VISIT_SHEETS:
        return made.replace("-", " ").capitalize()
    site = site_of(photo.resource)
    return ", ".join(filter(None, [site_wording(site) if site else "Body site not set", laterality_of(photo.resource)]))


def lesion_of(resource: Resource) -> str | None:
    """The id of its BodyStructure."""
    reference: str = _extension(resource, BODY_STRUCTURE).get("valueReference", {}).get("reference", "")
    return reference.removeprefix("BodyStructure/") or None


def encounter_of(resource: Resource) -> str | None:
    reference: str = resource.get("encounter", {}).get("reference", "")
    return reference.removeprefix("Encounter/") or None


def receipt_wording(receipt: str | None) -> str | None:
    """`Media/123` of the receipt a destination gave (JSON); its number of the document where it names no record."""
    if not receipt or not receipt.startswith("{"):
        return receipt
    told = orjson.loads(receipt)
    location = told.get("location")
    named = "/".join(str(location).split("/_history/")[0].rsplit("/", 2)[-2:]) if location else ""
    return named or told.get("ids", {}).get("Document")


def taken_at(resource: Resource, zone: tzinfo) -> datetime | None:
    text = resource.get("createdDateTime")
    return span(text, zone)[0].astimezone(zone) if text else None


def visit_label(encounter: Stored, zone: tzinfo) -> str:
    """`23 Nov 2026, Dermatology`."""
    resource = encounter.resource
    start = resource.get("period", {}).get("start")
    at = span(start, zone)[0].astimezone(zone) if start else None
    return ", ".join(filter(None, [day(at) if at else "Visit without a date", place_of(resource)]))


def place_of(encounter: Resource) -> str | None:
    names = [encounter.get("serviceType", {}).get("text"), encounter.get("serviceProvider", {}).get("display")]
    names += [one.get("location", {}).get("display") for one in encounter.get("location", [])]
    return next(filter(None, names), None)


def lesion_label(lesion: Stored) -> str:
    resource = lesion.resource
    return str(resource.get("description") or resource.get("location", {}).get("text") or f"Lesion {lesion.id[-6:]}")


def day(at: datetime) -> str:
    return f"{at.day} {at:%b %Y}"


# --- lists of the forms ---------------------------------------------------------------------------------------------


def site_groups() -> list[dict[str, Any]]:
    return [
        {"group": group, "sites": [{"code": site.code, "display": site_wording(site.code)} for site in sites]}
        for group, sites in groups()
    ]


def lateralities() -> list[dict[str, str]]:
    return [{"code": side, "display": side.capitalize()} for side in SNOMED_LATERALITY]


def views() -> list[dict[str, str]]:
    return [{"code": code, "display": code.capitalize()} for code in codes_of("photo-view")]


def visits(encounters: Iterable[Stored], zone: tzinfo) -> list[dict[str, str]]:
    return [{"code": one.id, "display": visit_label(one, zone)} for one in encounters]


def lesions(found: Iterable[Stored]) -> list[dict[str, str]]:
    return [{"code": one.id, "display": lesion_label(one)} for one in found]


def _extension(resource: Resource, url: str) -> dict[str, Any]:
    extensions = resource.get("bodySite", {}).get("extension", [])
    return next((one for one in extensions if one.get("url") == url), {})
