"""A birth date that is told later: photos of who was under age by it are labelled so, as they would have been at first.

With them what was made of them and said about them. Labels only ever rise: a date by which somebody was of age takes
none away. The ledger keeps what was raised, so that `undo_change` takes it back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, or_

from adapter.access import SYSTEM
from adapter.bridge import Bridge
from adapter.db.engine import batches
from adapter.identity.moves import LABEL, Edit, Reason, carry_out, tell
from adapter.records import TABLES, Stored, find_where
from adapter.records.rows import records_with_index
from mappings.external_photo import holder_of
from mappings.provenance import Entity
from mappings.security_labels import labelled_minor, raise_labels

_MADE_OF_PHOTOS = ("Media", "Observation")
_ENTERED_IN_ERROR = "entered-in-error"
Labels = list[dict[str, Any]]
Raised = dict[str, tuple[Stored, Labels]]
"""Reference -> (record, its labels from now on)."""


def label_minors(tx: Connection, bridge: Bridge, patient: Stored, *, message_id: str | None = None) -> None:
    """Raise the labels that the patient's birth date asks for now; call it when that has changed, holding the patient.

    Costs what the patient's photos of that age cost, a few statements however many they are.
    """
    found = dict(_minors_photos(tx, bridge, patient))
    latest: Mapping[str, tuple[Stored, Labels]] = found
    while latest:
        latest = _made_of(tx, found, latest.keys())
        found |= latest
    if found:
        edits = [Edit(record, {"/meta/security": labels}) for record, labels in found.values()]
        _, raised = carry_out(tx, bridge, Reason(LABEL, patient.id, None, message_id), edits)
        was = Entity("revision", next(iter(found.values()))[0].version_reference)
        tell(tx, bridge, SYSTEM, LABEL, [patient, *raised], was)


def _minors_photos(tx: Connection, bridge: Bridge, patient: Stored) -> Iterator[tuple[str, tuple[Stored, Labels]]]:
    born, majority, column = patient.resource.get("birthDate"), bridge.settings.age_of_majority, TABLES["Media"].c
    if not born:
        return
    beyond = datetime(min(int(born[:4]) + majority + 2, 9999), 1, 1, tzinfo=UTC)  # in any zone, to any precision
    young = or_(column.created < beyond, column.created.is_(None))
    for photo in find_where(tx, "Media", column.patient == patient.id, column.derivation.is_(None), young):
        resource = photo.resource
        labels = labelled_minor(resource, patient.resource, majority=majority)["meta"].get("security", [])
        is_ours = resource["status"] != _ENTERED_IN_ERROR and not holder_of(resource)
        if is_ours and labels != resource["meta"].get("security", []):
            yield photo.reference, (photo, labels)


def _made_of(tx: Connection, found: Raised, references: Collection[str]) -> Raised:
    """What was derived from these and is not as sensitive as they become."""
    made: Raised = {}
    for resource_type in _MADE_OF_PHOTOS:
        for some in batches(references):
            for source, record in records_with_index(tx, resource_type, "derived-from", some):
                kept = record.resource["meta"].get("security", [])
                _, before = made.get(record.reference) or found.get(record.reference) or (record, kept)
                labels = raise_labels([*before, *found[source][1]])
                if labels != before and record.resource["status"] != _ENTERED_IN_ERROR:
                    made[record.reference] = record, labels
    return made
