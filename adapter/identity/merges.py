"""Merge moves everything of one patient to another and writes down what it moved; unmerge moves exactly that back.

AuditEvent and Provenance are never rewritten: they say what was true then. `Patient.link` types are those of R4
(http://hl7.org/fhir/R4/valueset-link-type.html).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Connection

from adapter.access import Actor
from adapter.bridge import Bridge
from adapter.errors import Conflict
from adapter.identity.coming_of_age import label_minors
from adapter.identity.matching import find_survivor, replaced_by
from adapter.identity.moves import LABEL, MERGE, Edit, Reason, carry_out, changes, get_standing, references_to, tell
from adapter.identity.moves_undone import undo
from adapter.identity.waiting import bind_waiting
from adapter.records import TABLES, Resource, Stored, change, find_where, get, write_all
from mappings.provenance import Entity

MOVED_TYPES = tuple(name for name, table in TABLES.items() if "patient" in table.c and name != "AuditEvent")


def merge_patients(
    tx: Connection, bridge: Bridge, actor: Actor, source_id: str, target_id: str, *, message_id: str | None = None
) -> str | None:
    """Make `target` (or whoever it was merged into) the survivor of `source`; returns the id of the change.

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
    detail = orjson.dumps({"identifiers": added, "active": source.resource.get("active")}).decode()
    reason = Reason(MERGE, source.id, target.id, message_id, detail)
    change_id, _ = carry_out(tx, bridge, reason, [_edit(one, source, target) for one in everything_of(tx, source.id)])
    retired = _linked({**source.resource, "active": False}, target.reference, "replaced-by")
    survivor = _linked(_with_identifiers(target.resource, added), source.reference, "replaces")
    stored = _write(tx, bridge, [(source, retired), (target, survivor)])
    why = Entity("source", {"identifier": {"value": message_id or change_id}})
    tell(tx, bridge, actor, "merge", stored, why)
    bind_waiting(tx, bridge, stored[1])
    if source.resource.get("birthDate") != target.resource.get("birthDate"):
        label_minors(tx, bridge, stored[1], message_id=message_id)
    return change_id


def unmerge_patients(tx: Connection, bridge: Bridge, actor: Actor, source_id: str, target_id: str) -> None:
    """Put back exactly what the merge of these two moved; what came to the target later stays there.

    Raises Conflict when there is no such merge, or the target was itself merged on (undo that first).
    """
    standing = [row for row in changes(tx, source=source_id, target=target_id) if row.kind == MERGE]
    if not standing:
        raise Conflict("the source is not merged into this target; give the ids of one merge, source first")
    undo_change(tx, bridge, actor, standing[0].id)


def undo_change(tx: Connection, bridge: Bridge, actor: Actor, change_id: str) -> None:
    """Undo a merge, a move or any other change of the ledger, by its id. Raises as `unmerge_patients`, or NotFound."""
    row = get_standing(tx, change_id)
    named = [one for one in (row.source, row.target) if one]
    bridge.db.lock(tx, *(f"patient:{one}" for one in named))
    patients = [get(tx, "Patient", one) for one in named]
    if row.kind != MERGE:
        moved = undo(tx, bridge, change_id)
        case = LABEL if row.kind == LABEL else "unmerge"
        tell(tx, bridge, actor, case, [*patients, *moved], Entity("revision", patients[-1].version_reference))
        return
    source, target = patients
    if replaced_by(target.resource):
        raise Conflict("the target was itself merged into another patient; undo that merge first")
    detail: dict[str, Any] = orjson.loads(row.detail)
    undo(tx, bridge, change_id)
    restored = _restored(source.resource, target.reference, detail["active"])
    released = _released(target.resource, source.reference, detail["identifiers"])
    stored = _write(tx, bridge, [(source, restored), (target, released)])
    tell(tx, bridge, actor, "unmerge", stored, Entity("revision", target.version_reference))


def everything_of(tx: Connection, patient_id: str) -> list[Stored]:
    """Every record that says it is of this patient, but what is never rewritten."""
    return [one for name in MOVED_TYPES for one in find_where(tx, name, TABLES[name].c.patient == patient_id)]


def linked_both_ways(tx: Connection, bridge: Bridge, first: Stored, second: Stored) -> list[Stored]:
    """Link two records that stay distinct (`seealso`, both ways); [] when they are linked already."""
    if any(link["other"].get("reference") == second.reference for link in first.resource.get("link", ())):
        return []
    resources = (
        (first, _linked(first.resource, second.reference, "seealso")),
        (second, _linked(second.resource, first.reference, "seealso")),
    )
    return _write(tx, bridge, resources)


def unlinked_both_ways(tx: Connection, bridge: Bridge, first: Stored, second: Stored) -> list[Stored]:
    """Take away what `linked_both_ways` made; [] when there is nothing. Merges are not touched."""
    pairs = ((first, second.reference), (second, first.reference))
    resources = [(one, _unlinked(one.resource, other, "seealso")) for one, other in pairs]
    return _write(tx, bridge, [(one, changed) for one, changed in resources if changed != one.resource])


def _edit(record: Stored, source: Stored, target: Stored) -> Edit:
    return Edit(record, dict.fromkeys(references_to(record.resource, source.reference), target.reference))


def _write(tx: Connection, bridge: Bridge, resources: Sequence[tuple[Stored, Resource]]) -> list[Stored]:
    made = [change(before, resource, at=bridge.now()) for before, resource in resources]
    write_all(tx, made)
    return [one.after for one in made]


def _copied_identifiers(source: Resource, target: Resource) -> list[Resource]:
    held = {(one.get("system"), one.get("value")) for one in target.get("identifier", ())}
    return [
        {**one, "use": "old"}
        for one in source.get("identifier", ())
        if (one.get("system"), one.get("value")) not in held
    ]


def _with_identifiers(target: Resource, identifiers: list[Resource]) -> Resource:
    held = [*target.get("identifier", ()), *identifiers]
    return {**target, **({"identifier": held} if held else {})}


def _linked(patient: Resource, other: str, kind: str) -> Resource:
    return {**patient, "link": [*patient.get("link", ()), {"other": {"reference": other}, "type": kind}]}


def _restored(source: Resource, target: str, active: bool | None) -> Resource:
    changed = _unlinked(source, target, "replaced-by")
    changed.pop("active", None)
    return changed if active is None else {**changed, "active": active}


def _released(target: Resource, source: str, identifiers: list[Resource]) -> Resource:
    changed = _unlinked(target, source, "replaces")
    changed["identifier"] = [one for one in changed.get("identifier", ()) if one not in identifiers]
    return {name: value for name, value in changed.items() if value != []}


def _unlinked(patient: Resource, other: str, kind: str) -> Resource:
    links = [one for one in patient.get("link", ()) if (one["other"].get("reference"), one["type"]) != (other, kind)]
    return {**{name: value for name, value in patient.items() if name != "link"}, **({"link": links} if links else {})}
