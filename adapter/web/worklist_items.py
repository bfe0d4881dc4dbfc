"""What stands on the worklist, as its page shows it: a row of the list, and the open one with candidates or remedy."""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy import Connection

from adapter import identity
from adapter.bridge import Bridge
from adapter.delivery import asked_ehrs
from adapter.identity import REMEDIES, Candidate, EhrAnswer, EhrCandidate
from adapter.records import Resource, Stored
from adapter.records.patient_lookup import find_patients
from adapter.web.clock import age_since
from adapter.web.patient_card import patient_card
from adapter.web.photo_card import day, laterality_of, photo_card, site_of, site_wording, taken_at
from mappings.canonical_resources import codes_of
from mappings.record_linkage import Score, score
from mappings.terms import PHOTO_LABEL, has_code
from mappings.wrong_patient import doubt_of, state_of

LOOKED_UP = 6
WHY = {  # identity state -> (level, why it waits, what to do)
    "unidentified": (
        "error",
        "It came without a patient identifier",
        "Find out whose it is from the time, the device and who took it; until then it goes nowhere.",
    ),
    "quarantined": ("warning", "What came with it contradicts the patient's record", REMEDIES["demographics-differ"]),
    "awaiting-patient": (
        "info",
        "No registration message has announced its patient yet",
        "Nothing, as a rule: it binds by itself when the ADT message arrives.",
    ),
}
GIVEN = {
    "value": "Identifier",
    "family": "Family",
    "given": "Given",
    "birthDate": "Born",
    "gender": "Sex",
    "postalCode": "Postcode",
}


def photo_entry(bridge: Bridge, photo: Stored, label: str, *, sees: bool) -> dict[str, Any]:
    level, why, _ = _why(photo)
    return {
        "id": photo.id,
        "kind": "photo",
        "label": label,
        "level": level,
        "thumbnail": f"/captures/{photo.id}/thumbnail" if sees and not is_sensitive(photo.resource) else None,
        "title": _title(bridge, photo) if sees else "Photo",
        "reason": why,
        "may_open": sees,
        **_age(bridge, photo.last_updated),
    }


def is_sensitive(media: Resource) -> bool:
    """Whether even a small picture is only shown to who opens it."""
    return has_code(media.get("meta", {}).get("security"), PHOTO_LABEL, "intimate")


def _title(bridge: Bridge, photo: Stored) -> str:
    """What it shows and when it was taken."""
    site, at = site_of(photo.resource), taken_at(photo.resource, bridge.settings.zone)
    parts = [laterality_of(photo.resource), site_wording(site).lower() if site else "photo"]
    words = " ".join(filter(None, parts)).capitalize()
    return f"{words}, {day(at)}, {at:%H:%M}" if at else words


def message_entry(bridge: Bridge, row: Any) -> dict[str, Any]:
    stopped = row.state in ("queued", "refused")
    return {
        "id": row.id,
        "kind": "adt",
        "label": "ADT message",
        "level": "error" if stopped else "info",
        "thumbnail": None,
        "title": f"{row.trigger_event} from {row.sender.replace('|', ', ')}",
        "reason": _sentence(row.reason or "it is in line to be applied"),
        "may_open": True,
        **_age(bridge, row.received_at),
    }


def job_entry(bridge: Bridge, row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "kind": "confirm",
        "label": "To confirm",
        "level": "warning",
        "thumbnail": None,
        "title": "Photos to another patient",
        "reason": "A second person must confirm the move",
        "may_open": True,
        **_age(bridge, row.created_at),
    }


def job_detail(row: Any) -> dict[str, Any]:
    return {"kind": "confirm", "id": row.id, "title": "Photos to another patient", "href": f"/jobs/{row.id}"}


def message_detail(bridge: Bridge, row: Any) -> dict[str, Any]:
    base = f"/worklist/adt/{row.id}"
    return {
        "kind": "adt",
        "id": row.id,
        "title": f"{row.trigger_event} from {row.sender.replace('|', ', ')}",
        "control_id": row.control_id,
        "patient": row.patient,
        "reason": _sentence(row.reason or "it is in line to be applied"),
        "remedy": _sentence(row.remedy),
        "replay_href": f"{base}/replay" if row.state in ("queued", "received") else None,
        "dismiss_href": f"{base}/dismiss" if row.is_dead else None,
        **_age(bridge, row.received_at),
    }


