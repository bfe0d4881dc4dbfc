"""Body sites of dermatology photographs: the SNOMED part of DICOM CID 4029 "Dermatology Anatomic Site" (PS3.16),
its published gap fillers, and the sides of the body (CID 244). The table is `tables/body_sites.csv`."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from importlib.resources import files
from types import MappingProxyType
from typing import Final, Literal

SNOMED_LATERALITY: Final[Mapping[str, str]] = MappingProxyType(
    {"left": "7771000", "right": "24028007", "bilateral": "51440002"}  # DICOM PS3.16 CID 244
)


class Sensitivity(Enum):
    """How sensitive a photograph of the site is, before anything is known of the patient."""

    NONE = ""
    FACE = "F"  # comparable to a full-face photograph; eyes count, because an iris identifies
    GENITAL = "G"
    BREAST_GROIN_BUTTOCK = "B"
    UNKNOWN = "?"  # a code that is not in the table


@dataclass(frozen=True, slots=True)
class BodySite:
    """One row of the table: SNOMED CT code, DICOM code meaning, picker group, class, where the code was read.

    `sex` is the R4 administrative-gender that has the site, where only one does; empty otherwise.
    """

    code: str
    meaning: str
    group: str
    sensitivity: Sensitivity
    source: str
    sex: str = ""


class UnknownBodySite(ValueError):
    """The code is no SNOMED CT identifier, or is not in the table and unlisted codes are refused."""


def _read_table() -> dict[str, BodySite]:
    text = (files("mappings") / "tables" / "body_sites.csv").read_text("utf-8")
    rows = csv.DictReader(text.splitlines())
    return {
        row["code"]: BodySite(
            row["code"], row["meaning"], row["group"], Sensitivity(row["sensitivity"]), row["source"], row["sex"]
        )
        for row in rows
    }


BODY_SITES: Final[Mapping[str, BodySite]] = MappingProxyType(_read_table())

# Verhoeff, "Error Detecting Decimal Codes" (1969): multiplication in the dihedral group D5 and the position
# permutation, as SNOMED CT applies them to its identifiers (Technical Implementation Guide, 5.5 "Check digit").
_D5: Final = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    (1, 2, 3, 4, 0, 6, 7, 8, 9, 5),
    (2, 3, 4, 0, 1, 7, 8, 9, 5, 6),
    (3, 4, 0, 1, 2, 8, 9, 5, 6, 7),
    (4, 0, 1, 2, 3, 9, 5, 6, 7, 8),
    (5, 9, 8, 7, 6, 0, 4, 3, 2, 1),
    (6, 5, 9, 8, 7, 1, 0, 4, 3, 2),
    (7, 6, 5, 9, 8, 2, 1, 0, 4, 3),
    (8, 7, 6, 5, 9, 3, 2, 1, 0, 4),
    (9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
)
_FIRST: Final = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def is_sctid(code: str) -> bool:
    """Whether `code` has the shape of a SNOMED CT concept id (6 to 18 digits) with a right Verhoeff check digit.

    This catches invented and mistyped codes, not valid codes of something else.
    """
    if not (code.isascii() and code.isdigit() and 6 <= len(code) <= 18 and code[0] != "0"):
        return False
    check = 0
    for position, character in enumerate(reversed(code)):
        digit = int(character)
        for _ in range(position % 8):
            digit = _FIRST[digit]
        check = _D5[check][digit]
    return check == 0


def get_body_site(code: str, *, unlisted: Literal["refuse", "accept"] = "refuse") -> BodySite:
    """The row of `code`. With `unlisted="accept"` any code with a right check digit passes, of unknown sensitivity.

    Raises UnknownBodySite otherwise.
    """
    if site := BODY_SITES.get(code):
        return site
    if not is_sctid(code):
        raise UnknownBodySite(f"Body site {code[:20]!r} is not a SNOMED CT code: its check digit is wrong.")
    if unlisted == "refuse":
        raise UnknownBodySite(
            f"Body site {code} is not in the list of dermatology sites (DICOM CID 4029): choose a listed one, "
            "or let this site accept unlisted SNOMED CT codes."
        )
    return BodySite(code, "", "Other", Sensitivity.UNKNOWN, "unlisted")


def sensitivity(code: str | None) -> Sensitivity:
    """Class of the site; `UNKNOWN` for a code that is not in the table, `NONE` when no site was given."""
    if code is None:
        return Sensitivity.NONE
    site = BODY_SITES.get(code)
    return site.sensitivity if site else Sensitivity.UNKNOWN


def groups() -> list[tuple[str, list[BodySite]]]:
    """Groups in the order of the table, each with its sites in order of their wording, for a picker."""
    found: dict[str, list[BodySite]] = {}
    for site in BODY_SITES.values():
        found.setdefault(site.group, []).append(site)
    return [(group, sorted(sites, key=lambda site: site.meaning)) for group, sites in found.items()]
