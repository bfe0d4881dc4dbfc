"""The declarative description of one destination, as written in TOML.

`based_on = "medplum"` starts from a shipped profile (`connectors/profiles/`) or from a .toml file, so that a site
writes only what differs.
Every key does something today; an unknown one is refused with file, key and remedy.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator, model_validator

from mappings.terms import LOINC, PHOTO_DOCUMENT

Route = Literal["fhir-media", "fhir-documentreference"]
Seconds = Annotated[float, Field(gt=0)]


class ProfileError(ValueError):
    """A profile cannot be used; the message names file, key and remedy."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Auth(_Table):
    """How we identify ourselves. `secret` is the name of a secret, never its value."""

    kind: Literal["none", "basic", "client_secret_basic", "client_secret_post", "private_key_jwt"] = "none"
    client_id: str = ""  # the user name for `basic`
    secret: str = ""  # password, client secret, or private key (PEM or JWK, RSA or EC P-384)
    key_id: str = ""  # `kid` of the private key when the key itself does not say it
    token_url: str = ""  # empty: read from /.well-known/smart-configuration
    scope: str = ""  # empty: the parameter is left out

    @model_validator(mode="after")
    def _complete(self) -> Self:
        missing = [name for name in ("client_id", "secret") if self.kind != "none" and not getattr(self, name)]
        if missing:
            raise ValueError(f"kind {self.kind!r} needs {' and '.join(missing)}")
        return self


class PatientResolution(_Table):
    """Which patient of the destination is ours."""

    identifier_systems: tuple[str, ...] = ()  # tried in this order; empty: all the patient has
    create_missing: bool = False


class EncounterPolicy(_Table):
    """Whether a photo is filed under a visit."""

    policy: Literal["required", "optional", "omit"] = "optional"
    identifier_systems: tuple[str, ...] = ()


class Coding(_Table):
    """A FHIR Coding."""

    system: str = LOINC
    code: str = PHOTO_DOCUMENT
    display: str = ""


class Timeouts(_Table):
    """Seconds for one request. `attempts` covers refused connections and busy answers within one attempt."""

    connect: Seconds = 5.0
    read: Seconds = 30.0
    write: Seconds = 30.0
    attempts: PositiveInt = 3


class Profile(_Table):
    """What every destination has."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    kind: str
    max_bytes: PositiveInt = 50_000_000


class DirectoryProfile(Profile):
    """A folder that another program, or a person, collects from."""

    kind: Literal["directory"]
    folder: Path

    @field_validator("folder", mode="after")
    @classmethod
    def _expanded(cls, folder: Path) -> Path:
        return folder.expanduser()


class FhirR4Profile(Profile):
    """A FHIR R4 server."""

    kind: Literal["fhir-r4"]
    base_url: str
    auth: Auth = Auth()
    routes: tuple[Route, ...] = Field(default=("fhir-media", "fhir-documentreference"), min_length=1)
    binary_upload: Literal["raw", "json", "inline"] = "raw"
    patient: PatientResolution = PatientResolution()
    encounter: EncounterPolicy = EncounterPolicy()
    type_coding: Coding = Coding()
    omit: tuple[str, ...] = ()  # elements the destination rejects, as dotted paths: "meta.security"
    conditional_create: bool = True
    consent_strategy: Literal["resource", "local-only"] = "local-only"
    search: Literal["get", "post"] = "get"  # post keeps identifiers out of the destination's access log
    prefer: Literal["return=minimal", "return=representation", ""] = "return=representation"
    headers: dict[str, str] = {}
    attachment_hosts: tuple[str, ...] = ()  # hosts other than the server's own that may hold the bytes (signed URLs)
    timeouts: Timeouts = Timeouts()

    @field_validator("base_url", mode="after")
    @classmethod
    def _absolute(cls, base_url: str) -> str:
        parts = urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query:
            raise ValueError("give an absolute http(s) address without user name and query")
        return base_url.rstrip("/")


PROFILES: Final[Mapping[str, type[Profile]]] = {"directory": DirectoryProfile, "fhir-r4": FhirR4Profile}


def read_profile(path: Path) -> Profile:
    """Read one TOML file. Raises ProfileError."""
    return parse_profile(_read(path), source=str(path))


def find_shipped_profiles() -> list[str]:
    """The names `based_on` takes."""
    folder = resources.files("connectors") / "profiles"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def parse_profile(text: str, *, source: str) -> Profile:
    """Build the profile that `text` (TOML) describes. `source` names it in messages. Raises ProfileError."""
    return build_profile(_load(text, source), source=source)


def build_profile(given: Mapping[str, Any], *, source: str) -> Profile:
    """Build the profile that a table (`based_on` and what differs from it) describes. Raises ProfileError."""
    table = _with_base(dict(given), source)
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in PROFILES:
        raise ProfileError(f"{source}: kind {kind!r} is not known; use one of {', '.join(sorted(PROFILES))}.")
    model = PROFILES[kind]
    try:
        return model.model_validate(table)
    except ValidationError as error:
        lines = [_explain(dict(each), model) for each in error.errors(include_input=False)]
        raise ProfileError("\n".join(f"{source}: {line}" for line in lines)) from error


def _load(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{source}: not TOML ({error}); correct that line.") from error


def _with_base(table: dict[str, Any], source: str) -> dict[str, Any]:
    base = table.pop("based_on", None)
    if base is None:
        return table
    if isinstance(base, str) and base.endswith(".toml"):
        return _merged(_with_base(_load(_read(Path(base)), base), base), table)
    if base not in find_shipped_profiles():
        shipped = ", ".join(find_shipped_profiles())
        raise ProfileError(f"{source}: based_on {base!r} is not shipped; use one of {shipped}, or a .toml file.")
    text = (resources.files("connectors") / "profiles" / f"{base}.toml").read_text("utf-8")
    return _merged(_load(text, f"connectors/profiles/{base}.toml"), table)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: cannot be read ({error}).") from error


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, table by table; lists replace."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if both else value
    return result


def _explain(error: Mapping[str, Any], model: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "the profile"
    if error["type"] != "extra_forbidden":
        return f"{key}: {error['msg']}; correct this key."
    *tables, unknown = (str(part) for part in error["loc"])
    known = list(_keys(model, tables))
    close = difflib.get_close_matches(unknown, known, n=1)
    remedy = f"did you mean {close[0]!r}?" if close else f"remove it or use one of {', '.join(known)}."
    return f"{key}: unknown key; {remedy}"


def _keys(model: type[BaseModel], tables: list[str]) -> Mapping[str, Any]:
    for table in tables:
        annotation = model.model_fields[table].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return model.model_fields
