"""The ADT feed: each event changes the EHR's own records and is told to DermBridge over MLLP (HL7 v2.5.1 ch. 3)."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from adapter.errors import Conflict, NotFound, Unavailable
from adapter.identity.mllp_client import send
from adapter.records import Resource, Stored, create, find_by_identifier, find_where, get, new_id, update_resource
from adapter.records.extraction import token_value
from adapter.records.search_parameters import TABLES
from adapter.sandbox.ehr import AUTHORITY, MRN_SYSTEM, VISIT_SYSTEM, SandboxEhr, new_encounter, new_patient
from mappings.hl7v2.escapes import Escapes
from mappings.hl7v2.header import ADT_EVENTS, Separators

SEX = {"female": "F", "male": "M", "other": "O", "unknown": "U"}
GENDER = {code: gender for gender, code in SEX.items()}
_MOVED_BY_MERGE = ("Encounter", "Media", "DocumentReference", "Consent")
_encode = Escapes(Separators().letters, lambda content: content.decode()).encode


class Feed:
    """Messages to DermBridge in order: one that could not be sent is sent before the next."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._waiting: list[bytes] = []
        self._lock = threading.Lock()

    def tell(self, message: bytes) -> list[bytes]:
        """The answers to all that was waiting. Raises Unavailable; the message then waits for the next call.

        What was sent without an answer is sent again, which receivers know by its MSH-10.
        """
        with self._lock:
            self._waiting.append(message)
            answers = send(*self._address, list(self._waiting), timeout_seconds=5)
            self._waiting.clear()
            return answers


# --- events ---------------------------------------------------------------------------------------------------------


def register(ehr: SandboxEhr, feed: Feed, person: Mapping[str, str], *, visit_at: datetime | None = None) -> Stored:
    """A new patient (family, given, birth_date, sex) with an open visit since `visit_at` (now): ADT^A04."""
    at = ehr.bridge.now()
    patient_id = new_id()
    mrn = f"S{patient_id[-8:].upper()}"
    patient = new_patient(
        patient_id,
        mrn,
        family=person["family"],
        given=person["given"],
        birth_date=person["birth_date"],
        gender=GENDER.get(person["sex"], "unknown"),
    )
    with ehr.bridge.db.transaction() as tx:
        stored = create(tx, patient, at=at)
        visit = _open_visit(tx, patient_id, visit_at or at)
    tell(ehr, feed, "A04", stored.resource, visit)
    return stored


def update(
    ehr: SandboxEhr, feed: Feed, patient_id: str, *, family: str, given: str, birth_date: str, sex: str
) -> Stored:
    """New demographics: ADT^A08."""
    with ehr.bridge.db.transaction() as tx:
        patient = get(tx, "Patient", patient_id).resource
        patient["name"] = [{"use": "official", "family": family, "given": given.split()}]
        patient |= {"birthDate": birth_date, "gender": GENDER.get(sex, "unknown")}
        stored = update_resource(tx, patient, at=ehr.bridge.now())
        visit = find_visit(tx, patient_id)
    tell(ehr, feed, "A08", stored.resource, visit)
    return stored


def start_visit(ehr: SandboxEhr, feed: Feed, patient_id: str, *, visit_at: datetime | None = None) -> Resource:
    """A visit begins `visit_at` (now): ADT^A01; one that is still open ends first: ADT^A03."""
    at = visit_at or ehr.bridge.now()
    with ehr.bridge.db.transaction() as tx:
        patient = get(tx, "Patient", patient_id).resource
        ended = find_visit(tx, patient_id)
        if ended is not None:
            ended["status"] = "finished"
            ended["period"]["end"] = at.isoformat(timespec="seconds")
            update_resource(tx, ended, at=at)
        visit = _open_visit(tx, patient_id, at)
    if ended is not None:
        tell(ehr, feed, "A03", patient, ended)
    tell(ehr, feed, "A01", patient, visit)
    return visit


def merge(ehr: SandboxEhr, feed: Feed, patient_id: str, *, source_mrn: str) -> list[str]:
    """The record of `source_mrn` goes away into this one, with all that is filed in it: ADT^A40.

    Returns the references moved. Raises NotFound, Conflict.
    """
    at = ehr.bridge.now()
    with ehr.bridge.db.transaction() as tx:
        target = get(tx, "Patient", patient_id).resource
        source = next((one for one in find_by_identifier(tx, "Patient", MRN_SYSTEM, source_mrn)), None)
        if source is None:
            raise NotFound("there is no patient of that MRN; choose one from the list")
        if source.id == patient_id or not source.resource.get("active") or not target.get("active"):
            raise Conflict("these two records cannot be merged: one is merged already, or they are the same")
        moved = _move(tx, source.reference, f"Patient/{patient_id}", at)
        link = {"other": {"reference": f"Patient/{patient_id}"}, "type": "replaced-by"}
        update_resource(tx, source.resource | {"active": False, "link": [link]}, at=at)
        replaces = [*target.get("link", []), {"other": {"reference": source.reference}, "type": "replaces"}]
        update_resource(tx, target | {"link": replaces}, at=at)
    tell(ehr, feed, "A40", target, None, merged_mrn=source_mrn)
    return moved


