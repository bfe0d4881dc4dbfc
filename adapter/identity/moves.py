"""Records change their patient, their visit or their state; the ledger keeps each element changed, so undoing is exact.

Undoing a change replays what came after it without it: a move names its records, so it still stands; a merge took what
its source had, so it lets go of what the source would not have had. Changes may therefore be undone in any order, and
undoing all of them restores the first state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from adapter.bridge import Bridge
from adapter.db.engine import batches
from adapter.db.tables import identity_change, identity_change_item
from adapter.delivery import deliver_media
from adapter.errors import Conflict, NotFound
from adapter.identity.waiting import rekey_photos
from adapter.records import TABLES, Change, Resource, Stored, change, find_where, new_id, write_all

MERGE = "merge"
Pointer = str
"""An RFC 6901 JSON pointer, such as `/performer/0/reference`."""


@dataclass(frozen=True)
class Edit:
    """What is to become of one record: values by pointer; None takes the element away."""

    record: Stored
    values: Mapping[Pointer, Any]


@dataclass(frozen=True)
class Reason:
    """Why records change: `kind` is merge, move, delete …; `source` and `target` are patient ids; `detail` is JSON."""

    kind: str
    source: str
    target: str | None
    message_id: str | None = None
    detail: str | None = None


def carry_out(tx: Connection, bridge: Bridge, reason: Reason, edits: Sequence[Edit]) -> tuple[str, list[Stored]]:
    """Make the edits, each record as one new version, and write the ledger; returns its id and the new versions.

    A photo that changes its patient gets that patient's key and is delivered again; who held it under the old identity
    has it taken back then. Costs a few statements, however many records there are.
    """
    at = bridge.now()
    change_id = new_id(at)
    row = {"id": change_id, "changed_at": at, **vars(reason)}
    row["adt_message_id"] = row.pop("message_id")
    tx.execute(insert(identity_change), row)
    items = []
    for edit in edits:
        before = edit.record.resource
        items += [_item(change_id, edit.record, path, value_at(before, path), now) for path, now in edit.values.items()]
    if items:
        tx.execute(insert(identity_change_item), items)
    return change_id, _write(tx, bridge, edits)


def undo(tx: Connection, bridge: Bridge, change_id: str) -> list[Stored]:
    """Put each element where it would be without this change, unless something else changed it since.

    Returns the new versions. Raises NotFound, or Conflict when it was undone before.
    """
    get_standing(tx, change_id)
    tx.execute(update(identity_change).where(identity_change.c.id == change_id).values(undone_at=bridge.now()))
    items = tx.execute(select(identity_change_item).where(identity_change_item.c.change_id == change_id)).all()
    later = _later_items(tx, change_id, {item.resource_id for item in items})
    replays = [_Replay.of(item, later.get((item.resource_id, item.path), [])) for item in items]
    _revise_ledger(tx, replays)
    return _write(tx, bridge, _edits_of(tx, replays))


def get_standing(tx: Connection, change_id: str) -> Row[Any]:
    """The row of a change that has not been undone. Raises NotFound or Conflict."""
    row = tx.execute(select(identity_change).where(identity_change.c.id == change_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no identity change {change_id}")
    if row.undone_at is not None:
        raise Conflict("this change was undone before")
    return row


def changes(
    tx: Connection, *, source: str | None = None, target: str | None = None, limit: int = 100
) -> list[Row[Any]]:
    """Changes that stand, newest first, of all patients or between two."""
    columns = identity_change.c
    conditions = [column == value for column, value in ((columns.source, source), (columns.target, target)) if value]
    standing = select(identity_change).where(columns.undone_at.is_(None), *conditions)
    return list(tx.execute(standing.order_by(columns.id.desc()).limit(limit)))


def references_to(resource: Resource, reference: str) -> list[Pointer]:
    """Where in the resource that very reference stands."""
    return [pointer for pointer, found in _references(resource, "") if found == reference]


def records_of(tx: Connection, resource_type: str, ids: Iterable[str]) -> list[Stored]:
    """Those of the records that are not deleted."""
    table = TABLES[resource_type]
    return [one for some in batches(ids) for one in find_where(tx, resource_type, table.c.id.in_(some))]


def value_at(value: Any, pointer: Pointer) -> Any:
    """What stands there, None when nothing does."""
    for key in pointer.split("/")[1:]:
        try:
            value = value[int(key) if isinstance(value, list) else key]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return value


def _write(tx: Connection, bridge: Bridge, edits: Sequence[Edit]) -> list[Stored]:
    at = bridge.now()
    made = [change(edit.record, _edited(edit), at=at) for edit in edits]
    write_all(tx, made)
    photos = [one for one in made if one.after.resource_type == "Media"]
    by_owner: dict[str, list[str]] = {}
    for one in photos:
        if owner := _new_owner(one):
            by_owner.setdefault(owner, []).append(one.after.id)
    for owner, media_ids in by_owner.items():
        rekey_photos(tx, bridge, media_ids, owner)
    deliver_media(tx, bridge, *(one.after for one in photos))
    return [one.after for one in made]


def _new_owner(photo: Change) -> str | None:
    now = value_at(photo.resource, "/subject/reference")
    before = value_at(photo.before.resource, "/subject/reference") if photo.before else None
    return str(now).removeprefix("Patient/") if now and now != before else None


def _edited(edit: Edit) -> Resource:
    resource = edit.record.resource
    for pointer, value in edit.values.items():
        parent, _, key = pointer.rpartition("/")
        holder = value_at(resource, parent)
        if isinstance(holder, list):
            holder[int(key)] = value
        elif value is None:
            holder.pop(key, None)
        else:
            holder[key] = value
    return resource


@dataclass(frozen=True)
class _Replay:
    """One element without the undone change: what it holds `now`, what it is to hold, and what the ledger must say."""

    item: Row[Any]
    now: str | None
    to_be: str | None
    rebased: list[tuple[Row[Any], str | None]]
    dropped: list[Row[Any]]

    @classmethod
    def of(cls, item: Row[Any], later: Sequence[Row[Any]]) -> _Replay:
        value, rebased, dropped = item.was, [], []
        for one in later:
            if one.was == value:
                value = one.now
            elif one.kind == MERGE:
                dropped.append(one)
            else:
                rebased.append((one, value))
                value = one.now
        return cls(item, (later[-1] if later else item).now, value, rebased, dropped)


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


def _revise_ledger(tx: Connection, replays: Iterable[_Replay]) -> None:
    item = identity_change_item.c
    names = {"of_change": item.change_id, "of_record": item.resource_id, "at_path": item.path}
    this_one = [column == bindparam(name) for name, column in names.items()]
    rebased = [{**_key(one), "was": was} for replay in replays for one, was in replay.rebased]
    dropped = [_key(one) for replay in replays for one in replay.dropped]
    if rebased:
        tx.execute(update(identity_change_item).where(*this_one), rebased)
    if dropped:
        tx.execute(delete(identity_change_item).where(*this_one), dropped)


def _key(item: Row[Any]) -> dict[str, Any]:
    return {"of_change": item.change_id, "of_record": item.resource_id, "at_path": item.path}


def _edits_of(tx: Connection, replays: Iterable[_Replay]) -> list[Edit]:
    wanted: dict[str, dict[str, list[_Replay]]] = {}
    for replay in replays:
        wanted.setdefault(replay.item.resource_type, {}).setdefault(replay.item.resource_id, []).append(replay)
    edits = []
    for resource_type, by_id in wanted.items():
        for record in records_of(tx, resource_type, by_id):
            resource = record.resource
            values = {
                one.item.path: _value(one.to_be)
                for one in by_id[record.id]
                if one.now != one.to_be and value_at(resource, one.item.path) == _value(one.now)
            }
            edits += [Edit(record, values)] if values else []
    return edits


def _item(change_id: str, record: Stored, path: Pointer, was: Any, now: Any) -> dict[str, Any]:
    return {
        "change_id": change_id,
        "resource_type": record.resource_type,
        "resource_id": record.id,
        "path": path,
        "was": _json(was),
        "now": _json(now),
    }


def _json(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


def _value(json: str | None) -> Any:
    return None if json is None else orjson.loads(json)


def _references(value: Any, pointer: Pointer) -> Iterator[tuple[Pointer, str]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if key == "reference" and isinstance(inner, str):
            yield f"{pointer}/{key}", inner
        else:
            yield from _references(inner, f"{pointer}/{key}")
