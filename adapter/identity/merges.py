"""Merge and unmerge: the ledger lists every record moved, so that unmerge restores exactly those.

AuditEvent and Provenance are never rewritten; readers expand over merged ids (records.confinement).
"""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy import Connection, insert, select, update

from adapter import delivery, governance
from adapter.access import SYSTEM, Actor
from adapter.bridge import Bridge
from adapter.db.tables import merge
from adapter.errors import Conflict, NotFound
from adapter.records import TABLES, Resource, Stored, create, find, find_where, get, new_id, update_resource
from mappings.provenance import Agent, Entity, provenance

OWNED_BY = {  # which element says whose it is
    "Encounter": "subject",
    "Consent": "patient",
    "BodyStructure": "patient",
    "DocumentReference": "subject",
    "Media": "subject",
}


def merge_patients(
    tx: Connection, bridge: Bridge, actor: Actor, source_id: str, target_id: str, *, message_id: str | None = None
) -> str:
    """Everything of `source` becomes `target`'s; returns the ledger id.

    Raises NotFound, or Conflict when the two are one, or one of them was merged into someone else.
    """
    bridge.db.lock(tx, f"merge:{source_id}", f"merge:{target_id}")
    source, target = get(tx, "Patient", source_id), get(tx, "Patient", target_id)
    if source_id == target_id:
        raise Conflict("a patient cannot be merged into itself; the message names one record twice")
    for one in (source, target):
        if not one.resource.get("active", True):
            raise Conflict(f"{one.reference} was merged before; settle on the worklist which record is the right one")
    moved = [
        stored.reference
        for resource_type, element in OWNED_BY.items()
        for stored in find_where(tx, resource_type, TABLES[resource_type].c.patient == source_id)
        if _move(tx, bridge, stored, element, target.reference)
    ]
    at, merge_id = bridge.now(), new_id(bridge.now())
    changed = [
        update_resource(tx, _linked(source.resource, target.reference, "replaced-by") | {"active": False}, at=at),
        update_resource(tx, _linked(target.resource, source.reference, "replaces"), at=at),
    ]
    row = {"id": merge_id, "source": source_id, "target": target_id, "adt_message_id": message_id, "merged_at": at}
    tx.execute(insert(merge), row | {"moved": orjson.dumps(moved).decode()})
    _tell(tx, bridge, actor, "merge", changed, [Entity("source", _message(message_id))])
    return merge_id


def unmerge_patients(tx: Connection, bridge: Bridge, actor: Actor, source_id: str, target_id: str) -> int:
    """Give back exactly what the latest merge of these two moved; returns how many records went back.

    Records made or moved since stay with the target. Raises NotFound when there is no such merge in force.
    """
    bridge.db.lock(tx, f"merge:{source_id}", f"merge:{target_id}")
    row = tx.execute(
        select(merge)
        .where(merge.c.source == source_id, merge.c.target == target_id, merge.c.unmerged_at.is_(None))
        .order_by(merge.c.merged_at.desc())
        .limit(1)
    ).one_or_none()
    if row is None:
        raise NotFound(f"Patient/{source_id} is not merged into Patient/{target_id}")
    returned = 0
    for reference in orjson.loads(row.moved):
        resource_type, _, resource_id = reference.partition("/")
        stored = find(tx, resource_type, resource_id)
        element = OWNED_BY[resource_type]
        if stored and stored.resource.get(element, {}).get("reference") == f"Patient/{target_id}":
            returned += _move(tx, bridge, stored, element, f"Patient/{source_id}")
    at = bridge.now()
    source, target = get(tx, "Patient", source_id), get(tx, "Patient", target_id)
    changed = [
        update_resource(tx, _unlinked(source.resource, target.reference) | {"active": True}, at=at),
        update_resource(tx, _unlinked(target.resource, source.reference), at=at),
    ]
    tx.execute(update(merge).where(merge.c.id == row.id).values(unmerged_at=at))
    _tell(tx, bridge, actor, "unmerge", changed, [Entity("revision", target.version_reference)])
    return returned


def _move(tx: Connection, bridge: Bridge, stored: Stored, element: str, owner: str) -> bool:
    resource = stored.resource
    resource[element] = {**resource.get(element, {}), "reference": owner}
    moved = update_resource(tx, resource, at=bridge.now())
    if stored.resource_type == "Media":
        delivery.deliver_media(tx, bridge, moved)
    return True


def _linked(patient: Resource, other: str, link_type: str) -> Resource:
    return _unlinked(patient, other) | {
        "link": [*_other_links(patient, other), {"other": {"reference": other}, "type": link_type}]
    }


def _unlinked(patient: Resource, other: str) -> Resource:
    rest = {k: v for k, v in patient.items() if k != "link"}
    links = _other_links(patient, other)
    return rest | ({"link": links} if links else {})


def _other_links(patient: Resource, other: str) -> list[Any]:
    return [link for link in patient.get("link", []) if link["other"].get("reference") != other]


def _message(message_id: str | None) -> Resource:
    return (
        {"identifier": {"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{message_id}"}}
        if message_id
        else {"display": "a decision by a person"}
    )


def _tell(
    tx: Connection, bridge: Bridge, actor: Actor, case: str, patients: list[Stored], entities: list[Entity]
) -> None:
    at = bridge.now()
    agents = [Agent("assembler", SYSTEM.id), *([Agent("performer", actor.id)] if actor is not SYSTEM else [])]
    targets = [one.version_reference for one in patients]
    statement = provenance(
        case, provenance_id=new_id(at), targets=targets, agents=agents, entities=entities, recorded=at
    )
    create(tx, statement, at=at)
    for one in patients:
        governance.audit(tx, bridge, case, actor, patient_id=one.id, references=[one.version_reference])
