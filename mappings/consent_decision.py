"""May this photograph be used for this, now? Pure evaluation of R4 Consents by the rules of IHE PCF and ours.

Rules, in order: only active privacy consents of the patient that cover the moment count; of those for the same
patient, grantee and purposes the newest speaks; a denial anywhere then beats a permit; with no word at all the
policy of the use decides. Treatment documentation follows the site's mode:

- disabled: consents are not looked at, treatment documentation is permitted;
- advisory: permitted, with an advice when no consent permits it or one refuses it;
- required: permitted only by an active consent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias

from mappings.consent_provision import Effect, PhotoFacts, Request, bare, effect_of, signed_at
from mappings.photo_use import PhotoUse, Rule, get_photo_use
from mappings.terms import ACT_CODE, Json

Mode: TypeAlias = Literal["disabled", "advisory", "required"]
TREATMENT: Final = "treatment-documentation"
_OBLIGATIONS: Final = frozenset(  # R4 v3-ActCode, obligation and refrain policies we carry from the label
    {"DEID", "PSEUD", "MASK", "REDACT", "ANONY", "HUAPRV", "NODSCLCD", "NORDSCLCD", "NORELINK", "NOREUSE", "NOPAT"}
)


@dataclass(frozen=True, slots=True)
class ConsentDecision:
    """`because` is a sentence for people; `consent_ids` are the Consents that decided; `obligations` are v3-ActCode
    codes for whoever uses the photo; `advice` is what to do although it is permitted, or None."""

    permit: bool
    because: str
    consent_ids: tuple[str, ...] = ()
    obligations: tuple[str, ...] = ()
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class _Verdict:
    effect: Effect
    because: str
    consent_ids: tuple[str, ...] = ()


def decide(
    consents: Iterable[Json],
    *,
    use: str,
    at: datetime,
    mode: Mode = "advisory",
    policy: Mapping[str, Rule] | None = None,
    facts: PhotoFacts | None = None,
    requester: frozenset[str] = frozenset(),
) -> ConsentDecision:
    """Decide one use of one photograph at one moment (aware; dates without a zone are read in its zone).

    `policy` replaces the defaults of `photo_uses.toml` for the uses it names; `requester` holds references of the
    person and of the organisation with those it is part of. ValueError for an unknown use or a time without zone.
    """
    row = get_photo_use(use)
    facts = facts or PhotoFacts()
    obligations = _obligations(row, facts)
    if use == TREATMENT and mode == "disabled":
        return ConsentDecision(True, "This site asks no consent for documenting treatment.", (), obligations)
    verdict = _verdict(list(consents), Request(row, at, facts, requester))
    permit, advice = _permit(row, verdict, mode, (policy or {}).get(use, row.default))
    return ConsentDecision(
        permit,
        verdict.because
        if verdict.effect in (Effect.PERMIT, Effect.DENY)
        else f"{verdict.because} {_rule(row, permit)}",
        verdict.consent_ids,
        obligations if permit else (),
        advice,
    )


def _permit(row: PhotoUse, verdict: _Verdict, mode: Mode, default: Rule) -> tuple[bool, str | None]:
    if row.code == TREATMENT and mode == "advisory" and verdict.effect is not Effect.PERMIT:
        return True, f"{verdict.because} Ask the patient, and record the answer."
    if verdict.effect in (Effect.PERMIT, Effect.DENY):
        return verdict.effect is Effect.PERMIT, None
    if row.code == TREATMENT and mode == "required":
        return False, None
    return default == "permit", None


def _rule(row: PhotoUse, permit: bool) -> str:
    return f"Without one, {row.words} is {'allowed' if permit else 'not allowed'}."


def _verdict(consents: list[Json], request: Request) -> _Verdict:
    """What the Consents say together: newest of each kind, then denial before permit before not understood."""
    said = _newest(
        [(one, effect) for one in consents if (effect := effect_of(one, request)) is not Effect.NONE], request
    )
    words = request.use.words
    for effect, sentence in (
        (Effect.DENY, f"The patient's consent of {{}} refuses {words}."),
        (Effect.PERMIT, f"The patient's consent of {{}} permits {words}."),
        (
            Effect.UNUSABLE,
            f"The consent of {{}} holds rules that are not understood here: ask the privacy office about {words}.",
        ),
    ):
        if found := [one for one, its in said if its is effect]:
            latest = max(signed_at(one, request.at) for one in found)
            ids = tuple(str(one.get("id", "")) for one in found)
            return _Verdict(effect, sentence.format(latest.date().isoformat()), ids)
    return _Verdict(Effect.NONE, f"No consent speaks of {words}.")


def _newest(said: list[tuple[Json, Effect]], request: Request) -> list[tuple[Json, Effect]]:
    """Of the Consents with the same patient, grantee and purposes only the newest; several when signed at once."""
    groups: dict[object, list[tuple[Json, Effect]]] = {}
    for consent, effect in said:
        provision = consent.get("provision", {})
        purposes = frozenset((one.get("system"), one.get("code")) for one in provision.get("purpose", []))
        grantees = frozenset(bare(one.get("reference", {})) for one in provision.get("actor", []))
        groups.setdefault((bare(consent.get("patient", {})), grantees, purposes), []).append((consent, effect))
    newest: list[tuple[Json, Effect]] = []
    for group in groups.values():
        last = max(signed_at(consent, request.at) for consent, _ in group)
        newest += [one for one in group if signed_at(one[0], request.at) == last]
    return newest


def _obligations(row: PhotoUse, facts: PhotoFacts) -> tuple[str, ...]:
    labels = (str(label["code"]) for label in facts.labels if label.get("system") == ACT_CODE)
    return tuple(dict.fromkeys([*row.obligations, *(code for code in labels if code in _OBLIGATIONS)]))
