"""Whose photo it is: ADT in, patients and visits kept, merges and unmerges, photos bound to their patient."""

from adapter.identity.adt import apply_message, apply_messages
from adapter.identity.adt_queue import dismiss, queue, replay, replay_all
from adapter.identity.application_acks import find_answers, send_application_ack
from adapter.identity.candidates import Candidate, find_candidates, given_of
from adapter.identity.correction import Refiled, Refiling, check_may_refile, plan_refiling, refile, unrefile
from adapter.identity.ehr_answers import EhrAnswer, EhrCandidate, answers_of
from adapter.identity.ehr_lookup import ask_ehrs, find_here, look_up_later, look_up_patient, register_candidate
from adapter.identity.fhir_feed import PATIENT_FEED, Identifier, feed_patient, read_feed
from adapter.identity.launched import register_from_ehr
from adapter.identity.matching import Whose, find_encounter_at, find_patient, given_extension, whose
from adapter.identity.merges import merge_patients, undo_change, unmerge_patients
from adapter.identity.receive import receive, receive_messages
from adapter.identity.suspicion import REMEDIES, Circumstances, suspect
from adapter.identity.waiting import bind_waiting

__all__ = [
    "PATIENT_FEED",
    "REMEDIES",
    "Candidate",
    "Circumstances",
    "EhrAnswer",
    "EhrCandidate",
    "Identifier",
    "Refiled",
    "Refiling",
    "Whose",
    "answers_of",
    "apply_message",
    "apply_messages",
    "ask_ehrs",
    "bind_waiting",
    "check_may_refile",
    "dismiss",
    "feed_patient",
    "find_answers",
    "find_candidates",
    "find_encounter_at",
    "find_here",
    "find_patient",
    "given_extension",
    "given_of",
    "look_up_later",
    "look_up_patient",
    "merge_patients",
    "plan_refiling",
    "queue",
    "read_feed",
    "receive",
    "receive_messages",
    "refile",
    "register_candidate",
    "register_from_ehr",
    "replay",
    "replay_all",
    "send_application_ack",
    "suspect",
    "undo_change",
    "unmerge_patients",
    "unrefile",
    "whose",
]
