"""What the steps of one ADT message work with, and how they find patients, accounts and visits by their identifiers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection

from adapter.bridge import Bridge
from adapter.identity.authorities import NotApplied, default_system, patient_tokens
from adapter.identity.matching import owns, replaced_by
from adapter.records import Resource, Stored, find_by_index, new_id
from adapter.records.drafts import Drafts
from adapter.records.extraction import token_value
from mappings.hl7v2.adt_event import AdtEvent, PatientGroup
from mappings.hl7v2.datatypes import CX, identifier_type
from mappings.terms import CANON

Token = tuple[str, str]
"""(system, value) of an identifier."""
Tokens = Sequence[Token]
_LONGEST_CHAIN = 100
_CLOCKS_DIFFER = timedelta(days=1)
"""Less than this may be a zone that was not told."""


@dataclass
class Applying:
    """One message on its way into effect. `patients` are those of its groups, once they are found or made."""

    tx: Connection
    bridge: Bridge
    drafts: Drafts
    event: AdtEvent
    message_id: str
    received_at: datetime
    patients: dict[int, Stored] = field(default_factory=dict)
    touched: dict[str, Stored] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    to_label: set[str] = field(default_factory=set)  # ids of patients with another birth date, or photos, than before

    @property
    def groups(self) -> Iterable[tuple[int, PatientGroup]]:
        return enumerate(self.event.groups)

    def said_at(self, sent: datetime | None) -> datetime | None:
        """When the sender said it, to hold later messages against: by its clock, unless that is far ahead of ours.

        One message of the year 2062 would make every later one look old.
        """
        return self.received_at if sent and sent > self.received_at + _CLOCKS_DIFFER else sent

    def note(self, text: str) -> None:
        """What was done otherwise than the sender may expect."""
        self.notes[text] = None

    def touch(self, *records: Stored) -> None:
        """What the AuditEvent must name."""
        self.touched |= {one.reference: one for one in records}

    def hold(self, *patients: Stored) -> None:
        """Keep others from filing anything with these patients until this transaction ends."""
        self.bridge.db.lock(self.tx, *(f"patient:{one.id}" for one in patients))

    def patients_touched(self) -> list[Stored]:
        """As they are now: those of the message, and those that lost something by it."""
        mine = [*self.patients.values(), *(one for one in self.touched.values() if one.resource_type == "Patient")]
        found = (self.drafts.find("Patient", patient_id) for patient_id in dict.fromkeys(one.id for one in mine))
        return [one for one in found if one]

    def touched_of(self, patient: Stored) -> list[Stored]:
        """The patient and what of the touched is the patient's."""
        return [patient, *(one for one in self.touched.values() if belongs_to(one, patient))]

    def put(self, before: Stored | None, resource: Resource) -> Stored:
        """Draft the next version, or the first, unless nothing changes."""
        at = self.bridge.now()
        if before and before.resource == resource:
            stored = before
        else:
            stored = self.drafts.put(before, resource if before else {**resource, "id": new_id(at)}, at=at)
        self.touch(stored)
        return stored

    def tokens(self, identifiers: Iterable[CX]) -> list[Token]:
        """Raises NotApplied when none of their authorities is known."""
        return patient_tokens(self.bridge.settings, identifiers)

    # --- patients -------------------------------------------------------------------------------------------------

    def survivor(self, patient: Stored) -> Stored | None:
        """The patient, or whoever it was merged into."""
        found: Stored | None = patient
        for _ in range(_LONGEST_CHAIN):
            following = replaced_by(found.resource) if found else None
            if following is None:
                return found
            found = self.drafts.find("Patient", following)
        return None

    def survivors(self, tokens: Iterable[Token]) -> list[Stored]:
        """Every distinct patient, after merges, that carries one of the identifiers; its owner before a former one."""
        found: dict[str, Stored] = {}
        for token in tokens:
            carriers = self.drafts.find_by_identifier("Patient", *token)
            own = [one for one in carriers if owns(one.resource, token)]
            for holder in own or carriers:
                if patient := self.survivor(holder):
                    found[patient.id] = patient
        return list(found.values())

    def owners(self, token: Token) -> list[Stored]:
        """Patients whose own identifier this is: not those that carry it because of a merge or a change."""
        return [one for one in self.drafts.find_by_identifier("Patient", *token) if owns(one.resource, token)]

    def get_patient(self, identifiers: Iterable[CX], where: str) -> Stored:
        """The one patient of these identifiers. Raises NotApplied when there is none, or more than one."""
        found = self.survivors(self.tokens(identifiers))
        if len(found) != 1:
            how_many = "no patient" if not found else f"{len(found)} different patients"
            raise NotApplied(
                f"not applied: {where} names {how_many} here",
                remedy=f"send the patients first, or ask the sender to correct {where}; then replay",
            )
        return found[0]

    # --- visits and accounts --------------------------------------------------------------------------------------

    def visit_system(self, visit: CX, patient: Stored) -> str:
        """As mapped; else a system of our own that keeps the visit numbers of every authority apart.

        A visit number only ever finds visits of the same patient, so an unknown authority is no reason to wait.
        """
        settings = self.bridge.settings
        systems = settings.identifier_systems | settings.visit_systems
        if visit.authority.name:
            return visit.find_system(systems) or f"{CANON}/NamingSystem/visit/{quote(visit.authority.name, safe='')}"
        own = next((one["system"] for one in patient.resource["identifier"] if "system" in one), "")
        return (
            visit.find_system(systems)
            or settings.visit_systems.get(settings.default_authority or "")
            or f"{default_system(settings) or own}#visit"
        )

    def find_visits(self, visits: Iterable[CX], patient: Stored) -> list[Stored]:
        """The visits of these numbers, whoever's they are; the one that owns a number before one that was merged."""
        found: dict[str, Stored] = {}
        for visit in visits:
            token = (self.visit_system(visit, patient), visit.value)
            carriers = self.drafts.find_by_identifier("Encounter", *token)
            own = [one for one in carriers if owns(one.resource, token)]
            standing = [one for one in carriers if one.resource["status"] != "entered-in-error"]
            found |= {one.id: one for one in own or standing}
        return list(found.values())

    def account(self, cx: CX) -> Resource:
        """Encounter.account: an account is only ever a number here, so the reference is its identifier."""
        name = cx.authority.name or self.bridge.settings.default_authority or "default"
        system = cx.authority.find_system({}) or f"{CANON}/NamingSystem/account/{quote(name, safe='')}"
        return {"identifier": {"type": identifier_type("AN"), "system": system, "value": cx.value}}

    def visits_of_account(self, cx: CX) -> list[Stored]:
        """Visits that carry the account number, whoever's they are. Reads the database: `write` the drafts before."""
        wanted = self.account(cx)["identifier"]
        return find_by_index(self.tx, "Encounter", "account:identifier", token_value(wanted["value"], wanted["system"]))


def belongs_to(record: Stored, patient: Stored) -> bool:
    subject: dict[str, Any] = record.resource.get("subject", {})
    return subject.get("reference") == patient.reference
