"""The code tables of `mappings/tables/hl7v2_*.toml`, read once at import."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any


def load_table(name: str) -> dict[str, Any]:
    """The TOML table `mappings/tables/<name>.toml`; raises FileNotFoundError when the package is incomplete."""
    return tomllib.loads(files("mappings").joinpath("tables", f"{name}.toml").read_text(encoding="utf-8"))
