"""Records change their patient, their visit or their state; the ledger keeps each element changed, so undoing is exact.

What undoing means is in `moves_undone`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, Row, insert, select

from adapter.access import SYSTEM, Actor
from adapter.bridge import Bridge
from adapter.db.engine import batches
from adapter.db.tables import identity_change, identity_change_item
from adapter.delivery import deliver_media
from adapter.errors import Conflict, NotFound
from adapter.governance import audit
from adapter.identity.waiting import rekey_photos
from adapter.records import TABLES, Change, Resource, Stored, change, create, find_where, new_id, write_all
from mappings.provenance import Agent, Entity, provenance

MERGE = "merge"
LABEL = "label"
Pointer = str
"""An RFC 6901 JSON pointer, such as `/performer/0/reference`."""


@dataclass(frozen=True)
class Edit:
    """What is to become of one record: values by pointer; None takes the element away."""

    record: Stored
    values: Mapping[Pointer, Any]


@dataclass(frozen=True)
class Reason:
    """Why records change: `kind` is merge, move, label …; `source` and `target` are patient ids; `detail` is JSON."""

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
    items = [_item(change_id, edit.record, path, now) for edit in edits for path, now in edit.values.items()]
    if items:
        tx.execute(insert(identity_change_item), items)
    return change_id, write(tx, bridge, edits)


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


def write(tx: Connection, bridge: Bridge, edits: Sequence[Edit]) -> list[Stored]:
    """The edits themselves; photos that change their patient are re-keyed, all are delivered again."""
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


def tell(tx: Connection, bridge: Bridge, actor: Actor, case: str, changed: Sequence[Stored], why: Entity) -> None:
    """Provenance of the versions, and an AuditEvent for each patient among them."""
    at = bridge.now()
    references = [one.version_reference for one in changed]
    agents = [Agent("enterer", actor.id)]
    if case != LABEL:
        performer = [Agent("performer", actor.id)] if actor.kind == "person" else []
        agents = [Agent("assembler", SYSTEM.id), *performer]
    told = provenance(case, provenance_id=new_id(at), targets=references, agents=agents, entities=[why], recorded=at)
    create(tx, told, at=at)
    for one in changed:
        if one.resource_type == "Patient":
            event = "label-changed" if case == LABEL else case
            audit(tx, bridge, event, actor, patient_id=one.id, references=references)


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


def _item(change_id: str, record: Stored, path: Pointer, now: Any) -> dict[str, Any]:
    return {
        "change_id": change_id,
        "resource_type": record.resource_type,
        "resource_id": record.id,
        "path": path,
        "was": _json(value_at(record.resource, path)),
        "now": _json(now),
    }


def _json(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


def _references(value: Any, pointer: Pointer) -> Iterator[tuple[Pointer, str]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if key == "reference" and isinstance(inner, str):
            yield f"{pointer}/{key}", inner
        else:
            yield from _references(inner, f"{pointer}/{key}")
