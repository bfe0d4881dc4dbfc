"""A photo that waits for its patient is asked about at the EHR, as soon as it waits and whenever a person asks.

Only one patient who bears exactly the identifier and agrees in a second demographic is registered, provisionally until
ADT confirms, and the photo bound. Whatever is less certain is a candidate on the worklist, for a person to choose.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Connection

from adapter.access import SYSTEM, Actor
from adapter.bridge import Bridge
from adapter.delivery import AskedEhr, Found, asked_ehrs
from adapter.errors import Conflict, DermBridgeError, NotFound, Unavailable, Unprocessable
from adapter.governance import audit
from adapter.identity.candidates import given_of
from adapter.identity.ehr_answers import EhrCandidate, answers_of, keep_answer
from adapter.identity.launched import register_from_ehr, trusted_identifiers
from adapter.identity.matching import disagreement, find_survivors
from adapter.identity.waiting import has_exact_time
from adapter.records import Resource, Stored, find, get
from adapter.records.date_intervals import date_interval
from adapter.work import Work, enqueue, finish, postpone
from adapter.work.loop import back_off
from mappings.wrong_patient import state_of

KIND = "look-up-patient"
UNSETTLED = ("awaiting-patient", "quarantined", "unidentified")
Given = Mapping[str, Any]


class Ask(Protocol):
    """`delivery.ask_destination`, its connectors at hand."""

    def __call__(self, destination: str, given: Given, at: datetime | None) -> Found: ...


def look_up_later(tx: Connection, bridge: Bridge, media: Stored) -> None:
    """Put the questions about a photo that waits in line, one for each EHR that can be asked.

    Photos of one identifier are asked about one after the other: the first answer may bind them all.
    """
    if state_of(media.resource) != "awaiting-patient":
        return
    given = given_of(media.resource)
    whose = hashlib.sha256(f"{given['system']}|{given['value']}".encode()).hexdigest()[:32]
    for name in asked_ehrs(bridge.settings):
        key = f"{KIND}:{media.id}:{name}"
        payload = {"media": media.id, "destination": name}
        in_order = (f"{KIND}:{name}:{whose}",)
        enqueue(tx, Work(KIND, key, payload, destination=name, order_keys=in_order), at=bridge.now())


def look_up_patient(bridge: Bridge, ask: Ask, work: Work) -> None:
    """Handle one work item of kind "look-up-patient". Raises LeaseLost when another worker took over."""
    media_id, name = work.payload["media"], work.payload["destination"]
    with bridge.db.snapshot() as tx:
        media = find(tx, "Media", media_id)
    try:
        if media is not None and state_of(media.resource) == "awaiting-patient":
            _ask(bridge, ask, SYSTEM, media, name)
    except Unavailable as error:
        with bridge.db.transaction() as tx:
            postpone(tx, work, due_at=bridge.now() + back_off(work.attempts), reason=str(error))
        return
    except Unprocessable as error:
        _note(bridge, media_id, name, str(error))
    except NotFound:  # the settings say so since
        pass
    with bridge.db.transaction() as tx:
        finish(tx, work)


def ask_ehrs(bridge: Bridge, ask: Ask, actor: Actor, media: Stored) -> None:
    """A person wants to know now: every EHR that can be asked is; one that does not answer says so in its place."""
    for name in asked_ehrs(bridge.settings):
        try:
            _ask(bridge, ask, actor, media, name)
        except DermBridgeError as error:
            _note(bridge, media.id, name, str(error))


def register_candidate(
    tx: Connection, bridge: Bridge, actor: Actor, media_id: str, destination: str, their_id: str
) -> tuple[str, str | None]:
    """Our ids of the candidate a person chose, and of the visit there at that time; registered when they are new here.

    Raises NotFound when it was not among the answers, Conflict as `register_from_ehr`.
    """
    ehr = asked_ehrs(bridge.settings).get(destination)
    answered = [one for one in answers_of(tx, media_id) if one.destination == destination]
    chosen = next((one for answer in answered for one in answer.candidates if one.patient["id"] == their_id), None)
    if ehr is None or chosen is None:
        raise NotFound("this patient is not among the EHR's answers any more; ask again")
    patient_id, encounter_id = register_from_ehr(tx, bridge, actor, chosen.patient, chosen.visit, ehr)
    told = f"chosen for a photo among the answers of {destination}"
    audit(tx, bridge, "update", actor, patient_id=patient_id, references=[f"Media/{media_id}"], detail=told)
    return patient_id, encounter_id


def find_here(tx: Connection, bridge: Bridge, destination: str, candidate: EhrCandidate) -> Stored | None:
    """Who an EHR's candidate is here; None when nobody bears an identifier it is trusted for, or several do."""
    ehr = asked_ehrs(bridge.settings).get(destination)
    tokens = [(one["system"], one["value"]) for one in trusted_identifiers(candidate.patient, ehr)] if ehr else []
    found = find_survivors(tx, tokens)
    return found[0] if len(found) == 1 else None