def tell(
    ehr: SandboxEhr, feed: Feed, event: str, patient: Resource, visit: Resource | None, merged_mrn: str = ""
) -> None:
    """Raises Unavailable when nobody takes the message, or when it is refused."""
    message = adt_message(event, patient, visit, at=ehr.bridge.now(), control_id=new_id(), merged_mrn=merged_mrn)
    answers = feed.tell(message)
    if any(b"\rMSA|AA" not in answer.replace(b"\n", b"") for answer in answers):
        raise Unavailable("the change is stored here, but DermBridge did not accept the ADT message; see its queue")


def find_visit(tx: Connection, patient_id: str) -> Resource | None:
    """The open visit begun last."""
    column = TABLES["Encounter"].c
    found = find_where(
        tx,
        "Encounter",
        column.patient == patient_id,
        column.status == token_value("in-progress", None),
        order_by=column.date.desc(),
        limit=1,
    )
    return found[0].resource if found else None


def _open_visit(tx: Connection, patient_id: str, at: datetime) -> Resource:
    encounter_id = new_id()
    return create(tx, new_encounter(encounter_id, f"V-{encounter_id[-8:].upper()}", patient_id, at=at), at=at).resource


def _move(tx: Connection, source: str, target: str, at: datetime) -> list[str]:
    moved = []
    for resource_type in _MOVED_BY_MERGE:
        of_source = TABLES[resource_type].c.patient == source.partition("/")[2]
        for stored in find_where(tx, resource_type, of_source):
            update_resource(tx, _repointed(stored.resource, source, target), at=at)
            moved.append(stored.reference)
    return moved


def _repointed(part: Any, source: str, target: str) -> Any:
    if isinstance(part, dict):
        if part.get("reference") == source:
            return part | {"reference": target}
        return {name: _repointed(value, source, target) for name, value in part.items()}
    return [_repointed(one, source, target) for one in part] if isinstance(part, list) else part


# --- messages -------------------------------------------------------------------------------------------------------


def adt_message(
    event: str, patient: Resource, visit: Resource | None, *, at: datetime, control_id: str, merged_mrn: str = ""
) -> bytes:
    """ADT in UTF-8; `merged_mrn` fills MRG-1. `control_id` is MSH-10."""
    when = at.strftime("%Y%m%d%H%M%S+0000")
    kind = f"ADT^{event}^{ADT_EVENTS[event]['structure']}"
    lines = [
        ["MSH", Separators().msh_2, "LARKFIELD", "HOSP", "DERMBRIDGE", "HOSP", when, "", kind, control_id, "P", "2.5.1"]
        + [""] * 5
        + ["UNICODE UTF-8"],
        ["EVN", event, when],
        _pid(patient),
    ]
    if merged_mrn:
        lines.append(["MRG", _cx(merged_mrn)])
    elif visit is not None:
        lines.append(_pv1(visit))
    return "".join("|".join(line) + "\r" for line in lines).encode()


def _pid(patient: Resource) -> list[str]:
    name = patient["name"][0]
    first, *further = name.get("given") or [""]
    pid_5 = "^".join(map(_encode, (name.get("family", ""), first, " ".join(further)))) + "^^^^L"
    pid_7 = patient.get("birthDate", "").replace("-", "")
    return ["PID", "1", "", _cx(mrn_of(patient)), "", pid_5, "", pid_7, SEX.get(patient.get("gender", ""), "U")]


def _pv1(visit: Resource) -> list[str]:
    number = identifier_of(visit, VISIT_SYSTEM)
    pv1 = ["PV1", "1", "O", "DERM"] + [""] * 15 + [f"{_encode(number)}^^^{AUTHORITY}^VN"]
    period = visit.get("period", {})
    return pv1 + [""] * 24 + [_dtm(period.get("start")), _dtm(period.get("end"))]


def _cx(mrn: str) -> str:
    return f"{_encode(mrn)}^^^{AUTHORITY}^MR"


def _dtm(fhir_time: str | None) -> str:
    return datetime.fromisoformat(fhir_time).strftime("%Y%m%d%H%M%S%z") if fhir_time else ""


def mrn_of(patient: Resource) -> str:
    return identifier_of(patient, MRN_SYSTEM)


def identifier_of(resource: Resource, system: str) -> str:
    given: Sequence[Resource] = resource.get("identifier", [])
    return next((str(one["value"]) for one in given if one.get("system") == system), "")
