"""Whom a destination is asked for and whom it knows, and which profile says how: the words, without the speaking."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from connectors.every_kind import Profile
from connectors.kinds import EhrProfile, FhirR4Profile

Resource = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sought:
    """What is known of the patient; whatever is not is empty."""

    system: str = field(default="", repr=False)
    value: str = field(default="", repr=False)
    family: str = field(default="", repr=False)
    given: str = field(default="", repr=False)
    birth_date: str = field(default="", repr=False)
    gender: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Match:
    """A patient in use at the destination, after merges, and the visit that covers the time, when it is the only one.

    `formerly` is the id that was found where that patient was merged into this one.
    `grade` (http://hl7.org/fhir/R4/valueset-match-grade.html) and `score` (0 to 1) are the server's own words.
    """

    patient: Resource = field(repr=False)
    way: str
    grade: str = ""
    score: float | None = None
    formerly: str = ""
    visit: Resource | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Found:
    """`several`: more fit than are named. `asked` are the requests, for the audit log: they hold identifiers."""

    matches: tuple[Match, ...] = ()
    several: bool = False
    asked: tuple[str, ...] = field(default=(), repr=False)
    not_offered: tuple[str, ...] = ()


def find_profile(profile: Profile) -> FhirR4Profile | None:
    """The profile, or the first of its routes, that says how to ask for patients."""
    routes = profile.routes if isinstance(profile, EhrProfile) else (profile,)
    return next((one for one in routes if isinstance(one, FhirR4Profile) and one.patient_lookup.ways), None)