def is_certain(found: Found, given: Given) -> bool:
    """One patient, in use, who bears exactly the identifier; birth date or family name agree, neither contradicts."""
    if found.several or len(found.matches) != 1 or found.matches[0].way != "identifier":
        return False
    if not given.get("birthDate") and not given.get("family"):
        return False
    patient = found.matches[0].patient
    current = [one for one in patient.get("identifier", ()) if one.get("use") not in ("old", "temp")]
    bears = (given.get("system"), given.get("value")) in [(one.get("system"), one.get("value")) for one in current]
    return bears and disagreement(patient, dict(given)) is None


# --- one question ---------------------------------------------------------------------------------------------------


def _ask(bridge: Bridge, ask: Ask, actor: Actor, media: Stored, name: str) -> None:
    """Raises Unavailable, Unprocessable, NotFound, Misconfigured; then nothing was kept."""
    ehr = asked_ehrs(bridge.settings).get(name)
    if ehr is None:
        raise NotFound(f"destination {name!r} is not asked for patients any more")
    given = given_of(media.resource)
    found = ask(name, given, _taken_at(media.resource))
    reason = _why_not(found, given)
    if not reason:
        try:
            with bridge.db.transaction() as tx:
                if _bound_by(tx, bridge, media.id, found, ehr):
                    _tell(tx, bridge, actor, media, name, found)
                    return
            reason = "one patient there fits; a person must say whether it is this one"
        except Conflict as error:
            reason = f"one patient there fits, but {error}"
    with bridge.db.transaction() as tx:
        _tell(tx, bridge, actor, media, name, found)
        _keep(tx, bridge, media.id, name, reason, found)


def _bound_by(tx: Connection, bridge: Bridge, media_id: str, found: Found, ehr: AskedEhr) -> bool:
    """Register who was found, if the photo still waits; whether it does not wait any more, bound or in doubt."""
    if state_of(get(tx, "Media", media_id).resource) != "awaiting-patient":
        return False
    (match,) = found.matches
    register_from_ehr(tx, bridge, SYSTEM, match.patient, match.visit, ehr)
    return state_of(get(tx, "Media", media_id).resource) != "awaiting-patient"


def _why_not(found: Found, given: Given) -> str:
    """Why this is for a person to settle; empty when it is certain."""
    if found.several:
        return "several patients there fit"
    if not found.matches:
        return "nobody there fits" + (f" ({', '.join(found.not_offered)} not offered)" if found.not_offered else "")
    if is_certain(found, given):
        return ""
    if len(found.matches) > 1:
        return f"{len(found.matches)} patients there fit"
    return "one patient there fits, not certainly enough to bind the photo without a person"


def _tell(tx: Connection, bridge: Bridge, actor: Actor, media: Stored, name: str, found: Found) -> None:
    """What was asked into the audit log, request by request."""
    for asked in found.asked:
        references = [media.version_reference]
        audit(tx, bridge, "patient-query", actor, references=references, query=asked, recipient=name)


def _keep(tx: Connection, bridge: Bridge, media_id: str, name: str, reason: str, found: Found) -> None:
    """Only beside a photo that nobody has settled meanwhile."""
    bridge.db.lock(tx, f"patient-answer:{media_id}")
    media = find(tx, "Media", media_id)
    if media is not None and state_of(media.resource) in UNSETTLED:
        keep_answer(tx, media_id, name, reason, found.matches, at=bridge.now())


def _note(bridge: Bridge, media_id: str, name: str, reason: str) -> None:
    with bridge.db.transaction() as tx:
        _keep(tx, bridge, media_id, name, reason, Found())


def _taken_at(media: Resource) -> datetime | None:
    return date_interval(media["createdDateTime"])[0] if has_exact_time(media) else None
