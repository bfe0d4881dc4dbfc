"""Two admitted patients with photos, and ADT messages written field by field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from adapter.bridge import Bridge
from adapter.db.tables import adt_message
from adapter.identity import find_patient, queue, receive_messages
from adapter.records import Stored, find_by_identifier, get, update_resource
from tests.identity.conftest import MRN, VISIT
from tests.identity.test_merges import photo


def segment(name: str, **fields: str) -> str:
    """`segment("PV1", f2="O", f19="V1")`."""
    numbered = {int(key[1:]): value for key, value in fields.items()}
    return "|".join([name, *(numbered.get(n, "") for n in range(1, max(numbered) + 1))])


def mr(number: str) -> str:
    return f"{number}^^^HOSP^MR"


def pid(number: str, **fields: str) -> str:
    return segment("PID", **{"f1": "1", "f3": mr(number), "f5": "Doe^Jane", "f7": "19800102"} | fields)


def pv1(number: str, **fields: str) -> str:
    given = {"f1": "1", "f2": "I", "f3": "DERM^1^1", "f19": f"{number}^^^HOSP^VN", "f44": "20261123080000+0000"}
    return segment("PV1", **given | fields)


def mrg(**fields: str) -> str:
    return segment("MRG", **fields)


def message(event: str, control_id: str, *segments: str, at: str = "20261123100000+0000") -> bytes:
    msh = f"MSH|^~\\&|ADT|HOSP|DB|HOSP|{at}||ADT^{event}|{control_id}|P|2.5.1"
    return "".join(f"{one}\r" for one in (msh, f"EVN|{event}|{at}", *segments)).encode()


@dataclass
class World:
    """Patients 100 and 200, each with an account (A1, A2), a visit in it (V1, V2) and a photo of that visit."""

    site: Bridge
    apply_all: Callable[[], int]
    photos: dict[str, str]

    def receive(self, *messages: bytes) -> None:
        receive_messages(self.site, messages, "test")
        self.apply_all()

    def patient(self, number: str) -> dict[str, Any]:
        with self.site.db.snapshot() as tx:
            found = find_patient(tx, MRN, number)
        return found.resource if found else {}

    def by_id(self, reference: str) -> dict[str, Any]:
        with self.site.db.snapshot() as tx:
            return get(tx, *reference.split("/")).resource

    def visit(self, number: str, system: str = VISIT) -> dict[str, Any]:
        with self.site.db.snapshot() as tx:
            carriers = find_by_identifier(tx, "Encounter", system, number)
        return next(one.resource for one in carriers if one.resource["status"] != "entered-in-error")

    def photo(self, number: str) -> dict[str, Any]:
        return self.by_id(f"Media/{self.photos[number]}")

    def owner(self, number: str) -> str:
        """MRN of whose the photo is."""
        reference: str = self.photo(number)["subject"]["reference"]
        patient = self.by_id(reference)
        return next(str(one["value"]) for one in patient["identifier"] if one.get("use") != "old")

    def state(self, number: str) -> str:
        return str(self.photo(number)["meta"]["tag"][0]["code"])

    def reasons(self) -> list[str]:
        with self.site.db.snapshot() as tx:
            return [row.reason for row in queue(tx)]

    def notes(self) -> list[str]:
        with self.site.db.snapshot() as tx:
            return [one for one in tx.execute(select(adt_message.c.reason)).scalars() if one]

    def locations(self, number: str) -> list[str]:
        return [one["location"]["display"] for one in self.visit(number).get("location", ())]

    def account(self, number: str) -> str:
        return str(self.visit(number)["account"][0]["identifier"]["value"])


def admitted(site: Bridge, apply_all: Callable[[], int]) -> World:
    """The world before anything happens to it."""
    began = "20261123093000+0000"
    admissions = [
        message("A01", "s1", pid("100", f18="A1^^^HOSP^AN"), pv1("V1", f7="D1^Attending"), at=began),
        message("A01", "s2", pid("200", f18="A2^^^HOSP^AN", f5="Roe^Rick"), pv1("V2", f3="DERM^2^2"), at=began),
    ]
    made = World(site, apply_all, {})
    made.receive(*admissions)
    with site.db.transaction() as tx:
        for number, visit in (("100", "V1"), ("200", "V2")):
            owner = find_patient(tx, MRN, number)
            assert owner
            taken = photo(tx, site, owner.reference)
            _in_visit(tx, site, taken, find_by_identifier(tx, "Encounter", VISIT, visit)[0])
            made.photos[number] = taken.id
    return made


def _in_visit(tx: Connection, site: Bridge, taken: Stored, visit: Stored) -> None:
    update_resource(tx, {**taken.resource, "encounter": {"reference": visit.reference}}, at=site.now())
