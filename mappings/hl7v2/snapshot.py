"""How a v2 field changes a FHIR element: absent keeps it, `""` deletes it, a value replaces it (HL7 v2.9.1 2.5.3).

A list element fed by several fields (PID-13, 14 and 40 all become telecom) remembers which item came from where in
`Element.id` (`pid-14-1`); items without such a mark belong to the first field of the list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mappings.hl7v2.datatypes import CX, Fragment, Systems
from mappings.hl7v2.er7 import Repetition, Segment

Resource = dict[str, Any]


def set_element(resource: Resource, element: str, value: Any) -> None:
    """Set a value; an empty one removes the element, since FHIR has no empty arrays, objects or strings."""
    if value in (None, "", [], {}):
        resource.pop(element, None)
    else:
        resource[element] = value


def apply_single(
    resource: Resource, element: str, segment: Segment, n: int, convert: Callable[[Repetition], Any]
) -> None:
    """Element of one value from field n. A value that `convert` cannot use (gives nothing) changes nothing."""
    if segment.is_null(n):
        set_element(resource, element, None)
    elif valued := segment.valued(n):
        value = convert(valued[0])
        if value not in (None, "", [], {}):
            resource[element] = value


def apply_list(
    resource: Resource, element: str, segment: Segment, fields: Sequence[tuple[int, Callable[[Repetition], Fragment]]]
) -> None:
    """List element from several fields: each field that speaks replaces the items it owns (snapshot mode)."""
    marks = [_mark(segment, n) for n, _ in fields]
    items: list[Fragment] = list(resource.get(element, ()))
    for (n, convert), mark in zip(fields, marks, strict=True):
        converted = [fragment for repetition in segment.valued(n) if (fragment := convert(repetition))]
        if not converted and not segment.is_null(n):
            continue
        if mark == marks[0]:
            items = converted + [item for item in items if _owner(item, marks[1:])]
        else:
            others = [item for item in items if _owner(item, [mark]) is None]
            items = others + [{"id": f"{mark}{i}", **fragment} for i, fragment in enumerate(converted, 1)]
    set_element(resource, element, items)


def clear_list(resource: Resource, element: str, segment: Segment, fields: Iterable[int]) -> None:
    """Take away the items that these fields gave earlier, as an event that cancels does; other items stay."""
    marks = [_mark(segment, n) for n in fields]
    items = [item for item in resource.get(element, ()) if _owner(item, marks) is None]
    set_element(resource, element, items)


def _mark(segment: Segment, n: int) -> str:
    return f"{segment.name.lower()}-{n}-"


def _owner(item: Fragment, marks: Iterable[str]) -> str | None:
    return next((mark for mark in marks if str(item.get("id", "")).startswith(mark)), None)


def replace_identifiers(resource: Resource, sent: Sequence[Fragment]) -> None:
    """Identifiers, authority by authority and type by type: the message is a snapshot of those it mentions.

    Identifiers of other systems (another hospital's feed) or types and those with `use` = old (merge history) stay.
    `""` never deletes identifiers: a patient nobody can name would be lost. Repeats within `sent` are dropped.
    """
    kept = [
        identifier
        for identifier in resource.get("identifier", ())
        if identifier.get("use") == "old" or not any(_are_alike(identifier, new) for new in sent)
    ]
    distinct: dict[tuple[Any, ...], Fragment] = {}
    for identifier in [*sent, *kept]:
        distinct.setdefault((_domain(identifier), identifier.get("value"), identifier.get("use") == "old"), identifier)
    set_element(resource, "identifier", list(distinct.values()))


def _are_alike(one: Fragment, other: Fragment) -> bool:
    """One authority and, where both tell it, one type: of these a patient has what the last message says."""
    types = one.get("type"), other.get("type")
    return _domain(one) == _domain(other) and (types[0] == types[1] or None in types)


def _domain(identifier: Fragment) -> tuple[str, str]:
    return identifier.get("system", ""), identifier.get("assigner", {}).get("display", "")


def identifiers(segment: Segment, n: int, systems: Systems, default_system: str | None = None) -> list[Fragment]:
    """Every CX of field n as FHIR Identifier."""
    return [cx.identifier(systems, default_system) for r in segment.valued(n) if (cx := CX.find(r))]
