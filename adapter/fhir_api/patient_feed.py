"""The two doors of a FHIR patient feed: `PUT Patient?identifier=system|value` (IHE ITI-104) and `$process-message` with
a PMIR Bundle (IHE ITI-93)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from adapter import identity
from adapter.bridge import Bridge
from adapter.errors import BadInput
from adapter.fhir_api.answers import json_answer, written_answer
from adapter.fhir_api.exchange import Answer, Request
from adapter.records import Resource, find_by_identifier, new_id
from mappings.terms import CANON

if TYPE_CHECKING:
    from adapter.fhir_api.server import FhirServer

OPERATION = "http://hl7.org/fhir/OperationDefinition/MessageHeader-process-message"


def read_named(server: FhirServer, request: Request) -> tuple[identity.Identifier, Resource]:
    """(the identifier in the address, the Patient in the body). Raises BadInput, InvalidResource."""
    system, bar, value = (request.param("identifier") or "").partition("|")
    if not (system and bar and value) or len(request.params) != 1:
        raise BadInput("name the patient in the address: PUT Patient?identifier=system|value")
    patient = request.json()
    if patient.get("resourceType") != "Patient":
        raise BadInput("the body must be a Patient", issue_type="structure", expression="resourceType")
    server.check_resource(patient)
    return (system, value), patient


def put_patient(server: FhirServer, tx: Connection, request: Request, prepared: Any) -> Answer:
    """201 for a patient not known before, else 200. Its audit is written by the use case."""
    named, patient = prepared
    known = find_by_identifier(tx, "Patient", *named)
    stored = identity.feed_patient(tx, server.bridge, request.caller, named, patient)
    return written_answer(request, 200 if known else 201, stored, server.base_url)


def process_message(bridge: Bridge, request: Request) -> Answer:
    """All patients of the message or none. Raises BadInput, InvalidResource and what `feed_patient` raises."""
    bundle = request.json()
    patients = identity.read_feed(bundle)
    with bridge.db.transaction() as tx:
        stored = [identity.feed_patient(tx, bridge, request.caller, named, patient) for named, patient in patients]
    header: Resource = bundle["entry"][0]["resource"]
    answer = {
        "resourceType": "MessageHeader",
        "id": new_id(bridge.now()),
        "eventUri": f"{identity.PATIENT_FEED}-response",
        "source": {"name": "DermBridge", "endpoint": f"{bridge.settings.base_url}/fhir/$process-message"},
        "response": {"identifier": header.get("id", "unknown"), "code": "ok"},
        "focus": [{"reference": one.reference} for one in stored],
    }
    entry = {"fullUrl": f"{CANON}/MessageHeader/{answer['id']}", "resource": answer}
    return json_answer(200, {"resourceType": "Bundle", "type": "message", "entry": [entry]})
