"""Keys of a profile as people write them: dotted, through lists and routes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from connectors.routes import find_route


def has_key(table: Any, key: str) -> bool:
    """Whether a dotted key names something in a profile; numbers index lists, kinds name routes (`routes.hl7v2.obx_5`).

    A route that a site leaves out is not missed.
    """
    name, _, rest = key.partition(".")
    if isinstance(table, BaseModel):
        return name in type(table).model_fields and (not rest or has_key(getattr(table, name), rest))
    if isinstance(table, tuple) and table and hasattr(table[0], "kind"):
        named = [route for route in table if route.kind == name]
        return find_route(name) is not None and all(not rest or has_key(route, rest) for route in named)
    if isinstance(table, tuple):
        return name.isdigit() and int(name) < len(table) and (not rest or has_key(table[int(name)], rest))
    return table is not None
