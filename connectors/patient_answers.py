"""Patients and visits as another server tells them: held to the shape of FHIR R4, and cut to what is needed of them.

http://hl7.org/fhir/R4/patient.html. Whatever these models let through may be stored here.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from connectors.contract import DeliveryError, Retry

Resource = dict[str, Any]
M = TypeVar("M", bound=BaseModel)


def _in_the_calendar(told: str) -> str:
    date.fromisoformat(told + "-01-01"[: 10 - len(told)])
    return told


Text = Annotated[str, Field(max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")]
Code = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9\-.]{1,64}$")]
Date = Annotated[str, Field(pattern=r"^[12]\d{3}(-\d\d(-\d\d)?)?$"), AfterValidator(_in_the_calendar)]
Instant = Annotated[str, Field(pattern=r"^[12]\d{3}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)$")]


class _Element(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)


class _Identifier(_Element):
    use: Literal["usual", "official", "temp", "secondary", "old"] | None = None
    system: Text | None = None
    value: Text | None = None


class _Name(_Element):
    use: Literal["usual", "official", "temp", "nickname", "anonymous", "old", "maiden"] | None = None
    text: Text | None = None
    family: Text | None = None
    given: list[Text] | None = None


class _Address(_Element):
    postalCode: Text | None = None


class _Reference(_Element):
    reference: Text | None = None
    identifier: _Identifier | None = None


class _Link(_Element):
    other: _Reference = _Reference()
    type: Code


class _Patient(_Element):
    resourceType: Literal["Patient"]
    id: Id
    identifier: list[_Identifier] | None = None
    active: bool | None = None
    name: list[_Name] | None = None
    gender: Literal["male", "female", "other", "unknown"] | None = None
    birthDate: Date | None = None
    address: list[_Address] | None = None
    link: list[_Link] | None = None


class _Coding(_Element):
    system: Text | None = None
    code: Code | None = None


class _Period(_Element):
    start: Instant | Date | None = None
    end: Instant | Date | None = None


class _Encounter(_Element):
    resourceType: Literal["Encounter"]
    id: Id
    identifier: list[_Identifier] | None = None
    status: Literal[
        "planned",
        "arrived",
        "triaged",
        "in-progress",
        "onleave",
        "finished",
        "cancelled",
        "entered-in-error",
        "unknown",
    ]
    class_: _Coding | None = Field(None, alias="class")
    subject: _Reference = _Reference()
    period: _Period = _Period()


TOOK_PLACE: Final = frozenset({"arrived", "triaged", "in-progress", "onleave", "finished"})


def read_patient(resource: Resource) -> Resource:
    """The Patient, cut to identifier, name, sex, birth date, postcode and links. Raises DeliveryError."""
    return _read(_Patient, resource)


def read_encounter(resource: Resource) -> Resource:
    """The Encounter, cut to identifier, status, class, subject and period. Raises DeliveryError."""
    return _read(_Encounter, resource)


def took_place_at(encounter: Resource, at: datetime) -> bool:
    """Whether the visit was going on then. Raises DeliveryError for a period that cannot be read."""
    period = encounter.get("period", {})
    if "start" not in period or encounter["status"] not in TOOK_PLACE:
        return False
    return _earliest(period["start"]) <= at and ("end" not in period or at < _latest(period["end"]))


def _earliest(told: str) -> datetime:
    """Of what a FHIR dateTime may mean; days are taken as UTC."""
    try:
        found = datetime.fromisoformat(told if "T" in told else told + "-01-01"[: 10 - len(told)])
    except ValueError:
        raise no_fhir("an Encounter that is no FHIR R4 in period") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _latest(told: str) -> datetime:
    """A day ends at its midnight; a month or a year that ends a visit says too little, and is taken as its first."""
    return _earliest(told) + (timedelta(days=1) if len(told) == 10 else timedelta())


def no_fhir(what: str) -> DeliveryError:
    """What arrived cannot be read as the answer asked for."""
    return DeliveryError(
        f"The destination answered with {what}.",
        remedy="Check base_url of the profile; ask the destination what it sends. It is tried again.",
        retry=Retry.LATER,
    )


def _read(model: type[M], resource: Resource) -> Resource:
    kind = model.__name__.removeprefix("_")
    try:
        found = model.model_validate(resource)
    except ValidationError as error:
        places = sorted({".".join(str(part) for part in one["loc"]) for one in error.errors(include_input=False)})
        raise no_fhir(f"a {kind} that is no FHIR R4 in {', '.join(places)[:200]}") from None
    return found.model_dump(exclude_none=True, by_alias=True, exclude_defaults=True) | {"resourceType": kind}
