"""Whose photo is it: ADT received and applied, patients across merges, photos that wait for their patient."""

from adapter.identity.apply import apply_message, queue, replay
from adapter.identity.merges import merge_patients, unmerge_patients
from adapter.identity.patients import (
    Whose,
    bind_waiting,
    find_encounter_at,
    find_patient,
    register_from_ehr,
    whose,
)
from adapter.identity.receive import receive_messages

__all__ = [
    "Whose",
    "apply_message",
    "bind_waiting",
    "find_encounter_at",
    "find_patient",
    "merge_patients",
    "queue",
    "receive_messages",
    "register_from_ehr",
    "replay",
    "unmerge_patients",
    "whose",
]
