"""The steps of move and delete events: records under the wrong patient go to the right one, deleted ones to quarantine.

A move names what it moves (HL7 v2.9.1 section 3.6.2.1.3); everything under it follows, by the ledger, so that it can
be undone. What the message claims of the present owner must be what we know.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from adapter.identity.adt_applying import Applying, Token, belongs_to
from adapter.identity.adt_patients import put_patient
from adapter.identity.authorities import NotApplied, check_authorities
from adapter.identity.matching import owns, replaced_by
from adapter.identity.merges import everything_of
from adapter.identity.moves import Edit, Reason, carry_out, records_of, references_to
from adapter.records import TABLES, Stored, find_by_index, find_where
from adapter.records.extraction import token_value
from mappings.hl7v2.adt_event import PatientGroup
from mappings.wrong_patient import quarantined

_ASK = "ask the sender to correct {} and to send it again, then dismiss this message"
_LESION = "http://hl7.org/fhir/StructureDefinition/bodySite"


def move_identifier(a: Applying) -> None:
    """Step "move-identifier": the identifier of MRG-1, with all that was filed under it, is the patient's of PID."""
    for n, group in a.groups:
        check_authorities(a.bridge.settings, group.prior_identifiers, group.patient_identifiers, "MRG-1")
        moved = a.tokens(group.prior_identifiers)
        superior = (*group.patient_identifiers, *group.identifiers("PID-2"))
        target = [token for token in a.tokens(superior) if token not in moved]
        if not target:
            raise NotApplied(
                "not applied: PID names no patient but by the identifier that moves, so its new owner is not known",
                remedy=_ASK.format("PID-2 or PID-3 (the target's own identifier)"),
            )
        _check_source(a, group, moved)
        a.patients[n] = put_patient(a, group, target, without=moved)
        for token in moved:
            _move_token(a, token, a.patients[n])


def _check_source(a: Applying, group: PatientGroup, moved: Sequence[Token]) -> None:
    """MRG-4, where it is sent, names the patient who had the identifier by mistake."""
    if not group.is_valued("MRG-4"):
        return
    named = {one.id for one in a.survivors(a.tokens(group.identifiers("MRG-4")))}
    if any(owner.id not in named for token in moved for owner in a.owners(token)):
        raise NotApplied(
            "not applied: the identifier of MRG-1 is not that of the patient of MRG-4 here", remedy=_ASK.format("MRG-4")
        )


def _move_token(a: Applying, token: Token, target: Stored) -> None:
    sources = [one for one in a.owners(token) if one.id != target.id]
    a.drafts.write()
    given = _given(a.drafts.find("Patient", target.id) or target, token)
    for source in sources:
        if replaced_by(source.resource):
            raise NotApplied(
                "not applied: the patient of MRG-1 was merged into another here",
                remedy="undo that merge (dermbridge adt changes), then replay; or move by hand what is to move",
            )
        a.hold(source, target)
        kept = [one for one in source.resource["identifier"] if (one.get("system"), one.get("value")) != token]
        has_others = any(one.get("use") != "old" for one in kept)
        records = _under_identifier(a, source, token) if has_others else everything_of(a.tx, source.id)
        left = {"/identifier": kept} if kept else {"/identifier": None, "/active": False}
        _reassign(a, records, source, target, more=[Edit(source, left), *given])
        given = []
    if not sources:
        a.note("the identifier of MRG-1 was not another patient's here; it was given to the patient of PID")
        if given:
            _reassign(a, [], target, target, more=given)


def _given(target: Stored, token: Token) -> list[Edit]:
    if owns(target.resource, token):
        return []
    identifiers = [*target.resource["identifier"], {"system": token[0], "value": token[1]}]
    return [Edit(target, {"/identifier": identifiers})]


def _under_identifier(a: Applying, source: Stored, token: Token) -> list[Stored]:
    """The visits announced under the identifier, and what was filed in them. The rest cannot be told apart."""
    visits = [
        one
        for one in find_by_index(a.tx, "Encounter", "patient:identifier", token_value(token[1], token[0]))
        if belongs_to(one, source)
    ]
    media = TABLES["Media"].c
    loose = media.patient == source.id, media.encounter.is_(None), media.status != "entered-in-error|"
    if find_where(a.tx, "Media", *loose, limit=1):
        raise NotApplied(
            "not applied: the source has other identifiers and photos without a visit; which of them move is not known",
            remedy="give those photos their visit or patient by hand, then replay",
        )
    return _with_what_is_filed(a, visits)


