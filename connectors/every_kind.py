"""What every kind of destination has, and what all that are reached over HTTP have."""

from __future__ import annotations

import re
from typing import Any, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import Field, PositiveInt, field_validator, model_validator

from connectors.knobs import (
    Auth,
    Environment,
    Landing,
    Launch,
    Limits,
    MimeType,
    Signal,
    Table,
    Tested,
    Timeouts,
    Transform,
)
from connectors.profile_keys import has_key


class Profile(Table):
    """What every destination has."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    """The destination as people and receipts name it: lower case, digits, hyphens."""
    kind: str
    """By which of the ways in photos go; see docs/connectors.md."""
    max_bytes: PositiveInt = 50_000_000
    """Of what is sent, after the transform."""
    accepts: tuple[MimeType, ...] = ()
    """MIME types the destination takes; empty: whatever the photo is. Others are made JPEG where JPEG is taken."""
    comparisons: bool = False
    """Whether a saved comparison may be filed here too: one picture, made what `transform` says."""
    observations: bool = False
    """Whether the measurements on a comparison's sheet are filed beside it as Observations (FHIR servers only)."""
    visit_sheet: Literal["", "contact-sheet", "visit-report"] = ""
    """One PDF of all photos of a visit, made again when the visit gains or loses one: twelve to a page, or two to a
    page with all that is known of them."""
    single_photos: bool = True
    """With a visit_sheet: whether the photos of a visit are also filed one by one."""
    transform: Transform = Transform()
    signals: tuple[Signal, ...] = ()
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    landing: Landing = Landing()
    launch: Launch = Launch()
    environment: Environment = Environment()
    tested: Tested = Tested()
    timezone: str = "UTC"
    """Of the times in templates, captions and messages and of `limits.off_peak`, as `America/New_York`; left out: the
    site's `time_zone`."""
    on_withdrawal: Literal["stop", "retract"] = "stop"
    """When the patient withdraws consent: send nothing more, or take back what is there as well."""
    requires_consent: bool = False
    """Deliver only what an active consent permits, even where the site's policy permits treatment without one."""
    unverified: dict[str, str] = Field({})
    """Dotted keys of this profile whose value nobody here has seen confirmed -> where it comes from."""

    @property
    def route_names(self) -> tuple[str, ...]:
        """What `Receipt.route` may say."""
        return (self.kind,)

    @property
    def is_blind(self) -> bool:
        """Whether only a person can say, after a crash, if what was being sent has arrived (`CannotLook`)."""
        return False

    @property
    def reads_back(self) -> bool:
        """Whether what arrived can be read back; else `read_back` always says None."""
        return True

    @field_validator("timezone", mode="after")
    @classmethod
    def _a_timezone(cls, timezone: str) -> str:
        try:
            ZoneInfo(timezone)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError("give the name of a time zone, as America/New_York") from error
        return timezone

    @model_validator(mode="after")
    def _unverified_keys_exist(self) -> Self:
        for key in self.unverified:
            if not has_key(self, key):
                raise ValueError(f"unverified names {key!r}, which is no key of this profile")
        return self


class HttpProfile(Profile):
    """Whatever is reached over HTTP."""

    base_url: str
    """May hold `{name}` for each `tenant.name`."""
    tenant: dict[str, str] = Field({})
    """What stands for the customer in addresses, headers and fields: practice, site, firm prefix."""
    auth: Auth = Auth()
    headers: dict[str, str] = Field({})
    """Sent with every request; may hold `{name}` of `tenant`."""
    query: dict[str, str] = Field({})
    """Parameters added to every address below base_url, as `ah-practice`; may hold `{name}` of `tenant`."""
    method_override: bool = False
    """Send PUT and DELETE as POST with X-HTTP-Method-Override, where a proxy lets nothing else through."""
    code_paths: tuple[str, ...] = ("issue.details.coding.code", "issue.code")
    """Where in a JSON answer vendor codes stand, for `signals`."""

    @model_validator(mode="before")
    @classmethod
    def _tenanted(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("base_url"), str):
            return values
        url, tenant = values["base_url"], values.get("tenant", {})
        for name in re.findall(r"\{(\w+)\}", url):
            if name not in tenant:
                raise ValueError(f"base_url needs tenant.{name}")
            url = url.replace("{" + name + "}", str(tenant[name]))
        return values | {"base_url": url}

    @field_validator("base_url", mode="after")
    @classmethod
    def _absolute(cls, base_url: str) -> str:
        parts = urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query:
            raise ValueError("give an absolute http(s) address without user name and query")
        return base_url.rstrip("/")
