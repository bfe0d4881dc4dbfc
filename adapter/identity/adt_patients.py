"""The steps most events are made of: the patient of PID and the visit of PV1 after the message."""

from __future__ import annotations

from adapter.identity.adt_applying import Applying, Token, Tokens, belongs_to
from adapter.identity.authorities import NotApplied, default_system
from adapter.identity.matching import disagreement
from adapter.identity.stamps import is_stale, is_status_stale, stamped
from adapter.records import Resource, Stored
from mappings.hl7v2.adt_event import PatientGroup
from mappings.hl7v2.header import ADT_EVENTS
from mappings.hl7v2.pid_to_patient import update_patient
from mappings.hl7v2.pv1_to_encounter import update_encounter

STALE = "older than what was applied; the newer values were kept"
_LIFECYCLE = ("status", "period")


def patient(a: Applying) -> None:
    """Step "patient": create or update the patient of every group."""
    for n, group in a.groups:
        a.patients[n] = put_patient(a, group)


def put_patient(a: Applying, group: PatientGroup, tokens: Tokens | None = None, without: Tokens = ()) -> Stored:
    """The patient named by PID-3, after this message. `without`: identifiers in PID-3 that are another patient's."""
    settings = a.bridge.settings
    tokens = tokens or a.tokens(group.patient_identifiers)
    a.bridge.db.lock(a.tx, *(f"patient-identifier:{system}|{value}" for system, value in tokens))
    found = a.survivors(tokens)
    if len(found) > 1:
        raise NotApplied(
            f"not applied: the identifiers in PID-3 belong to {len(found)} different patients here",
            remedy="merge them (ADT^A40) if they are one person, or ask the sender to correct PID-3; then replay",
        )
    before = found[0] if found else None
    kept = before.resource if before else None
    if before and kept and is_stale(kept, a.event.recorded_by, group.updated_by):
        a.note(STALE)
        a.touch(before)
        return before
    changed = update_patient(
        kept,
        group.pid,
        systems=settings.identifier_systems,
        default_system=default_system(settings),
        default_offset=a.event.default_offset,
        ignoring=former_identifiers(kept) | set(without),
    )
    if kept and kept.get("active") is False:
        changed = _taken_up_again(kept, changed)
    if before and before.resource.get("birthDate") != changed.get("birthDate"):
        a.hold(before)  # before its row is written, in the order in which who merges takes both
        a.to_label.add(before.id)
    return a.put(before, stamped(changed, a.said_at(a.event.recorded_at), a.said_at(group.pid_33)))


def former_identifiers(record: Resource | None) -> set[Token]:
    """What a merge or a change of numbers left behind: it finds the record, but is not what it is called again."""
    return {
        (one.get("system", ""), one.get("value", ""))
        for one in (record or {}).get("identifier", ())
        if one.get("use") == "old"
    }


def _taken_up_again(kept: Resource, changed: Resource) -> Resource:
    """A deleted person (A29) who comes back is the same one only if nothing speaks against it: numbers are reused."""
    born = {"birthDate": kept["birthDate"]} if "birthDate" in kept else {}
    if disagreement(changed, born):
        raise NotApplied(
            "not applied: this identifier was a deleted person's (ADT^A29) who was born on another day",
            remedy="if the number was given to somebody else, free it with ADT^A47 first; then replay",
        )
    return {**changed, "active": True}


def visit(a: Applying) -> None:
    """Step "visit": create or update the visit of every group that names one."""
    for n, group in a.groups:
        if group.pv1 is not None:
            _put_visit(a, group, a.patients[n])


def _put_visit(a: Applying, group: PatientGroup, owner: Stored) -> None:
    if group.visit is None or group.pv1 is None:
        a.note("no visit number (PV1-19): only the patient was updated")
        return
    settings = a.bridge.settings
    system = a.visit_system(group.visit, owner)
    a.bridge.db.lock(a.tx, f"visit-identifier:{system}|{group.visit.value}")
    before = next(iter(a.find_visits([group.visit], owner)), None)
    if before and not belongs_to(before, owner):
        raise NotApplied(
            "not applied: this visit number belongs to another patient here",
            remedy="move the visit (ADT^A45) or merge the patients, or ask the sender to correct PV1-19; then replay",
        )
    kept = before.resource if before else None
    systems = settings.identifier_systems | settings.visit_systems
    changed = update_encounter(
        kept,
        group.pv1,
        trigger_event=a.event.trigger_event,
        systems=systems | ({group.visit.authority.name: system} if group.visit.authority.name else {}),
        default_system=system,
        default_offset=a.event.default_offset,
        occurred=a.event.occurred,
        ignoring=former_identifiers(kept),
    )
    status, said_at = ADT_EVENTS[a.event.trigger_event].get("encounter"), a.said_at(a.event.recorded_at)
    if kept and before and is_stale(kept, a.event.recorded_by, None):
        a.note(STALE)
        if status is None or is_status_stale(kept, a.event.recorded_by):
            a.touch(before)
            return
        changed = {**kept, **{name: changed[name] for name in _LIFECYCLE if name in changed}}
        a.put(before, stamped(changed, None, None, status_at=said_at))
        return
    changed["subject"] = _subject(a, group, owner)
    if group.account:
        changed["account"] = [a.account(group.account)]
    elif group.pid.is_null(18):
        changed.pop("account", None)
    a.put(before, stamped(changed, said_at, None, status_at=said_at if status else None))


def _subject(a: Applying, group: PatientGroup, owner: Stored) -> Resource:
    """With the identifier the visit was announced under, which is what an A43 moves it by."""
    system, value = a.tokens(group.patient_identifiers)[0]
    return {"reference": owner.reference, "identifier": {"system": system, "value": value}}
