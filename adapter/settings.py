"""One frozen, validated Settings object, built once at the edge of each command.

Sources, later ones winning: defaults, the TOML file (``config/dermbridge.toml`` or ``$DERMBRIDGE_CONFIG``), then the
environment: ``DERMBRIDGE_<FIELD>`` for every scalar field, ``DERMBRIDGE_<FIELD>_FILE`` to read it from a file (secrets
mounted by an orchestrator). A wrong value stops start-up with a sentence that names source, key and remedy.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from adapter.errors import Misconfigured

ENVIRONMENT_PREFIX = "DERMBRIDGE_"
DEFAULT_CONFIG = Path("config/dermbridge.toml")

ConsentMode = Literal["disabled", "advisory", "required"]
Role = Literal["clinician", "photographer", "engineer", "privacy-officer", "administrator"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Ehr(_Frozen):
    """An EHR that may launch DermBridge (SMART App Launch 2.2 registration)."""

    name: str
    iss: str = Field(description="FHIR base URL exactly as the EHR sends it in `iss`")
    issuer: str | None = Field(default=None, description="`iss` of its id_tokens; unset: what its configuration states")
    client_id: str
    client_secret: SecretStr | None = None
    private_key: Path | None = Field(default=None, description="PEM or JWK: we prove who we are with private_key_jwt")
    key_id: str | None = Field(default=None, description="kid of that key; unset: its RFC 7638 thumbprint")
    callback: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9-]{1,40}$",
        description="redirect to /callback/<this>: an address of its own, so that no other EHR can pass off its codes",
    )
    scope: str = (
        "launch openid fhirUser online_access patient/Patient.r patient/Encounter.rs patient/DocumentReference.rs"
    )
    frame_ancestors: tuple[str, ...] = Field(default=(), description="origins allowed to show us in an iframe")
    identifier_systems: tuple[str, ...] = Field(default=(), description="which patient identifiers to trust, in order")
    default_role: Role = "clinician"
    roles: dict[str, Role] = Field(default_factory=dict, description="fhirUser reference -> role")

    @field_validator("iss")
    @classmethod
    def _no_trailing_slash(cls, value: str) -> str:
        return value.rstrip("/")


def _beside_certificate(value: Path | None, info: ValidationInfo) -> Path | None:
    if value and not any(given for name, given in info.data.items() if name.endswith("certificate")):
        raise ValueError("is of no use without a certificate; name the PEM file of that as well")
    return value


BesideCertificate = Annotated[Path | None, AfterValidator(_beside_certificate)]
"""A PEM file that means nothing unless the field `certificate`, declared before it, is set."""


class Client(_Frozen):
    """Who may ask /auth/token for access: a machine (SMART backend services) or, with `redirect_uris`, an app that
    people launch (SMART App Launch). A machine proves itself with its key, an app with key or secret, or is public."""

    client_id: str
    name: str
    scope: str = Field(description="the most it is granted, such as system/Media.rs; see docs/smart.md")
    jwks: dict[str, Any] | None = Field(default=None, description="its public keys")
    jwks_url: str | None = Field(default=None, description="where it publishes them")
    client_secret: SecretStr | None = Field(default=None, description="of an app without a key; 32 letters or more")
    redirect_uris: tuple[str, ...] = Field(default=(), description="where an app's people come back, to the letter")
    launch_url: str | None = Field(default=None, description="where it is opened from a chart (EHR launch)")
    may_introspect: bool = Field(default=False, description="may ask about tokens of other clients")

    @model_validator(mode="after")
    def _one_proof(self) -> Self:
        proofs = [one for one in (self.jwks, self.jwks_url, self.client_secret) if one is not None]
        if len(proofs) > 1 or not (proofs or self.redirect_uris):
            raise ValueError("needs one of jwks, jwks_url and client_secret; none only for an app with redirect_uris")
        return self

    @property
    def has_key(self) -> bool:
        return self.jwks is not None or self.jwks_url is not None

    @property
    def is_public(self) -> bool:
        return not self.has_key and self.client_secret is None


class StaffLogin(_Frozen):
    """An OpenID Connect provider where staff sign in outside an EHR."""

    name: str
    issuer: str = Field(description="as in its .well-known/openid-configuration")
    client_id: str
    client_secret: SecretStr | None = None
    scope: str = "openid profile"
    role_claim: str = Field(default="groups", description="claim of the id_token that says what a person is")
    roles: dict[str, Role] = Field(description="value of that claim -> role; whoever has none is refused")
    practitioner_claim: str | None = Field(default=None, description="claim with a person's number in PV1-7, 8, 9, 17")
    practitioner_system: str | None = Field(default=None, description="identifier system of those numbers")


class MllpListener(_Frozen):
    """An address where HL7 v2 is received. TLS with a `certificate`, mutual TLS with `client_ca` beside it."""

    host: str = "127.0.0.1"
    port: int = Field(ge=0, le=65535)
    certificate: Path | None = Field(default=None, description="PEM: ours, then those between it and its root")
    key: BesideCertificate = Field(default=None, description="PEM; unset: in the file of the certificate")
    client_ca: BesideCertificate = Field(default=None, description="PEM; who must have signed a sender's certificate")


class ApplicationAckChannel(_Frozen):
    """Where a sender wants the application acknowledgements that its MSH-16 asks for, if not on its own connection."""

    sender: str = Field(description="MSH-3|MSH-4 as sent")
    host: str
    port: int = Field(ge=1, le=65535)
    ca: Path | None = Field(default=None, description="PEM; TLS when set")
    certificate: Path | None = Field(default=None, description="PEM; ours, where the receiver asks for one")
    key: BesideCertificate = Field(default=None, description="PEM; unset: in the file of the certificate")


class FieldOfView(_Frozen):
    """What a device shows from edge to edge, where it always is the same: a dermatoscope on the skin."""

    device: str = Field(description="Media.deviceName, exactly")
    millimetres: float = Field(gt=0.1, le=500, description="diameter of its round field, or the photo's whole width")
    tolerance: float = Field(default=0.02, gt=0, le=0.5, description="relative, one standard deviation")


class AuditFeed(_Frozen):
    """An audit repository that is told every AuditEvent (IHE ITI-20)."""

    name: str = Field(max_length=64)
    url: str = Field(description="syslog+tls://host:6514, or a FHIR base URL")
    ca: Path | None = Field(default=None, description="PEM; who signed its certificate, if nobody the system trusts")
    certificate: Path | None = Field(default=None, description="PEM; ours, for mutual TLS")
    key: BesideCertificate = Field(default=None, description="PEM; unset: in the file of the certificate")
    token: SecretStr | None = Field(default=None, description="bearer token for FHIR")
    bundle: bool = Field(default=True, description="FHIR: transaction Bundles; false: one AuditEvent a request")
    from_start: bool = Field(default=False, description="begin with the first event of the log, not with new ones")

    @property
    def is_syslog(self) -> bool:
        return self.url.startswith("syslog+tls://")

    @field_validator("url")
    @classmethod
    def _encrypted(cls, value: str) -> str:
        if not value.startswith(("syslog+tls://", "https://", "http://127.0.0.1", "http://localhost")):
            raise ValueError("is neither syslog+tls:// nor https://; the audit log names patients")
        return value


class Suspicion(_Frozen):
    """Which doubts put a photo into quarantine until a person has settled whose it is (docs/worklist.md)."""

    other_chart: bool = True
    outside_visit: bool = True
    contradicts_record: bool = True
    same_content: bool = True
    other_chart_minutes: int = Field(default=60, ge=1, description="how long an opened chart counts")
    visit_tolerance_hours: int = Field(default=12, ge=0, description="how far outside a visit still belongs to it")


class Settings(_Frozen):
    """Everything an operator may decide. Defaults run the embedded product on a laptop."""

    data_dir: Path = Field(default=Path("var"), description="keys, embedded database, encrypted photos")
    database_url: str | None = Field(default=None, description="postgresql://…; embedded SQLite when unset")
    public_url: str | None = Field(default=None, description="how browsers and EHRs reach us; default http://host:port")
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8000, ge=0, le=65535)
    processes: int = Field(
        default_factory=lambda: min(os.cpu_count() or 1, 4), ge=1, le=64, description="of serve and of worker, each"
    )
    mllp_host: str = "127.0.0.1"
    mllp_port: int = Field(default=2575, ge=0, le=65535)
    mllp_certificate: Path | None = Field(default=None, description="PEM; TLS when set")
    mllp_key: BesideCertificate = None
    mllp_client_ca: BesideCertificate = Field(default=None, description="PEM; mutual TLS when set")
    mllp_listeners: tuple[MllpListener, ...] = Field(default=(), description="further addresses to receive at")
    mllp_max_message_bytes: int = Field(default=100 * 2**20, ge=1024)
    mllp_max_bytes_in_flight: int = Field(default=256 * 2**20, ge=1024, description="received and not yet durable")
    mllp_max_connections: int = Field(default=500, ge=1)
    mllp_idle_seconds: float = Field(default=3600, gt=0, description="a connection may be silent for so long")
    mllp_stall_seconds: float = Field(default=120, gt=0, description="one message, or reading its answer, may take")
    mllp_senders: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="CN of a client certificate -> the MSH-3|MSH-4 it may send for; unset: any"
    )
    application_ack_channels: tuple[ApplicationAckChannel, ...] = ()
    site_name: str = Field(default="DermBridge", description="name of the organisation that keeps the photos")
    time_zone: str = Field(default="UTC", description="zone of clocks that do not tell theirs (cameras, HL7 v2)")

    max_capture_bytes: int = Field(default=64 * 2**20, ge=1024)
    max_pixels: int = Field(default=120_000_000, ge=1_000_000)
    accept_unlisted_body_sites: bool = False
    sheet_identifies: Literal["full", "number", "none"] = Field(
        default="full", description="what a comparison exported as PDF or PNG says of its patient"
    )
    fields_of_view: tuple[FieldOfView, ...] = ()

    external_photo_days: int = Field(default=30, ge=1, description="how long a copy of another system's photo is kept")

    consent_mode: ConsentMode = Field(default="advisory", description="gate for treatment documentation")

    identifier_systems: dict[str, str] = Field(
        default_factory=dict, description="HL7 v2 assigning authority (CX.4.1) -> FHIR identifier system"
    )
    visit_systems: dict[str, str] = Field(default_factory=dict, description="the same for visit numbers, where others")
    default_authority: str | None = Field(
        default=None,
        description="assigning authority meant when CX.4 is empty; unset: such messages are queued",
    )
    hl7_charset: str = Field(default="utf-8", description="charset of messages that do not state MSH-18")

    suspicion: Suspicion = Suspicion()
    second_demographic: Literal["if-given", "required"] = Field(
        default="if-given", description="whether a photo may bind late by its identifier alone"
    )
    second_person: bool = Field(default=False, description="whether a second person confirms a wrong-patient move")

    ehrs: tuple[Ehr, ...] = ()
    fhir_cors_origins: tuple[str, ...] = Field(
        default=(), description="origins whose browser apps may call /fhir with a token, such as https://app.example"
    )
    destinations: tuple[dict[str, Any], ...] = Field(default=(), description="see docs/connectors.md")
    clients: tuple[Client, ...] = ()
    staff_logins: tuple[StaffLogin, ...] = ()
    private_hosts: tuple[str, ...] = Field(
        default=(), description="hosts in our own network that an EHR's configuration may point us to"
    )
    ca_files: dict[str, Path] = Field(default={}, description="host -> PEM of whom to trust there, not the public CAs")
    age_of_majority: int = Field(default=18, ge=0, description="in years; photos of who is younger are labelled")
    treating_days: int = Field(default=30, ge=0, description="how long a visit that ended, or a photo taken, counts")
    emergency_minutes: int = Field(default=60, ge=1, le=720, description="how long breaking the glass lasts")
    session_idle_minutes: int = Field(default=15, ge=1)
    session_hours: int = Field(default=12, ge=1)
    app_offline_days: int = Field(default=30, ge=1, le=366, description="how long an app goes on by offline_access")
    worker_threads: int = Field(default=4, ge=1, le=64)
    access_report_shows: Literal["names", "roles"] = Field(
        default="names", description="how the report for patients tells who looked at their photos"
    )
    audit_feeds: tuple[AuditFeed, ...] = ()
    audit_seal_seconds: int = Field(default=10, ge=1, description="the audit log is sealed at least so often")

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"(postgresql|sqlite)(\+\w+)?://", value):
            raise ValueError("is neither postgresql://… nor sqlite:///…; left out, the embedded database is used")
        return value

    @field_validator("public_url")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"https?://[^/]", value):
            raise ValueError("is no address such as https://photos.hospital.example")
        return value

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError("is not an IANA time zone such as Europe/Zurich") from None
        return value

    @property
    def listeners(self) -> tuple[MllpListener, ...]:
        """Every address where HL7 v2 is received."""
        first = MllpListener(
            host=self.mllp_host,
            port=self.mllp_port,
            certificate=self.mllp_certificate,
            key=self.mllp_key,
            client_ca=self.mllp_client_ca,
        )
        return first, *self.mllp_listeners

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)

    @property
    def base_url(self) -> str:
        """Public address without a trailing slash."""
        host = f"[{self.http_host}]" if ":" in self.http_host else self.http_host
        return (self.public_url or f"http://{host}:{self.http_port}").rstrip("/")

    @property
    def database(self) -> str:
        """SQLAlchemy URL of the database in use."""
        if self.database_url is None:
            return f"sqlite+pysqlite:///{self.data_dir / 'dermbridge.sqlite3'}"
        return self.database_url.replace("postgresql://", "postgresql+psycopg://", 1)


def environment() -> Mapping[str, str]:
    """The process environment; nothing else reads it."""
    return os.environ


def configure_library(variable: str, value: str) -> None:
    """Set a variable that a library reads; for libraries that offer no other way."""
    os.environ[variable] = value


def settings_file(environment: Mapping[str, str]) -> Path:
    """The TOML file in use, whether it exists or not."""
    return Path(environment.get(f"{ENVIRONMENT_PREFIX}CONFIG", DEFAULT_CONFIG))


def unknown_variables(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Variables with our prefix that mean nothing here -> the setting that is spelled almost so, if there is one.

    Others may be somebody else's: Compose files and orchestrators have DERMBRIDGE_… of their own.
    """
    fields = [name.upper() for name in Settings.model_fields]
    known = {f"{ENVIRONMENT_PREFIX}{name}" for name in [*fields, *(f"{name}_FILE" for name in fields), "CONFIG"]}
    ours = [name for name in environment if name.startswith(ENVIRONMENT_PREFIX) and name not in known]
    cutoff = 0.93  # of the whole name: one or two letters of it
    return {name: next(iter(get_close_matches(name, known, 1, cutoff)), None) for name in ours}


