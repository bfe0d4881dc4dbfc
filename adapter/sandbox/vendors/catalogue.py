"""The simulated vendors as the command line names them."""

from __future__ import annotations

import json
import re
from typing import Any, cast, get_args

from pydantic import ValidationError

from adapter.errors import BadInput, NotFound
from adapter.sandbox.vendors.behaviour import Behaviour, Refusal, behaviour_names, read_behaviour
from adapter.sandbox.vendors.engine import Fault, Kind


def get_behaviour(name: str) -> Behaviour:
    """One of ours, or what a .toml file describes. Raises NotFound naming those there are, BadInput, OSError."""
    if not name.endswith(".toml") and name not in behaviour_names():
        known = ", ".join(behaviour_names())
        raise NotFound(f"nobody has described {name!r}; play one of {known}, or a .toml file that describes it")
    try:
        return read_behaviour(name)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_input=False)]
        raise BadInput("\n".join(f"{name}: {line}; correct this key" for line in lines)) from error
    except ValueError as error:
        raise BadInput(f"{name}: not TOML ({error}); correct that line") from error


def read_fault(text: str, behaviour: Behaviour) -> Fault:
    """`busy`, or `refuse:409:CODE`: a refusal with the status and the vendor's code, or all of its JSON body.

    It strikes the next write; of a vendor that also takes HL7 v2, the next request. Raises BadInput naming those there
    are.
    """
    kind, _, refusal = text.partition(":")
    status, _, code = refusal.partition(":")
    if kind not in get_args(Kind):
        raise BadInput(f"there is no fault {kind!r}; use one of {', '.join(get_args(Kind))}")
    if refusal and (kind != "refuse" or not re.fullmatch(r"[1-5]\d\d", status)):
        raise BadInput(f"{text!r}: only a refusal says more, as refuse:422 or refuse:409:CODE")
    own = {"body": code} if code.startswith("{") else {"code": code}
    told = Refusal(status=int(status or 422), **own)
    return Fault(cast(Kind, kind), "" if behaviour.mllp else "POST", refusal=told)


def as_toml(destination: dict[str, Any]) -> str:
    """A `[[destinations]]` entry."""
    return "\n".join(["[[destinations]]", *(f"{_key(name)} = {_value(value)}" for name, value in destination.items())])


def _key(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() else json.dumps(name)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(name)} = {_value(each)}" for name, each in value.items()) + " }"
    return json.dumps(value)
