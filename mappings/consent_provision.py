"""What one R4 Consent says about one request, by the semantics of IHE PCF.

Every constraint is matched in three values: True, False, or None for "we do not understand it". A permit needs True;
a deny takes None as well. That is the whole treatment of what we do not know: it narrows permits and widens denials.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from enum import Enum
from typing import Any, Final

from mappings.fhir_time import period_bounds, span
from mappings.photo_use import PhotoUse
from mappings.terms import (
    ACT_CODE,
    CONFIDENTIALITY,
    CONSENT_SCOPE,
    PARTICIPATION_TYPE,
    PHOTO_LABEL,
    PHOTO_USE,
    Json,
    has_code,
)


@dataclass(frozen=True, slots=True)
class PhotoFacts:
    """What is asked about: references without version (`Media/m1`), when it was taken, its `meta.security`.

    `patients` are the patient and every patient merged into it; empty: the Consents were chosen by patient already.
    `related` are the visit and the like. `majority_at` is when the patient comes of age.
    """

    patients: frozenset[str] = frozenset()
    photo: str | None = None
    taken_at: datetime | None = None
    labels: tuple[Json, ...] = ()
    related: frozenset[str] = frozenset()
    majority_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """Use, time, photo and who asks: references of the person, the organisation and those it is part of."""

    use: PhotoUse
    at: datetime
    facts: PhotoFacts = field(default_factory=PhotoFacts)
    requester: frozenset[str] = frozenset()


class Effect(Enum):
    """Of one Consent on one request. UNUSABLE: it would permit, were it understood."""

    NONE = "says nothing"
    PERMIT = "permits"
    DENY = "denies"
    UNUSABLE = "cannot be understood"


_UNDERSTOOD: Final = frozenset(
    {"id", "extension", "type", "period", "actor", "securityLabel", "purpose", "dataPeriod", "data", "provision"}
)
_LABEL_SYSTEMS: Final = frozenset({CONFIDENTIALITY, ACT_CODE, PHOTO_LABEL})


def effect_of(consent: Json, request: Request) -> Effect:
    """PERMIT, DENY, UNUSABLE or NONE; a Consent that is not a candidate (not active, another patient...) says NONE."""
    if not _is_candidate(consent, request):
        return Effect.NONE
    root: Json = consent.get("provision", {})
    granting = root.get("type") == "permit"
    matched = _all([_matches(root, request, consent, granting=granting), _root_understood(consent, request)])
    nested = [_effect_of_nested(one, root, request, consent) for one in root.get("provision", [])]
    if matched is False:
        return Effect.NONE
    if root.get("type") == "deny":
        return Effect.PERMIT if matched and Effect.PERMIT in nested and Effect.DENY not in nested else Effect.DENY
    return _granted(root, matched, nested)


def _granted(root: Json, matched: bool | None, nested: list[Effect]) -> Effect:
    if Effect.DENY in nested:
        return Effect.DENY
    if matched is None or Effect.UNUSABLE in nested or not root:
        return Effect.UNUSABLE
    return Effect.PERMIT if root.get("type") == "permit" or Effect.PERMIT in nested else Effect.NONE


def signed_at(consent: Json, at: datetime) -> datetime:
    """When it was signed: `provision.period.start`, else `dateTime`, else before all others. Zone of `at` for dates."""
    text = consent.get("provision", {}).get("period", {}).get("start") or consent.get("dateTime") or "0001"
    return span(text, _zone(at))[0]


def bare(target: Mapping[str, Any]) -> str:
    """`Type/id` of a Reference: without server and version."""
    path = str(target.get("reference", "")).partition("/_history/")[0]
    return "/".join(path.rsplit("/", 2)[-2:])


def _zone(at: datetime) -> tzinfo:
    if at.tzinfo is None:
        raise ValueError("Consent is decided at a time with a zone.")
    return at.tzinfo


def _is_candidate(consent: Json, request: Request) -> bool:
    patients = request.facts.patients
    uses = [c["code"] for c in _codings(consent.get("category", [])) if c.get("system") == PHOTO_USE]
    return (
        consent.get("status") == "active"
        and has_code([consent.get("scope", {})], CONSENT_SCOPE, "patient-privacy")
        and (not patients or bare(consent.get("patient", {})) in patients)
        and (not uses or request.use.code in uses)
        and _covers(consent.get("provision", {}).get("period", {}), request.at)
    )


def _codings(concepts: Iterable[Json]) -> list[Json]:
    return [one for concept in concepts for one in concept.get("coding", [])]


def _covers(period: Json, at: datetime) -> bool:
    start, end = period_bounds(period, _zone(at))
    return (start is None or start <= at) and (end is None or at < end)


def _root_understood(consent: Json, request: Request) -> bool | None:
    """None for rules outside the provision, and for a permit that a representative gave for a child now of age."""
    if consent.keys() & {"policyRule", "modifierExtension", "implicitRules"}:
        return None
    majority = request.facts.majority_at
    if majority is None or request.at < majority or request.use.code == "treatment-documentation":
        return True
    by_patient = any(bare(one) == bare(consent.get("patient", {})) for one in consent.get("performer", []))
    return True if by_patient or signed_at(consent, request.at) >= majority else None


def _effect_of_nested(nested: Json, root: Json, request: Request, consent: Json) -> Effect:
    """A nested provision is the exception to its parent and so of the other type; one of the same type, or with
    exceptions of its own, is not understood. It speaks of its parent's purposes unless it names its own."""
    kind = nested.get("type") or ("deny" if root.get("type") == "permit" else None)
    understood = kind is not None and kind != root.get("type") and "provision" not in nested
    inherited = {"purpose": root["purpose"]} if "purpose" in root else {}
    matched = _matches({**inherited, **nested}, request, consent, granting=kind != "deny")
    if kind == "deny" and matched is not False:
        return Effect.DENY
    if not understood or matched is None:
        return Effect.UNUSABLE
    return Effect.PERMIT if matched else Effect.NONE


