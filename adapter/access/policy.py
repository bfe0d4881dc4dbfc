"""What an actor may do, decided in this one place for pages and API alike. Everything is denied unless granted here.

Three questions are asked of every access, and all must say yes: does a scope permit it (people get those of their role,
machines those of their token), is it a record of a patient within reach (a session launched from a chart has one), and
is its sensitivity within what this actor may see. What FHIR scopes cannot express is a right, one word per thing.
`access.reach` says the same as conditions of a search, so that no search shows what a read refuses.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from sqlalchemy import Connection

from adapter.access.actor import Actor
from adapter.access.scopes import grants_for, grants_in, meet
from adapter.errors import Forbidden, OutOfReach, Unprocessable
from adapter.records.confinement import same_patients
from adapter.records.extraction import Resource, confidentiality_of
from mappings.external_photo import holder_of

Letter = Literal["c", "r", "u", "d", "s"]
Right = Literal[
    "original",
    "export",
    "operate",
    "worklist",
    "audit",
    "launch-any-patient",
    "restricted",
    "very-restricted",
    "sessions",
]
OPENED_BY: dict[str, tuple[Right, ...]] = {  # v3-Confidentiality -> any of these rights; other levels need none
    "R": ("restricted", "very-restricted"),
    "V": ("very-restricted",),
}
MADE_BY = {"Media": "operator", "Observation": "performer"}  # who made what may be too sensitive for others

_CLINICAL = {
    "user/Media.crus",
    "user/Consent.crus",
    "user/BodyStructure.crus",
    "user/Observation.crus",
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
    "clinician": (_CLINICAL, {"original", "export", "restricted"}),
    "photographer": (_CLINICAL, {"worklist", "restricted"}),
    "engineer": ({"user/Patient.rs", "user/Encounter.rs"}, {"operate", "worklist", "launch-any-patient"}),
    "privacy-officer": (
        {"user/*.rs"},
        {"audit", "launch-any-patient", "very-restricted"},
    ),
    "administrator": (_CLINICAL, {"operate", "worklist", "launch-any-patient", "sessions"}),
}


def grants_of(role: str) -> tuple[frozenset[str], frozenset[str]]:
    """(scopes, rights) of a role; an unknown role has none."""
    scopes, rights = ROLES.get(role, (set(), set()))
    return frozenset(scopes), frozenset(rights)


@lru_cache(maxsize=4096)
def still_granted(scope: str, role: str) -> frozenset[str]:
    """What of the scopes that a person granted to an app the person's role has today."""
    own = grants_in(grants_of(role)[0])
    return frozenset(str(one) for granted in grants_in(scope.split()) for one in meet(granted, own))


# --- scopes ---------------------------------------------------------------------------------------------------------


def can(actor: Actor, letter: Letter, resource_type: str) -> bool:
    """Whether a granted scope permits this interaction on every record of this type."""
    return any(not grant.query for grant in grants_for(actor.scopes, letter, resource_type))


def can_some(actor: Actor, letter: Letter, resource_type: str) -> bool:
    """Whether a granted scope permits it on some records; ask this only where `access.reach` decides on which."""
    return bool(grants_for(actor.scopes, letter, resource_type))


def check_scope(actor: Actor, letter: Letter, resource_type: str, *, some: bool = False) -> None:
    """Asked before it is known whose record it is. Raises Forbidden."""
    if not (can_some if some else can)(actor, letter, resource_type):
        raise Forbidden(f"this needs the scope {resource_type}.{letter}, which was not granted")


# --- patients -------------------------------------------------------------------------------------------------------


def check_patient(actor: Actor, patient_id: str | None) -> None:
    """A session confined to one patient must not learn that others exist."""
    if actor.patient_id is not None and patient_id != actor.patient_id:
        raise OutOfReach(
            "there is no such record in this session; launch DermBridge from the other patient's chart",
            reference=f"Patient/{patient_id}" if patient_id else None,
        )


def check_whose(tx: Connection, actor: Actor, patient_id: str | None) -> None:
    """`check_patient` that knows merges: a chart opened under an old number reaches the surviving record.

    Raises NotFound.
    """
    if actor.patient_id is None or patient_id is None or patient_id not in same_patients(tx, {actor.patient_id}):
        check_patient(actor, patient_id)


# --- sensitivity ----------------------------------------------------------------------------------------------------


def levels_closed(actor: Actor) -> list[str]:
    """The confidentiality levels of which this actor sees nothing but their own work.

    R (intimate sites, and whatever is written with that label) is for the roles that treat, in the charts they open;
    V (suspected abuse, intimate photographs of minors) for a right of its own. Breaking the glass opens both.
    """
    if actor.emergency is not None:
        return []
    return [level for level, rights in OPENED_BY.items() if not any(has_right(actor, right) for right in rights)]


def can_see(actor: Actor, resource: Resource) -> bool:
    """Whether the labels of a record (`meta.security`) leave it visible; who took a photo may see it, and who
    found something on one may see that.

    The same rule as conditions on the table: `access.reach`.
    """
    element = MADE_BY.get(resource["resourceType"])
    if element is None or confidentiality_of(resource) not in levels_closed(actor):
        return True
    made_by = resource.get(element, ())
    makers = made_by if isinstance(made_by, list) else [made_by]
    return any(one.get("reference") == actor.id for one in makers if one)


def check_visible(actor: Actor, resource: Resource) -> None:
    """Raises Forbidden for what is known to be in the chart, but too sensitive for this actor."""
    if not can_see(actor, resource):
        level = "very restricted" if confidentiality_of(resource) == "V" else "restricted to those who treat"
        raise Forbidden(f"this photo is {level}; open it by breaking the glass, with a reason that is reviewed")


def check_ours(resource: Resource) -> None:
    """Raises Unprocessable for a copy of another system's photo: whatever is said of it is said there."""
    if holder := holder_of(resource):
        raise Unprocessable(f"this is a copy of a photo at {holder}, read only here; have it corrected there")


# --- rights ---------------------------------------------------------------------------------------------------------


def has_right(actor: Actor, right: Right) -> bool:
    return actor.kind == "system" or right in actor.rights


def check_right(actor: Actor, right: Right) -> None:
    if not has_right(actor, right):
        raise Forbidden(f"this needs the right '{right}', which your role does not carry")
