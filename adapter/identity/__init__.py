"""Whose photo it is: ADT in, patients and visits kept, merges and unmerges, photos bound to their patient."""

from adapter.identity.adt import apply_message
from adapter.identity.adt_queue import dismiss, queue, replay
from adapter.identity.application_acks import find_answers, send_application_ack
from adapter.identity.launched import register_from_ehr
from adapter.identity.matching import Whose, find_encounter_at, find_patient, given_extension, whose
from adapter.identity.merges import merge_patients, unmerge_patients
from adapter.identity.receive import receive, receive_messages
from adapter.identity.suspicion import Circumstances, suspect
from adapter.identity.waiting import bind_waiting

__all__ = [
    "Circumstances",
    "Whose",
    "apply_message",
    "bind_waiting",
    "dismiss",
    "find_answers",
    "find_encounter_at",
    "find_patient",
    "given_extension",
    "merge_patients",
    "queue",
    "receive",
    "receive_messages",
    "register_from_ehr",
    "replay",
    "send_application_ack",
    "suspect",
    "unmerge_patients",
    "whose",
]
