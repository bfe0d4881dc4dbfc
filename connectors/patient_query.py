"""Who a patient is, asked of a FHIR server: by identifier, by demographics, by `$match`, by cross-reference.

IHE PDQm (ITI-78, ITI-119: https://profiles.ihe.net/ITI/PDQm/) and PIXm (ITI-83: https://profiles.ihe.net/ITI/PIXm/).
A connector only says who was found and how; whether that is certain enough to file a photo is decided by who asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

from connectors.answers import Answer, find_id, find_issue_codes
from connectors.contract import RouteRefused, Secrets, utc_now
from connectors.fhir_batch import search_token
from connectors.fhir_identity import tail
from connectors.kinds import FhirR4Profile
from connectors.outward import has_identifier
from connectors.patient_answers import Resource, no_fhir, read_encounter, read_patient, took_place_at
from connectors.patients_found import Found, Match, Sought
from connectors.session import Session, open_session
from connectors.signals import codes_at

MATCH_GRADE: Final = "http://hl7.org/fhir/StructureDefinition/match-grade"
MOVED: Final = frozenset({301, 302, 303, 307, 308})
GONE: Final = frozenset({404, 410})
CODED: Final = frozenset({400, 404, 409, 410, 422})  # refusals in which a code may say more than the status
LONGEST_CHAIN: Final = 5  # merges followed
Parameters = Sequence[tuple[str, str]]


class PatientQuery:
    """Questions to one destination, which may be asked by several threads at once."""

    def __init__(
        self,
        profile: FhirR4Profile,
        secrets: Secrets,
        now: Callable[[], datetime] = utc_now,
        session: Session | None = None,
    ) -> None:
        self._profile = profile.model_copy(update={"timeouts": profile.timeouts.within(profile.patient_lookup.seconds)})
        self._session = session or open_session(self._profile, secrets, now)

    @property
    def base_url(self) -> str:
        return self._profile.base_url

    @property
    def identifier_systems(self) -> tuple[str, ...]:
        return self._profile.patient.identifier_systems

    def find(self, sought: Sought, at: datetime | None = None) -> Found:
        """Ask in each way the profile names, until one finds somebody; then for the visit at that time.

        Raises DeliveryError, and nothing else.
        """
        return _Conversation(self._profile, self._session.http.request, self._session.http.check).find(sought, at)

    def close(self) -> None:
        self._session.close()


@dataclass(slots=True)
class _Page:
    """The entries of one answer; `several`: it was cut, or the server says that more than one fits."""

    entries: list[Resource]
    several: bool = False


class _Conversation:
    """One question with all the requests it takes."""

    def __init__(self, profile: FhirR4Profile, request: Callable[..., Answer], check: Callable[..., None]) -> None:
        self._profile, self._table = profile, profile.patient_lookup
        self._request, self._check = request, check
        self.asked: list[str] = []

    def find(self, sought: Sought, at: datetime | None) -> Found:
        not_offered: list[str] = []
        for way in self._table.ways:
            try:
                matches, several = WAYS[way](self, sought)
            except RouteRefused:
                not_offered.append(way)
                continue
            if matches or several:
                if at is not None and len(matches) == 1 and not several and self._table.visit:
                    matches = [replace(matches[0], visit=self._visit(matches[0].patient["id"], at))]
                return Found(tuple(matches), several, tuple(self.asked), tuple(not_offered))
        return Found((), False, tuple(self.asked), tuple(not_offered))

    # --- the ways ---------------------------------------------------------------------------------------------------

    def by_identifier(self, sought: Sought) -> tuple[list[Match], bool]:
        """ITI-78: only patients that really bear the identifier."""
        known = self._profile.patient.identifier_systems
        if not sought.system or not sought.value or (known and sought.system not in known):
            return [], False
        identifier = {"system": sought.system, "value": sought.value}
        page = self._search("Patient", [("identifier", search_token(identifier))])
        page.entries = [each for each in page.entries if has_identifier(read_patient(each["resource"]), identifier)]
        return self._matches(page, "identifier")

    def by_demographics(self, sought: Sought) -> tuple[list[Match], bool]:
        """ITI-78, with all the elements that the profile names or not at all."""
        known = {
            "family": sought.family,
            "given": sought.given,
            "birthdate": sought.birth_date,
            "gender": sought.gender,
        }
        wanted = [(name, known[name]) for name in self._table.demographics]
        if not wanted or not all(value for _, value in wanted):
            return [], False
        return self._matches(self._search("Patient", wanted), "demographics")

    def by_match(self, sought: Sought) -> tuple[list[Match], bool]:
        """ITI-119."""
        if not (sought.family and sought.birth_date) and not (sought.system and sought.value):
            return [], False
        parameters = [
            {"name": "resource", "resource": _described(sought)},
            {"name": "onlyCertainMatches", "valueBoolean": self._table.only_certain},
            {"name": "count", "valueInteger": self._table.at_most},
        ]
        body = {"resourceType": "Parameters", "parameter": parameters}
        return self._matches(self._page("POST", "Patient/$match", "Matching a patient", json=body), "match")

    def by_cross_reference(self, sought: Sought) -> tuple[list[Match], bool]:
        """ITI-83: their ids, or their identifiers, of the patient who is known by ours."""
        if not sought.system or not sought.value:
            return [], False
        source = search_token({"system": sought.system, "value": sought.value})
        targets = [("targetSystem", system) for system in self._table.target_systems]
        path = f"Patient/$ihe-pix?{_encoded([('sourceIdentifier', source), *targets])}"
        answer = self._ask("GET", path, "Cross-referencing a patient")
        if answer.status >= 300:
            if answer.status not in CODED or not {"not-found", "code-invalid"} & set(find_issue_codes(answer)):
                self._check(answer, doing="Cross-referencing a patient", write=False, type_level=True)
            return [], False
        given = _list_in(_body(answer, "Parameters"), "parameter")[: self._table.at_most]
        ids = [tail(_dict_in(one, "valueReference").get("reference")) for one in given if one.get("name") == "targetId"]
        if ids:
            found = [self._read(each.removeprefix("Patient/")) for each in ids if each.startswith("Patient/")]
            return self._matches(_Page([{"resource": one} for one in found if one]), "cross-reference")
        named = [_dict_in(one, "valueIdentifier") for one in given if one.get("name") == "targetIdentifier"]
        pages = [self._search("Patient", [("identifier", search_token(one))]) for one in named if one.get("value")]
        every = _Page([each for page in pages for each in page.entries], any(page.several for page in pages))
        return self._matches(every, "cross-reference")

    # --- their answers ----------------------------------------------------------------------------------------------

    def _matches(self, page: _Page, way: str) -> tuple[list[Match], bool]:
        found: dict[str, Match] = {}
        for entry in page.entries[: self._table.at_most]:
            asked = read_patient(entry["resource"])
            patient = self._survivor(asked)
            if patient is not None:
                search, formerly = _dict_in(entry, "search"), "" if asked["id"] == patient["id"] else asked["id"]
                found.setdefault(patient["id"], Match(patient, way, _grade(search), _score(search), formerly))
        certain = [one for one in found.values() if one.grade != "certainly-not"]
        return certain, page.several or len(page.entries) > self._table.at_most

    def _survivor(self, patient: Resource) -> Resource | None:
        """The patient, or whoever it was merged into; None when that is not in use or cannot be found."""
        for _ in range(LONGEST_CHAIN):
            other = next(
                (one.get("other", {}) for one in patient.get("link", ()) if one["type"] == "replaced-by"), None
            )
            if other is None:
                return None if patient.get("active") is False else patient
            following = self._linked(other)
            if following is None:
                return None
            patient = following
        return None

    def _linked(self, other: Resource) -> Resource | None:
        named = tail(other.get("reference"))
        if named.startswith("Patient/"):
            found = self._read(named.removeprefix("Patient/"))
            return read_patient(found) if found else None
        identifier = other.get("identifier", {})
        if not identifier.get("system") or not identifier.get("value"):
            return None
        entries = self._search("Patient", [("identifier", search_token(identifier))]).entries
        return read_patient(entries[0]["resource"]) if len(entries) == 1 else None

    def _read(self, patient_id: str, *, moved: int = 0) -> Resource | None:
        answer = self._ask("GET", f"Patient/{quote(patient_id, safe='')}", "Reading a patient")
        if answer.status < 300:
            return _body(answer, "Patient")
        elsewhere, _ = find_id(answer, "Patient")
        if elsewhere and elsewhere != patient_id and moved < LONGEST_CHAIN:
            return self._read(elsewhere, moved=moved + 1)
        if answer.status in GONE:
            return None
        self._check(answer, doing="Reading a patient", write=False)
        return None

    def _visit(self, patient_id: str, at: datetime) -> Resource | None:
        moment = at.isoformat(timespec="seconds")
        try:
            page = self._search(
                "Encounter", [("patient", patient_id), ("date", f"le{moment}"), ("date", f"ge{moment}")]
            )
        except RouteRefused:
            return None
        visits = [read_encounter(each["resource"]) for each in page.entries]
        own = [one for one in visits if tail(one.get("subject", {}).get("reference")) == f"Patient/{patient_id}"]
        covering = [one for one in own if took_place_at(one, at)]
        return covering[0] if len(covering) == 1 and not page.several else None

    def _search(self, kind: str, parameters: Parameters) -> _Page:
        limited = [*parameters, ("_count", str(self._table.at_most))]
        doing = f"Searching {kind}"
        if self._profile.search == "post":
            data: dict[str, list[str]] = {}
            for name, value in limited:
                data.setdefault(name, []).append(value)
            return self._page("POST", f"{kind}/_search", doing, kind, told=_encoded(parameters), data=data)
        return self._page("GET", f"{kind}?{_encoded(limited)}", doing, kind)

    def _page(
        self, method: str, path: str, doing: str, kind: str = "Patient", *, told: str = "", **content: Any
    ) -> _Page:
        answer = self._ask(method, path, doing, told=told, **content)
        paths = self._profile.code_paths
        codes = codes_at(answer.parsed(), [*paths, *(f"entry.resource.{each}" for each in paths)])
        if codes & set(self._table.several_codes):
            return _Page([], several=True)
        if codes & set(self._table.none_codes):
            return _Page([])
        elsewhere, _ = find_id(answer, kind) if answer.status >= 300 else (None, None)
        if elsewhere and kind == "Patient" and (patient := self._read(elsewhere)):
            return _Page([{"resource": patient}])
        self._check(answer, doing=doing, write=False, type_level=True)
        body = _body(answer, "Bundle")
        entries = [each for each in _list_in(body, "entry") if _dict_in(each, "resource").get("resourceType") == kind]
        return _Page(entries, any(link.get("relation") == "next" for link in _list_in(body, "link")))

    def _ask(self, method: str, path: str, doing: str, *, told: str = "", **content: Any) -> Answer:
        self.asked.append(f"{path}?{told}" if told else path)
        accepted = MOVED | CODED
        return self._request(method, path, doing=doing, write=False, type_level=True, accepted=accepted, **content)


WAYS: Final[Mapping[str, Callable[[_Conversation, Sought], tuple[list[Match], bool]]]] = {
    "identifier": _Conversation.by_identifier,
    "demographics": _Conversation.by_demographics,
    "match": _Conversation.by_match,
    "cross-reference": _Conversation.by_cross_reference,
}


def _described(sought: Sought) -> Resource:
    name = {"family": sought.family, "given": [sought.given] if sought.given else []}
    patient = {
        "identifier": [{"system": sought.system, "value": sought.value}] if sought.system and sought.value else [],
        "name": [{key: value for key, value in name.items() if value}] if sought.family or sought.given else [],
        "birthDate": sought.birth_date,
        "gender": sought.gender,
    }
    return {"resourceType": "Patient"} | {key: value for key, value in patient.items() if value}


def _encoded(parameters: Parameters) -> str:
    return urlencode(list(parameters), quote_via=quote)


def _body(answer: Answer, kind: str) -> Resource:
    body = answer.resource()
    if body.get("resourceType") != kind:
        raise no_fhir(f"something that is no {kind}")
    return body


def _list_in(node: Resource, name: str) -> list[Resource]:
    found = node.get(name)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _dict_in(node: Resource, name: str) -> Resource:
    found = node.get(name)
    return found if isinstance(found, dict) else {}


def _grade(search: Resource) -> str:
    grades = {str(one.get("valueCode")) for one in _list_in(search, "extension") if one.get("url") == MATCH_GRADE}
    return next((each for each in ("certain", "probable", "possible", "certainly-not") if each in grades), "")


def _score(search: Resource) -> float | None:
    score = search.get("score")
    return float(score) if isinstance(score, (int, float)) and 0 <= score <= 1 else None