def move_account(a: Applying) -> None:
    """Step "move-account": account MRG-3, with its visits and their photos, goes from MRG-1's patient to PID-3's."""
    a.drafts.write()
    for n, group in a.groups:
        if group.prior_account is None:
            continue
        visits = a.visits_of_account(group.prior_account)
        if not visits:
            a.note("no visit here has the account number of MRG-3")
        _move_visits(a, visits, group, a.patients[n])


def move_visit(a: Applying) -> None:
    """Step "move-visit": visit MRG-5 (or MRG-6), with its photos, goes to account PID-18 of the patient of PID-3."""
    for n, group in a.groups:
        target = a.patients[n]
        visits = a.find_visits([*group.identifiers("MRG-5"), *group.identifiers("MRG-6")], target)
        if not visits:
            a.note("the visit of MRG was not known here")
        _move_visits(a, visits, group, target)


def _find_source(a: Applying, visits: Iterable[Stored], group: PatientGroup, target: Stored) -> Stored | None:
    """From whom the visits move, as MRG-1 says and as it is here; None when all are the target's already."""
    elsewhere = [one for one in visits if not belongs_to(one, target)]
    if not elsewhere:
        return None
    if not group.prior_identifiers:
        raise NotApplied(
            "not applied: what moves is another patient's here, and MRG-1 does not name that patient",
            remedy=_ASK.format("MRG-1"),
        )
    check_authorities(a.bridge.settings, group.prior_identifiers, group.patient_identifiers, "MRG-1")
    source = a.get_patient(group.prior_identifiers, "MRG-1")
    if not all(belongs_to(one, source) for one in elsewhere):
        raise NotApplied(
            "not applied: what moves belongs to neither the patient of MRG-1 nor that of PID-3 here",
            remedy=_ASK.format("MRG-1"),
        )
    return source


def _move_visits(a: Applying, visits: Sequence[Stored], group: PatientGroup, target: Stored) -> None:
    source = _find_source(a, visits, group, target)
    system, value = a.tokens(group.patient_identifiers)[0]
    account = {"/account": [a.account(group.account)]} if group.account else {}
    for one in visits if account else ():
        if belongs_to(one, target):
            a.put(one, {**one.resource, "account": account["/account"]})
    a.drafts.write()
    if source is None:
        return
    a.hold(source, target)
    theirs = [one for one in visits if belongs_to(one, source)]
    named = {"/subject/identifier": {"system": system, "value": value}}
    extra = {one.id: account | named for one in theirs}
    _reassign(a, _with_what_is_filed(a, theirs), source, target, extra)


def _with_what_is_filed(a: Applying, visits: Sequence[Stored]) -> list[Stored]:
    filed = [
        one
        for visit in visits
        for name, table in TABLES.items()
        if "encounter" in table.c
        for one in find_where(a.tx, name, table.c.patient == _patient_id(visit), table.c.encounter == visit.id)
    ]
    return [*visits, *filed]


def _reassign(
    a: Applying,
    records: Sequence[Stored],
    source: Stored,
    target: Stored,
    extra: dict[str, dict[str, Any]] | None = None,
    more: Sequence[Edit] = (),
) -> None:
    """Everything that names the source names the target; `extra` and `more` are what else changes with it."""
    records = [*records, *_lesions_wholly_in(a, records)]
    ids = {one.reference for one in records}
    edits = [
        Edit(
            one,
            dict.fromkeys(references_to(one.resource, source.reference), target.reference)
            | _without_lesions_left(one, ids)
            | (extra or {}).get(one.id, {}),
        )
        for one in records
    ]
    _, changed = carry_out(a.tx, a.bridge, Reason("move", source.id, target.id, a.message_id), [*edits, *more])
    a.touch(source, target, *changed)
    a.to_label.add(target.id)


