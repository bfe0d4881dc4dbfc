"""What each key of a profile means: the sentence that stands below it in the source.

Read only where somebody asks (`connectors explain`, the schema for editors), since it costs more than starting up may.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from functools import cache
from itertools import pairwise

from pydantic import BaseModel


@cache
def meanings(table: type[BaseModel]) -> Mapping[str, str]:
    """Key -> what it means, for the keys that say so; inherited ones included."""
    found: dict[str, str] = {}
    for each in reversed(table.__mro__):
        if issubclass(each, BaseModel) and each.__module__.startswith("connectors."):
            found |= _documented(each)
    return found


def _documented(table: type[BaseModel]) -> dict[str, str]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(table))).body
    assert isinstance(definition, ast.ClassDef)
    return {
        key.target.id: " ".join(said.value.value.split())
        for key, said in pairwise(definition.body)
        if isinstance(key, ast.AnnAssign)
        and isinstance(key.target, ast.Name)
        and isinstance(said, ast.Expr)
        and isinstance(said.value, ast.Constant)
        and isinstance(said.value.value, str)
    }
