"""How somebody whom an EHR launched is named: as nobody else is, at whatever EHR."""

from __future__ import annotations

import pytest

from adapter.access.actor import LONGEST_ID
from adapter.access.smart import role_of, user_reference
from adapter.errors import Forbidden
from adapter.settings import Ehr

ROLES = {"Practitioner/17": "photographer"}
NORTH, SOUTH = (Ehr(name=n, iss=f"https://{n}.example/fhir", client_id="x", roles=ROLES) for n in ("north", "south"))


def test_the_same_practitioner_at_two_ehrs_is_two_people() -> None:
    claims = {"fhirUser": "Practitioner/17", "sub": "s"}
    assert user_reference(NORTH, claims) == "https://north.example/fhir/Practitioner/17"
    assert user_reference(SOUTH, claims) == "https://south.example/fhir/Practitioner/17"
    assert user_reference(NORTH, claims | {"fhirUser": f"{NORTH.iss}/Practitioner/17"}).startswith(NORTH.iss)


def test_the_table_of_roles_names_people_as_their_ehr_does() -> None:
    assert role_of(NORTH, f"{NORTH.iss}/Practitioner/17") == "photographer"
    assert role_of(NORTH, f"{SOUTH.iss}/Practitioner/17") == role_of(NORTH, "Person/x") == "clinician"


@pytest.mark.parametrize("named", [None, "", "Practitioner/", "Group/1", f"Practitioner/{'x' * LONGEST_ID}"])
def test_who_has_no_reference_that_could_be_kept_is_named_by_the_subject(named: str | None) -> None:
    claims = {"fhirUser": named, "sub": "s"} if named is not None else {"sub": "s"}
    found = user_reference(NORTH, claims)
    assert found.startswith("Person/") and len(found) <= LONGEST_ID
    assert found == user_reference(NORTH, claims) != user_reference(SOUTH, claims)
    assert found != user_reference(NORTH, claims | {"sub": "t"})


@pytest.mark.parametrize("named", ["Patient/1", "RelatedPerson/1"])
def test_patients_and_their_relatives_do_not_sign_in(named: str) -> None:
    with pytest.raises(Forbidden, match="for staff"):
        user_reference(NORTH, {"fhirUser": named, "sub": "s"})
