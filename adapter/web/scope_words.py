"""What granted scopes mean, in the words of somebody who decides about them."""

from __future__ import annotations

from collections.abc import Iterable

from adapter.access.scopes import Grant, grants_in

_DOES = {"r": "see", "s": "search", "c": "add", "u": "change", "d": "delete"}
_THINGS = {
    "*": "everything in the record",
    "Binary": "the pictures themselves",
    "BodyStructure": "lesions",
    "Consent": "consents",
    "DocumentReference": "documents",
    "Encounter": "visits",
    "Media": "photos",
    "Observation": "measurements and comparisons",
    "Patient": "who the patient is",
    "Provenance": "where records come from",
}


def told_in_words(scopes: Iterable[str]) -> list[str]:
    """`["See, search and add photos", …]`, one line for each kind of record; what is restricted says so."""
    letters: dict[tuple[str, bool], str] = {}
    for grant in grants_in(scopes):
        kind = grant.resource_type, bool(grant.query)
        letters[kind] = letters.get(kind, "") + grant.letters
    return sorted(_line(Grant("", name, held), some) for (name, some), held in letters.items())


def _line(grant: Grant, some: bool) -> str:
    does = [word for letter, word in _DOES.items() if letter in grant.letters]
    said = " and ".join(filter(None, [", ".join(does[:-1]), does[-1]]))
    things = _THINGS.get(grant.resource_type, grant.resource_type)
    return f"{said[:1].upper()}{said[1:]} {'some of ' if some else ''}{things}"
