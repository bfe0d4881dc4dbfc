"""The steps of change events: a patient, account or visit is called by another number, nothing else of it changes.

The old number still finds the patient or visit. Which fields pair with which: HL7 v2.9.1 section 3.6.2.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from adapter.identity.adt_applying import Applying, Token, belongs_to
from adapter.identity.adt_patients import put_patient
from adapter.identity.authorities import NotApplied, check_authorities
from adapter.records import Resource, Stored
from mappings.hl7v2.adt_event import PatientGroup
from mappings.hl7v2.datatypes import CX
from mappings.hl7v2.header import ADT_EVENTS

_ASK = "ask the sender to correct {} and to send it again, then dismiss this message"


def change_account(a: Applying) -> None:
    """Step "change-account": account MRG-3 is now called PID-18, a number nobody else has. Nothing without MRG-3."""
    a.drafts.write()
    for n, group in a.groups:
        if group.prior_account and group.account and group.prior_account.value != group.account.value:
            if not all(belongs_to(one, a.patients[n]) for one in a.visits_of_account(group.account)):
                raise NotApplied(
                    "not applied: the new account number (PID-18) is another patient's here",
                    remedy=_ASK.format("PID-18"),
                )
            renumber_account(a, group, a.patients[n])


def renumber_account(a: Applying, group: PatientGroup, owner: Stored) -> None:
    """The visits of account MRG-3 have account PID-18. Raises NotApplied where one is another patient's."""
    if group.prior_account is None or group.account is None:
        return
    visits = a.visits_of_account(group.prior_account)
    if not all(belongs_to(one, owner) for one in visits):
        raise NotApplied(
            "not applied: the account of MRG-3 is another patient's here",
            remedy="move the account (ADT^A44) or merge the patients (ADT^A40) first, then replay",
        )
    if not visits:
        a.note("no visit here has the account number of MRG-3")
    for one in visits:
        a.put(one, {**one.resource, "account": [a.account(group.account)]})


def change_identifier(a: Applying) -> None:
    """Step "change-identifier": the patient of the old number has the new one; the old one still finds the patient."""
    old_field, new_field = ADT_EVENTS[a.event.trigger_event]["renames"]
    for n, group in a.groups:
        if not group.is_valued(old_field) or not group.is_valued(new_field):
            old_field, new_field = "MRG-1", "PID-3"
        check_authorities(a.bridge.settings, group.identifiers(old_field), group.identifiers(new_field), old_field)
        a.patients[n] = _change_identifier(a, group, group.identifiers(old_field), group.identifiers(new_field))


def _change_identifier(a: Applying, group: PatientGroup, old: Sequence[CX], new: Sequence[CX]) -> Stored:
    prior = [token for token in a.tokens(old) if token not in a.tokens(new)]
    holders = a.survivors(prior)
    if len(holders) > 1:
        raise NotApplied(
            "not applied: the old identifiers belong to different patients here", remedy=_ASK.format("MRG-1")
        )
    if any(found.id != holder.id for holder in holders for found in a.survivors(a.tokens(new))):
        raise NotApplied(
            "not applied: the new identifier is another patient's here",
            remedy="merge them (ADT^A40) if they are one person, or ask the sender to correct PID-3; then replay",
        )
    if not holders:
        a.note("the old identifier was not known here; it was added to the patient")
    for holder in holders:
        a.put(holder, {**holder.resource, "identifier": _renamed(holder.resource["identifier"], prior, a.tokens(new))})
    changed = put_patient(a, group, [*a.tokens(new), *prior], without=prior)
    return a.put(changed, with_former_identifiers(changed.resource, prior))


def _renamed(identifiers: Sequence[Resource], old: Collection[Token], new: Sequence[Token]) -> list[Resource]:
    """The old numbers kept as former ones, the new ones first, also where one of them was a former one."""
    kept = [
        {**one, "use": "old"} if (one.get("system"), one.get("value")) in old else one
        for one in identifiers
        if one.get("use") != "old" or (one.get("system"), one.get("value")) not in new
    ]
    return [*({"system": s, "value": v} for s, v in new if not _carries(kept, (s, v))), *kept]


def _carries(identifiers: Sequence[Resource], token: Token) -> bool:
    return any((one.get("system"), one.get("value")) == token for one in identifiers)


def change_visit(a: Applying) -> None:
    """Step "change-visit": the visit of the old number (MRG-5, MRG-6) has the new one (PV1-19, PV1-50)."""
    old_field, new_field = ADT_EVENTS[a.event.trigger_event]["renames"]
    for n, group in a.groups:
        if not group.is_valued(old_field) or not group.is_valued(new_field):
            continue
        owner = a.patients[n]
        before = a.find_visits(group.identifiers(old_field), owner)
        taken = a.find_visits(group.identifiers(new_field), owner)
        if not all(belongs_to(one, owner) for one in (*before, *taken)):
            raise NotApplied(
                "not applied: one of the visit numbers is another patient's here", remedy=_ASK.format(old_field)
            )
        if {one.id for one in taken} - {one.id for one in before}:
            raise NotApplied(
                "not applied: the new visit number is another visit's here",
                remedy="merge the visits (ADT^A42) if they are one, or have the number corrected; then replay",
            )
        if not before:
            a.note(f"the visit of {old_field} was not known here")
        for one in before:
            a.put(one, _renumbered(a, one, group.identifiers(old_field), group.identifiers(new_field), owner))


def _renumbered(a: Applying, visit: Stored, old: Sequence[CX], new: Sequence[CX], owner: Stored) -> Resource:
    tokens = [(a.visit_system(cx, owner), cx.value) for cx in new]
    prior = {(a.visit_system(cx, owner), cx.value) for cx in old} - set(tokens)
    return {**visit.resource, "identifier": _renamed(visit.resource["identifier"], prior, tokens)}


def with_former_identifiers(patient: Resource, tokens: Sequence[Token]) -> Resource:
    """With those it does not hold yet, as former ones: they find the patient, and are not what it is called."""
    held = {(one.get("system"), one.get("value")) for one in patient["identifier"]}
    added = [{"use": "old", "system": s, "value": v} for s, v in tokens if (s, v) not in held]
    return {**patient, "identifier": [*patient["identifier"], *added]}
