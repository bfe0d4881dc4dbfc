"""The steps of merge and link events. Whatever contradicts what we know waits for a person.

Which fields pair with which: HL7 v2.9.1 section 3.6.2. Merges at the account and visit level stay within one patient.
"""

from __future__ import annotations

from collections.abc import Sequence

from adapter.access import SYSTEM
from adapter.identity.adt_applying import Applying, Token, belongs_to
from adapter.identity.adt_changes import renumber_account, with_former_identifiers
from adapter.identity.adt_patients import put_patient
from adapter.identity.authorities import NotApplied, check_authorities
from adapter.identity.matching import disagreement, owns
from adapter.identity.merges import linked_both_ways, merge_patients, unlinked_both_ways
from adapter.identity.moves import Edit, Reason, carry_out, references_to
from adapter.records import TABLES, Stored, find_where, get
from mappings.hl7v2.adt_event import PatientGroup

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
    return a.put(current_target, with_former_identifiers(current_target.resource, unknown))


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


def merge_account(a: Applying) -> None:
    """Step "merge-account": visits of account MRG-3 become visits of account PID-18, of the same patient."""
    a.drafts.write()
    for n, group in a.groups:
        renumber_account(a, group, a.patients[n])


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
