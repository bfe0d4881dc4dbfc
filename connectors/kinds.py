"""The kinds of destination and the keys each kind's profile has.

Every key does something today: it changes what is sent, or what `connectors check` and `explain` say.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, cast

from pydantic import (
    Field,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from connectors.every_kind import HttpProfile, Profile
from connectors.knobs import (
    ArchivedPhotos,
    Coding,
    DicomPolicy,
    EncounterPolicy,
    MimeType,
    PatientLookup,
    PatientResolution,
    PhotoSearch,
    Seconds,
    ShareFolder,
)
from connectors.layers import merged
from connectors.rest_knobs import Lookup, Step
from connectors.routes import ROUTES, find_route, load
from mappings.terms import PHOTO_DOCUMENT

Route = Literal["fhir-media", "fhir-documentreference"]


class DirectoryProfile(Profile):
    """A folder that another program, or a person, collects from."""

    kind: Literal["directory"]
    folder: Path
    """Where; photos lie below it by patient and photo."""

    @field_validator("folder", mode="after")
    @classmethod
    def _expanded(cls, folder: Path) -> Path:
        return folder.expanduser()


class FhirR4Profile(HttpProfile):
    """A FHIR R4 server."""

    kind: Literal["fhir-r4"]
    routes: tuple[Route, ...] = Field(default=("fhir-media", "fhir-documentreference"), min_length=1)
    """The resources to file a photo as, in this order; the next where the server does not know one."""
    write_by: Literal["create", "transaction"] = "create"
    """`transaction`: the resource travels in a transaction Bundle."""
    update_accepts: tuple[MimeType, ...] = ()
    """MIME types that may be updated where these differ from `accepts`; others are filed anew, and taken back by
    people."""
    binary_upload: Literal["raw", "json", "inline", "access-write", "share"] = "raw"
    """`access-write`: the bytes follow by `$binary-access-write`; `share`: a file in `share`."""
    share: ShareFolder | None = None
    attachment_url: Literal["relative", "absolute"] = "relative"
    """How Attachment.url names the Binary."""
    references: Literal["relative", "absolute", "contained", "identifier"] = "relative"
    """How patient and visit are named; `contained` and `identifier` by their numbers, not by the destination's ids."""
    patient: PatientResolution = PatientResolution()
    patient_lookup: PatientLookup = PatientLookup()
    photos: PhotoSearch = PhotoSearch()
    encounter: EncounterPolicy = EncounterPolicy()
    type_coding: Coding = Coding()
    category: Coding | None = None
    """Takes the place of our DocumentReference.category."""
    set: dict[str, str | bool] = Field({})
    """Dotted path -> template: elements the destination requires beyond what FHIR does; after `Media.` or
    `DocumentReference.` in these alone."""
    omit: tuple[str, ...] = ()
    """Elements the destination rejects, as dotted paths: `meta.security`, `Media.extension`."""
    conditional_create: bool = True
    """Whether the server heeds If-None-Exist."""
    look_by: Literal["identifier", "patient"] = "identifier"
    """How to find what is there: by our identifiers, or among the patient's documents by our mark in description."""
    look_parameters: dict[str, str] = Field({})
    """Search parameters (templates) beside `patient` for look_by = "patient"."""
    replaces: bool = True
    """Whether a new version updates the old resource; otherwise it is created beside it and the old one retracted."""
    retract: Literal["update", "person"] = "update"
    """`update`: to entered-in-error; `person`: by hand, as landing.retracts says."""
    consent_strategy: Literal["resource", "document", "in-note", "local-only"] = "local-only"
    """`resource`: a Consent; `document`: a PDF of its own (LOINC 59284-0), filed first; `in-note`: a line beside the
    photo."""
    search: Literal["get", "post"] = "get"
    """`post` keeps identifiers out of the destination's access log."""
    batch_reads: bool = False
    """Whether the server takes a batch Bundle: what is asked of several photos is then one request."""
    prefer: Literal["return=minimal", "return=representation", ""] = "return=representation"
    """The Prefer header of writes; empty: none is sent."""
    attachment_hosts: tuple[str, ...] = ()
    """Hosts other than the server's own that may hold the bytes (signed URLs)."""

    @model_validator(mode="after")
    def _has_share(self) -> Self:
        if (self.binary_upload == "share") != (self.share is not None):
            raise ValueError('binary_upload "share" and the table share belong together')
        return self

    @property
    def route_names(self) -> tuple[str, ...]:
        return self.routes


