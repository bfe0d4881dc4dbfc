"""Merge moves everything of one patient to another and writes down what it moved; unmerge moves exactly that back.

AuditEvent and Provenance are never rewritten: they say what was true then. `Patient.link` types are those of R4
(http://hl7.org/fhir/R4/valueset-link-type.html).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from sqlalchemy import Connection, insert, select, update

from adapter.access import SYSTEM, Actor
from adapter.bridge import Bridge
from adapter.db.tables import merge
from adapter.delivery import deliver_media
from adapter.errors import Conflict
from adapter.governance import audit
from adapter.identity.matching import find_survivor, replaced_by
from adapter.identity.waiting import bind_waiting, rekey_photo
from adapter.records import TABLES, Resource, Stored, create, find_where, get, new_id, update_resource
from mappings.provenance import Agent, Entity, provenance

MOVED_TYPES = tuple(name for name, table in TABLES.items() if "patient" in table.c and name != "AuditEvent")

Path = list[str | int]


def merge_patients(
    tx: Connection, bridge: Bridge, actor: Actor, source_id: str, target_id: str, *, message_id: str | None = None
) -> str | None:
    """Make `target` (or whoever it was merged into) the survivor of `source`; returns the ledger id.

    None when it was done before. Raises Conflict when source and target are one, or source was merged elsewhere;
    NotFound when either is unknown.
    """
    bridge.db.lock(tx, f"patient:{source_id}", f"patient:{target_id}")
    source, named = get(tx, "Patient", source_id), get(tx, "Patient", target_id)
    target = find_survivor(tx, named.id)
    if target is None or target.id == source.id:
        raise Conflict("a patient cannot be merged into itself, nor into one that was merged into it")
    if before := replaced_by(source.resource):
        if before in (target.id, named.id):
            return None
        raise Conflict("the source was merged into another patient before; undo that merge first")
    added = _copied_identifiers(source.resource, target.resource)
    ledger = {
        "resources": _move(tx, bridge, source.reference, target),
        "identifiers": added,
        "active": source.resource.get("active"),
    }
    at = bridge.now()
    retired = update_resource(tx, _retired(source.resource, target.reference), at=at)
    survivor = update_resource(tx, _survivor(target.resource, source.reference, added), at=at)
    merge_id = new_id(at)
    row = {"id": merge_id, "source": source.id, "target": target.id, "adt_message_id": message_id}
    tx.execute(insert(merge), {**row, "moved": orjson.dumps(ledger).decode(), "merged_at": at})
    why = Entity("source", {"identifier": {"value": message_id or merge_id}})
    _tell(tx, bridge, actor, "merge", [retired, survivor], why)
    bind_waiting(tx, bridge, survivor)
    return merge_id


def unmerge_patients(tx: Connection, bridge: Bridge, actor: Actor, source_id: str, target_id: str) -> None:
    """Put back exactly what the merge of these two moved; what came to the target later stays there.

    Raises Conflict when there is no such merge, or the target was itself merged on (undo that first).
    """
    bridge.db.lock(tx, f"patient:{source_id}", f"patient:{target_id}")
    row = tx.execute(
        select(merge)
        .where(merge.c.source == source_id, merge.c.target == target_id, merge.c.unmerged_at.is_(None))
        .order_by(merge.c.id.desc())
        .limit(1)
    ).one_or_none()
    if row is None:
        raise Conflict("the source is not merged into this target; give the ids of one merge, source first")
    source, target = get(tx, "Patient", source_id), get(tx, "Patient", target_id)
    if replaced_by(target.resource):
        raise Conflict("the target was itself merged into another patient; undo that merge first")
    ledger: dict[str, Any] = orjson.loads(row.moved)
    at = bridge.now()
    restored = update_resource(tx, _restored(source.resource, target.reference, ledger["active"]), at=at)
    released = update_resource(tx, _released(target.resource, source.reference, ledger["identifiers"]), at=at)
    for moved in ledger["resources"]:
        _move_back(tx, bridge, moved, target.reference, restored)
    tx.execute(update(merge).where(merge.c.id == row.id).values(unmerged_at=at))
    _tell(tx, bridge, actor, "unmerge", [restored, released], Entity("revision", target.version_reference))


def _move(tx: Connection, bridge: Bridge, old: str, target: Stored) -> list[dict[str, Any]]:
    """Re-point every resource of the source as a new version; what is returned is enough to undo it."""
    moved = []
    source_id = old.removeprefix("Patient/")
    for resource_type in MOVED_TYPES:
        for stored in find_where(tx, resource_type, TABLES[resource_type].c.patient == source_id):
            resource = stored.resource
            paths = [path for path in _reference_paths(resource) if _at(resource, path) == old]
            _store_moved(tx, bridge, resource, paths, target)
            moved.append({"type": resource_type, "id": stored.id, "paths": paths, "previous": old})
    return moved


def _move_back(tx: Connection, bridge: Bridge, moved: dict[str, Any], current: str, source: Stored) -> None:
    """Only the references the merge changed, and only where they still say what it wrote."""
    stored = find_where(tx, moved["type"], TABLES[moved["type"]].c.id == moved["id"], limit=1)
    if not stored:
        return  # deleted since: nothing to put back
    resource = stored[0].resource
    paths = [path for path in moved["paths"] if _at(resource, path) == current]
    if paths:
        _store_moved(tx, bridge, resource, paths, source)


def _store_moved(tx: Connection, bridge: Bridge, resource: Resource, paths: list[Path], owner: Stored) -> None:
    for path in paths:
        _at(resource, path[:-1])[path[-1]] = owner.reference
    following = update_resource(tx, resource, at=bridge.now())
    if following.resource_type == "Media":
        rekey_photo(tx, bridge, following.id, owner.id)
        deliver_media(tx, bridge, following)


def _reference_paths(value: Any, path: Path | None = None) -> Iterator[Path]:
    path = path or []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if key == "reference" and isinstance(inner, str):
            yield [*path, key]
        else:
            yield from _reference_paths(inner, [*path, key])


def _at(value: Any, path: Path) -> Any:
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _copied_identifiers(source: Resource, target: Resource) -> list[Resource]:
    held = {(one.get("system"), one.get("value")) for one in target.get("identifier", ())}
    return [
        {**one, "use": "old"}
        for one in source.get("identifier", ())
        if (one.get("system"), one.get("value")) not in held
    ]


def _retired(source: Resource, target: str) -> Resource:
    return _linked({**source, "active": False}, target, "replaced-by")


def _survivor(target: Resource, source: str, identifiers: list[Resource]) -> Resource:
    held = [*target.get("identifier", ()), *identifiers]
    return _linked({**target, **({"identifier": held} if held else {})}, source, "replaces")


def _linked(patient: Resource, other: str, kind: str) -> Resource:
    return {**patient, "link": [*patient.get("link", ()), {"other": {"reference": other}, "type": kind}]}


def _restored(source: Resource, target: str, active: bool | None) -> Resource:
    changed = _unlinked(source, target)
    changed.pop("active", None)
    return changed if active is None else {**changed, "active": active}


def _released(target: Resource, source: str, identifiers: list[Resource]) -> Resource:
    changed = _unlinked(target, source)
    changed["identifier"] = [one for one in changed.get("identifier", ()) if one not in identifiers]
    return {name: value for name, value in changed.items() if value != []}


def _unlinked(patient: Resource, other: str) -> Resource:
    links = [link for link in patient.get("link", ()) if link["other"].get("reference") != other]
    return {**{name: value for name, value in patient.items() if name != "link"}, **({"link": links} if links else {})}


def _tell(tx: Connection, bridge: Bridge, actor: Actor, case: str, patients: list[Stored], why: Entity) -> None:
    at = bridge.now()
    references = [patient.version_reference for patient in patients]
    agents = [Agent("assembler", SYSTEM.id)]
    if actor.kind == "person":
        agents.append(Agent("performer", actor.id))
    told = provenance(case, provenance_id=new_id(at), targets=references, agents=agents, entities=[why], recorded=at)
    create(tx, told, at=at)
    for patient in patients:
        audit(tx, bridge, case, actor, patient_id=patient.id, references=references)
