"""The tables a profile is made of: what has to be said of an EHR before photos can be put into it.

Every table is frozen and refuses unknown keys. `connectors/knob_table.py` says which table answers which question.
"""

from __future__ import annotations

import re
from datetime import time
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from mappings.terms import LOINC, PHOTO_DOCUMENT

Seconds = Annotated[float, Field(gt=0)]
PHOTO_TYPES: Final = ("image/jpeg", "image/png", "image/heic", "image/heif", "image/webp", "image/tiff")
PHOTO_CLASSES: Final = (  # PS3.4 B.5
    "1.2.840.10008.5.1.4.1.1.77.1.4",  # VL Photographic Image
    "1.2.840.10008.5.1.4.1.1.77.1.7",  # Dermoscopic Photography Image
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture Image
    "1.2.840.10008.5.1.4.1.1.7.4",  # Multi-frame True Color Secondary Capture Image, when it has one frame
)
MimeType = Annotated[str, Field(pattern=r"^[a-z]+/[a-z0-9.+*-]+(;\s*charset=[A-Za-z0-9-]+)?$")]

Counted = Literal["write", "search", "read", "token"]
"""What a request is to a destination that counts points."""


class Table(BaseModel):
    # Built on first use: a service that only writes folders never needs the other kinds.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Auth(Table):
    """How we identify ourselves. `secret` is the name of a secret, never its value."""

    kind: Literal["none", "basic", "client_secret_basic", "client_secret_post", "private_key_jwt", "sign_in"] = "none"
    """`sign_in`: a vendor's own token, got by the table `sign_in` of kind rest and named by its requests."""
    client_id: str = ""
    """The client id; the user name for `basic`."""
    secret: str = ""
    """Password, client secret, or private key (PEM or JWK, RSA or EC P-384)."""
    key_id: str = ""
    """`kid` of the private key; empty: what the key itself says, else its thumbprint."""
    next_secret: str = ""
    """The private key that follows: published beside the present one from now on."""
    next_from: AwareDatetime | None = None
    """When the next key signs, as `2026-12-01T06:00:00Z`; later than the EHR may keep our key set."""
    algorithm: Literal["", "RS256", "RS384", "ES384"] = ""
    """Empty: RS384 for an RSA key, ES384 for an EC key, as SMART wants."""
    token_url: str = ""
    """Empty: read from /.well-known/smart-configuration."""
    scope: str = ""
    """Empty: the parameter is left out."""
    require_scopes: tuple[str, ...] = ()
    """Refuse to deliver unless the token was granted these, as `Type.letters`: `DocumentReference.c`."""
    minimum_refresh_seconds: float = Field(default=0.0, ge=0)
    """Ask for a token at most this often."""
    secret_headers: dict[str, str] = {}
    """Header -> name of the secret that is its value (API keys)."""
    client_certificate: str = ""
    """Path of a PEM file with certificate and key for mutual TLS."""
    ca_file: str = ""
    """Path of a PEM file with the certificate authority to trust instead of the system's."""
    audience: str = ""
    """`aud` of the assertion; empty: the token endpoint, as SMART wants."""
    names_key_set: bool = False
    """Send `jku` (jwks_url) in the assertion's header, where the server asks for it."""
    token_seconds: Seconds = 300.0
    """How long a token is good when the server does not say (`expires_in`)."""
    jwks_url: str = ""
    """Where the EHR reads our public keys; `connectors check` looks whether it can."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        missing = [name for name in ("client_id", "secret") if self.kind != "none" and not getattr(self, name)]
        if missing:
            raise ValueError(f"kind {self.kind!r} needs {' and '.join(missing)}")
        if self.next_from and not self.next_secret:
            raise ValueError("next_from needs next_secret")
        return self


class Transform(Table):
    """What is made of a photo before it leaves."""

    to: Literal["none", "pdf", "xhtml", "rtf", "note", "hl7v2"] = "none"
    """`none`: the photo as it is; `pdf`, `xhtml`, `rtf`: the photo inside; `note`: text with a link; `hl7v2`: an
    ORU^R01 of text inside an attachment of type text/hl7v2."""
    downscale: bool = False
    """Make a photo that is too large smaller; otherwise it is refused."""
    max_edge: PositiveInt | None = None
    """Pixels of the longer side."""
    link_base: str = ""
    """Where people reach DermBridge: `https://photos.hospital.example`; for notes, RP pointers and hand-offs."""


class Signal(Table):
    """What one answer of the destination means; the first that fits counts."""

    status: int | None = Field(default=None, ge=100, le=599)
    code: str = ""
    """A vendor code in the answer, found under `code_paths`, `*` for any text; for HL7 v2 MSA-1 or an ERR-3 code."""
    means: Literal["duplicate", "never", "later", "look", "next-day", "next-minute", "next-route", "sign-in"]
    """`duplicate`: it is there, look; `never`: a person must act; `later`: try again; `look`: it may be there;
    `next-day`, `next-minute`: the quota is used up; `next-route`: not by this way; `sign-in`: our token ended."""
    remedy: str = ""
    """What people are told to do; empty: what `means` says to everybody."""
    at_most: PositiveInt | None = None
    """For what is tried again: how many attempts there may be before a person must look."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.status is None and not self.code:
            raise ValueError("give status, code or both")
        return self


