"""What one vendor's system does, as data."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Refusal(_Table):
    """How it says no: status, and a vendor code in an OperationOutcome or, with `body`, in its own words."""

    status: int = 422
    code: str = ""
    body: str = ""


class MatchBehaviour(_Table):
    """`Patient/$match`: one patient of that number and birth date, or how nobody and too little are told."""

    nobody: Refusal = Refusal(status=200)
    uncertain: Refusal = Refusal(status=200)


class FhirBehaviour(_Table):
    """A FHIR R4 side. `creates` lists the types that may be created or updated; everything is searched and read."""

    base: str
    creates: tuple[str, ...] = ()
    accepts: tuple[str, ...] = ()  # attachment MIME types; empty: any
    documents: tuple[str, ...] = ()  # the same of DocumentReference, where these differ
    required: tuple[str, ...] = ()  # dotted paths, as in `set` of a profile
    rejects: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()  # silently not stored
    not_offered: int = 404
    transaction_only: bool = False
    batch: bool = False
    batch_lies: Literal["", "fewer", "more", "reversed"] = ""  # how its answer fails what was asked
    conditional_create: bool = False
    remembers_searches: bool = False  # answers the same search alike, unless asked not to (Cache-Control)
    raw_binary: bool = True
    access_write: bool = False  # $binary-access-write and -read
    answer: Literal["resource", "empty"] = "resource"
    location: Literal["relative", "absolute"] = "relative"
    etag: bool = True
    refusal: Refusal = Refusal()
    type_refusal: Refusal = Refusal()
    match: MatchBehaviour | None = None
    photos: Literal["", "Media", "DocumentReference"] = ""
    """As what photos of others are found in its records."""
    photo_at: Literal["relative", "absolute", "inline", "signed"] = "relative"
    """How their bytes are told: `signed` addresses are outside of the FHIR base and want no token."""
    merged: Refusal | None = None
    """How a read of a merged patient is refused, with the survivor as Location."""


class RestRoute(_Table):
    """One proprietary route. `path` holds `{names}`; `answer` and `item` are JSON templates over what is known."""

    method: str
    path: str
    does: Literal["find-patient", "store", "keep-bytes", "store-kept", "list", "read", "delete", "say"]
    file: str = ""  # the multipart part that holds the document, or the JSON path of its base64
    required: tuple[str, ...] = ()  # form fields or JSON paths
    mrn: str = ""  # where the patient's number stands: a name of `path` or a query parameter
    name: str = ""  # where the document's own name stands in the form or JSON
    accepts: tuple[str, ...] = ()
    status: int = 200
    answer: str = ""
    item: str = ""
    refusal: Refusal = Refusal()
    empty: Refusal | None = None  # how an empty list is told


class DicomWebBehaviour(_Table):
    """A DICOMweb side."""

    base: str
    second_time: Literal["stored", "409"] = "stored"
    deletes: bool = False


class UnityBehaviour(_Table):
    """A Unity side; a piece of a document is no larger than `chunk_bytes`."""

    base: str
    chunk_bytes: int


class MllpBehaviour(_Table):
    """An HL7 v2 side. `knows_duplicates`: the same MSH-10 again has no second effect."""

    events: tuple[str, ...]
    acknowledges: Literal["original", "commit"] = "original"
    knows_duplicates: bool = False
    max_bytes: int = 50_000_000


class Behaviour(_Table):
    """One vendor. `destination` is what to write over the shipped profile to reach the simulator.

    `token_seconds` asks for a bearer token of that life; `per_minute` counts all requests of a minute and answers 429
    without Retry-After. In `destination`, `{http}` is the address, `{mllp_port}` the port.
    """

    name: str
    profile: str
    about: str
    fhir: FhirBehaviour | None = None
    rest: tuple[RestRoute, ...] = ()
    dicomweb: DicomWebBehaviour | None = None
    unity: UnityBehaviour | None = None
    mllp: MllpBehaviour | None = None
    token_seconds: int | None = None
    per_minute: int | None = None
    destination: dict[str, Any] = {}

    @property
    def tells_photos(self) -> bool:
        """Whether photos of others are found there."""
        return bool(self.dicomweb or (self.fhir and self.fhir.photos))


def behaviour_names() -> list[str]:
    """The vendors that can be played."""
    folder = resources.files("adapter.sandbox.vendors") / "behaviours"
    return sorted(each.name.removesuffix(".toml") for each in folder.iterdir() if each.name.endswith(".toml"))


@cache
def read_behaviour(name: str) -> Behaviour:
    """A vendor of ours by its name, or any other by the .toml file that describes it.

    Raises OSError for what is not there, ValueError (TOML's or pydantic's) for what describes no vendor.
    """
    file = Path(name) if name.endswith(".toml") else resources.files(__package__) / "behaviours" / f"{name}.toml"
    return Behaviour.model_validate(tomllib.loads(file.read_text("utf-8")) | {"name": Path(name).stem})
