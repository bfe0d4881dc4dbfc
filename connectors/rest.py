"""Photos through a vendor's own JSON interface, its requests told by the profile (kind `rest`).

A document is recognised by what the profile's `look` compares, usually a file name that holds `{delivery}`. Where there
is no `look`, a lost answer waits for a person; where there is no `read`, the receipt is the last word.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from connectors.answers import Answer
from connectors.contract import (
    AlreadyThere,
    CannotLook,
    DeliveryError,
    Evidence,
    Finding,
    Parcel,
    Receipt,
    Retry,
    Secrets,
    Tallies,
    utc_now,
)
from connectors.key_check import check_keys
from connectors.kinds import RestProfile
from connectors.pace import own_tally
from connectors.parcels import by_hand, check_parcel, tried_later
from connectors.rendition import rendered
from connectors.rest_exchange import Exchange, content_of, find_at, text_at
from connectors.rest_knobs import Lookup
from connectors.session import open_session
from connectors.templates import filled, identifier_of, values

ROUTE: Final = "rest"
GONE: Final = frozenset({404, 410})


class Rest:
    """The connector of kind `rest`; see `connectors.contract.Connector` for what each method promises."""

    def __init__(
        self,
        profile: RestProfile,
        secrets: Secrets,
        now: Callable[[], datetime] = utc_now,
        tallies: Tallies = own_tally,
    ) -> None:
        self._profile = profile
        self._now = now
        self._session = open_session(profile, secrets, now, tallies)
        self._exchange = Exchange(profile, self._session, secrets, now)

    def check(self) -> list[Finding]:
        try:
            self._session.credentials.authorization()
            self._exchange.sign_in()
        except DeliveryError as error:
            return [Finding("connection", "error", str(error), error.remedy)]
        detail = "credentials accepted" if self._profile.auth.kind != "none" else "no credentials needed"
        found = Finding("connection", "ok", f"{self._profile.base_url}: {detail}")
        return [found, *check_keys(self._profile, self._session), self._check_search()]

    def _check_search(self) -> Finding:
        """Patients are really asked for: a number nobody bears must find nobody."""
        subject, number = "searching patients by number", str(uuid.uuid4().int)[:12]
        known = {**self._profile.tenant, **self._profile.fields, "identifier": number}
        try:
            found = self._search(self._profile.patient, known, "Looking for the patient")
        except DeliveryError as error:
            return Finding(subject, "error", str(error), error.remedy)
        if found:
            remedy = "The server ignores it: say in patient.matches which of those found is meant."
            return Finding(subject, "error", "a number nobody bears finds somebody", remedy)
        return Finding(subject, "ok", "a number nobody bears finds nobody")

    def find(self, parcel: Parcel) -> Receipt | None:
        check_parcel(parcel)
        if self._profile.look is None:
            raise CannotLook(f"a document of photo {parcel.media.get('id')}")
        known = values(parcel, self._profile)
        try:
            known["patient"] = self._patient(parcel, known)
        except _NobodyThere:
            return None
        return self._look(known)

    def send(self, parcel: Parcel) -> Receipt:
        check_parcel(parcel)
        parcel = rendered(parcel, self._profile)
        known = values(parcel, self._profile)
        known["patient"] = self._patient(parcel, known)
        if self._profile.look is not None and (there := self._look(known)):
            self._retire_previous(parcel, there, known)
            return there
        self._check_visit(known)
        try:
            for step in self._profile.steps:
                known = self._exchange.follow(step, known, parcel)
        except AlreadyThere:
            if self._profile.look is None:
                return self._receipt(known, duplicate=True)
            raise
        receipt = self._receipt(known)
        self._retire_previous(parcel, receipt, known)
        return receipt

    def read_back(self, parcel: Parcel, receipt: Receipt) -> Evidence | None:
        step = self._profile.read
        if step is None:
            return None
        check_parcel(parcel)
        parcel = rendered(parcel, self._profile)
        known = values(parcel, self._profile) | _known_of(receipt)
        answer = self._exchange.run(step, known, doing="Reading the document back", accepted=GONE)
        content = None if answer.status in GONE else content_of(step, answer)
        if content is None:
            return Evidence(None, None, None, None, ("The destination holds no such document.",))
        digest = hashlib.sha256(content).hexdigest()
        seen = (("size", parcel.size, len(content)), ("sha256", parcel.sha256, digest))
        differences = tuple(f"{name}: expected {ours}, found {theirs}" for name, ours, theirs in seen if ours != theirs)
        return Evidence(len(content), digest, receipt.ids.get("Patient"), receipt.ids.get("Encounter"), differences)

    def retract(self, parcel: Parcel, receipt: Receipt, reason: str) -> Receipt:
        if self._profile.retract is None or "Document" not in receipt.ids:
            raise by_hand(self._profile)
        known = values(parcel, self._profile) | _known_of(receipt) | {"reason": reason}
        answer = self._exchange.run(self._profile.retract, known, doing="Taking the document back", accepted=GONE)
        # Where it can be looked for, its word is not enough; where it cannot, that is the last word.
        gone = answer.status in GONE or self._profile.look is None or self._look(known) is None
        return replace(receipt, duplicate=gone, received_at=self._now())

    def close(self) -> None:
        self._session.close()

    def _patient(self, parcel: Parcel, known: Mapping[str, Any]) -> str:
        lookup = self._profile.patient
        identifier = identifier_of(parcel.patient, lookup.identifier_systems)
        if not identifier:
            raise _refusal(
                "The patient has no identifier of a system this destination knows.",
                "Correct patient.identifier_systems of the profile, then replay.",
            )
        found = self._search(lookup, {**known, "identifier": identifier}, "Looking for the patient")
        if len(found) > 1:
            raise _refusal(
                f"{len(found)} patients of the destination bear the same identifier.",
                "Have them merged at the destination, then replay.",
            )
        if not found:
            raise _NobodyThere()
        self._check_birth_date(lookup, found[0], parcel.patient)
        return text_at(found[0], lookup.id)

    def _check_birth_date(self, lookup: Lookup, theirs: Any, ours: Mapping[str, Any]) -> None:
        born = text_at(theirs, lookup.birth_date) if lookup.birth_date else ""
        known = str(ours.get("birthDate", ""))
        if not born or len(known) < 10:
            return
        try:
            same = datetime.strptime(born, lookup.birth_date_format).strftime("%Y-%m-%d") == known  # noqa: DTZ007
        except ValueError:
            same = False
        if not same:
            raise _refusal(
                "The destination's patient with this identifier has another birth date.",
                "Find out which of the two records is wrong before replaying.",
            )

    def _check_visit(self, known: Mapping[str, Any]) -> None:
        if self._profile.encounter.policy == "required" and not known["visit"]:
            raise DeliveryError(
                "This destination files photos under a visit, and the photo has none.",
                remedy='Name the visit of the photo, or set encounter.policy = "optional"; it is tried again.',
                retry=Retry.LATER,
            )

    def _look(self, known: Mapping[str, Any]) -> Receipt | None:
        lookup = self._profile.look
        assert lookup is not None  # callers asked
        found = self._search(lookup, known, "Looking for the document")
        if not found:
            return None
        return self._receipt({**known, "document": text_at(found[0], lookup.id)}, duplicate=True)

    def _search(self, lookup: Lookup, known: Mapping[str, Any], doing: str) -> list[Any]:
        answer = self._exchange.run(lookup, known, doing=doing, accepted=GONE.union(lookup.none))
        found = listed(answer, lookup)
        if found is None:
            raise DeliveryError(
                f"{doing}: HTTP {answer.status} neither lists anything nor says that there is nothing,"
                f" request {answer.request_id}.",
                remedy="Correct path and items in the profile, or see what else answers there; where the vendor means"
                " that there is nothing, name the status in `none`. It is tried again.",
                retry=Retry.LATER,
            )
        wanted = {path: str(filled(template, known)) for path, template in lookup.matches.items()}
        return [each for each in found if all(text_at(each, path) == value for path, value in wanted.items())]

    def _receipt(self, known: Mapping[str, Any], *, duplicate: bool = False) -> Receipt:
        ids = {"Patient": known["patient"], "Document": known.get("document"), "Encounter": known.get("visit")}
        return Receipt(
            route=ROUTE,
            ids={name: str(value) for name, value in ids.items() if value},
            location=f"{self._profile.base_url}#{known['document']}" if known.get("document") else None,
            received_at=self._now(),
            duplicate=duplicate,
        )

    def _retire_previous(self, parcel: Parcel, receipt: Receipt, known: Mapping[str, Any]) -> None:
        """The document of the version before, in the same patient's record, goes once the new one is there."""
        old = parcel.previous
        if old is None or self._profile.retract is None or old.ids.get("Patient") != receipt.ids["Patient"]:
            return
        if old.ids.get("Document") in {None, receipt.ids.get("Document")}:
            return
        replaced = {**known, **_known_of(old), "reason": "Replaced by a newer version"}
        try:
            self._exchange.run(self._profile.retract, replaced, doing="Taking the old document away", accepted=GONE)
        except DeliveryError as error:
            raise tried_later(error, can_look=self._profile.look is not None) from error


