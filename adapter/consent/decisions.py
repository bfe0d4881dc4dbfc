"""May a photograph be used for this now? Reads the patient's Consents; the rules are mappings.consent_decision."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam

from adapter import governance
from adapter.access import Actor
from adapter.bridge import Bridge
from adapter.records import TABLES, Resource, Stored, find_all, find_selected, selection
from adapter.records.confinement import patient_of, same_patients_each
from mappings.consent_decision import TREATMENT, ConsentDecision
from mappings.consent_decision import decide as decide_by_rules
from mappings.consent_provision import PhotoFacts
from mappings.fhir_time import span

MAJORITY_YEARS = 18
_CONSENTS_OF = selection("Consent", TABLES["Consent"].c.patient.in_(bindparam("of", expanding=True)))


def decide(
    tx: Connection,
    bridge: Bridge,
    patient_id: str | None,
    *,
    use: str = TREATMENT,
    media: Stored | None = None,
    requester: frozenset[str] = frozenset(),
) -> ConsentDecision:
    """Decide one use (a code of photo-use) of a patient's photographs, or of `media` alone, at this moment.

    Consents of every id merged with the patient count. Nobody's photograph (`patient_id` None) has no consent.
    `requester` are references of the person and organisations that ask. Raises ValueError for an unknown use.
    """
    return decide_each(tx, bridge, [(patient_id, media)], use=use, requester=requester)[0]


def decide_each(
    tx: Connection,
    bridge: Bridge,
    asked: Sequence[tuple[str | None, Stored | None]],
    *,
    use: str = TREATMENT,
    requester: frozenset[str] = frozenset(),
) -> list[ConsentDecision]:
    """`decide` for pairs of patient and photo, in three statements for all of them."""
    named = {patient_id for patient_id, _ in asked if patient_id}
    same = same_patients_each(tx, named)
    everyone = frozenset[str]().union(*same.values())
    consents = [row.resource for row in find_selected(tx, "Consent", _CONSENTS_OF, of=list(everyone))] if named else []
    persons = find_all(tx, "Patient", named)
    decisions = []
    for patient_id, media in asked:
        ids = same[patient_id] if patient_id else frozenset[str]()
        person = persons.get(patient_id) if patient_id else None
        decisions.append(
            decide_by_rules(
                [one for one in consents if patient_of(one) in ids],
                use=use,
                at=bridge.now().astimezone(bridge.settings.zone),
                mode=bridge.settings.consent_mode,
                facts=_facts(bridge, person, ids, media.resource if media else {}),
                requester=requester,
            )
        )
    return decisions


def decide_and_audit(
    tx: Connection,
    bridge: Bridge,
    actor: Actor,
    patient_id: str | None,
    *,
    use: str,
    media: Stored | None = None,
    requester: frozenset[str] = frozenset(),
) -> ConsentDecision:
    """`decide` for a disclosure: permit or deny, the decision goes into the audit log with the Consents behind it."""
    decision = decide(tx, bridge, patient_id, use=use, media=media, requester=requester)
    governance.audit(
        tx,
        bridge,
        "consent-decision",
        actor,
        patient_id=patient_id,
        references=[f"Consent/{consent_id}" for consent_id in decision.consent_ids],
        outcome="0" if decision.permit else "8",
        detail=None if decision.permit else decision.because,
    )
    return decision


def _facts(bridge: Bridge, person: Stored | None, patient_ids: frozenset[str], media: Resource) -> PhotoFacts:
    taken = media.get("createdDateTime")
    encounter = media.get("encounter", {}).get("reference")
    birth = person.resource.get("birthDate") if person else None
    return PhotoFacts(
        patients=frozenset(f"Patient/{one}" for one in patient_ids),
        photo=f"Media/{media['id']}" if media else None,
        taken_at=span(taken, bridge.settings.zone)[0] if taken else None,
        labels=tuple(media.get("meta", {}).get("security", ())),
        related=frozenset({encounter} if encounter else ()),
        majority_at=span(_majority(birth), bridge.settings.zone)[0] if birth else None,
    )


def _majority(birth_date: str) -> str:
    """The birthday of age; who was born on 29 February comes of age on 1 March of a common year."""
    year, rest = int(birth_date[:4]) + MAJORITY_YEARS, birth_date[4:]
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return f"{year:04}{'-03-01' if rest == '-02-29' and not leap else rest}"
