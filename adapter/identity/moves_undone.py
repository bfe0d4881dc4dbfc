"""Undoing a merge or move: every element gets the value it would have had without it.

What came later is replayed. A move names its records, so it still stands. A merge took what its source had: it lets go
of what the source would not have had, and takes what the source would have had. Changes may therefore be undone in any
order, nothing is ever left with a patient who was merged away, and undoing all of them restores the first state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from adapter.bridge import Bridge
from adapter.db.engine import batches
from adapter.db.tables import identity_change, identity_change_item
from adapter.identity.moves import MERGE, Edit, Pointer, get_standing, records_of, value_at, write
from adapter.records import Stored

Json = str | None
"""An element's value as the ledger keeps it; None when there is none."""


class Merge(NamedTuple):
    """A later merge that stands: what its source is called now."""

    change_id: str
    target: Json


def undo(tx: Connection, bridge: Bridge, change_id: str) -> list[Stored]:
    """Take the change back where nothing outside the ledger has changed the element since; returns the new versions.

    Raises NotFound, or Conflict when it was undone before.
    """
    get_standing(tx, change_id)
    tx.execute(update(identity_change).where(identity_change.c.id == change_id).values(undone_at=bridge.now()))
    items = tx.execute(select(identity_change_item).where(identity_change_item.c.change_id == change_id)).all()
    later = _later_items(tx, change_id, {item.resource_id for item in items})
    merges = _later_merges(
        tx, change_id, {item.was for item in items} | {one.now for each in later.values() for one in each}
    )
    replays = [replay(item, later.get((item.resource_id, item.path), []), merges) for item in items]
    _revise_ledger(tx, replays)
    return write(tx, bridge, _edits(tx, replays))


@dataclass
class Replay:
    """One element without the undone change: what it holds `now`, what it is `to_be`, and what the ledger must say.

    `rebased` items found another value than they thought, `dropped` ones nothing of theirs; `adopted` are new.
    """

    item: Row[Any]
    now: Json
    to_be: Json
    rebased: list[tuple[Row[Any], Json]] = field(default_factory=list)
    dropped: list[Row[Any]] = field(default_factory=list)
    adopted: list[tuple[str, Json, Json]] = field(default_factory=list)


def replay(item: Row[Any], later: Sequence[Row[Any]], merges: Mapping[Json, Merge]) -> Replay:
    """`later` are the element's items in changes that stand, oldest first."""
    found = Replay(item, (later[-1] if later else item).now, item.was)
    at = item.change_id
    for one in later:
        at = _adopt(found, merges, at, one.change_id)
        if one.kind == MERGE and one.was != found.to_be:
            found.dropped.append(one)
        else:
            found.rebased += [(one, found.to_be)] if one.was != found.to_be else []
            found.to_be = one.now
        at = one.change_id
    _adopt(found, merges, at, None)
    return found


def _adopt(found: Replay, merges: Mapping[Json, Merge], after: str, before: str | None) -> str:
    """Follow the merges between two changes that would have taken the element along."""
    while (merge := merges.get(found.to_be)) and after < merge.change_id and not (before and merge.change_id >= before):
        found.adopted.append((merge.change_id, found.to_be, merge.target))
        found.to_be, after = merge.target, merge.change_id
    return after


def _later_items(
    tx: Connection, change_id: str, resource_ids: Iterable[str]
) -> dict[tuple[str, Pointer], list[Row[Any]]]:
    """(record, pointer) -> its items in later changes that stand, oldest first."""
    item, parent = identity_change_item.c, identity_change.c
    following = (
        select(identity_change_item, parent.kind)
        .join(identity_change, parent.id == item.change_id)
        .where(item.change_id > change_id, parent.undone_at.is_(None))
        .order_by(item.change_id)
    )
    found: dict[tuple[str, Pointer], list[Row[Any]]] = {}
    for some in batches(resource_ids):
        for row in tx.execute(following.where(item.resource_id.in_(some))):
            found.setdefault((row.resource_id, row.path), []).append(row)
    return found


def _later_merges(tx: Connection, change_id: str, values: Iterable[Json]) -> dict[Json, Merge]:
    """Value that refers to a patient -> the later merge of that patient, and so on from its target."""
    parent = identity_change.c
    standing = select(parent.id, parent.source, parent.target).where(
        parent.kind == MERGE, parent.id > change_id, parent.undone_at.is_(None)
    )
    found: dict[Json, Merge] = {}
    asked: set[str] = set()
    while sources := {value[9:-1] for value in values if value and value.startswith('"Patient/')} - asked:
        asked |= sources
        rows = [row for some in batches(sources) for row in tx.execute(standing.where(parent.source.in_(some)))]
        found |= {_reference(row.source): Merge(row.id, _reference(row.target)) for row in rows}
        values = [_reference(row.target) for row in rows]
    return found


def _reference(patient_id: str) -> str:
    return f'"Patient/{patient_id}"'


def _revise_ledger(tx: Connection, replays: Sequence[Replay]) -> None:
    item = identity_change_item.c
    names = {"of_change": item.change_id, "of_record": item.resource_id, "at_path": item.path}
    this_one = [column == bindparam(name) for name, column in names.items()]
    if rebased := [{**_key(one), "was": was} for each in replays for one, was in each.rebased]:
        tx.execute(update(identity_change_item).where(*this_one), rebased)
    if dropped := [_key(one) for each in replays for one in each.dropped]:
        tx.execute(delete(identity_change_item).where(*this_one), dropped)
    adopted = [
        {
            "change_id": merge_id,
            "resource_type": each.item.resource_type,
            "resource_id": each.item.resource_id,
            "path": each.item.path,
            "was": was,
            "now": now,
        }
        for each in replays
        for merge_id, was, now in each.adopted
    ]
    if adopted:
        tx.execute(insert(identity_change_item), adopted)


def _key(item: Row[Any]) -> dict[str, Any]:
    return {"of_change": item.change_id, "of_record": item.resource_id, "at_path": item.path}


def _edits(tx: Connection, replays: Iterable[Replay]) -> list[Edit]:
    wanted: dict[str, dict[str, list[Replay]]] = {}
    for one in replays:
        wanted.setdefault(one.item.resource_type, {}).setdefault(one.item.resource_id, []).append(one)
    edits = []
    for resource_type, by_id in wanted.items():
        for record in records_of(tx, resource_type, by_id):
            resource, values = record.resource, {}
            for one in by_id[record.id]:
                present, now, to_be = value_at(resource, one.item.path), _value(one.now), _value(one.to_be)
                if one.now != one.to_be and present == now:
                    values[one.item.path] = to_be
                elif one.now != one.to_be and one.item.path == "/identifier":
                    values[one.item.path] = _put_back(present or [], now or [], to_be or [])
            edits += [Edit(record, values)] if values else []
    return edits


def _put_back(present: Sequence[Any], now: Sequence[Any], to_be: Sequence[Any]) -> list[Any] | None:
    """Identifiers that something else changed since: those of the change go or come back, one by one."""
    gone = {_token(one) for one in now} - {_token(one) for one in to_be}
    kept = [one for one in present if _token(one) not in gone]
    known = {_token(one) for one in (*kept, *now)}
    return [*kept, *(one for one in to_be if _token(one) not in known)] or None


def _token(identifier: Mapping[str, Any]) -> tuple[Any, ...]:
    return identifier.get("system"), identifier.get("value"), identifier.get("use") == "old"


def _value(json: Json) -> Any:
    return None if json is None else orjson.loads(json)
