"""The uses of a photograph that are consented to one by one, as data: `tables/photo_uses.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from mappings.terms import ACT_CODE, ACT_REASON, CONSENT_CATEGORY, PHOTO_USE

Code: TypeAlias = tuple[str, str]
Rule: TypeAlias = Literal["permit", "deny"]
_SYSTEMS: Final = {"reason": ACT_REASON, "use": PHOTO_USE, "act": ACT_CODE, "cat": CONSENT_CATEGORY}


@dataclass(frozen=True, slots=True)
class PhotoUse:
    """One row: codes are (system, code). `words` is the code as people say it."""

    code: str
    purpose: Code
    within: tuple[Code, ...]
    explicit: bool
    category: Code
    default: Rule
    obligations: tuple[str, ...]

    @property
    def words(self) -> str:
        return self.code.replace("-", " ")


def _code(text: str) -> Code:
    prefix, _, code = text.partition(":")
    return _SYSTEMS[prefix], code


def _read(code: str, row: dict[str, Any]) -> PhotoUse:
    return PhotoUse(
        code=code,
        purpose=_code(row["purpose"]),
        within=tuple(_code(text) for text in row.get("within", ())),
        explicit=row.get("explicit", False),
        category=_code(row["category"]),
        default=row["default"],
        obligations=tuple(row.get("obligations", ())),
    )


_TABLE: Final = tomllib.loads((files("mappings") / "tables" / "photo_uses.toml").read_text("utf-8"))
PHOTO_USES: Final[Mapping[str, PhotoUse]] = MappingProxyType({code: _read(code, row) for code, row in _TABLE.items()})


def get_photo_use(use: str) -> PhotoUse:
    """The row of a use; ValueError that lists the uses there are."""
    if use not in PHOTO_USES:
        raise ValueError(f"No such photo use: {use[:40]!r}. Known: {', '.join(PHOTO_USES)}.")
    return PHOTO_USES[use]
