"""Who asks, and whether the photo or patient asked for is within reach of that session."""

from __future__ import annotations

from typing import cast

from sqlalchemy import Connection
from starlette.requests import Request

from adapter.access import Actor, check_right, check_scope, check_whose
from adapter.access.policy import Letter, check_patient, check_visible
from adapter.access.sessions import Session
from adapter.errors import Gone, NotAuthenticated, NotFound
from adapter.records import Stored, get
from adapter.records.confinement import patient_of


def actor_of(request: Request) -> Actor:
    """Raises NotAuthenticated when nobody is signed in."""
    actor = getattr(request.state, "actor", None)
    if actor is None:
        raise NotAuthenticated("you are not signed in; open DermBridge from the patient's chart in your EHR")
    return cast(Actor, actor)


def settler_of(request: Request) -> Actor:
    """Who may settle what has no patient yet: with the worklist, and in no chart, where nobody else may be heard of.

    Raises NotAuthenticated, Forbidden, NotFound.
    """
    actor = actor_of(request)
    check_right(actor, "worklist")
    check_patient(actor, None)
    return actor


def session_of(request: Request) -> Session | None:
    return cast(Session | None, getattr(request.state, "session", None))


def get_photo(tx: Connection, actor: Actor, letter: Letter, media_id: str) -> tuple[Stored, str | None]:
    """The Media and its patient's id. Raises Forbidden, NotFound; Gone only to those who may know it existed.

    A photo that belongs to nobody yet needs the right to the worklist.
    """
    check_scope(actor, letter, "Media")
    try:
        media = get(tx, "Media", media_id)
    except NotFound:
        check_patient(actor, None)  # within a chart, what does not exist and what is another's are told alike
        raise NotFound("there is no such photo") from None
    patient_id = patient_of(media.resource)
    check_whose(tx, actor, patient_id)
    check_visible(actor, media.resource)
    if media.resource.get("status") == "entered-in-error":
        raise Gone("this photo was entered here in error and is not shown any more")
    if patient_id is None and actor.kind == "person":
        check_right(actor, "worklist")
    return media, patient_id


def get_patient(tx: Connection, actor: Actor, patient_id: str) -> Stored:
    """Raises Forbidden or NotFound."""
    check_scope(actor, "r", "Patient")
    check_whose(tx, actor, patient_id)
    return get(tx, "Patient", patient_id)
