"""Versioned FHIR rows: create, update, delete, read, history.

A resource is written as canonical JSON text with ``meta.versionId`` and ``meta.lastUpdated`` set here; the same text is
served, searched and pushed from then on, never re-serialised through models. The previous version moves to
``resource_history`` in the same transaction. Validation is the caller's: at each trust boundary, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import orjson
from sqlalchemy import Connection, Table, bindparam, insert, select, update
from sqlalchemy import delete as sql_delete

from adapter.db.tables import resource_history, search_index
from adapter.errors import Conflict, Gone, NotFound, PreconditionFailed
from adapter.records.search_parameters import TABLES, Resource, columns_of, index_rows, token_value
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


def create(tx: Connection, resource: Resource, *, at: datetime) -> Stored:
    """Store version 1 of `resource`, whose id the caller chose. Raises Conflict when the id is taken."""
    return create_all(tx, [resource], at=at)[0]


def create_all(tx: Connection, resources: Sequence[Resource], *, at: datetime) -> list[Stored]:
    """`create` for many, grouped into one statement per type."""
    stored = [_version(resource, 1, at) for resource in resources]
    for resource_type in dict.fromkeys(one.resource_type for one in stored):
        table = _table(resource_type)
        rows = [
            {**_row(one), **columns_of(r)}
            for one, r in zip(stored, resources, strict=True)
            if one.resource_type == resource_type
        ]
        tx.execute(insert(table), rows)
    _index(tx, resources)
    return stored


def update_resource(tx: Connection, resource: Resource, *, at: datetime, expected_version: int | None = None) -> Stored:
    """Store the next version. Raises NotFound, Gone, or PreconditionFailed when `expected_version` is not current."""
    current = get(tx, resource["resourceType"], resource["id"])
    if expected_version is not None and current.version_id != expected_version:
        raise PreconditionFailed(
            f"{current.reference} is now at version {current.version_id}; read it again and repeat the change"
        )
    following = _version(resource, current.version_id + 1, at)
    _supersede(tx, current, following, columns_of(resource))
    _unindex(tx, current)
    _index(tx, [resource])
    return following


def delete(tx: Connection, resource_type: str, resource_id: str, *, at: datetime) -> Stored:
    """Mark as deleted; the content stays in the history. Deleting twice is the same as once."""
    try:
        current = get(tx, resource_type, resource_id)
    except Gone:
        return _latest(tx, resource_type, resource_id)
    following = Stored(resource_type, resource_id, current.version_id + 1, at, current.body)
    _supersede(tx, current, following, {"deleted": True})
    _unindex(tx, current)
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


def find_by_identifier(tx: Connection, resource_type: str, system: str | None, value: str) -> list[Stored]:
    """Every current resource of the type that carries the identifier, oldest first."""
    return find_by_index(tx, resource_type, "identifier", token_value(value, system))


def find_by_index(tx: Connection, resource_type: str, param: str, value: str) -> list[Stored]:
    table = _table(resource_type)
    statement = (
        _select(table)
        .join(search_index, search_index.c.resource_id == table.c.id)
        .where(
            search_index.c.resource_type == resource_type,
            search_index.c.param == param,
            search_index.c.value == value,
            table.c.deleted.is_(False),
        )
        .order_by(table.c.id)
    )
    return [_stored(resource_type, row) for row in tx.execute(statement)]


def find_where(
    tx: Connection, resource_type: str, *conditions: Any, order_by: Any = None, limit: int | None = None
) -> list[Stored]:
    """Current resources whose table columns (``TABLES[type].c``) meet the conditions."""
    table = _table(resource_type)
    statement = (
        _select(table)
        .where(table.c.deleted.is_(False), *conditions)
        .order_by(table.c.id if order_by is None else order_by)
    )
    return [_stored(resource_type, row) for row in tx.execute(statement.limit(limit))]


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


def _supersede(tx: Connection, current: Stored, following: Stored, columns: dict[str, Any]) -> None:
    table = _table(current.resource_type)
    changed = tx.execute(
        update(table)
        .where(table.c.id == current.id, table.c.version_id == current.version_id)
        .values(**{**_row(following), **columns})
    )
    if changed.rowcount != 1:
        raise Conflict(f"{current.reference} was changed by someone else at the same moment; repeat the change")
    tx.execute(insert(resource_history), {**_row(current), "resource_type": current.resource_type})


def _index(tx: Connection, resources: Iterable[Resource]) -> None:
    rows = [row for resource in resources for row in index_rows(resource)]
    if rows:
        tx.execute(insert(search_index), rows)


def _unindex(tx: Connection, stored: Stored) -> None:
    tx.execute(
        sql_delete(search_index).where(
            search_index.c.resource_type == stored.resource_type, search_index.c.resource_id == stored.id
        )
    )
