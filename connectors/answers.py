"""Reading what a destination answered: status -> DeliveryError, waiting times, ids in Location headers.

Sources: http://hl7.org/fhir/R4/http.html (statuses), RFC 9110 10.2.3 (Retry-After),
draft-ietf-httpapi-ratelimit-headers (RateLimit; Medplum sends it without Retry-After).
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, Final

import orjson

from connectors.contract import DeliveryError, Retry, RouteRefused

# http://hl7.org/fhir/R4/valueset-issue-type.html. Only these are repeated in reasons: anything else is remote text.
ISSUE_CODES: Final = frozenset(
    [
        "invalid",
        "structure",
        "required",
        "value",
        "invariant",
        "security",
        "login",
        "unknown",
        "expired",
        "forbidden",
        "suppressed",
        "processing",
        "not-supported",
        "duplicate",
        "multiple-matches",
        "not-found",
        "deleted",
        "too-long",
        "code-invalid",
        "extension",
        "too-costly",
        "business-rule",
        "conflict",
        "transient",
        "lock-error",
        "no-store",
        "exception",
        "timeout",
        "incomplete",
        "throttled",
        "informational",
    ]
)

# status -> (retry of a write, what to do). Reads of a busy or broken server are always LATER.
STATUS: Final[Mapping[int, tuple[Retry, str]]] = {
    400: (Retry.NEVER, "Run `connectors check`, and name rejected elements in the profile's `omit`, then replay."),
    401: (Retry.LATER, "Check client id, secret and scope of the profile; deliveries go on once they are accepted."),
    403: (Retry.NEVER, "Ask the destination to allow this client to write here, then replay."),
    404: (Retry.NEVER, "Check base_url and that the record still exists there, then replay."),
    405: (Retry.NEVER, "The destination does not offer this write; choose another route in the profile."),
    408: (Retry.UNKNOWN, "Nothing to do: the destination is asked what it holds before anything is sent again."),
    409: (Retry.LATER, "Nothing to do: somebody else holds the record, it is tried again."),
    410: (Retry.NEVER, "The record was deleted there; replay to file the photo anew."),
    412: (Retry.LATER, "Nothing to do: the record changed meanwhile, it is read again before the next attempt."),
    413: (Retry.NEVER, "Lower `max_bytes` to the destination's limit, or have the limit raised, then replay."),
    415: (Retry.NEVER, "Change `binary_upload` (raw, json, inline) or the route in the profile, then replay."),
    422: (Retry.NEVER, "Run `connectors check`; the destination's rules want other or more elements. Then replay."),
    429: (Retry.LATER, "Nothing to do: it is tried again when the destination allows."),
    500: (Retry.UNKNOWN, "Nothing to do: the destination is asked what it holds before anything is sent again."),
    501: (Retry.NEVER, "The destination does not offer this write; choose another route in the profile."),
    502: (Retry.UNKNOWN, "Nothing to do: the destination is asked what it holds before anything is sent again."),
    503: (Retry.LATER, "Nothing to do: it is tried again when the destination is back."),
    504: (Retry.UNKNOWN, "Nothing to do: the destination is asked what it holds before anything is sent again."),
}
BUSY: Final = frozenset({429, 502, 503, 504})
NOT_OFFERED: Final = frozenset({405, 501})


@dataclass(frozen=True)
class Answer:
    """One HTTP answer, its body cut at the limit the caller gave. Header names are lower case.

    Its body is parsed once: nobody changes what `parsed` and `resource` give.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes = b""
    request_id: str = ""

    def parsed(self) -> Any:
        """The body as JSON; None when it is none."""
        return self._parsed

    @cached_property
    def _parsed(self) -> Any:
        try:
            return orjson.loads(self.content.removeprefix(BOM_UTF8))
        except ValueError:
            return None

    def resource(self) -> dict[str, Any]:
        """The body as a FHIR resource; empty when there is none, as after `Prefer: return=minimal`."""
        value = self.parsed()
        return value if isinstance(value, dict) else {}


