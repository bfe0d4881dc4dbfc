"""What an actor may do, decided in this one place for pages and API alike. Everything is denied unless granted here.

Grants are SMART v2 scopes (https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html): people get those of
their role, machines those of their token. What FHIR scopes cannot express is a right, one word per thing.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from sqlalchemy import Connection

from adapter.access.actor import Actor
from adapter.errors import BadInput, Forbidden, NotFound
from adapter.records.confinement import same_patients

Letter = Literal["c", "r", "u", "d", "s"]
Right = Literal["original", "export", "operate", "worklist", "audit", "launch-any-patient"]

SCOPE = re.compile(r"^(patient|user|system)/([A-Z][A-Za-z]+|\*)\.(c?r?u?d?s?)(\?[^ ]+)?$")
_V1 = {"read": "rs", "write": "cud", "*": "cruds"}

_CLINICAL = {
    "user/Media.crus",
    "user/Consent.crus",
    "user/BodyStructure.crus",
    "user/Binary.cr",
    "user/Patient.rs",
    "user/Encounter.rs",
    "user/DocumentReference.rs",
    "user/Provenance.rs",
    "user/Practitioner.rs",
    "user/Organization.rs",
    "user/Device.rs",
}
ROLES: dict[str, tuple[set[str], set[Right]]] = {
    "clinician": (_CLINICAL, {"original", "export"}),
    "photographer": (_CLINICAL, {"worklist"}),
    "engineer": ({"user/Patient.rs", "user/Encounter.rs"}, {"operate", "worklist", "launch-any-patient"}),
    "privacy-officer": (
        {"user/*.rs"},
        {"audit", "launch-any-patient"},
    ),
    "administrator": (_CLINICAL, {"operate", "worklist", "launch-any-patient"}),
}


def grants_of(role: str) -> tuple[frozenset[str], frozenset[str]]:
    """(scopes, rights) of a role; an unknown role has none."""
    scopes, rights = ROLES.get(role, (set(), set()))
    return frozenset(scopes), frozenset(rights)


def parse_scopes(text: str) -> frozenset[str]:
    """Scopes normalised to v2 spelling. Raises BadInput naming the one that is not a scope."""
    scopes = set()
    for scope in text.split():
        prefix, dot, permission = scope.rpartition(".")
        normalised = f"{prefix}{dot}{_V1.get(permission, permission)}"
        if not SCOPE.match(normalised) or normalised.endswith("."):
            raise BadInput(f"'{scope}' is not a SMART scope; write for example system/Media.cr")
        scopes.add(normalised)
    return frozenset(scopes)


@lru_cache(maxsize=4096)
def _permits(scope: str, letter: str, resource_type: str) -> bool:
    match = SCOPE.match(scope)
    return bool(match and match[2] in (resource_type, "*") and letter in match[3] and not match[4])


def can(actor: Actor, letter: Letter, resource_type: str) -> bool:
    """Whether any granted scope permits this interaction on this type."""
    return any(_permits(scope, letter, resource_type) for scope in actor.scopes)


def check(actor: Actor, letter: Letter, resource_type: str, *, patient_id: str | None = None) -> None:
    """Raises Forbidden when no scope permits it, NotFound when it belongs to a patient outside the session."""
    check_scope(actor, letter, resource_type)
    check_patient(actor, patient_id)


def check_scope(actor: Actor, letter: Letter, resource_type: str) -> None:
    """`check` before it is known whose record it is. Raises Forbidden."""
    if not can(actor, letter, resource_type):
        raise Forbidden(f"this needs the scope {resource_type}.{letter}, which was not granted")


def check_patient(actor: Actor, patient_id: str | None) -> None:
    """A session confined to one patient must not learn that others exist."""
    if actor.patient_id is not None and patient_id != actor.patient_id:
        raise NotFound("there is no such record in this session; launch DermBridge from the other patient's chart")


def check_whose(tx: Connection, actor: Actor, patient_id: str | None) -> None:
    """`check_patient` that knows merges: a chart opened under an old number reaches the surviving record.

    Raises NotFound.
    """
    if actor.patient_id is None or patient_id is None or patient_id not in same_patients(tx, {actor.patient_id}):
        check_patient(actor, patient_id)


def has_right(actor: Actor, right: Right) -> bool:
    return actor.kind == "system" or right in actor.rights


def check_right(actor: Actor, right: Right) -> None:
    if not has_right(actor, right):
        raise Forbidden(f"this needs the right '{right}', which your role does not carry")
