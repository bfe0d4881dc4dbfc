"""The steps of merge, link and change-identifier events. Whatever contradicts what we know waits for a person.

Which fields pair with which: HL7 v2.9.1 section 3.6.2. Merges at the account and visit level stay within one patient.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from adapter.access import SYSTEM
from adapter.identity.adt_applying import Applying, Token, belongs_to
from adapter.identity.adt_patients import put_patient
from adapter.identity.authorities import NotApplied, check_authorities
from adapter.identity.matching import disagreement, owns
from adapter.identity.merges import linked_both_ways, merge_patients, unlinked_both_ways
from adapter.identity.moves import Edit, Reason, carry_out, references_to
from adapter.records import TABLES, Resource, Stored, find_where, get
from mappings.hl7v2.adt_event import PatientGroup
from mappings.hl7v2.datatypes import CX
from mappings.hl7v2.header import ADT_EVENTS

_BY_HAND = "merge by hand once it is certain, then dismiss the message"
_ASK = "ask the sender to correct {} and to send it again, then dismiss this message"


def merge_patient(a: Applying) -> None:
    """Step "merge-patient": everything of MRG-1 becomes PID-3's."""
    for n, group in a.groups:
        a.patients[n] = _merge_group(a, group)


def _merge_group(a: Applying, group: PatientGroup) -> Stored:
    _check_certain(group)
    _check_pairs(a, group)
    prior, current = a.tokens(group.prior_identifiers), a.tokens(group.patient_identifiers)
    surviving = [token for token in current if token not in prior]
    if not surviving:
        raise NotApplied(
            "not applied: source and target of the merge carry the same identifier",
            remedy=_ASK.format("PID-3 or MRG-1"),
        )
    target = put_patient(a, group, surviving, without=prior)
    unknown = []
    for token in prior:
        if owns(target.resource, token):
            _check_not_reversed(target, surviving)
        sources = [found for found in a.owners(token) if found.id != target.id]
        if not sources:
            _check_nobody_elses(a, token, target)
            unknown.append(token)
        a.drafts.write()
        for source in sources:
            _check_prior_name(source, group)
            merge_patients(a.tx, a.bridge, SYSTEM, source.id, target.id, message_id=a.message_id)
    current_target = get(a.tx, "Patient", target.id)  # merging has changed it
    if unknown:
        a.note("MRG-1 was no patient of its own here; its identifier leads to the target now")
    return a.put(current_target, _with_old_identifiers(current_target.resource, unknown))


def _check_certain(group: PatientGroup) -> None:
    if group.has_uncertain_identity:
        raise NotApplied(
            "not applied: the sender is not certain of this identity (PID-31, PID-32)",
            remedy=_BY_HAND.replace("it is", "the identity is"),
        )


def _check_pairs(a: Applying, group: PatientGroup) -> None:
    """MRG-1 must say whose numbers it means, and merge like with like: one authority and, where told, one type."""
    check_authorities(a.bridge.settings, group.prior_identifiers, group.patient_identifiers, "MRG-1")
    both = (*group.prior_identifiers, *group.patient_identifiers)
    if not all(cx.authority.name and cx.type_code for cx in both):
        return
    kinds = {(cx.authority, cx.type_code) for cx in group.patient_identifiers}
    if not all((cx.authority, cx.type_code) in kinds for cx in group.prior_identifiers):
        raise NotApplied(
            "not applied: PID-3 has no identifier of the authority and type (CX.4, CX.5) of MRG-1 to merge into",
            remedy=_ASK.format("PID-3 or MRG-1"),
        )


def _check_not_reversed(target: Stored, surviving: Sequence[Token]) -> None:
    if not any(owns(target.resource, token) for token in surviving):
        raise NotApplied(
            "not applied: PID-3 is a former number of the patient of MRG-1 here, by a merge or a change of numbers",
            remedy="undo that merge (dermbridge adt changes) or change the number back (ADT^A47), then replay",
        )


def _check_nobody_elses(a: Applying, token: Token, target: Stored) -> None:
    """A former number still finds a patient; whether that is who the sender merges, nobody may guess."""
    if any(found.id != target.id for found in a.survivors([token])):
        raise NotApplied(
            "not applied: MRG-1 is a former number of another patient here, by a merge or a change of numbers",
            remedy=f"compare both charts; {_BY_HAND}",
        )


