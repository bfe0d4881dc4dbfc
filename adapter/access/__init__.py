"""Who may do what: actors, the one policy, sessions, tokens and the SMART launch."""

from adapter.access.actor import SYSTEM, Actor
from adapter.access.policy import can, check_patient, check_right, check_scope, check_whose, has_right

__all__ = ["SYSTEM", "Actor", "can", "check_patient", "check_right", "check_scope", "check_whose", "has_right"]