def listed(answer: Answer, lookup: Lookup) -> list[Any] | None:
    """What is there; None where the answer does not say: a wrong address, a login page or a proxy is no absence."""
    body = answer.parsed()
    is_told = body is not None or answer.content.strip() in {b"", b"null"}  # rather than a web server's own page
    if answer.status == 204 or (answer.status in lookup.none and is_told):
        return []
    if answer.status >= 300 or not isinstance(body, (dict, list)):
        return None
    *tables, last = lookup.items.split(".")
    holder = find_at(body, ".".join(tables)) if lookup.items else {"": body}
    if not isinstance(holder, dict) or (last not in holder and holder.get("resourceType") != "Bundle"):
        return None
    items = holder.get(last)
    return items if isinstance(items, list) else [items] if isinstance(items, dict) and items else []


class _NobodyThere(DeliveryError):
    def __init__(self) -> None:
        super().__init__(
            "No patient of the destination bears this patient's identifier.",
            remedy="Register the patient there, or correct patient.identifier_systems; it is tried again.",
            retry=Retry.LATER,
        )


def _refusal(reason: str, remedy: str) -> DeliveryError:
    return DeliveryError(reason, remedy=remedy, retry=Retry.NEVER)


def _known_of(receipt: Receipt) -> dict[str, str]:
    return {"patient": receipt.ids.get("Patient", ""), "document": receipt.ids.get("Document", "")}
