"""Security labels of a photograph (`meta.security`) from its body site and flags, by `tables/security_labels.toml`.

Labels only ever rise here: lowering one needs a privacy officer, a Provenance with activity LABEL and an AuditEvent.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable
from importlib.resources import files
from typing import Any, Final

from mappings.body_sites import Sensitivity
from mappings.terms import ACT_CODE, CONFIDENTIALITY, PHOTO_LABEL, Json, coding

_TABLE: Final[dict[str, dict[str, Any]]] = tomllib.loads(
    (files("mappings") / "tables" / "security_labels.toml").read_text("utf-8")
)
_ORDER: Final = "ULMNRV"  # v3-Confidentiality, unrestricted to very restricted
_SITES: Final = {member.value for member in Sensitivity}
FLAGS: Final = frozenset(_TABLE) - _SITES - {"default", "minor+intimate"}
NAMED_FLAGS: Final = {flag: row["named"] for flag, row in _TABLE.items() if "named" in row}
"""What a sender may name, and how pages word it."""


def labels_for(site: Sensitivity, flags: Collection[str] = ()) -> list[Json]:
    """Codings for a photograph of a site of this class with these flags (`FLAGS`); ValueError for another flag."""
    if unknown := set(flags) - FLAGS:
        raise ValueError(f"No such label flag: {', '.join(sorted(unknown))}. Known flags: {', '.join(sorted(FLAGS))}.")
    triggers = ["default", *sorted(flags)]
    if site.value:
        triggers.append(site.value)
    labels = raise_labels(label for trigger in triggers for label in _labels_of(trigger))
    return raise_labels([*labels, *_labels_of("minor+intimate")]) if _is_intimate_minor(labels) else labels


def level_of(flag: str) -> str:
    """The v3-Confidentiality code that the flag raises a photo to."""
    return str(_TABLE[flag]["confidentiality"])


def flags_named_by(labels: Iterable[Json]) -> list[str]:
    """What a client says by the labels of its own Media: the flags that keep each of them.

    Raises ValueError for a sensitivity code that no flag stands for, since it would be lost.
    """
    found = {(label.get("system"), label.get("code")) for label in labels}
    kept = {(label["system"], label["code"]) for trigger in _TABLE for label in _labels_of(trigger)}
    if lost := sorted(str(code) for system, code in found - kept if system in (ACT_CODE, PHOTO_LABEL)):
        raise ValueError(f"no photo is labelled {', '.join(lost)} here; known flags: {', '.join(NAMED_FLAGS)}")
    return [flag for flag in NAMED_FLAGS if found & _telling(flag)]


def _telling(flag: str) -> set[tuple[str, str]]:
    """The labels that tell of this flag: its own codes, or the bare level where it has none."""
    level, *own = ((label["system"], label["code"]) for label in _labels_of(flag))
    return set(own) or {level}


def raise_labels(labels: Iterable[Json]) -> list[Json]:
    """The high-water mark: one confidentiality code, the highest, then every other label once, in order."""
    seen = {(label["system"], label["code"]): label for label in labels}
    levels = [code for system, code in seen if system == CONFIDENTIALITY]
    top = max(levels, key=_ORDER.index, default="N")
    return [coding(CONFIDENTIALITY, top)] + [label for (system, _), label in seen.items() if system != CONFIDENTIALITY]


def labelled_minor(media: Json, patient: Json, *, majority: int) -> Json:
    """The Media with the label of a minor, where the patient was younger than `majority` years when photographed.

    A birth date without a day counts as the latest it could be. Who has none is taken for an adult.
    """
    if not _was_minor(patient.get("birthDate", ""), media.get("createdDateTime") or media.get("issued", ""), majority):
        return media
    now = media.get("meta", {}).get("security", [])
    minor = raise_labels([*now, *_labels_of("minor")])
    labels = raise_labels([*minor, *_labels_of("minor+intimate")]) if _is_intimate_minor(minor) else minor
    return media | {"meta": media.get("meta", {}) | {"security": labels}}


def _was_minor(birth_date: str, taken: str, majority: int) -> bool:
    """FHIR dates compare as text, to the precision that both have."""
    if not birth_date or not taken:
        return False
    came_of_age = f"{int(birth_date[:4]) + majority:04}{birth_date[4:]}"
    precision = min(len(came_of_age), len("2026-11-23"), len(taken))
    return taken[:precision] < came_of_age[:precision] or (
        precision < len("2026-11-23") and taken[:precision] == came_of_age[:precision]
    )


def _labels_of(trigger: str) -> list[Json]:
    row = _TABLE[trigger]
    return [
        coding(CONFIDENTIALITY, row["confidentiality"]),
        *(coding(ACT_CODE, code) for code in row.get("act", ())),
        *(coding(PHOTO_LABEL, code) for code in row.get("local", ())),
    ]


def _is_intimate_minor(labels: list[Json]) -> bool:
    local = {label["code"] for label in labels if label["system"] == PHOTO_LABEL}
    return {"intimate", "minor"} <= local
