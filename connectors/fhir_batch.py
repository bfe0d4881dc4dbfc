"""Several looks in one request: a batch Bundle of reads, and what its entries answer to each.

http://hl7.org/fhir/R4/http.html#transaction. Every entry is taken as the answer to the request it stands for, so that a
status, a signal or an OperationOutcome means what it always means. A Bundle that leaves out, adds or mixes up answers
nobody.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

import orjson

from connectors.answers import Answer
from connectors.contract import DeliveryError, Retry
from connectors.fhir_shapes import get_resource, is_shaped
from connectors.outward import has_identifier

Resource = dict[str, Any]

DOING: Final = "Looking in a batch"


class Look(NamedTuple):
    """A read by `id`, or a search by the identifier of `system` and `value`."""

    kind: str
    id: str = ""
    system: str = ""
    value: str = ""

    @property
    def path(self) -> str:
        """Relative to the base address, as a request of its own would have it."""
        if self.id:
            return f"{self.kind}/{self.id}"
        return search_path(self.kind, {"identifier": search_token({"system": self.system, "value": self.value})})

    def may_be(self, found: Resource) -> bool:
        """Whether a resource that came with status 200 can be the answer to this look rather than to another.

        A search that found nothing can; so can one that found others beside the right one, as servers do.
        """
        if not is_shaped(found):
            return True  # no FHIR, which is for whoever looks to say
        if self.id:
            return (found.get("resourceType"), found.get("id")) == (self.kind, self.id)
        matches = [each.get("resource", {}) for each in found.get("entry", [])]
        theirs = [each for each in matches if each.get("resourceType") != "OperationOutcome"]
        identifier = {"system": self.system, "value": self.value}
        is_ours = any(each.get("resourceType") == self.kind and has_identifier(each, identifier) for each in theirs)
        return found.get("type") == "searchset" and (is_ours or not theirs)


class Ahead:
    """Answers that came ahead of their questions, by path: each is given as often as it was asked for, then no more."""

    def __init__(self, looks: Sequence[Look] = ()) -> None:
        self._times = Counter(looks)
        self._looks = {look.path: look for look in self._times}
        self._answers: dict[str, deque[Answer]] = {}
        self._error: DeliveryError | None = None

    def __len__(self) -> int:
        return len(self._looks)

    def bundle(self) -> bytes:
        """The request."""
        entries = [{"request": {"method": "GET", "url": path}} for path in self._looks]
        return orjson.dumps({"resourceType": "Bundle", "type": "batch", "entry": entries})

    def fill(self, answer: Answer) -> None:
        """Raises DeliveryError when these are not the answers to what was asked."""
        bundle = get_resource(answer, "Bundle", doing=DOING)
        said = [entry_answer(entry, answer) for entry in bundle.get("entry", [])]
        answers = dict(zip(self._looks, said, strict=False))
        whole = bundle.get("type") == "batch-response" and len(said) == len(self)
        if not whole or not all(_fits(self._looks[path], one) for path, one in answers.items()):
            raise DeliveryError(
                f"{DOING}: the answers are not those to what was asked, request {answer.request_id}.",
                remedy="Nothing to do now: it is asked one by one.",
                retry=Retry.LATER,
            )
        self._answers = {path: deque([one] * self._times[self._looks[path]]) for path, one in answers.items() if one}

    def fail(self, error: DeliveryError) -> None:
        """Whoever asks for any of it gets this error. A refusal is one of the batch, not of a photo: what is tried
        again is asked one by one, and may go well."""
        is_refusal = error.retry is Retry.NEVER
        remedy = f"Set batch_reads = false in the profile if it takes no batch; else: {error.remedy}"
        self._error = DeliveryError(
            str(error),
            remedy=remedy if is_refusal else error.remedy,
            retry=Retry.LATER if is_refusal else error.retry,
            retry_after=error.retry_after,
            outage=error.outage,
        )

    def take(self, path: str) -> Answer | None:
        """The answer, if it came. Raises DeliveryError when it was asked for and none came."""
        if self._error is not None and path in self._looks:
            raise self._error
        answers = self._answers.get(path)
        return answers.popleft() if answers else None


def _fits(look: Look, answer: Answer | None) -> bool:
    return answer is not None and (answer.status >= 300 or look.may_be(answer.resource()))


def entry_answer(entry: Resource, answer: Answer) -> Answer | None:
    """What an entry of a response Bundle says, as an answer of its own; None when it has no status."""
    response = entry.get("response", {})
    status = re.match(r"\d{3}", str(response.get("status", "")))
    headers = {name: str(response[name]) for name in ("location", "etag") if name in response}
    body = orjson.dumps(entry.get("resource") or response.get("outcome") or {})
    return Answer(int(status[0]), headers, body, answer.request_id) if status else None


def search_path(kind: str, parameters: Mapping[str, str]) -> str:
    return f"{kind}?{urlencode(parameters, quote_via=quote)}"


def search_token(identifier: Mapping[str, Any]) -> str:
    """`system|value` with FHIR's search escapes (http://hl7.org/fhir/R4/search.html#escaping)."""
    value = str(identifier.get("value", ""))
    for special in ("\\", ",", "|", "$"):
        value = value.replace(special, "\\" + special)
    return f"{identifier.get('system', '')}|{value}"
