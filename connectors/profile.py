"""Profiles as written in TOML: read, laid over what they are based on, checked, explained.

`based_on = "medplum"` starts from a shipped profile (`connectors/profiles/`) or from a .toml file, so that a site
writes only what differs. An unknown key is refused with file, key and remedy.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from connectors.every_kind import Profile
from connectors.kinds import find_model
from connectors.layers import merged
from connectors.routes import kinds


class ProfileError(ValueError):
    """A profile cannot be used; the message names file, key and remedy."""


def find_shipped_profiles() -> list[str]:
    """The names `based_on` takes."""
    folder = resources.files("connectors") / "profiles"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_shipped(name: str) -> str:
    """The text of a shipped profile. Raises FileNotFoundError."""
    return (resources.files("connectors") / "profiles" / f"{name}.toml").read_text("utf-8")


def parse_profile(text: str, *, source: str) -> Profile:
    """Build the profile that `text` (TOML) describes. `source` names it in messages. Raises ProfileError."""
    return build_profile(_load(text, source), source=source)


def build_profile(given: Mapping[str, Any], *, source: str) -> Profile:
    """Build the profile that a table (`based_on` and what differs from it) describes. Raises ProfileError."""
    try:
        table = _with_base(dict(given), source)
    except ProfileError:
        raise
    except ValueError as error:
        raise ProfileError(f"{source}: {error}.") from error
    kind = table.get("kind")
    model = find_model(kind)
    if model is None:
        wrong = f"kind {kind!r} is not known; use" if kind else "based_on is missing; name a profile, or set kind to"
        raise ProfileError(f"{source}: {wrong} one of {', '.join(kinds())}.")
    try:
        return model.model_validate(table)
    except ValidationError as error:
        lines = [_explain(dict(each), model) for each in error.errors(include_input=False)]
        raise ProfileError("\n".join(f"{source}: {line}" for line in lines)) from error


def _load(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{source}: not TOML ({error}); correct that line.") from error


def _with_base(table: dict[str, Any], source: str, over: tuple[str, ...] = ()) -> dict[str, Any]:
    """`table` laid over what it is based on; `over`: the files it is itself the base of."""
    base = table.pop("based_on", None)
    if base is None:
        return table
    if base in over:
        raise ProfileError(f"{source}: based_on {base!r} leads back to itself; name a shipped profile there.")
    if isinstance(base, str) and base.endswith(".toml"):
        return merged(_with_base(_load(_read(Path(base)), base), base, (*over, base)), table)
    if base not in find_shipped_profiles():
        shipped = ", ".join(find_shipped_profiles())
        raise ProfileError(f"{source}: based_on {base!r} is not shipped; use one of {shipped}, or a .toml file.")
    return merged(_load(read_shipped(base), f"connectors/profiles/{base}.toml"), table)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: cannot be read ({error}).") from error


def _explain(error: Mapping[str, Any], model: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "the profile"
    if error["type"] != "extra_forbidden":
        return f"{key}: {error['msg']}; correct this key."
    *tables, unknown = (str(part) for part in error["loc"])
    known = list(_keys(model, tables))
    close = difflib.get_close_matches(unknown, known, n=1)
    remedy = f"did you mean {close[0]!r}?" if close else f"remove it or use one of {', '.join(known)}."
    return f"{key}: unknown key; {remedy}"


def _keys(model: type[BaseModel], path: list[str]) -> Mapping[str, Any]:
    """The keys of the table at `path`; a route's kind stands in the path as its own step."""
    for part in path:
        field = model.model_fields.get(part)
        model = (_table_of(field.annotation) if field else find_model(part)) or model
    return model.model_fields


def _table_of(annotation: Any) -> type[BaseModel] | None:
    """The table that a key's type is, or is a list of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((table for each in get_args(annotation) if (table := _table_of(each))), None)