def load_settings(
    path: Path | None = None,
    environment: Mapping[str, str] | None = None,
    **overrides: Any,
) -> Settings:
    """Settings from file and environment; `overrides` (command-line options, tests) win.

    Raises Misconfigured naming file or variable, key and remedy.
    """
    environment = os.environ if environment is None else environment
    for variable, meant in unknown_variables(environment).items():
        if meant:
            raise Misconfigured(f"{variable} is not a setting; {meant} is: rename the variable, or unset it")
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    file = path or settings_file(environment)
    if file.exists():
        _merge(values, origin, _read_toml(file), str(file))
    elif path is not None or f"{ENVIRONMENT_PREFIX}CONFIG" in environment:
        raise Misconfigured(f"the settings file {file} does not exist; create it or unset DERMBRIDGE_CONFIG")
    for name in Settings.model_fields:
        variable = f"{ENVIRONMENT_PREFIX}{name.upper()}"
        if value := environment.get(variable):
            _merge(values, origin, {name: value}, variable)
        elif secret_file := environment.get(f"{variable}_FILE"):
            _merge(values, origin, {name: _read_secret(variable, Path(secret_file))}, f"{variable}_FILE")
    _merge(values, origin, {k: v for k, v in overrides.items() if v is not None}, "the command line")
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise Misconfigured("; ".join(_explain(problem, origin) for problem in error.errors())) from None


def _merge(values: dict[str, Any], origin: dict[str, str], new: Mapping[str, Any], source: str) -> None:
    values.update(new)
    origin.update(dict.fromkeys(new, source))


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{file} is not valid TOML: {error}") from None


def _read_secret(variable: str, file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise Misconfigured(f"{variable}_FILE names {file}, which cannot be read: {error.strerror}") from None


def _explain(problem: Any, origin: Mapping[str, str]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    source = origin.get(str(problem["loc"][0]), "settings") if problem["loc"] else "settings"
    if problem["type"] == "extra_forbidden":
        return f"{source}: unknown key '{key}'; remove it or see docs/settings.md for the known keys"
    return f"{source}: {key}: {problem['msg'].removeprefix('Value error, ')} (see docs/settings.md)"