def _matches(provision: Json, request: Request, consent: Json, *, granting: bool) -> bool | None:
    """Populated elements are ANDed, repeats of one element ORed, an absent element is no constraint."""
    facts = request.facts
    return _all(
        [
            None if provision.keys() - _UNDERSTOOD else True,
            _purpose(provision, request.use, consent, granting),
            _covers(provision.get("period", {}), request.at),
            _any(_actor(one, request) for one in provision["actor"]) if "actor" in provision else True,
            _data_period(provision, facts) if "dataPeriod" in provision else True,
            _any(_label(one, facts) for one in provision["securityLabel"]) if "securityLabel" in provision else True,
            _any(_data(one, facts) for one in provision["data"]) if "data" in provision else True,
        ]
    )


def _all(values: Iterable[bool | None]) -> bool | None:
    found = set(values)
    return False if False in found else None if None in found else True


def _any(values: Iterable[bool | None]) -> bool | None:
    found = set(values)
    return True if True in found else None if None in found else False


def _purpose(provision: Json, use: PhotoUse, consent: Json, granting: bool) -> bool:
    """The same purpose, or one that contains it; a permit for an explicit use must name it."""
    strict = granting and use.explicit
    if "purpose" not in provision:
        return not strict or has_code(consent.get("category"), PHOTO_USE, use.code)
    named = {(one.get("system"), one.get("code")) for one in provision["purpose"]}
    return use.purpose in named or (not strict and not named.isdisjoint(use.within))


def _actor(actor: Json, request: Request) -> bool | None:
    if not has_code([actor.get("role", {})], PARTICIPATION_TYPE, "IRCP") or not request.requester:
        return None
    return bare(actor.get("reference", {})) in request.requester


def _data_period(provision: Json, facts: PhotoFacts) -> bool | None:
    return None if facts.taken_at is None else _covers(provision["dataPeriod"], facts.taken_at)


def _label(label: Json, facts: PhotoFacts) -> bool | None:
    if label.get("system") not in _LABEL_SYSTEMS:
        return None
    return has_code(list(facts.labels), str(label["system"]), label.get("code"))


def _data(one: Json, facts: PhotoFacts) -> bool | None:
    target = bare(one.get("reference", {}))
    if one.get("meaning") == "instance":
        return None if facts.photo is None else target == facts.photo
    return target in facts.related or target == facts.photo if one.get("meaning") == "related" else None
