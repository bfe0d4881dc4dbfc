"""PV1 -> FHIR R4 Encounter, by the HL7/v2-to-fhir segment map `PV1[Encounter]` and the null rules of `snapshot`.

Where that map derives the status from the patient class, we follow the trigger event (`hl7v2_adt_events.toml`), so
that an A08 after the discharge does not reopen the visit.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import tzinfo
from functools import partial
from typing import Any

from mappings.hl7v2.datatypes import CODES, CX, Fragment, Systems, codeable_concept, location, practitioner
from mappings.hl7v2.dtm import DTM
from mappings.hl7v2.er7 import Repetition, Segment
from mappings.hl7v2.header import ADT_EVENTS
from mappings.hl7v2.snapshot import apply_list, apply_single, clear_list, identifiers, replace_identifiers, set_element
from mappings.terms import ACT_CODE, IDENTIFIER_TYPE, PARTICIPATION_TYPE

_PATIENT_CLASS = "http://terminology.hl7.org/CodeSystem/v2-0004"
_UNKNOWN_CLASS = {"system": "http://terminology.hl7.org/CodeSystem/v3-NullFlavor", "code": "UNK"}


def update_encounter(
    encounter: dict[str, Any] | None,
    pv1: Segment,
    *,
    trigger_event: str,
    systems: Systems,
    default_system: str | None = None,
    default_offset: tzinfo | None = None,
    occurred: DTM | None = None,
    ignoring: Collection[tuple[str, str]] = (),
) -> dict[str, Any]:
    """The Encounter after this PV1; `encounter` is what we keep now (never changed), None for a new one.

    `default_system` is for visit numbers (PV1-19) without authority; `occurred` (EVN-6, else EVN-2) is the end of a
    discharge that sends no PV1-45; `ignoring` as in `update_patient`. The caller sets `subject`. Raises MessageError
    (condition 102) when PV1-44 or PV1-45 is not a time.
    """
    updated: dict[str, Any] = {"resourceType": "Encounter"} if encounter is None else dict(encounter)
    event = ADT_EVENTS.get(trigger_event, {})
    event_status, cleared = event.get("encounter", ""), event.get("clears", ())
    updated["status"] = _status(updated.get("status", ""), event_status, pv1, is_reopened=45 in cleared)
    apply_single(updated, "class", pv1, 2, _class)
    updated.setdefault("class", _UNKNOWN_CLASS)
    sent = [_visit_number(pv1, systems, default_system), *identifiers(pv1, 50, systems)]
    replace_identifiers(updated, [one for one in sent if one and (one.get("system"), one["value"]) not in ignoring])
    apply_single(updated, "serviceType", pv1, 10, codeable_concept)
    _apply_period(updated, pv1, default_offset, occurred if event_status == "finished" else None, cleared)
    here = "planned" if pv1.text(2) == "P" else "active"
    places = ((3, here), (6, "completed"), (11, "active"), (42, "planned"))
    clear_list(updated, "location", pv1, cleared)
    apply_list(updated, "location", pv1, [(n, partial(_location, status=status)) for n, status in places])
    people = CODES["participant_type"].items()
    apply_list(
        updated, "participant", pv1, [(int(n), partial(_participant, code=code, systems=systems)) for n, code in people]
    )
    return updated


def _status(stored: str, event_status: str, pv1: Segment, *, is_reopened: bool) -> str:
    """The event decides; an event without a status keeps ours; a visit first heard of is judged by its PV1."""
    if event_status == "arrived":
        event_status = "in-progress" if pv1.text(44) else "arrived"
    if event_status in ("in-progress", "arrived") and pv1.text(45) and not is_reopened:
        return "finished"
    if event_status or stored:
        return event_status or stored
    if pv1.text(45):
        return "finished"
    return "planned" if pv1.text(2) == "P" else "in-progress"


def _class(sent: Repetition) -> Fragment:
    if code := CODES["encounter_class"].get(sent.text()):
        return {"system": ACT_CODE, "code": code}
    return {"system": _PATIENT_CLASS, "code": sent.text()} if sent.text() else {}


def _visit_number(pv1: Segment, systems: Systems, default_system: str | None) -> Fragment:
    visit = CX.find(pv1.first(19))
    if visit is None:
        return {}
    identifier = visit.identifier(systems, default_system)
    return {**identifier, "type": {"coding": [{"system": IDENTIFIER_TYPE, "code": "VN"}]}}


def _location(place: Repetition, status: str) -> Fragment:
    where = location(place)
    return {"location": where, "status": status} if where else {}


def _participant(person: Repetition, code: str, systems: Systems) -> Fragment:
    who = practitioner(person, systems)
    return {"type": [{"coding": [{"system": PARTICIPATION_TYPE, "code": code}]}], "individual": who} if who else {}


def _apply_period(
    encounter: dict[str, Any],
    pv1: Segment,
    default_offset: tzinfo | None,
    ended: DTM | None,
    cleared: Collection[int],
) -> None:
    """PV1-44 and PV1-45; a discharge without PV1-45 ends when it occurred, a cancelled discharge has no end."""
    now: Fragment = dict(encounter.get("period", {}))
    for n, name in ((44, "start"), (45, "end")):
        if pv1.text(n):
            now[name] = DTM.parse(pv1.text(n), f"PV1^1^{n}").fhir_datetime(default_offset)
        elif pv1.is_null(n):
            now.pop(name, None)
    if 45 in cleared:
        now.pop("end", None)
    elif ended and "end" not in now:
        now["end"] = ended.fhir_datetime(default_offset)
    if "start" in now and "end" in now and now["end"][:10] < now["start"][:10]:
        del now["end"]  # Period invariant per-1
    set_element(encounter, "period", now)