class OffPeak(Table):
    """Hours (of the profile's `timezone`) when the destination bears more, or less. They may pass midnight."""

    begins: time
    ends: time
    """As `07:00`."""
    per_minute: PositiveInt
    """As in `limits`, during these hours."""


class Limits(Table):
    """What the destination bears from all our workers together."""

    per_minute: PositiveInt | None = None
    """Requests, or points where there are `weights`; left out: no limit is known."""
    window: Literal["sliding", "minute"] = "sliding"
    """`minute`: the count begins again at each full minute."""
    per_day: PositiveInt | None = None
    """Begins again at midnight GMT."""
    weights: dict[Counted, PositiveInt] = {}
    """What one request counts, where the destination counts points; 1 for those not named."""
    off_peak: OffPeak | None = None
    """Another per_minute for some hours."""
    counts_tokens: bool = False
    """Whether token requests count."""
    at_once: PositiveInt | None = None
    """Deliveries at the same time, of all our workers together; where nothing is said, `worker_threads` of each."""
    serialise: Literal["none", "encounter"] = "none"
    """`encounter`: one photo of a visit at a time."""
    pause_seconds: Seconds = 60.0
    """How long to wait after 429 without Retry-After."""

    @model_validator(mode="after")
    def _room_for_one(self) -> Self:
        least = min((each for each in (self.per_minute, self.per_day) if each), default=None)
        if least is not None and any(weight > least for weight in self.weights.values()):
            raise ValueError("a weight is larger than the limit, so such a request could never be made")
        return self


class PatientResolution(Table):
    """Which patient of the destination is ours."""

    identifier_systems: tuple[str, ...] = ()
    """Tried in this order; empty: all the patient has."""
    create_missing: bool = False
    """Whether a patient who is not known there is registered by us."""


class PatientLookup(Table):
    """How the destination is asked who a patient is (IHE PDQm, PIXm). Without `ways` it is not asked."""

    ways: tuple[Literal["identifier", "demographics", "match", "cross-reference"], ...] = ()
    """In this order, until one finds somebody: search by identifier, by demographics, `$match`, `$ihe-pix`."""
    demographics: tuple[Literal["family", "given", "birthdate", "gender"], ...] = ("family", "birthdate")
    """What a search by demographics names; it is made only when all of these came with the photo."""
    only_certain: bool = True
    """onlyCertainMatches of `$match`."""
    target_systems: tuple[str, ...] = ()
    """What `$ihe-pix` is asked for; empty: every identifier there is."""
    none_codes: tuple[str, ...] = ()
    """Vendor codes (at `code_paths`) that mean: nobody fits."""
    several_codes: tuple[str, ...] = ()
    """Vendor codes that mean: somebody fits, but not one alone for certain."""
    at_most: int = Field(default=9, ge=2, le=50)
    """Patients of one answer that are looked at."""
    visit: bool = True
    """Also ask for the one visit that covers the capture time."""
    seconds: Seconds = 10.0
    """How long one answer may take: somebody may be waiting for it."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.ways)) < len(self.ways):
            raise ValueError("ways names one of them twice")
        return self


PhotosOfPatient = Annotated[str, Field(pattern=r"^(Media|DocumentReference)\?\S*=(Patient/)?\{patient\}(&\S*)?$")]


class PhotoSearch(Table):
    """How photos that are in a patient's record already are found there. Without `searches` nobody asks for them."""

    searches: tuple[PhotosOfPatient, ...] = ()
    """All of these, `Media?patient={patient}&status=completed`; {patient} is the patient's id there. Some servers find
    nothing but by `patient=Patient/{patient}`."""
    accepts: tuple[MimeType, ...] = PHOTO_TYPES
    """MIME types of attachments that are photos; anything else found is named, and stays there."""
    max_bytes: PositiveInt = 50_000_000
    """Longer attachments stay there."""
    at_most: int = Field(default=500, ge=1, le=5000)
    """Records of one patient that are looked at."""
    seconds: Seconds = 20.0
    """How long one answer may take: somebody is waiting for it."""


class ArchivedPhotos(Table):
    """How an archive is asked for a patient's photos by QIDO-RS. Without `modalities` nobody asks for them."""

    modalities: tuple[str, ...] = ()
    """`XC` external camera, `DMS` dermoscopy; `OT` where secondary captures are filed so."""
    level: Literal["instance", "study"] = "instance"
    """`study`: by studies, then series, then instances, where the archive offers no search across all of them."""
    sop_classes: tuple[str, ...] = PHOTO_CLASSES
    """SOP Class UIDs that are photos."""
    max_bytes: PositiveInt = 100_000_000
    """Of an object: pixels that are not compressed take more than a photo."""
    at_most: int = Field(default=500, ge=1, le=5000)
    """Objects of one patient that are looked at."""
    seconds: Seconds = 20.0
    """How long one answer may take: somebody is waiting for it."""