def photo_detail(
    tx: Connection, bridge: Bridge, photo: Stored, asked: str, *, may_settle: bool
) -> tuple[dict[str, Any], list[str]]:
    """(what the page shows, references of the patients it names)."""
    _, why, remedy = _why(photo)
    given = identity.given_of(photo.resource)
    candidates = identity.find_candidates(tx, photo)
    known = {one.patient.id for one in candidates}
    looked_up = [one for one in find_patients(tx, asked, limit=LOOKED_UP) if one.id not in known] if asked else []
    every = [*candidates, *(Candidate(one, score(given, one.resource)) for one in looked_up)]
    answers = identity.answers_of(tx, photo.id)
    known_there, strangers = _at_ehrs(tx, bridge, answers)
    shown = {one.patient.id for one in every}
    every += [Candidate(one, score(given, one.resource)) for one, _ in known_there.values() if one.id not in shown]
    there = {patient_id: name for patient_id, (_, name) in known_there.items()}
    cards = [(one, there.get(one.patient.id)) for one in every]
    cards += [(Candidate(_as_stored(name, one, photo), score(given, one.patient)), name) for name, one in strangers]
    resource = photo.resource
    return {
        "kind": "photo",
        "id": photo.id,
        "title": why,
        "remedy": remedy,
        "photo": photo_card(photo, (), bridge.settings.zone)
        | {"by": resource.get("operator", {}).get("display"), "note": (resource.get("note") or [{}])[0].get("text")},
        "given": [{"label": GIVEN[name], "value": given[name]} for name in GIVEN if given.get(name)],
        "version": str(photo.version_id),
        "candidates": [
            _candidate(bridge, one, number, one.patient.id not in known) | {"at": name}
            for number, (one, name) in enumerate(cards, 1)
        ],
        "answers": [
            {"name": one.destination, "reason": _sentence(one.reason), **_age(bridge, one.asked_at)} for one in answers
        ],
        "ask_href": f"/worklist/photos/{photo.id}/ask" if may_settle and given and can_be_asked(bridge) else None,
        "asked": asked,
        "action": f"/worklist/photos/{photo.id}" if may_settle else None,
        "doubt": doubt_of(resource),
        **_age(bridge, photo.last_updated),
    }, [one.patient.version_reference for one in every]


def can_be_asked(bridge: Bridge) -> bool:
    """Whether there is an EHR that can be asked who a patient is."""
    return bool(asked_ehrs(bridge.settings))


def _at_ehrs(
    tx: Connection, bridge: Bridge, answers: list[EhrAnswer]
) -> tuple[dict[str, tuple[Stored, str]], list[tuple[str, EhrCandidate]]]:
    """Patients of ours that EHRs named, by id and with the EHR's name; and those that nobody here knows."""
    known: dict[str, tuple[Stored, str]] = {}
    strangers = []
    for answer in answers:
        for one in answer.candidates:
            here = identity.find_here(tx, bridge, answer.destination, one)
            if here is not None:
                known[here.id] = (here, answer.destination)
            else:
                strangers.append((answer.destination, one))
    return known, strangers


def _as_stored(name: str, candidate: EhrCandidate, photo: Stored) -> Stored:
    """A stranger shown as a patient of ours is; the id says which answer to take it from."""
    body = orjson.dumps(candidate.patient).decode()
    return Stored("Patient", f"{name}/{candidate.patient['id']}", 0, photo.last_updated, body)


def _candidate(bridge: Bridge, candidate: Candidate, number: int, looked_up: bool) -> dict[str, Any]:
    today = bridge.now().astimezone(bridge.settings.zone).date()
    return patient_card(candidate.patient, today) | {
        "key": str(number) if number <= 9 else None,
        "grade": _grade(candidate, looked_up),
        "total": f"{candidate.score.total:+.1f}" if candidate.score.findings else None,
        "findings": _findings(candidate.score),
    }


def _grade(candidate: Candidate, looked_up: bool) -> dict[str, str]:
    if candidate.is_claim:
        return {"level": "info", "text": "taken for this patient"}
    if looked_up and candidate.score.total <= 0:
        return {"level": "plain", "text": "found by you"}
    words = {"probable": ("ok", "probable"), "possible": ("info", "possible"), "certainly-not": ("plain", "weak")}
    level, text = words[candidate.score.grade]
    return {"level": level, "text": text}


def _findings(score_: Score) -> list[dict[str, Any]]:
    return [{"words": one.words, "weight": f"{one.weight:+.1f}", "speaks": one.weight > 0} for one in score_.findings]


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


def _why(photo: Stored) -> tuple[str, str, str]:
    level, why, remedy = WHY[state_of(photo.resource) or "unidentified"]
    if doubt := doubt_of(photo.resource):
        return level, codes_of("identity-doubt")[doubt], REMEDIES[doubt]
    return level, why, remedy


def _age(bridge: Bridge, at: Any) -> dict[str, Any]:
    return {"since": at.astimezone(bridge.settings.zone), "age": age_since(at, bridge.now())}