def _lesions_wholly_in(a: Applying, records: Sequence[Stored]) -> list[Stored]:
    """Lesions that the photos show and no photo left behind does: they move as well."""
    present = {one.reference for one in records}
    photos = [one.resource for one in records if one.resource_type == "Media"]
    named = dict.fromkeys(lesion for photo in photos for lesion in _lesions(photo) if lesion not in present)
    media = TABLES["Media"].c
    whole = [
        lesion
        for lesion in (one.removeprefix("BodyStructure/") for one in named)
        if all(photo.reference in present for photo in find_where(a.tx, "Media", media.lesion == lesion))
    ]
    return records_of(a.tx, "BodyStructure", whole)


def _lesions(photo: dict[str, Any]) -> list[str]:
    extensions = photo.get("bodySite", {}).get("extension", ())
    return [str(one["valueReference"]["reference"]) for one in extensions if one.get("url") == _LESION]


def _without_lesions_left(one: Stored, moved: set[str]) -> dict[str, Any]:
    """A photo, and what was found on it, must not name a lesion of the patient it leaves."""
    shown = one.resource_type in ("Media", "Observation")
    kept = one.resource.get("bodySite", {}).get("extension", ()) if shown else ()
    rest = [it for it in kept if it.get("url") != _LESION or it.get("valueReference", {}).get("reference") in moved]
    return {} if len(rest) == len(kept) else {"/bodySite/extension": rest or None}


def delete_visit(a: Applying) -> None:
    """Step "delete-visit": the visit is entered in error; its photos are quarantined, never deleted."""
    for n, group in a.groups:
        owner = a.patients[n] = a.get_patient(group.patient_identifiers, "PID-3")
        a.hold(owner)
        named = [cx for cx in (group.visit,) if cx]
        tokens = {(a.visit_system(cx, owner), cx.value) for cx in named}
        visits = [one for one in a.find_visits(named, owner) if _is_own(one, tokens)]
        if not all(belongs_to(one, owner) for one in visits):
            raise NotApplied("not applied: this visit is another patient's here", remedy=_ASK.format("PV1-19"))
        if not visits:
            a.note("the visit was not known here, or merged into another, which stays")
        _quarantine(a, "delete-visit", owner, _with_what_is_filed(a, visits), group)


def delete_person(a: Applying) -> None:
    """Step "delete-person": the patient is no longer active, visits are in error, photos quarantined, none deleted."""
    for n, group in a.groups:
        owner = a.patients[n] = a.get_patient(group.patient_identifiers, "PID-3")
        if not _is_own(owner, a.tokens(group.patient_identifiers)):
            a.note("this person was merged into another before, or has another number now; nobody was deleted")
            continue
        a.hold(owner)
        visits, media = TABLES["Encounter"].c, TABLES["Media"].c
        records = find_where(a.tx, "Encounter", visits.patient == owner.id)
        _quarantine(a, "delete-person", owner, [*records, *find_where(a.tx, "Media", media.patient == owner.id)], group)


def _is_own(record: Stored, tokens: Iterable[Token]) -> bool:
    """False for who or what is only found by a former number: whoever deletes that does not mean this record."""
    return any(owns(record.resource, token) for token in tokens)


def _quarantine(a: Applying, kind: str, owner: Stored, records: Sequence[Stored], group: PatientGroup) -> None:
    """A quarantined photo names its patient by identifier only, so that no chart shows it until a person settles it."""
    system, value = a.tokens(group.patient_identifiers)[0]
    subject = {"/subject/reference": None, "/subject/identifier": {"system": system, "value": value}}
    doubt = "visit-deleted" if kind == "delete-visit" else "person-deleted"
    photos = [one for one in records if one.resource_type == "Media" and one.resource["status"] != "entered-in-error"]
    doubted = [(one, quarantined(one.resource, doubt)) for one in photos]
    edits = [
        Edit(one, {"/meta/tag": doubtful["meta"]["tag"], "/extension": doubtful["extension"], **subject})
        for one, doubtful in doubted
    ]
    edits += [Edit(one, {"/status": "entered-in-error"}) for one in records if one.resource_type == "Encounter"]
    if kind == "delete-person":
        edits.append(Edit(owner, {"/active": False}))
    if photos:
        a.note(f"{len(photos)} photos are in quarantine until a person settles them")
    a.drafts.write()
    _, changed = carry_out(a.tx, a.bridge, Reason(kind, owner.id, None, a.message_id), edits)
    a.touch(owner, *changed)


def _patient_id(record: Stored) -> str:
    reference: str = record.resource["subject"]["reference"]
    return reference.removeprefix("Patient/")
