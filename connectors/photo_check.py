"""What `connectors check` says of asking for photos: what a FHIR server declares, what an archive answers.

A statement is a claim, so nothing here is more than a warning: one photo listed by `connectors photos` proves it.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl

from connectors.auth import find_missing_scopes
from connectors.contract import DeliveryError, Finding
from connectors.http import Http
from connectors.kinds import DicomWebProfile, FhirR4Profile

DICOM_JSON: Final = "application/dicom+json"
_RESULT_PARAMETERS: Final = ("_count", "_sort", "_include", "_elements", "_summary", "_total")


def declared_photos(profile: FhirR4Profile, statement: dict[str, Any], granted: str | None) -> list[Finding]:
    """One finding for each search, and one for scopes that reading needs, where a token says what was granted."""
    found = [_search(statement, search) for search in profile.photos.searches]
    kinds = {search.partition("?")[0] for search in profile.photos.searches}
    if kinds and granted is not None:
        needed = [*((kind, letter) for kind in sorted(kinds) for letter in "rs"), ("Binary", "r")]
        if missing := find_missing_scopes(granted, needed):
            remedy = "Have them granted, or take the searches out of photos."
            found.append(Finding("photos there", "warning", f"not granted: {', '.join(missing)}", remedy))
    return found


def answered_photos(profile: DicomWebProfile, http: Http) -> list[Finding]:
    """Whether the archive searches at the level the profile says; asked for a patient that cannot exist."""
    if not profile.photos.modalities:
        return []
    subject, level = "photos there", {"instance": "instances", "study": "studies"}[profile.photos.level]
    try:
        path = f"{level}?PatientID=dermbridge-check&limit=1"
        headers = {"Accept": DICOM_JSON}
        http.request("GET", path, doing=f"Searching {level}", write=False, accepted=frozenset({204}), headers=headers)
    except DeliveryError as error:
        return [Finding(subject, "warning", str(error), 'Try the other photos.level, "study" or "instance".')]
    return [Finding(subject, "ok", f"{level} are searched by PatientID")]


def _search(statement: dict[str, Any], search: str) -> Finding:
    kind, _, query = search.partition("?")
    types = [each for rest in statement.get("rest", []) for each in rest.get("resource", [])]
    declared: dict[str, Any] = next((each for each in types if each.get("type") == kind), {})
    offered = [each.get("code") for each in declared.get("interaction", [])]
    known = [each.get("name") for each in declared.get("searchParam", [])]
    asked = [name.partition(":")[0] for name, _ in parse_qsl(query) if name not in _RESULT_PARAMETERS]
    missing = [each for each in ("search-type", "read") if each not in offered]
    missing += [name for name in asked if known and name not in known]
    if not missing:
        return Finding(f"photos there: {kind}", "ok", "declared")
    remedy = "Try `connectors photos`; take the search out of photos.searches if it is refused."
    return Finding(f"photos there: {kind}", "warning", f"not declared: {', '.join(missing)}", remedy)
