"""Comparisons that people save: an Observation of the exact versions of the photos, and the pictures made of them.

A saved comparison holds only while all its photos are of its patient: when one of them is moved to somebody else, it is
withdrawn in the same transaction. A merge moves all of it together and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection

from adapter import access, governance
from adapter.access import SYSTEM, Actor
from adapter.bridge import Bridge
from adapter.compare.comparing import compare, is_current
from adapter.compare.pictures import drawn_by_engine, hide_pictures
from adapter.compare.reopening import comparisons_of, get_photo, get_saved, is_comparison, made_from
from adapter.db.tables import media as media_table
from adapter.db.tables import observation
from adapter.errors import BadInput, Conflict, Unprocessable
from adapter.records import Resource, Stored, create, find_where, new_id, update_resource
from adapter.records.comparisons import Comparison, find_comparison_by_id
from adapter.records.confinement import patient_of
from adapter.records.pictures import Picture, keep_picture
from mappings.comparison_to_observation import View, comparison_to_observation, photos_of, withdrawn
from mappings.external_photo import is_external
from mappings.provenance import Agent, Entity, provenance

LEAST, MOST = 2, 8
LONGEST_NOTE = 2000
MOVED = "one of the photos turned out not to be this patient's"


def save_comparison(
    bridge: Bridge,
    actor: Actor,
    photos: Sequence[tuple[str, int | None]],
    *,
    view: View,
    note: str | None = None,
    shown: str | None = None,
) -> Stored:
    """Keep a comparison of two to eight photos, given as (Media id, version seen; None: the current one).

    `shown` is the id of the comparison of two that was looked at, either way round.

    Two are aligned by the engine, whose verdict is kept with the pictures it drew. Keeping the very same again gives
    what there is. Raises Forbidden, NotFound, BadInput, Unprocessable for photos of different patients or pictures made
    of photos, Conflict when one was changed since it was seen or compared.
    """
    access.check_scope(actor, "c", "Observation")
    ids = [media_id for media_id, _ in photos]
    with bridge.db.snapshot() as tx:
        for media_id in ids[:MOST]:
            get_photo(tx, actor, media_id)
    if not LEAST <= len(set(ids)) == len(ids) <= MOST:
        raise BadInput(f"choose between {LEAST} and {MOST} photos to compare, each once")
    if note and len(note) > LONGEST_NOTE:
        raise BadInput(f"the note may have at most {LONGEST_NOTE} characters")
    found = compare(bridge, actor, ids[0], ids[1]) if len(ids) == 2 else None
    with bridge.db.transaction() as tx:
        seen = _lock_photos(tx, bridge, actor, photos)
        if found and not (is_current(tx, found) and _is_as_shown(tx, shown)):
            raise Conflict("the photos were moved or aligned by hand at this moment; open the comparison again")
        copied = any(is_external(one.resource) for one in seen)  # destroyed before long, and what shows it with it
        drawn = drawn_by_engine(tx, bridge, found) if found and not copied else []
        return _keep(tx, bridge, actor, seen, found, drawn, view=view, note=note)


def _is_as_shown(tx: Connection, shown: str | None) -> bool:
    looked_at = find_comparison_by_id(tx, shown) if shown else None
    return shown is None or (looked_at is not None and is_current(tx, looked_at))


def _lock_photos(
    tx: Connection, bridge: Bridge, actor: Actor, photos: Sequence[tuple[str, int | None]]
) -> list[Stored]:
    """As they are now, with nobody moving them until the transaction ends."""
    patient_id = patient_of(get_photo(tx, actor, photos[0][0]).resource)
    bridge.db.lock(tx, f"patient:{patient_id}")
    seen = [get_photo(tx, actor, media_id) for media_id, _ in photos]
    if patient_id is None or {patient_of(one.resource) for one in seen} != {patient_id}:
        raise Unprocessable("only photos of one and the same known patient can be compared")
    if any(version not in (None, one.version_id) for one, (_, version) in zip(seen, photos, strict=True)):
        raise Conflict("one of the photos was changed since you opened it; open the comparison again")
    return seen


def _keep(
    tx: Connection,
    bridge: Bridge,
    actor: Actor,
    seen: list[Stored],
    found: Comparison | None,
    drawn: list[Picture],
    *,
    view: View,
    note: str | None,
) -> Stored:
    at, media, performer = bridge.now(), [one.resource for one in seen], who(actor)
    described = comparison_to_observation(
        found.result if found else None,
        media,
        observation_id=new_id(at),
        view=view,
        note=note,
        performer=performer,
        saved_at=at,
    )
    patient_id, ids = patient_of(media[0]) or "", [one.id for one in seen]
    known = comparisons_of(tx, actor, patient_id=patient_id, media_ids=ids, limit=None)
    if same := next((one for one in known if _told(one.resource) == _told(described)), None):
        return same
    saved = create(tx, described, at=at)
    versions = [saved.version_reference]
    pictures = [keep_picture(tx, one, media, at=at, operator=performer, sources=versions) for one in drawn]
    sources = [Entity("derivation", one.version_reference) for one in seen]
    tell(tx, bridge, actor, "compare", [saved, *pictures], sources)
    return saved


def _told(observation: Resource) -> list[Any]:
    """All that somebody said by saving it, but when."""
    notes = [one["text"] for one in observation.get("note", ())]
    said = ("derivedFrom", "performer", "extension", "valueCodeableConcept", "method", "component")
    return [notes, *(observation.get(name) for name in said)]


def tell(
    tx: Connection, bridge: Bridge, actor: Actor, case: str, made: Sequence[Stored], sources: Sequence[Entity]
) -> None:
    """Provenance and AuditEvent of what was made or changed, in one statement each."""
    at, targets = bridge.now(), [one.version_reference for one in made]
    by = Agent("author" if case == "compare" else "enterer", who(actor))
    agents = [by, Agent("assembler", SYSTEM.id)]
    statement = provenance(
        case, provenance_id=new_id(at), targets=targets, agents=agents, entities=sources, recorded=at
    )
    create(tx, statement, at=at)
    event = "create" if case == "compare" else "update"
    governance.audit(tx, bridge, event, actor, patient_id=patient_of(made[0].resource), references=targets)


def withdraw(bridge: Bridge, actor: Actor, observation_id: str, *, why: str) -> None:
    """Enter a saved comparison in error, with its pictures, also the sheet that is made at this moment. Raises
    Forbidden, NotFound, Gone, BadInput."""
    if not why.strip() or len(why) > LONGEST_NOTE:
        raise BadInput(f"say why it is withdrawn, in at most {LONGEST_NOTE} characters")
    with bridge.db.transaction() as tx:
        saved = get_saved(tx, actor, observation_id, letter="u")
        bridge.db.lock(tx, f"patient:{patient_of(saved.resource)}")  # as who sends it does
        _withdraw(tx, bridge, actor, saved, why.strip())


def withdraw_torn(tx: Connection, bridge: Bridge, media_ids: Iterable[str]) -> None:
    """After photos changed their patient: comparisons whose photos are not all of one patient any more."""
    ids = list(media_ids)
    concerned = find_where(tx, "Observation", observation.c.id.in_(made_from(ids)), observation.c.status == "final|")
    for saved in (one for one in concerned if is_comparison(one.resource)):
        photos = find_where(tx, "Media", media_table.c.id.in_([media_id for media_id, _ in photos_of(saved.resource)]))
        if {patient_of(one.resource) for one in photos} != {patient_of(saved.resource)}:
            _withdraw(tx, bridge, SYSTEM, saved, MOVED)


def _withdraw(tx: Connection, bridge: Bridge, actor: Actor, saved: Stored, why: str) -> None:
    at = bridge.now()
    changed = update_resource(
        tx, withdrawn(saved.resource, why, author=who(actor), at=at), at=at, expected_version=saved.version_id
    )
    hidden = hide_pictures(tx, bridge, saved.reference, reason="The comparison was withdrawn")
    tell(tx, bridge, actor, "update", [changed, *hidden], [Entity("revision", saved.version_reference)])


def who(actor: Actor) -> Resource:
    """As a Reference: a machine by its client id, DermBridge itself by its name alone (a Device observes nothing)."""
    if actor.kind == "person":
        return {"reference": actor.id, "display": actor.display}
    return {"display": actor.display} | ({"identifier": {"value": actor.id}} if actor.kind == "machine" else {})
