"""A photo whose patient is in doubt, and one that was filed under the wrong patient, as R4 Media.

Media keeps its id wherever it moves, so that links, deliveries and captures go on meaning the same photo. What stays
under the former patient is a stub of its own: `entered-in-error`, without content, saying when and why. It names no
other patient; Provenance leads from it to the version that was there, for those who may follow.
"""

from __future__ import annotations

import copy
from datetime import datetime
from typing import Final

from mappings.canonical_resources import codes_of
from mappings.capture_to_media import IdentityState, assign, bind_media, with_identity_state
from mappings.fhir_time import fhir_instant
from mappings.terms import CANON, DATA_ABSENT, IDENTITY_STATE, Json, concept, extension

IDENTITY_DOUBT: Final = f"{CANON}/CodeSystem/identity-doubt"
DOUBT: Final = f"{CANON}/StructureDefinition/identity-doubt"
STATUS_REASON: Final = "http://hl7.org/fhir/StructureDefinition/event-statusReason"  # R4, context includes Media
WRONG_PATIENT: Final = "Filed under the wrong patient"

_LEFT_BEHIND: Final = ("type", "modality", "createdDateTime", "_createdDateTime")


def quarantined(media: Json, doubt: str) -> Json:
    """The Media in doubt (a code of identity-doubt); its subject stays as the claim it is. ValueError: no such code."""
    changed = with_identity_state(certain(media), "quarantined")
    concept_of_doubt = concept(IDENTITY_DOUBT, doubt, text=_words(doubt))
    changed["extension"] = [*changed.get("extension", []), extension(DOUBT, valueCodeableConcept=concept_of_doubt)]
    return changed


def certain(media: Json) -> Json:
    """The Media without its doubt; its identity state stays."""
    changed = copy.deepcopy(media)
    others = [one for one in changed.pop("extension", []) if one.get("url") != DOUBT]
    return changed | ({"extension": others} if others else {})


def doubt_of(media: Json) -> str | None:
    """The code of the doubt that put the Media into quarantine."""
    for one in media.get("extension", []):
        if one.get("url") == DOUBT:
            return str(one["valueCodeableConcept"]["coding"][0]["code"])
    return None


def state_of(media: Json) -> IdentityState | None:
    """The identity state; None for a stub, which has none."""
    for tag in media.get("meta", {}).get("tag", []):
        if tag.get("system") == IDENTITY_STATE:
            state: IdentityState = tag["code"]
            return state
    return None


def refiled(media: Json, patient: str, *, encounter: str | None) -> Json:
    """The Media under the right patient (`Patient/id`) and visit. A lesion of another patient does not come along."""
    moved = media.get("subject", {}).get("reference") != patient
    bound = bind_media(certain(media), patient, encounter=encounter)
    return assign(bound, lesion=None) if moved else bound


def unfiled(media: Json) -> Json:
    """The Media of nobody: in quarantine until somebody knows whose it is."""
    nobody = {name: value for name, value in media.items() if name != "subject"}
    return quarantined(assign(nobody, encounter=None, lesion=None), "reported")


def stub_of(media: Json, *, stub_id: str, issued_at: datetime) -> Json:
    """What stays under the former patient: entered in error, and no picture."""
    return {
        "resourceType": "Media",
        "id": stub_id,
        "meta": {"security": media.get("meta", {}).get("security", [])},
        "extension": [extension(STATUS_REASON, valueCodeableConcept={"text": WRONG_PATIENT})],
        "status": "entered-in-error",
        **{name: media[name] for name in _LEFT_BEHIND if name in media},
        "subject": media["subject"],
        "issued": fhir_instant(issued_at),
        "content": {"extension": [extension(DATA_ABSENT, valueCode="masked")]},
    }


def _words(doubt: str) -> str:
    codes = codes_of("identity-doubt")
    if doubt not in codes:
        raise ValueError(f"Doubt {doubt[:20]!r} is unknown: use one of {', '.join(codes)}.")
    return codes[doubt]
