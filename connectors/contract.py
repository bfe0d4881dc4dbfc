"""What DermBridge asks of every destination, and what a destination answers.

A connector knows one kind of destination. It gets a `Parcel`, returns a `Receipt` or raises a `DeliveryError`, and
proves what it did with `Evidence`. It holds no state that a restart would miss and never sees our database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, Literal, Protocol, runtime_checkable

import orjson

Secrets = Callable[[str], str]
"""Gives the secret of a name, or raises KeyError or OSError."""


@dataclass(frozen=True, slots=True)
class Grant:
    """`granted` may be sent within the second that begins now; if 0, ask again after `wait` seconds."""

    granted: int
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class Rule:
    """At most so many in so many seconds: any such stretch of time, or (`fixed`) from each full multiple on."""

    seconds: int
    at_most: int
    fixed: bool = False

    @property
    def span(self) -> int:
        """How finely it is counted: days as a whole, everything shorter by the second."""
        return self.seconds if self.seconds == 86_400 else 1


class Tally(Protocol):
    """What was sent to one destination lately, and until when nobody shall."""

    def take(self, rules: Sequence[Rule], now: float, weight: int, wanted: int) -> Grant:
        """Count between `weight` and `wanted` as sent at `now` (seconds since 1970), or say how long to wait."""
        ...

    def pause(self, until: float) -> None: ...


Tallies = Callable[[str], Tally]
"""The tally of that name for one destination: its route's requests, or its token requests."""


def utc_now() -> datetime:
    """The clock of connectors; tests hand in another."""
    return datetime.now(UTC)


class Retry(Enum):
    """What may be done after a failed attempt."""

    NEVER = "never"  # a person or a setting must change something first
    LATER = "later"  # nothing was written; the same attempt may succeed later
    UNKNOWN = "unknown"  # the answer was lost; `find` must look before anything is sent again


