"""Values taken out of FHIR JSON for searching: small readers, tolerant of absent elements.

A reader made for a path takes a resource and gives what stands there: tokens as ``code|system``, references without
their version, strings folded, dates as moments.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from adapter.records.date_intervals import date_interval

Resource = dict[str, Any]


def token_value(code: str, system: str | None) -> str:
    return f"{code}|{system or ''}"


def _walk(value: Any, path: Iterable[str]) -> list[Any]:
    """Every value at `path`, descending into lists. Plain loops: this runs for every column of every record."""
    values = [value]
    for step in path:
        found: list[Any] = []
        for outer in values:
            if isinstance(outer, dict) and (inner := outer.get(step)) is not None:
                if isinstance(inner, list):
                    found += inner
                else:
                    found.append(inner)
        if not found:
            return found
        values = found
    return values


def _first(value: Any, path: tuple[str, ...]) -> Any:
    return next(iter(_walk(value, path)), None)


def _steps(path: str) -> tuple[str, ...]:
    return tuple(path.split("."))


def tokens(path: str) -> Callable[[Resource], list[str]]:
    steps = _steps(path)

    def extract(resource: Resource) -> list[str]:
        return [token for value in _walk(resource, steps) for token in _as_tokens(value)]

    return extract


def _as_tokens(value: Any) -> list[str]:
    if isinstance(value, bool):
        return [token_value(str(value).lower(), None)]
    if isinstance(value, str):
        return [token_value(value, None)]
    if "coding" in value:
        return [token_value(c["code"], c.get("system")) for c in value["coding"] if "code" in c]
    if "code" in value:  # Coding
        return [token_value(value["code"], value.get("system"))]
    return [token_value(value["value"], value.get("system"))] if "value" in value else []  # Identifier


def token(path: str) -> Callable[[Resource], str | None]:
    every = tokens(path)
    return lambda resource: next(iter(every(resource)), None)


def references(path: str) -> Callable[[Resource], list[str]]:
    steps = _steps(path)

    def extract(resource: Resource) -> list[str]:
        found = [value.get("reference") for value in _walk(resource, steps)]
        return [_versionless(reference) for reference in found if reference]

    return extract


def _versionless(reference: str) -> str:
    return reference.partition("/_history/")[0]


def reference(path: str, target: str | None = None) -> Callable[[Resource], str | None]:
    every = references(path)

    def extract(resource: Resource) -> str | None:
        for found in every(resource):
            if target is None:
                return found
            if found.startswith(f"{target}/"):
                return found.removeprefix(f"{target}/")
        return None

    return extract


def participants(resource: Resource) -> list[str]:
    """Whom a visit names as taking part: by reference, or by number ("value|system") where ADT knows no more."""
    numbers = tokens("participant.individual.identifier")
    return [*references("participant.individual")(resource), *numbers(resource)]


def string(path: str) -> Callable[[Resource], str | None]:
    steps = _steps(path)

    def extract(resource: Resource) -> str | None:
        value = _first(resource, steps)
        return folded(value) if isinstance(value, str) else None

    return extract


def folded(text: str) -> str:
    """Without case and accents, as FHIR string search compares."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def instant(path: str, *, end: bool = False) -> Callable[[Resource], datetime | None]:
    steps = _steps(path)

    def extract(resource: Resource) -> datetime | None:
        value = _first(resource, steps)
        return None if value is None else date_interval(value)[1 if end else 0]

    return extract


def vague_end(path: str) -> Callable[[Resource], datetime | None]:
    """Where a dateTime without a time of day ends, be it a day, a month or a year."""
    end, steps = instant(path, end=True), _steps(path)

    def extract(resource: Resource) -> datetime | None:
        return end(resource) if len(str(_first(resource, steps))) <= len("2026-11-23") else None

    return extract


def lesion(resource: Resource) -> str | None:
    for extension in _walk(resource, ("bodySite", "extension")):
        if extension.get("url") == "http://hl7.org/fhir/StructureDefinition/bodySite":
            reference: str = extension.get("valueReference", {}).get("reference", "")
            return reference.removeprefix("BodyStructure/") or None
    return None


def identity_state(resource: Resource) -> str | None:
    for tag in _walk(resource, ("meta", "tag")):
        if "code" in tag and tag.get("system", "").endswith("/CodeSystem/identity-state"):
            return token_value(tag["code"], tag["system"])
    return None


def origin(resource: Resource) -> list[str]:
    tags = [tag for tag in _walk(resource, ("meta", "tag")) if "code" in tag and "system" in tag]
    return [token_value(tag["code"], tag["system"]) for tag in tags if tag["system"].endswith("/photo-origin")]


def derivation(resource: Resource) -> str | None:
    for tag in _walk(resource, ("meta", "tag")):
        if "code" in tag and tag.get("system", "").endswith("/CodeSystem/picture-derivation"):
            return token_value(tag["code"], tag["system"])
    return None


def derived_from(resource: Resource) -> list[str]:
    """Our extension on a picture made from others; R4 Media has no element for it."""
    named = (one for one in resource.get("extension", ()) if one.get("url", "").endswith("/derived-from"))
    return [_versionless(one["valueReference"]["reference"]) for one in named]


_CONFIDENTIALITY = [*"ULMNRV"]  # http://terminology.hl7.org/CodeSystem/v3-Confidentiality, least restricted first


def confidentiality_of(resource: Resource) -> str:
    """The highest level among `meta.security`, N at the least; an intimate photograph of a minor is always V."""
    labels = _walk(resource, ("meta", "security"))
    levels = [one["code"] for one in labels if one.get("system", "").endswith("/v3-Confidentiality") and "code" in one]
    local = {one.get("code") for one in labels if one.get("system", "").endswith("/CodeSystem/photo-label")}
    if local >= {"minor", "intimate"} or any(level not in _CONFIDENTIALITY for level in levels):
        return "V"
    return max(("N", *map(str, levels)), key=_CONFIDENTIALITY.index)


def replaced_by(resource: Resource) -> str | None:
    for link in _walk(resource, ("link",)):
        if link.get("type") == "replaced-by":
            reference: str = link["other"].get("reference", "")
            return reference.removeprefix("Patient/") or None
    return None
