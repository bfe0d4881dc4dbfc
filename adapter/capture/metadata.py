"""What a sender may say about a photo, checked once where it arrives."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from adapter.errors import BadInput, Unprocessable
from mappings.body_sites import UnknownBodySite, get_body_site
from mappings.photo_use import get_photo_use
from mappings.security_labels import NAMED_FLAGS

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    @field_validator("*", mode="before")
    @classmethod
    def _of_letters(cls, value: Any) -> Any:
        """Text as FHIR and PostgreSQL take it (http://hl7.org/fhir/R4/datatypes.html#string)."""
        if isinstance(value, str) and _CONTROL.search(value):
            raise ValueError("Text may hold no control characters but tab and line end")
        return value


class PatientIdentifier(_Strict):
    """An identifier as printed on the wristband; birth date and family name let it bind without a person.

    Given name, sex and postal code help a person to find the patient where the identifier does not.
    """

    system: str = Field(min_length=1, max_length=200)
    value: str = Field(min_length=1, max_length=200)
    birthDate: str | None = Field(default=None, pattern=r"^\d{4}-\d{2}-\d{2}$")
    family: str | None = Field(default=None, max_length=200)
    given: str | None = Field(default=None, max_length=200)
    gender: Literal["male", "female", "other", "unknown"] | None = None
    postalCode: str | None = Field(default=None, max_length=20)

    @field_validator("birthDate")
    @classmethod
    def _is_a_day(cls, value: str | None) -> str | None:
        if value is not None:
            date.fromisoformat(value)
        return value


class ConsentStatement(_Strict):
    """Consent as known at capture: what the patient just said, by use (photo-use), or that it is still to be recorded.

    Consents on record need no mention: they are found by patient.
    """

    verbal: dict[str, Literal["permit", "deny"]] | None = Field(default=None, min_length=1)
    pending: bool = False

    @field_validator("verbal")
    @classmethod
    def _of_known_uses(cls, choices: dict[str, Any] | None) -> dict[str, Any] | None:
        for use in choices or ():
            get_photo_use(use)
        return choices


class Identifier(_Strict):
    """What the sender calls the photo."""

    system: str = Field(min_length=1, max_length=200)
    value: str = Field(min_length=1, max_length=200)


class Metadata(_Strict):
    """The `DermBridge-Metadata` of a capture; everything is optional."""

    patient: str | PatientIdentifier | None = None
    encounter: str | None = Field(default=None, pattern=r"^Encounter/[A-Za-z0-9\-.]{1,64}$")
    taken_at: datetime | None = None
    body_site: str | None = Field(default=None, max_length=64)
    laterality: Literal["left", "right", "bilateral"] | None = None
    view: Literal["overview", "regional", "close-up", "dermoscopic"] | None = None
    lesion: str | None = Field(default=None, pattern=r"^BodyStructure/[A-Za-z0-9\-.]{1,64}$")
    device: str | None = Field(default=None, max_length=200)
    operator: str | None = Field(
        default=None, max_length=200, pattern=r"^(https?://[^\s?#]+/)?[A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64}$"
    )
    consent: ConsentStatement = ConsentStatement()
    identifiers: tuple[Identifier, ...] = Field(default=(), max_length=5)
    note: str | None = Field(default=None, max_length=4000)
    sensitivity: tuple[Literal[*NAMED_FLAGS], ...] = ()  # type: ignore[valid-type]  # told by the table

    @field_validator("taken_at", mode="before")
    @classmethod
    def _is_iso_8601(cls, value: Any) -> Any:
        if value is None or isinstance(value, datetime) or re.match(r"\d{4}-\d\d-\d\d", str(value)):
            return value
        raise ValueError("Write the time as 2026-03-12T14:30:00+01:00")  # 20260312 would be a day in 1970

    @field_validator("taken_at")
    @classmethod
    def _of_a_photo(cls, value: datetime | None) -> datetime | None:
        if value is not None and not 1826 <= value.year <= 9000:  # the first photograph
            raise ValueError("No photo was taken in that year")
        return value


def read_metadata(values: dict[str, Any], *, accept_unlisted_sites: bool) -> Metadata:
    """Raises BadInput naming the field, or Unprocessable for a body site that is no such code."""
    try:
        metadata = Metadata.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(map(_told, error.errors(include_input=False)))
        raise BadInput(f"the capture metadata is not valid: {problems}") from None
    if metadata.body_site is not None:
        try:
            get_body_site(metadata.body_site, unlisted="accept" if accept_unlisted_sites else "refuse")
        except UnknownBodySite as error:
            raise Unprocessable(str(error), issue_type="code-invalid", expression="body_site") from None
    return metadata


def _told(problem: ErrorDetails) -> str:
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg'].removeprefix('Value error, ')}"