class RestProfile(HttpProfile):
    """A vendor's own JSON interface, told step by step: multipart upload, or presigned upload and then a reference."""

    kind: Literal["rest"]
    patient: Lookup
    """How to find the patient; it must be one."""
    steps: tuple[Step, ...] = Field(min_length=1)
    """The requests that file a document, in order."""
    look: Lookup | None = None
    """How to find a document that is there; without it a lost answer waits for a person."""
    read: Step | None = None
    """How to read the document back; without it a delivery stays `accepted`."""
    retract: Step | None = None
    """How to take a document back; without it a person does."""
    encounter: EncounterPolicy = EncounterPolicy(policy="omit")
    sign_in: Step | None = None
    """For auth.kind "sign_in": the request that gets what later ones name, as `saves`; it may name `client_id` and
    `secret`."""
    sign_in_seconds: Seconds = 900.0
    """How long that is good."""
    fields: dict[str, str] = Field({})
    """More values for templates: department, category."""
    consent_strategy: Literal["document", "in-note", "local-only"] = "local-only"
    """`document`: a PDF of its own, filed first by the same steps; `in-note`: a line beside the photo."""
    consent_fields: dict[str, str] = Field({})
    """What of `fields` differs for a consent filed as a document: its category."""

    @property
    def is_blind(self) -> bool:
        return self.look is None

    @property
    def reads_back(self) -> bool:
        return self.read is not None

    @model_validator(mode="after")
    def _finds_consents(self) -> Self:
        if self.consent_strategy == "document" and self.look is None:
            raise ValueError('consent_strategy "document" needs `look`, or each photo would file the consent again')
        return self

    @model_validator(mode="after")
    def _signs_in(self) -> Self:
        if (self.auth.kind == "sign_in") != (self.sign_in is not None):
            raise ValueError('auth.kind "sign_in" and the table sign_in belong together')
        return self


class Hl7v2Profile(Profile):
    """An interface engine that takes HL7 v2 over MLLP."""

    kind: Literal["hl7v2"]
    host: str
    port: int = Field(ge=1, le=65535)
    tls: bool = False
    client_certificate: str = ""
    """Path of a PEM file with certificate and key for mutual TLS."""
    ca_file: str = ""
    """Path of a PEM file with the certificate authority to trust instead of the system's."""
    message: Literal["ORU^R01", "MDM^T02", "MDM^T04"] = "ORU^R01"
    """The message that brings a photo."""
    replace_with: Literal["", "MDM^T10", "MDM^T02", "ORU^R01"] = ""
    """The message for a new version; empty: `message`."""
    retract_with: Literal["", "MDM^T11", "ORU^R01"] = ""
    """The message that takes a photo back; empty: a person does."""
    version: Literal["2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.8"] = "2.5.1"
    """MSH-12."""
    msh_3: str = "DERMBRIDGE"
    msh_4: str = ""
    msh_5: str = ""
    msh_6: str = ""
    msh_11: Literal["P", "T", "D"] = "P"
    charset: Literal["UNICODE UTF-8", "8859/1", "ASCII"] = "UNICODE UTF-8"
    """MSH-18."""
    authorities: dict[str, str] = Field({})
    """FHIR identifier system -> assigning authority (PID-3.4, PV1-19.4); others are not sent."""
    default_authority: str | None = None
    """Assigning authority of identifiers whose system is not among `authorities`; left out: they are not sent."""
    acknowledge: Literal["original", "commit", "application"] = "original"
    """`commit`: MSH-15 AL and CA is enough (the application answers elsewhere); `application`: wait for AA after CA."""
    resend: Literal["same-control-id", "never"] = "never"
    """After a lost answer: send again under the same MSH-10 (the receiver knows duplicates), or let a person look."""
    encounter: EncounterPolicy = EncounterPolicy()
    content: Literal["ED", "RP"] = "ED"
    """OBX-2: the photo itself, or a pointer to it."""
    obx_5: tuple[str, ...] = ("", "{type}", "{subtype}", "Base64", "{data}")
    """Its components: `{data}` base64, `{type}` and `{subtype}` as IM and JPEG, or AP and PDF, `{url}` for RP."""
    document_type: tuple[str, str, str] = (PHOTO_DOCUMENT, "Photographic image", "LN")
    """OBR-4 and OBX-3: code, text, coding system."""
    txa_2: str = ""
    """Document type; empty: the code of document_type."""
    txa_17: str = "AU"
    """Completion status (table 0271)."""
    txa_19: str = "AV"
    """Availability status (table 0273)."""
    pv1_2: str = "O"
    """Patient class (table 0004)."""
    consent_strategy: Literal["obx", "local-only"] = "local-only"

    @property
    def is_blind(self) -> bool:
        return self.resend == "never"

    @property
    def reads_back(self) -> bool:
        return False

    @property
    def route_names(self) -> tuple[str, ...]:
        return (f"hl7v2-{self.message[:3].lower()}",)


