"""The simulated vendors as the command line names them."""

from __future__ import annotations

import json
from typing import Any, cast, get_args

from adapter.errors import BadInput, NotFound
from adapter.sandbox.vendors.behaviour import Behaviour, behaviour_names, read_behaviour
from adapter.sandbox.vendors.engine import Kind


def get_behaviour(name: str) -> Behaviour:
    """Raises NotFound naming those there are."""
    if name not in behaviour_names():
        raise NotFound(f"nobody has described {name!r}; play one of {', '.join(behaviour_names())}")
    return read_behaviour(name)


def check_fault(name: str) -> Kind:
    """Raises BadInput naming those there are."""
    if name not in get_args(Kind):
        raise BadInput(f"there is no fault {name!r}; use one of {', '.join(get_args(Kind))}")
    return cast(Kind, name)


def as_toml(destination: dict[str, Any]) -> str:
    """A `[[destinations]]` entry."""
    return "\n".join(["[[destinations]]", *(f"{_key(name)} = {_value(value)}" for name, value in destination.items())])


def _key(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() else json.dumps(name)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(name)} = {_value(each)}" for name, each in value.items()) + " }"
    return json.dumps(value)
