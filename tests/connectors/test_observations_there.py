"""What was measured, at the destination: once, beside the picture that tells of it, in step with what is here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from connectors.contract import DeliveryError, Parcel
from connectors.fhir_r4 import FhirR4
from connectors.profile import build_profile
from mappings.fhir_check import check_resource
from tests.connectors.test_contract import parcel
from tests.servers.fhir_ehr import Ehr, running

PHOTO = {"system": "urn:ietf:rfc:3986", "value": "urn:uuid:0192f3a0-0000-7000-8000-000000000001"}
OBSERVATION: dict[str, Any] = {
    "resourceType": "Observation",
    "id": "o1",
    "status": "final",
    "code": {"coding": [{"system": "http://snomed.info/sct", "code": "42798000"}]},
    "subject": {"reference": "Patient/p1"},
    "performer": [{"reference": "Practitioner/eve", "display": "Dr Eve"}],
    "valueQuantity": {"value": 77.0, "unit": "mm²", "system": "http://unitsofmeasure.org", "code": "mm2"},
    "derivedFrom": [{"reference": "Media/m1/_history/1", "identifier": PHOTO}],
}


def measured(**changes: Any) -> Parcel:
    return replace(parcel(), observations=(OBSERVATION | changes,))


@pytest.fixture
def ehr() -> Iterator[Ehr]:
    with running(Ehr()) as there:
        there.put({"resourceType": "Patient", "id": "pat", "identifier": measured().patient["identifier"]})
        yield there


def connector(ehr: Ehr, **more: Any) -> FhirR4:
    table = {"name": "x", "kind": "fhir-r4", "base_url": ehr.url, "encounter": {"policy": "optional"}} | more
    made = FhirR4(build_profile(table, source="test"), {}.__getitem__)  # type: ignore[arg-type]
    ehr.connectors.append(made)
    return made


def there(ehr: Ehr) -> dict[str, Any]:
    (found,) = ehr.of_type("Observation")
    return found


def test_it_is_filed_once_before_its_picture_and_names_the_photo_it_was_measured_on(ehr: Ehr) -> None:
    made = connector(ehr)
    receipt = made.send(measured())
    made.send(measured())
    filed = there(ehr)
    check_resource(filed)
    assert filed["subject"]["reference"] == "Patient/pat"
    assert filed["derivedFrom"] == [{"identifier": PHOTO, "type": "Media"}]
    assert filed["performer"] == [{"type": "Practitioner", "display": "Dr Eve"}]
    posted = [path for method, path in ehr.requests if method == "POST"]
    assert posted.index("Observation") < posted.index("Media")
    evidence = made.read_back(measured(), receipt)
    assert evidence and evidence.matches


def test_a_crash_between_both_is_taken_up_and_nothing_is_filed_twice(ehr: Ehr) -> None:
    made = connector(ehr)
    ehr.faults = [("POST", "Media", "lost-before")]
    with pytest.raises(DeliveryError):
        made.send(measured())
    assert len(ehr.of_type("Observation")) == 1 and made.find(measured()) is None
    made.send(measured())
    assert len(ehr.of_type("Media")) == len(ehr.of_type("Observation")) == 1


def test_one_that_was_changed_there_is_told_and_one_that_was_withdrawn_here_is_entered_in_error(ehr: Ehr) -> None:
    made = connector(ehr)
    receipt = made.send(measured())
    ehr.put(there(ehr) | {"valueQuantity": {"value": 7.0, "unit": "mm²"}})
    evidence = made.read_back(measured(), receipt)
    assert evidence and "expected final 77.0 mm², found final 7.0 mm²" in evidence.differences[0]
    made.send(measured(status="entered-in-error"))
    assert there(ehr)["status"] == "entered-in-error"


def test_one_that_was_withdrawn_before_it_was_sent_never_leaves(ehr: Ehr) -> None:
    connector(ehr).send(measured(status="entered-in-error"))
    assert ehr.of_type("Observation") == []


def test_taken_back_with_its_picture_is_what_does_not_stand_any_more(ehr: Ehr) -> None:
    made = connector(ehr)
    receipt = made.send(measured())
    taken = made.retract(measured(), receipt, "comparison withdrawn")
    assert there(ehr)["status"] == "final"
    assert made.retract(measured(status="entered-in-error"), taken, "withdrawn").duplicate
    assert there(ehr)["status"] == "entered-in-error"


def test_a_server_without_observations_says_what_to_set(ehr: Ehr) -> None:
    ehr.without = ("Observation",)
    with pytest.raises(DeliveryError) as error:
        connector(ehr).send(measured())
    assert "observations = false" in error.value.remedy
