"""What a profile's templates may say of a parcel: `{filename}`, `{taken_at:%m/%d/%Y}`, `{tenant_department}`."""

from __future__ import annotations

import html
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

from connectors.contract import DeliveryError, Parcel, Retry
from connectors.every_kind import Profile
from connectors.kinds import FhirR4Profile
from connectors.outward import delivery_identifier, find_capture_identifier, link_to, mark, of_type, put
from mappings.photo_caption import caption, title


def values(parcel: Parcel, profile: Profile) -> dict[str, Any]:
    """Everything a template may name.

    `taken_at` is when the photo was taken, else when it was issued, in the profile's time zone; `identifier` the
    patient's first identifier in force; `capture` and `delivery` our UUIDs of the photo and of this version at this
    destination; the profile's `tenant` and `fields` stand under their own names.
    """
    name: Mapping[str, Any] = next(iter(parcel.patient.get("name", [])), {})
    zone = ZoneInfo(profile.timezone)
    capture = (find_capture_identifier(parcel.media) or {}).get("value", "")
    given: dict[str, Any] = {
        "media_id": parcel.media.get("id", ""),
        "filename": parcel.filename,
        "content_type": parcel.content_type,
        "size": parcel.size,
        "sha256": parcel.sha256,
        "title": title(parcel.media),
        "caption": "; ".join(caption(parcel.media, zone)),
        "link": link_to(parcel, profile),
        "taken_at": taken_at(parcel.media).astimezone(zone),
        "capture": capture.removeprefix("urn:uuid:"),
        "mark": mark(parcel),
        "delivery": delivery_identifier(parcel)["value"].removeprefix("urn:uuid:"),
        "identifier": identifier_of(parcel.patient, ()),
        "visit": identifier_of(parcel.encounter or {}, ()),
        "family": name.get("family", ""),
        "given": " ".join(name.get("given", [])),
        "birth_date": parcel.patient.get("birthDate", ""),
    }
    return given | dict(getattr(profile, "tenant", {})) | dict(getattr(profile, "fields", {}))


def taken_at(media: Mapping[str, Any]) -> datetime:
    """When the photo was taken; when it was issued if that is not known."""
    for name in ("createdDateTime", "issued"):
        try:
            moment = datetime.fromisoformat(str(media.get(name, "")))
        except ValueError:
            continue
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return datetime(1970, 1, 1, tzinfo=UTC)


def identifier_of(resource: Mapping[str, Any], systems: tuple[str, ...]) -> str:
    """The first identifier in force, of the first of `systems` that has one; empty when there is none."""
    valid = [each for each in resource.get("identifier", []) if each.get("value") and each.get("use") != "old"]
    ordered = [each for system in systems for each in valid if each.get("system") == system] if systems else valid
    return str(ordered[0]["value"]) if ordered else ""


class _Text(str):
    """A text that `{family:xml}` writes into XML."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return html.escape(self) if spec == "xml" else super().__format__(spec)


def filled(template: Any, known: Mapping[str, Any], *, in_path: bool = False) -> Any:
    """`template` with its names replaced, also in nested tables and lists. Raises DeliveryError for an unknown name."""
    if isinstance(template, Mapping):
        return {name: filled(value, known) for name, value in template.items()}
    if isinstance(template, list):
        return [filled(value, known) for value in template]
    if not isinstance(template, str) or "{" not in template:
        return template
    usable = {k: quote(v, safe="") if isinstance(v, str) else v for k, v in known.items()} if in_path else known
    try:
        return template.format_map({k: _Text(v) if isinstance(v, str) else v for k, v in usable.items()})
    except (KeyError, ValueError, IndexError, AttributeError) as error:
        wrong = (
            f"names {{{error.args[0]}}}, not known here"
            if isinstance(error, KeyError)
            else f"is wrong ({type(error).__name__})"
        )
        raise DeliveryError(
            f"A template of the profile {wrong}.",
            remedy=f"Correct the template; it may name {', '.join(sorted(known))}.",
            retry=Retry.NEVER,
        ) from error


def with_required(body: dict[str, Any], parcel: Parcel, profile: FhirR4Profile) -> dict[str, Any]:
    """The resource with what the destination requires beyond FHIR (`set`)."""
    known = values(parcel, profile)
    for path, written in of_type(profile.set, body["resourceType"]).items():
        put(body, path, filled(profile.set[written], known))
    return body
