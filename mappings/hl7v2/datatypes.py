"""HL7 v2 data types (chapter 2A) as small values and FHIR R4 fragments.

Every function takes one repetition of a field and gives a FHIR fragment as a dict, {} when nothing usable is in it.
Source: HL7/v2-to-fhir data type maps, e.g. `CX[Identifier]`, `XPN[HumanName]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any, TypeAlias

from mappings.hl7v2.dtm import DTM
from mappings.hl7v2.er7 import Repetition
from mappings.hl7v2.tables import load_table
from mappings.terms import IDENTIFIER_TYPE

Fragment: TypeAlias = dict[str, Any]
Systems: TypeAlias = Mapping[str, str] | Callable[[str], str | None]
"""Assigning authority (namespace, universal id, or type code when no authority is given) -> identifier system URI."""

CODES: dict[str, Any] = load_table("hl7v2_codes")
_TYPE_CODE = re.compile(r"[A-Z][A-Z0-9]{0,7}")
_OID = re.compile(r"[0-2](\.(0|[1-9]\d*))+")
_HUMANNAME = "http://hl7.org/fhir/StructureDefinition/humanname"
_SURNAME_PARTS = ("own-prefix", "own-name", "partner-prefix", "partner-name")
_NOT_RESIDENCES = ("BDL", "N", "F")
_UNIVERSAL = {"ISO": "urn:oid:", "UUID": "urn:uuid:", "GUID": "urn:uuid:", "URI": "", "URL": ""}


@dataclass(frozen=True, slots=True)
class HD:
    """Hierarchic designator: who assigned something."""

    namespace_id: str = ""
    universal_id: str = ""
    universal_id_type: str = ""

    @property
    def name(self) -> str:
        """What the authority is called in keys and maps: the namespace, else the universal id."""
        return self.namespace_id or self.universal_id

    def find_system(self, systems: Systems) -> str | None:
        """The identifier system: as mapped by either name, else the universal id as a URI."""
        look_up = systems.get if isinstance(systems, Mapping) else systems
        for name in (self.namespace_id, self.universal_id):
            if name and (system := look_up(name)):
                return system
        if _OID.fullmatch(self.universal_id) and self.universal_id_type in ("ISO", ""):
            return f"urn:oid:{self.universal_id}"
        prefix = _UNIVERSAL.get(self.universal_id_type)
        valid = prefix is not None and prefix != "urn:oid:" and self.universal_id
        return f"{prefix}{self.universal_id}" if valid else None


def hd(repetition: Repetition, component: int = 1) -> HD:
    """HD held in the subcomponents of one component."""
    return HD(*(repetition.text(component, subcomponent) for subcomponent in (1, 2, 3)))


@dataclass(frozen=True, slots=True)
class CX:
    """Identifier with its assigning authority and type (table 0203)."""

    value: str
    authority: HD = HD()
    type_code: str = ""
    effective: DTM | None = None
    expires: DTM | None = None

    @classmethod
    def find(cls, repetition: Repetition) -> CX | None:
        """None when there is no id number (CX.1 absent or null)."""
        if not (value := repetition.text(1)):
            return None
        effective, expires = DTM.find(repetition.text(7)), DTM.find(repetition.text(8))
        return cls(value, hd(repetition, 4), repetition.text(5), effective, expires)

    @property
    def key(self) -> str:
        """`authority|value`, as `er7.patient_keys` writes it."""
        return f"{self.authority.name}|{self.value}"

    def find_system(self, systems: Systems, default_system: str | None = None) -> str | None:
        """System URI; without any authority the type code is looked up (Epic sends `Z^^^^EPI`), then the default."""
        if self.authority.name:
            return self.authority.find_system(systems)
        return (HD(self.type_code).find_system(systems) if self.type_code else None) or default_system

    def identifier(self, systems: Systems, default_system: str | None = None) -> Fragment:
        """FHIR Identifier; an authority that maps to no system is named in `assigner.display`."""
        system = self.find_system(systems, default_system)
        return _without_empty(
            {
                "type": identifier_type(self.type_code),
                "system": system or "",
                "value": self.value,
                "period": period(self.effective, self.expires),
                "assigner": {} if system or not self.authority.name else {"display": self.authority.name},
            }
        )


def identifier_type(code: str) -> Fragment:
    """CodeableConcept of table 0203, text only when it does not look like a code of it."""
    if _TYPE_CODE.fullmatch(code):
        return {"coding": [{"system": IDENTIFIER_TYPE, "code": code}]}
    return {"text": code} if code else {}


def human_name(name: Repetition) -> Fragment:
    """XPN -> HumanName. Several given names in XPN.3 stay one entry, as sent.

    FN.2 to FN.5, own and partner's surname with their prefixes, are the R4 humanname extensions of the family name.
    """
    parts = [(url, name.text(1, n)) for n, url in enumerate(_SURNAME_PARTS, 2) if name.text(1, n)]
    suffixes = (name.text(4), name.text(6), name.text(14))
    fragment = {
        "use": CODES["name_use"].get(name.text(7), ""),
        "family": name.text(1) or " ".join(text for _, text in parts),
        "_family": {"extension": [{"url": f"{_HUMANNAME}-{url}", "valueString": text} for url, text in parts]}
        if parts
        else {},
        "given": [given for given in (name.text(2), name.text(3)) if given],
        "prefix": [prefix for prefix in (name.text(5),) if prefix],
        "suffix": [suffix for suffix in suffixes if suffix],
        "period": period(DTM.find(name.text(12)), DTM.find(name.text(13))),
    }
    return _without_empty(fragment) if fragment["family"] or fragment["given"] else {}


def address(place: Repetition) -> Fragment:
    """XAD -> Address. XAD.1 may be a street (SAD): street address, street name, dwelling number.

    Places of birth and origin (table 0190: BDL, N, F) give {}: FHIR would read them as where the patient lives.
    """
    kind = place.text(7)
    if kind in _NOT_RESIDENCES:
        return {}
    street = place.text(1) or " ".join(part for part in (place.text(1, 2), place.text(1, 3)) if part)
    fragment = {
        "use": CODES["address_use"].get(kind, ""),
        "type": CODES["address_type"].get(kind, ""),
        "line": [line for line in (street, place.text(2), place.text(19)) if line],
        "city": place.text(3),
        "district": place.text(9),
        "state": place.text(4),
        "postalCode": place.text(5),
        "country": place.text(6),
    }
    if not any(value for name, value in fragment.items() if name not in ("use", "type")):
        return {}
    validity = period(DTM.find(place.text(13)), DTM.find(place.text(14)))
    return _without_empty({**fragment, "period": validity})


def contact_point(telecom: Repetition, default_use: str = "") -> Fragment:
    """XTN -> ContactPoint: email from XTN.4, else the unformatted number XTN.12, XTN.1, or the parts XTN.5 to 7."""
    equipment = telecom.text(3)
    system = CODES["telecom_system"].get(equipment) or ("email" if telecom.text(4) and not equipment else "phone")
    parts = " ".join(part for part in (telecom.text(5), telecom.text(6), telecom.text(7)) if part)
    number = telecom.text(12) or telecom.text(1) or parts
    value = (telecom.text(4) or telecom.text(1)) if system == "email" else number
    if not value:
        return {}
    use = CODES["telecom_use"].get(telecom.text(2)) or ("mobile" if equipment == "CP" else "")
    return _without_empty(
        {
            "system": system,
            "value": value,
            "use": use or ("" if telecom.text(2) else default_use),
            "rank": int(telecom.text(18)) if telecom.text(18).isdecimal() and int(telecom.text(18)) > 0 else 0,
            "period": period(DTM.find(telecom.text(13)), DTM.find(telecom.text(14))),
        }
    )


def codeable_concept(coded: Repetition) -> Fragment:
    """CWE/CE -> CodeableConcept, with the systems of table 0396 that have a canonical URI."""
    codings = []
    for code, display, system in ((1, 2, 3), (4, 5, 6)):
        coding = {
            "system": _coding_system(coded.text(system)),
            "code": coded.text(code),
            "display": coded.text(display),
        }
        if coding["code"]:
            codings.append(_without_empty(coding))
    text = coded.text(9) or coded.text(2) or coded.text(5)
    return _without_empty({"coding": codings, "text": text})


def _coding_system(name: str) -> str:
    if re.fullmatch(r"HL7\d{4}", name):
        return f"http://terminology.hl7.org/CodeSystem/v2-{name[3:]}"
    return str(CODES["coding_system"].get(name, ""))


def practitioner(person: Repetition, systems: Systems) -> Fragment:
    """XCN -> logical Reference(Practitioner): identifier and display, no resource of ours."""
    names = (person.text(6), person.text(3), person.text(4), person.text(2), person.text(5), person.text(7))
    doctor = CX(person.text(1), hd(person, 9), person.text(13))
    return _without_empty(
        {
            "identifier": doctor.identifier(systems) if doctor.value else {},
            "display": " ".join(name for name in names if name),
        }
    )


def location(place: Repetition) -> Fragment:
    """PL -> Reference(Location) by display: point of care, room, bed, facility, building, floor."""
    named = [place.text(component) for component in (1, 2, 3, 4, 7, 8)]
    display = ", ".join(name for name in named if name) or place.text(9)
    return {"display": display} if display else {}


def period(start: DTM | None, end: DTM | None, default_offset: tzinfo | None = None) -> Fragment:
    """FHIR Period. An end before the start is left out: Period invariant per-1 forbids it."""
    fragment = {
        "start": start.fhir_datetime(default_offset) if start else "",
        "end": end.fhir_datetime(default_offset) if end else "",
    }
    if fragment["start"] and fragment["end"] and fragment["end"][:10] < fragment["start"][:10]:
        fragment["end"] = ""
    return _without_empty(fragment)


def _without_empty(fragment: Fragment) -> Fragment:
    return {name: value for name, value in fragment.items() if value}