class DicomWebProfile(HttpProfile):
    """An archive that takes STOW-RS (PS3.18 10.5)."""

    kind: Literal["dicomweb"]
    dicom: DicomPolicy = DicomPolicy()
    photos: ArchivedPhotos = ArchivedPhotos()
    encounter: EncounterPolicy = EncounterPolicy()
    retract: Literal["reject", "delete", "person"] = "person"
    """`reject`: a rejection note (IHE IOCM); `delete`: DELETE of the instance, which some offer beyond the standard."""


class DimseProfile(Profile):
    """An archive that takes C-STORE (PS3.4 annex B); it is asked with C-FIND."""

    kind: Literal["dicom-cstore"]
    host: str
    port: int = Field(ge=1, le=65535)
    called_ae: str = Field(min_length=1, max_length=16)
    """The AE title of the archive."""
    calling_ae: str = Field(default="DERMBRIDGE", min_length=1, max_length=16)
    """Ours, as the archive knows it."""
    dicom: DicomPolicy = DicomPolicy()
    encounter: EncounterPolicy = EncounterPolicy()

    @property
    def reads_back(self) -> bool:
        return False


class HandOffProfile(Profile):
    """An EHR nothing is written to: people open the photo in DermBridge, by launch or link."""

    kind: Literal["hand-off"]

    @property
    def reads_back(self) -> bool:
        return False


AnyRoute = Annotated[
    DirectoryProfile | FhirR4Profile | RestProfile | Hl7v2Profile | DicomWebProfile | DimseProfile | HandOffProfile,
    Field(discriminator="kind"),
]


def _other_kinds(given: Any, ours: ValidatorFunctionWrapHandler) -> Any:
    """A route of an installed package's kind; all others as they are declared."""
    kind = given.get("kind") if isinstance(given, dict) else None
    model = find_model(kind) if kind not in ROUTES else None
    return model.model_validate(given) if model else ours(given)


class EhrProfile(Profile):
    """An EHR with several ways in: the next route is tried when the one before it cannot take a photo."""

    kind: Literal["ehr"]
    routes: tuple[Annotated[AnyRoute, WrapValidator(_other_kinds)], ...] = Field(min_length=1)

    @property
    def route_names(self) -> tuple[str, ...]:
        return tuple(name for route in self.routes for name in route.route_names)

    @property
    def is_blind(self) -> bool:
        return any(route.is_blind for route in self.routes)

    @property
    def reads_back(self) -> bool:
        return any(route.reads_back for route in self.routes)

    @model_validator(mode="before")
    @classmethod
    def _inherited(cls, values: Any) -> Any:
        """A route starts from what the EHR's own table says, where it has such a key."""
        if not isinstance(values, dict) or not isinstance(values.get("routes"), (list, tuple)):
            return values
        own = cls.model_fields
        shared = {key: value for key, value in values.items() if key not in {"kind", "routes", "unverified"}}
        routes = [
            merged({k: v for k, v in shared.items() if k in _route_keys(each)}, each)
            if isinstance(each, dict)
            else each
            for each in values["routes"]
        ]
        used = {key for each in values["routes"] if isinstance(each, dict) for key in _route_keys(each)}
        kept = {key: value for key, value in values.items() if key in own or key not in used}
        return kept | {"routes": routes}

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = self.route_names
        if len(set(names)) < len(names):
            raise ValueError("two routes bear the same name, so a receipt could not say which it came from")
        return self


def _route_keys(route: Mapping[str, Any]) -> set[str]:
    model = find_model(route.get("kind"))
    return set(model.model_fields) - {"kind", "landing", "launch", "environment", "tested"} if model else set()


PROFILES: Final[Mapping[str, type[Profile]]] = {kind: load(route.profile) for kind, route in ROUTES.items()}


def find_model(kind: object) -> type[Profile] | None:
    """The profile model of a kind, ours or of an installed package."""
    route = find_route(kind)
    return cast(type[Profile], load(route.profile)) if route else None
