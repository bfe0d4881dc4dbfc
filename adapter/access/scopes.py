"""SMART v2 scopes: their grammar, and what each permits
(https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html).

`system/Media.rs?patient=Patient/1` is a restricted scope: it permits reading and searching those Media only that this
search would find. Beside them stand our own `right/…` scopes, which give a machine what FHIR scopes cannot say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode

from adapter.errors import BadInput
from adapter.records.search_filters import Filter, check_value, find_filter

SCOPE = re.compile(r"^(patient|user|system)/([A-Z][A-Za-z]+|\*)\.(c?r?u?d?s?)(\?[^ ]+)?$")
RIGHT = re.compile(r"^right/([a-z]+(?:-[a-z]+)*)$")
MOST_CONDITIONS = 20
_V1 = {"read": "rs", "write": "cud", "*": "cruds"}
_PERMISSION = re.compile(r"\.([a-z*]+)(?=\?|$)")


class Grant(NamedTuple):
    """One scope taken apart; without `query` it holds for every record of the type."""

    level: str
    resource_type: str
    letters: str
    query: tuple[tuple[str, str], ...] = ()

    @property
    def has_chain(self) -> bool:
        return any("." in name for name, _ in self.query)

    def __str__(self) -> str:
        asked = f"?{urlencode(self.query, safe='/:|,')}" if self.query else ""
        return f"{self.level}/{self.resource_type}.{self.letters}{asked}"


@lru_cache(maxsize=4096)
def find_grant(scope: str) -> Grant | None:
    """None for what is not a scope on records (`launch`, `openid`, `right/…`) or has too many conditions."""
    match = SCOPE.match(scope)
    if match is None or not match[3] or scope.count("&") >= MOST_CONDITIONS:
        return None
    query = parse_qsl((match[4] or "")[1:], keep_blank_values=True)
    return Grant(match[1], match[2], match[3], tuple(query))


def grants_in(scopes: Iterable[str]) -> list[Grant]:
    """Those on records, in a fixed order."""
    return [grant for grant in map(find_grant, sorted(scopes)) if grant is not None]


def parse_scopes(text: str) -> frozenset[str]:
    """Scopes normalised to v2 spelling. Raises BadInput naming the one that is not a scope or cannot be enforced."""
    scopes = set()
    for scope in text.split():
        normalised = _PERMISSION.sub(lambda found: f".{_V1.get(found[1], found[1])}", scope, count=1)
        grant = find_grant(normalised)
        if grant is None and not RIGHT.match(scope):
            raise BadInput(f"'{scope}' is not a SMART scope; write for example system/Media.cr")
        if grant is not None:
            _ = filters_of(grant)
        scopes.add(normalised)
    return frozenset(scopes)


def filters_of(grant: Grant) -> list[Filter]:
    """What a restricted scope demands of a record. Raises BadInput for a condition we could not enforce."""
    filters = [find_filter(grant.resource_type, name, value) for name, value in grant.query]
    found = [one for one in filters if one is not None and one.value]
    if len(found) < len(filters):
        raise BadInput(f"a scope on {grant.resource_type} can only be restricted by its search parameters")
    for one in found:
        check_value(one)
    return found


def grants_for(scopes: frozenset[str], letter: str, resource_type: str) -> list[Grant]:
    """The grants among `scopes` that permit this interaction on at least some records of this type."""
    grants = (find_grant(scope) for scope in scopes)
    return [one for one in grants if one and one.resource_type in (resource_type, "*") and letter in one.letters]


def is_narrowed(grant: Grant, granted: frozenset[str]) -> bool:
    """Whether `grant` asks for no more than some scope among `granted` gives (same or fewer records and letters)."""
    return any(
        wider.level == grant.level
        and wider.resource_type in (grant.resource_type, "*")
        and set(grant.letters) <= set(wider.letters)
        and set(wider.query) <= set(grant.query)
        for wider in map(find_grant, granted)
        if wider is not None
    )


def meet(asked: Grant, granted: Iterable[Grant]) -> list[Grant]:
    """What of `asked` lies within `granted`, whatever the level of those: fewer types, letters and records."""
    found = []
    for one in granted:
        letters = "".join(letter for letter in asked.letters if letter in one.letters)
        if letters and ("*" in (asked.resource_type, one.resource_type) or asked.resource_type == one.resource_type):
            named = one.resource_type if asked.resource_type == "*" else asked.resource_type
            found.append(Grant(asked.level, named, letters, tuple(dict.fromkeys((*asked.query, *one.query)))))
    return found