def _check_prior_name(source: Stored, group: PatientGroup) -> None:
    family = group.mrg.text(7) if group.mrg else ""
    if family and source.resource.get("name") and disagreement(source.resource, {"family": family}):
        raise NotApplied(
            "not applied: MRG-7 names somebody else than the patient known here under MRG-1",
            remedy=f"compare both charts; {_BY_HAND}",
        )


def _with_old_identifiers(patient: Resource, tokens: Sequence[Token]) -> Resource:
    held = {(one.get("system"), one.get("value")) for one in patient["identifier"]}
    added = [{"use": "old", "system": s, "value": v} for s, v in tokens if (s, v) not in held]
    return {**patient, "identifier": [*patient["identifier"], *added]}


def merge_account(a: Applying) -> None:
    """Step "merge-account": visits of account MRG-3 become visits of account PID-18, of the same patient."""
    a.drafts.write()
    for n, group in a.groups:
        _renumber_account(a, group, a.patients[n])


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
            _renumber_account(a, group, a.patients[n])


def _renumber_account(a: Applying, group: PatientGroup, owner: Stored) -> None:
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


def merge_visit(a: Applying) -> None:
    """Step "merge-visit": what was filed under visit MRG-5 belongs to visit PV1-19; MRG-5 leads there from now on."""
    for n, group in a.groups:
        source, target = _visit_pair(a, group, a.patients[n])
        if source is None:
            a.note("the visit of MRG-5 was not known here")
        elif target and source.id != target.id:
            _merge_visits(a, source, target, a.patients[n])


def _visit_pair(a: Applying, group: PatientGroup, owner: Stored) -> tuple[Stored | None, Stored | None]:
    """(visit of MRG-5, visit of PV1-19), both of this patient."""
    found: list[Stored | None] = []
    for field in ("MRG-5", "PV1-19"):
        one = next(iter(a.find_visits(group.identifiers(field), owner)), None)
        if one and not belongs_to(one, owner):
            raise NotApplied(
                f"not applied: the visit of {field} is another patient's here",
                remedy="move the visit (ADT^A45) or merge the patients (ADT^A40) first, then replay",
            )
        found.append(one)
    return found[0], found[1]


def _merge_visits(a: Applying, source: Stored, target: Stored, owner: Stored) -> None:
    a.drafts.write()
    filed = [
        one
        for name, table in TABLES.items()
        if "encounter" in table.c
        for one in find_where(a.tx, name, table.c.patient == owner.id, table.c.encounter == source.id)
    ]
    former = [{**one, "use": "old"} for one in source.resource["identifier"]]
    edits = [Edit(one, dict.fromkeys(references_to(one.resource, source.reference), target.reference)) for one in filed]
    edits.append(Edit(source, {"/status": "entered-in-error", "/identifier": former}))
    edits.append(Edit(target, {"/identifier": [*target.resource["identifier"], *former]}))
    _, changed = carry_out(a.tx, a.bridge, Reason("merge-visit", owner.id, owner.id, a.message_id), edits)
    a.touch(*changed)


def link(a: Applying) -> None:
    """Step "link": two records of what may be one person stay distinct, and know of each other."""
    a.drafts.write()
    a.touch(*linked_both_ways(a.tx, a.bridge, *_two(a, [get(a.tx, "Patient", one.id) for one in a.patients.values()])))


def unlink(a: Applying) -> None:
    """Step "unlink": what `link` made is taken away."""
    first, second = _two(a, [a.get_patient(group.patient_identifiers, "PID-3") for _, group in a.groups])
    changed = unlinked_both_ways(a.tx, a.bridge, first, second)
    a.touch(first, second, *changed)
    if not changed:
        a.note("these patients were not linked here")


def _two(a: Applying, patients: Sequence[Stored]) -> tuple[Stored, Stored]:
    if len(patients) != 2 or patients[0].id == patients[1].id:
        raise NotApplied(
            f"not applied: {a.event.trigger_event} must name two patients that are distinct here",
            remedy=_ASK.format("its PID segments"),
        )
    return patients[0], patients[1]


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
    return a.put(changed, _with_old_identifiers(changed.resource, prior))


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
