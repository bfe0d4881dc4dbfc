"""How well what came with a photo fits a patient: Fellegi and Sunter's weights of evidence, with a sentence per field.

The probabilities stand in `tables/linkage_weights.toml`. A score orders candidates for a person to choose from; it
never links anything by itself (IHE PDQm `$match` calls such grades probable and possible, never certain).
"""

from __future__ import annotations

import math
import tomllib
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, Literal

from mappings.terms import Json

Grade = Literal["probable", "possible", "certainly-not"]
Given = Mapping[str, Any]

_TABLE: Final[dict[str, Any]] = tomllib.loads(
    (files("mappings") / "tables" / "linkage_weights.toml").read_text("utf-8")
)
_LETTERS: Final = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "ı": "i", "þ": "th", "ð": "d"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One field: its outcome, what that weighs in bits, and the sentence for people ("birth date agrees")."""

    field: str
    outcome: str
    weight: float
    words: str


@dataclass(frozen=True, slots=True)
class Score:
    """All fields that both sides have, the heaviest first; `total` is their sum in bits."""

    findings: tuple[Finding, ...]
    total: float
    grade: Grade


def score(given: Given, patient: Json, context: Mapping[str, bool] | None = None) -> Score:
    """Weigh `given` against an R4 Patient.

    `given`: system, value, family, given, birthDate, gender, postalCode, each optional. `context`: what the occasion
    says, by field name (`visit`, `beside`): True agrees, False differs; left out says nothing.
    """
    outcomes = {field: compare(given, patient) for field, compare in _COMPARE.items()}
    outcomes |= {field: "agrees" if agrees else "differs" for field, agrees in (context or {}).items()}
    found = [_finding(field, outcome) for field, outcome in outcomes.items() if outcome]
    total = math.fsum(one.weight for one in found)
    return Score(tuple(sorted(found, key=lambda one: -one.weight)), total, _grade(total))


def weight(field: str, outcome: str) -> float:
    """log2(m / u) of one outcome of one field."""
    chances = _TABLE["fields"][field][outcome]
    return math.log2(chances["m"] / chances["u"])


def weights() -> dict[str, dict[str, float]]:
    """Field -> outcome -> bits: the whole model, for the documentation."""
    return {field: {name: weight(field, name) for name in row if name != "words"} for field, row in _fields()}


def _fields() -> Iterable[tuple[str, dict[str, Any]]]:
    return _TABLE["fields"].items()  # type: ignore[no-any-return]


def _finding(field: str, outcome: str) -> Finding:
    row = _TABLE["fields"][field]
    return Finding(field, outcome, weight(field, outcome), f"{row['words']} {row[outcome].get('words', outcome)}")


def _grade(total: float) -> Grade:
    grades = _TABLE["grades"]
    return "probable" if total >= grades["probable"] else "possible" if total >= grades["possible"] else "certainly-not"


# --- one field ------------------------------------------------------------------------------------------------------


def _identifier(given: Given, patient: Json) -> str | None:
    system, value = given.get("system"), given.get("value")
    own = [one["value"] for one in patient.get("identifier", ()) if one.get("system") == system and "value" in one]
    if not value or not own:
        return None
    return "agrees" if value in own else "one-typo" if any(one_edit(value, one) for one in own) else "differs"


def _name(part: str) -> Callable[[Given, Json], str | None]:
    def compare(given: Given, patient: Json) -> str | None:
        wanted = folded_name(str(given.get(part) or ""))
        texts = [name.get(part) for name in patient.get("name", ())]
        own = {folded_name(t) for text in texts if text for t in ([text] if isinstance(text, str) else text)} - {""}
        if not wanted or not own:
            return None
        if wanted in own:
            return "agrees"
        if max(jaro_winkler(wanted, one) for one in own) >= _TABLE["similar"][part]:
            return "alike"
        starts = "initial" in _TABLE["fields"][part] and any(one[0] == wanted[0] for one in own)
        return "initial" if starts else "differs"

    return compare


def _birth_date(given: Given, patient: Json) -> str | None:
    ours, theirs = str(given.get("birthDate") or ""), str(patient.get("birthDate") or "")
    if len(ours) != 10 or len(theirs) != 10:
        return None
    if ours == theirs:
        return "agrees"
    if swapped_day_and_month(ours) == theirs:
        return "swapped"
    return "one-digit" if sum(a != b for a, b in zip(ours, theirs, strict=True)) == 1 else "differs"


def _gender(given: Given, patient: Json) -> str | None:
    ours, theirs = given.get("gender"), patient.get("gender")
    known = {"male", "female"}
    return ("agrees" if ours == theirs else "differs") if ours in known and theirs in known else None


def _postal_code(given: Given, patient: Json) -> str | None:
    wanted = _compact(str(given.get("postalCode") or ""))
    own = {_compact(one["postalCode"]) for one in patient.get("address", ()) if one.get("postalCode")}
    if not wanted or not own:
        return None
    return "agrees" if wanted in own else "near" if any(one[:3] == wanted[:3] for one in own) else "differs"


_COMPARE: Final[dict[str, Callable[[Given, Json], str | None]]] = {
    "identifier": _identifier,
    "family": _name("family"),
    "given": _name("given"),
    "birthDate": _birth_date,
    "gender": _gender,
    "postalCode": _postal_code,
}


# --- likeness -------------------------------------------------------------------------------------------------------


def folded_name(text: str) -> str:
    """Lower case, without accents, spaces, hyphens and apostrophes; ø, ł, æ and the like as usually transcribed."""
    decomposed = unicodedata.normalize("NFKD", text.casefold().translate(_LETTERS))
    return "".join(letter for letter in decomposed if letter.isalnum())


def _compact(text: str) -> str:
    return "".join(text.split()).casefold()


def swapped_day_and_month(date: str) -> str | None:
    """`1961-03-12` -> `1961-12-03`; None when that is no other date."""
    year, month, day = date.split("-")
    return f"{year}-{day}-{month}" if "01" <= day <= "12" and day != month else None


def one_edit(a: str, b: str) -> bool:
    """Whether one keystroke apart: a character wrong, missing, too many, or two neighbours swapped."""
    if a == b or abs(len(a) - len(b)) > 1:
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    rest_a, rest_b = a[start:], b[start:]
    if len(a) == len(b):
        return rest_a[1:] == rest_b[1:] or (rest_a[:2] == rest_b[1::-1] and rest_a[2:] == rest_b[2:])
    return rest_a[1:] == rest_b if len(a) > len(b) else rest_a == rest_b[1:]


def one_edit_variants(value: str) -> list[str]:
    """Every string that is `one_edit` from a value, with the digits and letters that the value itself uses."""
    alphabet = "0123456789" if value.isdigit() else "".join(sorted(set("0123456789" + value)))
    cuts = [(value[:i], value[i:]) for i in range(len(value) + 1)]
    made = [a + b[1:] for a, b in cuts if b]
    made += [a + c + b for a, b in cuts for c in alphabet]
    made += [a + c + b[1:] for a, b in cuts if b for c in alphabet]
    made += [a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1]
    return [one for one in dict.fromkeys(made) if one and one != value]


def jaro_winkler(a: str, b: str) -> float:
    """Similarity of two names, 0 to 1 (Winkler, Proc. Survey Research Methods, ASA 1990; prefix scale 0.1)."""
    likeness = _jaro(a, b)
    prefix = next((i for i, (x, y) in enumerate(zip(a[:4], b[:4], strict=False)) if x != y), min(4, len(a), len(b)))
    return likeness + prefix * 0.1 * (1 - likeness)


def _jaro(a: str, b: str) -> float:
    if a == b:
        return 1.0
    reach = max(len(a), len(b)) // 2 - 1
    taken = [False] * len(b)
    matched = []
    for i, letter in enumerate(a):
        for j in range(max(0, i - reach), min(len(b), i + reach + 1)):
            if not taken[j] and b[j] == letter:
                taken[j] = True
                matched.append(letter)
                break
    if not matched:
        return 0.0
    others = [letter for letter, was in zip(b, taken, strict=True) if was]
    transposed = sum(x != y for x, y in zip(matched, others, strict=True)) / 2
    found = len(matched)
    return (found / len(a) + found / len(b) + (found - transposed) / found) / 3