class EncounterPolicy(Table):
    """Whether a photo is filed under a visit."""

    policy: Literal["required", "optional", "omit"] = "optional"
    """`required`: a photo without a visit waits; `omit`: the visit is not told."""
    identifier_systems: tuple[str, ...] = ()
    """Of visit numbers, tried in this order; empty: all the visit has."""
    closed: Literal["accept", "refuse"] = "accept"
    """Whether a finished visit still takes photos."""
    within_hours: float | None = Field(default=None, ge=0)
    """How far before or after the visit's period, as the destination knows it, a photo may have been taken."""


class Coding(Table):
    """A FHIR Coding."""

    system: str = LOINC
    """Its system, `http://loinc.org`."""
    code: str = PHOTO_DOCUMENT
    display: str = ""


class ShareFolder(Table):
    """A folder the destination's server reaches as well, for attachments it takes only by path."""

    folder: Path
    """As it is mounted here."""
    address: str = Field(pattern=r"\{name\}")
    """As the server opens a file in it: `\\\\share\\photos\\{name}`, `file:///photos/{name}`."""


class Timeouts(Table):
    """Seconds for one request. `attempts` covers refused connections and busy answers within one attempt."""

    connect: Seconds = 5.0
    read: Seconds = 30.0
    write: Seconds = 30.0
    attempts: PositiveInt = 3

    def within(self, longest: float) -> Timeouts:
        """The same, with nothing above `longest`: somebody is waiting."""
        limits = {name: min(longest, getattr(self, name)) for name in ("connect", "read", "write")}
        return self.model_copy(update=limits)


class Landing(Table):
    """Where the photo shows up, and who has to act there."""

    zone: str = ""
    """`chart attachment`, `clinical inbox`, `results log`, ..."""
    reviewed_by_people: bool = False
    """Whether somebody there has to accept it before it is in the chart."""
    recorded_as: str = ""
    """Which user the EHR writes down: background, mapped, launching."""
    retracts: str = ""
    """What a retraction looks like there, or whom to phone."""


class Launch(Table):
    """How the EHR shows DermBridge (SMART App Launch); the launch itself is configured under `[[ehrs]]`."""

    shown_in: Literal["", "iframe", "window", "either"] = ""
    """Whether DermBridge is embedded there or opened beside it."""
    browser: str = ""
    """Which browser shows it."""
    context: tuple[str, ...] = ()
    """Launch parameters beside the standard ones."""
    frame_ancestors: tuple[str, ...] = ()
    """Origins that embed it, for `[[ehrs]]`."""
    camera: Literal["", "allowed", "blocked", "unknown"] = ""
    """Whether a page embedded there may use the camera."""


class Environment(Table):
    """What to know before the first call."""

    contract: str = ""
    """What must be signed, certified or enabled."""
    sandbox: str = ""
    """What its test system is like: reset weekly, shared, none."""
    propagation: str = ""
    """How long registrations take to spread."""
    notes: tuple[str, ...] = ()
    """Anything else to know."""


class Tested(Table):
    """The version somebody last saw this profile work with."""

    against: str = ""
    """Product and version."""
    on: str = ""
    """The day, as 2026-11-24."""

    @field_validator("on")
    @classmethod
    def _a_day(cls, on: str) -> str:
        if on and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", on):
            raise ValueError("give the day as YYYY-MM-DD")
        return on


class DicomPolicy(Table):
    """What an archive wants to see in the object."""

    sop_class: Literal["auto", "vl-photographic"] = "auto"
    """`auto`: Dermoscopic Photography for modality DMS when `equipment` names the device, else VL Photographic."""
    patient_id_system: str = ""
    """Which identifier becomes PatientID; empty: the first."""
    issuer: str = ""
    """IssuerOfPatientID."""
    visit_issuer: str = ""
    """Issuer of AdmissionID and, where it comes from the visit, of AccessionNumber (their sequences)."""
    visit_system: str = ""
    """Which visit number becomes AdmissionID; empty: the first."""
    accession: Literal["none", "visit"] = "none"
    """Where AccessionNumber comes from."""
    equipment: dict[str, str] = {}
    """Manufacturer, ManufacturerModelName, DeviceSerialNumber, SoftwareVersions."""
    dermoscope: dict[str, str] = {}
    """LightSourcePolarization, ContactMethod, ImmersionMedia, ..."""
    duplicates: Literal["accepted", "refused"] = "accepted"
    """How the archive answers an object it has: 200, or 409 with a failure for it."""
