"""Versioned FHIR rows: create, update, delete, read, history.

A resource is written as canonical JSON text with ``meta.versionId`` and ``meta.lastUpdated`` set here; the same text is
served, searched and pushed from then on, never re-serialised through models. The previous version moves to
``resource_history`` in the same transaction. Validation is the caller's: at each trust boundary, once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, Table, bindparam, select, update
from sqlalchemy import delete as sql_delete
from sqlalchemy.exc import IntegrityError

from adapter.db.engine import batches
from adapter.db.many_rows import insert_rows
from adapter.db.tables import audit_tail, resource_history, search_index
from adapter.errors import Conflict, Gone, NotFound, Overtaken, PreconditionFailed
from adapter.records.extraction import Resource, token_value
from adapter.records.search_parameters import TABLES, columns_of, index_rows
from mappings.fhir_time import fhir_instant


@dataclass(frozen=True)
class Stored:
    """One version of a resource as kept: `body` is the canonical JSON text."""

    resource_type: str
    id: str
    version_id: int
    last_updated: datetime
    body: str

    @property
    def resource(self) -> Resource:
        """A fresh dict; changing it changes nothing stored."""
        resource: Resource = orjson.loads(self.body)
        return resource

    @property
    def reference(self) -> str:
        return f"{self.resource_type}/{self.id}"

    @property
    def version_reference(self) -> str:
        return f"{self.reference}/_history/{self.version_id}"

    @property
    def etag(self) -> str:
        return f'W/"{self.version_id}"'

    @property
    def leaf_hash(self) -> bytes:
        """Its text as a leaf of a Merkle tree (RFC 6962 section 2.1)."""
        return hashlib.sha256(b"\0" + self.body.encode()).digest()


@dataclass(frozen=True)
class Change:
    """The next version of a resource, not yet written; `before` is the one it was made from, None for a new one."""

    before: Stored | None
    after: Stored
    resource: Resource


class New(NamedTuple):
    """The first version of a resource, not yet written, with what it is found by: its columns and its index rows."""

    after: Stored
    columns: dict[str, Any]
    rows: list[dict[str, str]]


def change(before: Stored | None, resource: Resource, *, at: datetime) -> Change:
    return Change(before, _version(resource, before.version_id + 1 if before else 1, at), resource)


def write_all(tx: Connection, changes: Sequence[Change]) -> None:
    """Write many, each resource once, in a few statements for each type and kind of change.

    Raises Conflict when a new id is taken, Overtaken when something was changed since it was read.
    """
    insert_all(
        tx, [New(one.after, columns_of(one.resource), index_rows(one.resource)) for one in changes if not one.before]
    )
    for resource_type in dict.fromkeys(one.after.resource_type for one in changes):
        mine = [one for one in changes if one.after.resource_type == resource_type]
        _supersede(tx, _table(resource_type), [_Revision.of(one.before, one) for one in mine if one.before is not None])


def insert_all(tx: Connection, made: Sequence[New]) -> None:
    """Write new resources. Raises Conflict when an id is taken."""
    for resource_type in dict.fromkeys(one.after.resource_type for one in made):
        mine = [one for one in made if one.after.resource_type == resource_type]
        try:
            insert_rows(tx, _table(resource_type), [_row(one.after) | one.columns for one in mine])
        except IntegrityError:  # the id is the only thing about a resource that must be unique
            reason = f"a {resource_type} with this id exists already; update it, or choose another id"
            raise Conflict(reason) from None
        if resource_type == "AuditEvent":  # however one gets into the log, the log's seal must come to cover it
            tail = [{"event_id": one.after.id, "leaf_hash": one.after.leaf_hash} for one in mine]
            insert_rows(tx, audit_tail, tail)
    insert_rows(tx, search_index, [row for one in made for row in one.rows])


def create(tx: Connection, resource: Resource, *, at: datetime) -> Stored:
    """Store version 1 of `resource`, whose id the caller chose. Raises Conflict when the id is taken."""
    return create_all(tx, [resource], at=at)[0]


def create_all(tx: Connection, resources: Sequence[Resource], *, at: datetime) -> list[Stored]:
    """`create` for many, grouped into one statement per type."""
    changes = [change(None, resource, at=at) for resource in resources]
    write_all(tx, changes)
    return [one.after for one in changes]


def update_resource(tx: Connection, resource: Resource, *, at: datetime, expected_version: int | None = None) -> Stored:
    """Store the next version. Raises NotFound, Gone, or PreconditionFailed when `expected_version` is not current."""
    current = get(tx, resource["resourceType"], resource["id"])
    if expected_version is not None and current.version_id != expected_version:
        raise PreconditionFailed(
            f"{current.reference} is now at version {current.version_id}; read it again and repeat the change"
        )
    following = change(current, resource, at=at)
    write_all(tx, [following])
    return following.after


def delete(tx: Connection, resource_type: str, resource_id: str, *, at: datetime) -> Stored:
    """Mark as deleted; the content stays in the history. Deleting twice is the same as once."""
    try:
        current = get(tx, resource_type, resource_id)
    except Gone:
        return _latest(tx, resource_type, resource_id)
    following = Stored(resource_type, resource_id, current.version_id + 1, at, current.body)
    stale = index_rows(current.resource)
    _supersede(tx, _table(resource_type), [_Revision(current, following, {"deleted": True}, stale, [])])
    return following


def get(tx: Connection, resource_type: str, resource_id: str, version_id: int | None = None) -> Stored:
    """The current (or the asked) version. Raises NotFound or Gone."""
    row = tx.execute(_by_id(resource_type), {"resource_id": resource_id}).one_or_none()
    if version_id is not None and (row is None or row.version_id != version_id):
        old = resource_history.c
        row = tx.execute(
            select(old.id, old.version_id, old.last_updated, old.deleted, old.body).where(
                old.resource_type == resource_type, old.id == resource_id, old.version_id == version_id
            )
        ).one_or_none()
    if row is None:
        raise NotFound(f"there is no {resource_type}/{resource_id}")
    if row.deleted:
        raise Gone(f"{resource_type}/{resource_id} was deleted")
    return _stored(resource_type, row)


def find(tx: Connection, resource_type: str, resource_id: str) -> Stored | None:
    try:
        return get(tx, resource_type, resource_id)
    except NotFound:
        return None


def find_all(tx: Connection, resource_type: str, ids: Iterable[str]) -> dict[str, Stored]:
    """The current versions of those that are there, by id: a statement for each `engine.BATCH` of them."""
    rows = (row for some in batches(ids) for row in tx.execute(_by_ids(resource_type), {"ids": some}))
    return {row.id: _stored(resource_type, row) for row in rows}


def find_by_identifier(tx: Connection, resource_type: str, system: str | None, value: str) -> list[Stored]:
    """Every current resource of the type that carries the identifier, oldest first."""
    return find_by_index(tx, resource_type, "identifier", token_value(value, system))


def find_by_index(tx: Connection, resource_type: str, param: str, value: str) -> list[Stored]:
    return [stored for _, stored in records_with_index(tx, resource_type, param, [value])]


def records_with_index(
    tx: Connection, resource_type: str, param: str, values: Sequence[str]
) -> list[tuple[str, Stored]]:
    """(value, current resource) of everything indexed under one of at most `engine.BATCH` values, oldest first."""
    rows = tx.execute(_by_index(resource_type), {"param": param, "values": values})
    return [(row.value, _stored(resource_type, row)) for row in rows]


@cache
def _by_index(resource_type: str) -> Any:
    table = _table(resource_type)
    return (
        _select(table)
        .add_columns(search_index.c.value)
        .join(search_index, search_index.c.resource_id == table.c.id)
        .where(
            search_index.c.resource_type == resource_type,
            search_index.c.param == bindparam("param"),
            search_index.c.value.in_(bindparam("values", expanding=True)),
            table.c.deleted.is_(False),
        )
        .order_by(table.c.id)
    )


def find_where(
    tx: Connection, resource_type: str, *conditions: Any, order_by: Any = None, limit: int | None = None
) -> list[Stored]:
    """Current resources whose table columns (``TABLES[type].c``) meet the conditions."""
    return find_selected(tx, resource_type, selection(resource_type, *conditions, order_by=order_by, limit=limit))


def selection(resource_type: str, *conditions: Any, order_by: Any = None, limit: int | None = None) -> Any:
    """What `find_where` asks, to be built once with `bindparam` and asked often: building costs more than asking."""
    table = _table(resource_type)
    ordered = table.c.id if order_by is None else order_by
    keys = ordered if isinstance(ordered, tuple) else (ordered,)
    return _select(table).where(table.c.deleted.is_(False), *conditions).order_by(*keys).limit(limit)


def find_selected(tx: Connection, resource_type: str, selected: Any, **values: Any) -> list[Stored]:
    """The resources of a `selection`, given the values of its parameters."""
    return [_stored(resource_type, row) for row in tx.execute(selected, values)]


def history(tx: Connection, resource_type: str, resource_id: str) -> list[tuple[Stored, bool]]:
    """(version, is a deletion), newest first. Raises NotFound when there never was one."""
    latest = _latest(tx, resource_type, resource_id)
    table = _table(resource_type)
    deleted = tx.execute(select(table.c.deleted).where(table.c.id == resource_id)).scalar_one()
    old = resource_history.c
    rows = tx.execute(
        select(old.id, old.version_id, old.last_updated, old.deleted, old.body)
        .where(old.resource_type == resource_type, old.id == resource_id)
        .order_by(old.version_id.desc())
    )
    return [(latest, deleted), *((_stored(resource_type, row), row.deleted) for row in rows)]


def _latest(tx: Connection, resource_type: str, resource_id: str) -> Stored:
    row = tx.execute(_by_id(resource_type), {"resource_id": resource_id}).one_or_none()
    if row is None:
        raise NotFound(f"there is no {resource_type}/{resource_id}")
    return _stored(resource_type, row)


def _table(resource_type: str) -> Table:
    try:
        return TABLES[resource_type]
    except KeyError:
        raise NotFound(f"resources of type {resource_type} are not kept here") from None


def _select(table: Table) -> Any:
    return select(table.c.id, table.c.version_id, table.c.last_updated, table.c.deleted, table.c.body)


@cache
def _by_id(resource_type: str) -> Any:
    """The statement asked most often, built once for each type."""
    table = _table(resource_type)
    return _select(table).where(table.c.id == bindparam("resource_id"))


@cache
def _by_ids(resource_type: str) -> Any:
    return selection(resource_type, _table(resource_type).c.id.in_(bindparam("ids", expanding=True)))


def _stored(resource_type: str, row: Any) -> Stored:
    return Stored(resource_type, row.id, row.version_id, row.last_updated, row.body)


def _version(resource: Resource, version_id: int, at: datetime) -> Stored:
    meta = {**resource.get("meta", {}), "versionId": str(version_id), "lastUpdated": fhir_instant(at)}
    ordered = {"resourceType": resource["resourceType"], "id": resource["id"], "meta": meta}
    body = orjson.dumps({**ordered, **{k: v for k, v in resource.items() if k not in ordered}}).decode()
    return Stored(resource["resourceType"], resource["id"], version_id, at, body)


def _row(stored: Stored) -> dict[str, Any]:
    return {
        "id": stored.id,
        "version_id": stored.version_id,
        "last_updated": stored.last_updated,
        "deleted": False,
        "body": stored.body,
    }


@dataclass(frozen=True)
class _Revision:
    """One version taking the place of another: the columns it changes, and the index rows that go and come."""

    before: Stored
    after: Stored
    columns: Resource
    stale: list[dict[str, str]]
    fresh: list[dict[str, str]]

    @classmethod
    def of(cls, before: Stored, made: Change) -> _Revision:
        """Only what is derived from elements that differ is derived again: most changes touch one."""
        old, new = before.resource, made.resource
        changed = frozenset(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        stale, fresh = index_rows(old, changed), index_rows(new, changed)
        return cls(
            before,
            made.after,
            columns_of(new, changed),
            [row for row in stale if row not in fresh],
            [row for row in fresh if row not in stale],
        )


def _supersede(tx: Connection, table: Table, revisions: Sequence[_Revision]) -> None:
    for names in dict.fromkeys(frozenset(one.columns) for one in revisions):
        alike = [one for one in revisions if frozenset(one.columns) == names]
        rows = [
            {"old_id": one.before.id, "old_version": one.before.version_id, **_row(one.after), **one.columns}
            for one in alike
        ]
        if tx.execute(_replace(table), rows).rowcount != len(rows):
            raise Overtaken(
                f"{alike[0].before.reference} or one changed with it was changed by someone else at the same moment; "
                "repeat the change"
            )
    if not revisions:
        return
    insert_rows(tx, resource_history, [{**_row(r.before), "resource_type": r.before.resource_type} for r in revisions])
    if stale := [{f"old_{name}": value for name, value in row.items()} for r in revisions for row in r.stale]:
        tx.execute(_UNINDEX, stale)
    insert_rows(tx, search_index, [row for r in revisions for row in r.fresh])


@cache
def _replace(table: Table) -> Any:
    return update(table).where(table.c.id == bindparam("old_id"), table.c.version_id == bindparam("old_version"))


_UNINDEX = sql_delete(search_index).where(
    *(search_index.c[name] == bindparam(f"old_{name}") for name in ("resource_type", "resource_id", "param", "value"))
)