def check_answer(answer: Answer, *, doing: str, write: bool, type_level: bool = False) -> None:
    """Raise the DeliveryError that a status of 300 or more means.

    `doing` starts the reason ("Creating Media"). `type_level` requests (create, search) turn "not found" and "not
    allowed" into RouteRefused: the destination does not know that resource type.
    """
    if answer.status < 300:
        return
    codes = find_issue_codes(answer)
    told = f" ({', '.join(codes)})" if codes else ""
    reason = f"{doing} was refused with HTTP {answer.status}{told}, request {answer.request_id}."
    fallback = (Retry.UNKNOWN if answer.status >= 500 else Retry.NEVER, "Ask the destination about this status.")
    retry, remedy = STATUS.get(answer.status, fallback)
    if not write and (answer.status >= 500 or answer.status == 408):
        retry = Retry.LATER
    if type_level and (answer.status in NOT_OFFERED or answer.status == 404 or "not-supported" in codes):
        raise RouteRefused(reason, remedy=STATUS[405][1], retry=Retry.NEVER)
    if type_level and answer.status == 412:  # a create has no If-Match: its If-None-Exist met several
        retry, remedy = (
            Retry.NEVER,
            "Several records there bear the same identifier; have all but one removed, then replay.",
        )
    waiting = find_retry_after(answer.headers, datetime.now(UTC))
    raise DeliveryError(reason, remedy=remedy, retry=retry, retry_after=waiting, outage=answer.status in BUSY - {429})


def find_issue_codes(answer: Answer) -> tuple[str, ...]:
    """The issue codes of an OperationOutcome, without its texts."""
    issues = answer.resource().get("issue")
    if not isinstance(issues, list):
        return ()
    codes = [issue.get("code") for issue in issues if isinstance(issue, dict)]
    return tuple(dict.fromkeys(code for code in codes if code in ISSUE_CODES))


def find_retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait: Retry-After (seconds or date), else the RateLimit headers of an exhausted budget."""
    if after := headers.get("retry-after"):
        if re.fullmatch(r"\d{1,9}", after.strip()):
            return float(after)
        try:
            return max(0.0, (_aware(parsedate_to_datetime(after)) - now).total_seconds())
        except ValueError:
            return None
    budgets = headers.get("ratelimit", "")
    # "fhirInteractions";r=0;t=60 (draft 9) and limit=100, remaining=0, reset=60 (older drafts)
    waits = [float(t) for t in re.findall(r";\s*r=0+\s*;\s*t=(\d{1,9})", budgets)]
    waits += [float(t) for t in re.findall(r"remaining=0+\s*[,;]\s*reset=(\d{1,9})", budgets)]
    if not waits and headers.get("ratelimit-remaining", "").strip() == "0":
        waits = [float(t) for t in re.findall(r"^\d{1,9}", headers.get("ratelimit-reset", ""))]
    return max(waits, default=None)


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def find_id(answer: Answer, resource_type: str) -> tuple[str | None, str | None]:
    """Id and version of a written resource: Location (relative or absolute), else the body, else the ETag."""
    pattern = rf"(?:^|/){resource_type}/([A-Za-z0-9.\-]{{1,64}})(?:/_history/([^/?#]+))?/?$"
    etag = re.fullmatch(r'(?:W/)?"([^"]+)"', answer.headers.get("etag", ""))
    version = etag[1] if etag else None
    for name in ("location", "content-location"):
        if found := re.search(pattern, answer.headers.get(name, "")):
            return found[1], found[2] or version
    body, meta = answer.resource(), answer.resource().get("meta")
    if body.get("resourceType") == resource_type and re.fullmatch(r"[A-Za-z0-9.\-]{1,64}", str(body.get("id", ""))):
        return str(body["id"]), meta.get("versionId", version) if isinstance(meta, dict) else version
    return None, version