class DeliveryError(Exception):
    """A destination did not do what was asked.

    `str(error)` is the reason, `remedy` the next step. Both may hold statuses, OperationOutcome issue codes and our
    own ids; never a remote body, a name, an MRN or a URL with a signature. `retry_after` is in seconds. `outage`:
    the destination could not be reached or broke off, whatever the parcel. `at_most`: after so many attempts a person
    must look.
    """

    def __init__(
        self,
        reason: str,
        *,
        remedy: str,
        retry: Retry,
        retry_after: float | None = None,
        outage: bool = False,
        at_most: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.remedy = remedy
        self.retry = retry
        self.retry_after = retry_after
        self.outage = outage
        self.at_most = at_most


class RouteRefused(DeliveryError):
    """The destination does not offer this way of writing at all; the next route of the profile may work."""


class AlreadyThere(DeliveryError):
    """The destination says it has this already; `find` sees whether that is so."""


class SignInAgain(DeliveryError):
    """The destination does not know our token any more; nothing was done."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The destination's own word that it holds the photo.

    `ids` maps a resource type to the destination's id (`{"Media": "17", "Binary": "16", "Patient": "3"}`); `location`
    is the address of the record without query or signature; `received_at` is the destination's time.
    """

    route: str
    ids: Mapping[str, str] = field(default_factory=dict)
    location: str | None = None
    version: str | None = None
    received_at: datetime | None = None
    duplicate: bool = False  # it was already there; nothing was written

    def to_json(self) -> str:
        return orjson.dumps(self, option=orjson.OPT_SORT_KEYS).decode()

    @classmethod
    def from_json(cls, text: str) -> Receipt:
        values = orjson.loads(text)
        moment = values.pop("received_at")
        return cls(**values, received_at=datetime.fromisoformat(moment) if moment else None)


CANNOT_LOOK: Final = "The answer was lost and this destination cannot be asked what it holds."


class CannotLook(DeliveryError):
    """The destination cannot be asked what it holds.

    With `may_resend` it knows duplicates by `presumed`'s ids, so that sending again is as good as looking, and taking
    back is safe whether it is there or not. Without, only a person can say.
    """

    def __init__(self, what: str, *, may_resend: bool = False, presumed: Receipt | None = None) -> None:
        super().__init__(
            CANNOT_LOOK,
            remedy=f"Look there for {what}; send again only if it is not there.",
            retry=Retry.NEVER,
        )
        self.may_resend = may_resend
        self.presumed = presumed


@dataclass(frozen=True, slots=True)
class Parcel:
    """One version of one photo for one destination.

    `idempotency_key` names media id, version and destination, so the same parcel always has the same key; what is sent
    again after it was taken back has another. `media`, `patient`, `encounter`, `consents` and `observations` (the
    measurements that it tells of, where the profile takes them) are FHIR R4 JSON as we store it, with our references.
    `content` returns the clean copy; `size` (bytes), `sha256` (hex) and `sha1_b64` (Attachment.hash) are of those
    bytes. `previous` is the receipt of the version or identity that this parcel replaces at the same destination.
    """

    delivery_id: str
    idempotency_key: str
    media: Mapping[str, Any] = field(repr=False)
    patient: Mapping[str, Any] = field(repr=False)
    content: Callable[[], bytes] = field(repr=False)
    content_type: str
    size: int
    sha256: str
    sha1_b64: str
    filename: str
    encounter: Mapping[str, Any] | None = field(default=None, repr=False)
    consents: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    observations: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    previous: Receipt | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a read-back saw. `differences` are sentences; `matches` is true when there are none."""

    size: int | None
    sha256: str | None
    patient: str | None
    encounter: str | None
    differences: tuple[str, ...] = ()

    @property
    def matches(self) -> bool:
        return not self.differences


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `connectors check`."""

    subject: str
    verdict: Literal["ok", "warning", "error"]
    detail: str
    remedy: str = ""


class Connector(Protocol):
    """The obligations. `tests/connectors/test_contract.py` holds every kind to them.

    1. Every failure is a `DeliveryError` that says whether and when to try again; nothing else escapes.
    2. A connector may be used by several threads at once, for different parcels.
    3. Nothing of a parcel is written to a log, and no signed address leaves the connector.
    """

    def check(self) -> list[Finding]:
        """Say what will work and what to change. 4. Writes nothing that stays at the destination."""
        ...

    def find(self, parcel: Parcel) -> Receipt | None:
        """Look whether exactly this parcel is there already.

        5. Returns the receipt `send` would have returned, marked `duplicate`; None when it is not there.
        6. Writes nothing. Raises CannotLook where there is no way to ask.
        """
        ...

    def send(self, parcel: Parcel) -> Receipt:
        """Write the photo into the record of its patient.

        7. Sending the same parcel again has no second effect and returns a receipt marked `duplicate`.
        8. The patient is verified at the destination first; none, several or a contradicting one is a refusal.
        9. A new version of a photo replaces the old one in the same patient's record; a copy in the record of
           another patient is left alone (`retract` takes it away). Cut short in between, the same parcel sent again
           finds the new version there and takes the old one away.
        10. When the answer is lost after the request left, raises with `Retry.UNKNOWN`; never resends blindly.
        """
        ...

    def read_back(self, parcel: Parcel, receipt: Receipt) -> Evidence | None:
        """Read what the destination holds now and compare it. 11. Compares the bytes, not their description.

        None where the destination gives nothing back to read (HL7 v2, a hand-off): its receipt is all there is.
        """
        ...

    def retract(self, parcel: Parcel, receipt: Receipt, reason: str) -> Receipt:
        """Mark the photo as entered in error. `reason` holds no PHI.

        12. Retracting again, or what is gone already, has no effect and returns a receipt marked `duplicate`.
        """
        ...

    def close(self) -> None:
        """Release sockets. 13. May be called twice."""
        ...


@runtime_checkable
class AsksTogether(Protocol):
    """What a connector may offer beside: to ask for several parcels at once what it would ask for each."""

    def asked_together(self, parcels: Sequence[tuple[Parcel, Receipt | None]]) -> AbstractContextManager[None]:
        """Within, `find` and `send` of these parcels in this thread, or `read_back` of those with a receipt, need not
        ask for themselves what was asked here. What could not be asked fails there, not here."""
        ...
