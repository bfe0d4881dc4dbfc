"""Photos into a FHIR R4 server, as Media or DocumentReference with a Binary.

A photo is recognised by two identifiers on the resource we write: the capture's, shared by all its versions, and the
delivery's, which names exactly one version at one destination. `send` looks for both before it writes, so that a
replay, a lost answer or a restart never files a photo twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from connectors import fhir_check
from connectors.contract import (
    DeliveryError,
    Evidence,
    Finding,
    Parcel,
    Receipt,
    Retry,
    RouteRefused,
    Secrets,
    Tallies,
    utc_now,
)
from connectors.fhir_attachment import Attachments
from connectors.fhir_consents import file_consents
from connectors.fhir_copies import (
    RESOURCE_TYPE,
    Copy,
    copy_of,
    expected_status,
    find_copies,
    find_delivered,
    find_former,
    find_in_record,
    find_updated_at,
    looks_for,
    receipt_for,
    receipt_for_copy,
)
from connectors.fhir_identity import PatientMissing, Place, get_place, place_of
from connectors.fhir_observations import differing_observations, file_observations, take_back_observations
from connectors.fhir_server import FhirServer, Stored
from connectors.key_check import check_keys
from connectors.kinds import FhirR4Profile, Route
from connectors.outward import delivery_identifier, find_capture_identifier, is_of_delivery, of_type, photo_body
from connectors.pace import own_tally
from connectors.parcels import by_hand, check_parcel
from connectors.rendition import rendered
from connectors.session import open_session
from connectors.templates import with_required
from mappings.photo_to_pdf import PDF

Resource = dict[str, Any]

STATUS_REASON: Final = "http://hl7.org/fhir/StructureDefinition/event-statusReason"


class FhirR4:
    """The connector of kind `fhir-r4`; see `connectors.contract.Connector` for what each method promises."""

    def __init__(
        self,
        profile: FhirR4Profile,
        secrets: Secrets,
        now: Callable[[], datetime] = utc_now,
        tallies: Tallies = own_tally,
    ) -> None:
        self._profile = profile
        self._session = open_session(profile, secrets, now, tallies)
        self._server = FhirServer(profile, self._session.http, self._session.bare)
        self._attachments = Attachments(profile, self._server)

    def check(self) -> list[Finding]:
        found = fhir_check.check(self._profile, self._server, self._session.credentials)
        return found + check_keys(self._profile, self._session)

    def find(self, parcel: Parcel) -> Receipt | None:
        check_parcel(parcel)
        try:
            place = get_place(self._server, self._profile, parcel)
        except PatientMissing:
            return None
        delivered = find_delivered(parcel, place, self._copies(parcel, place))
        if delivered and self._profile.binary_upload == "access-write":  # its bytes come after it
            delivered = delivered if self._attachments.holds(rendered(parcel, self._profile), delivered) else None
        return self._receipt_for(delivered, place) if delivered else None

    @contextmanager
    def asked_together(self, parcels: Sequence[tuple[Parcel, Receipt | None]]) -> Iterator[None]:
        """Where `batch_reads` says so. Nothing is filed twice by it: who sends has looked all the same, if up to a
        round earlier, no other round has these photos meanwhile, and the conditional create stands behind it."""
        looks = [look for parcel, receipt in parcels for look in looks_for(self._profile, parcel, receipt)]
        with self._server.asked_together(looks) if self._profile.batch_reads and looks else nullcontext():
            yield

    def send(self, parcel: Parcel) -> Receipt:
        check_parcel(parcel)
        parcel = rendered(parcel, self._profile)
        place = get_place(self._server, self._profile, parcel, may_create=True)
        base = f"{self._profile.base_url}/" if self._profile.references == "absolute" else ""
        references = place.references(parcel, base)
        file_observations(self._server, parcel, place, references)  # first: what is found again was filed whole
        copies = self._copies(parcel, place)
        delivered = find_delivered(parcel, place, copies)
        if delivered and self._attachments.holds(parcel, delivered):
            if not self._profile.replaces:
                self._retire(find_former(parcel, place, copies), parcel)
            return self._receipt_for(delivered, place)
        if self._profile.consent_strategy == "resource":
            references |= file_consents(self._server, parcel, place, references)
        current = find_in_record(copies, place)
        ids, content = self._attachments.place(parcel, place, current)

        def body(route: str) -> Resource:
            return with_required(photo_body(route, parcel, self._profile, references, content), parcel, self._profile)

        if current is None or not self._profile.replaces or not self._may_update(parcel.content_type):
            # While no copy exists anywhere, the capture's identifier is the stronger guard: it also stops a late
            # arrival of an older version. A copy in another patient's record bears it too, hence the delivery's then.
            guard = delivery_identifier(parcel) if copies else find_capture_identifier(parcel.media) or {}
            route, stored = self._create(body, guard, self._routes(parcel))
            if stored.created:
                self._attachments.complete(parcel, RESOURCE_TYPE[route], stored.id)
                self._retire(current, parcel)
                return receipt_for(self._profile, route, stored, place, ids)
            copies = self._copies(parcel, place)  # somebody was faster
            if delivered := find_delivered(parcel, place, copies):
                return self._receipt_for(delivered, place)
            current = _get_in_record(copies, place)
        stored = self._server.update(body(current.route), current.resource)
        self._attachments.complete(parcel, RESOURCE_TYPE[current.route], stored.id)
        return receipt_for(self._profile, current.route, stored, place, ids)

    def _retire(self, former: Copy | None, parcel: Parcel) -> None:
        """What stands beside the new version counts no more, where the destination lets us say so."""
        if former is not None and self._profile.retract == "update" and self._may_update(parcel.content_type):
            self._server.update(_replaced(former.resource), former.resource)

    def read_back(self, parcel: Parcel, receipt: Receipt) -> Evidence:
        check_parcel(parcel)
        parcel = rendered(parcel, self._profile)
        place = place_of(receipt) or get_place(self._server, self._profile, parcel)
        copy = self._find_copy(parcel, place, receipt)
        if copy is None:
            return Evidence(None, None, None, None, ("The destination holds no record of this photo.",))
        if (copy.patient, copy.encounter) != (place.patient, place.encounter):  # merged there since, perhaps
            place = get_place(self._server, self._profile, parcel)
        content = self._attachments.read(parcel, copy)
        size, digest = (None, None) if content is None else (len(content), hashlib.sha256(content).hexdigest())
        omitted = of_type(self._profile.omit, copy.resource["resourceType"])
        omits_encounter = {"encounter", "context", "context.encounter"} & omitted.keys()
        seen: tuple[tuple[str, object, object], ...] = (
            ("status", expected_status(copy.route, parcel), copy.resource.get("status")),
            ("patient", place.patient, copy.patient),
            ("encounter", None if omits_encounter else place.encounter, copy.encounter),
            ("version", True, is_of_delivery(copy.resource, parcel)),
            ("size", parcel.size, size),
            ("sha256", parcel.sha256, digest),
        )
        differences = tuple(f"{name}: expected {ours}, found {theirs}" for name, ours, theirs in seen if ours != theirs)
        differences += differing_observations(self._server, parcel, place)
        return Evidence(size, digest, copy.patient, copy.encounter, differences)

    def retract(self, parcel: Parcel, receipt: Receipt, reason: str) -> Receipt:
        if parcel.observations and (place := place_of(receipt)):
            take_back_observations(self._server, parcel, place)
        kind = RESOURCE_TYPE[receipt.route]
        current = self._server.find(kind, receipt.ids[kind]) if kind in receipt.ids else None
        if current is None or current.get("status") == "entered-in-error":
            return replace(receipt, duplicate=True)
        if self._profile.retract == "person" or not self._may_update(_content_type(current)):
            raise by_hand(self._profile)
        stored = self._server.update(_retracted(current, receipt, parcel.delivery_id, reason), current)
        self._attachments.take_away(receipt)
        updated_at = find_updated_at(stored.resource)
        return replace(receipt, version=stored.version, received_at=updated_at, duplicate=False)

    def close(self) -> None:
        self._session.close()

    def _copies(self, parcel: Parcel, place: Place) -> list[Copy]:
        return find_copies(self._server, self._profile, parcel, place)

    def _find_copy(self, parcel: Parcel, place: Place, receipt: Receipt) -> Copy | None:
        kind = RESOURCE_TYPE[receipt.route]
        if kind not in receipt.ids:  # accepted for review (202): it may have been filed since
            return find_in_record(self._copies(parcel, place), place)
        resource = self._server.find(kind, receipt.ids[kind])
        return copy_of(receipt.route, resource, parcel, place) if resource else None

    def _receipt_for(self, copy: Copy, place: Place) -> Receipt:
        return receipt_for_copy(self._profile, copy, place, self._attachments.ids(copy))

    def _may_update(self, content_type: str) -> bool:
        """Some destinations take a document of this type, but no change of it."""
        allowed = {each.partition(";")[0] for each in self._profile.update_accepts}
        return not allowed or content_type.partition(";")[0] in allowed

    def _routes(self, parcel: Parcel) -> list[Route]:
        """In the profile's order; what is a PDF is a document rather than a photo."""
        return sorted(self._profile.routes, key=lambda route: parcel.content_type == PDF and route == "fhir-media")

    def _create(self, body: Callable[[str], Resource], guard: Resource, routes: list[Route]) -> tuple[str, Stored]:
        """Create by the first route the destination offers."""
        *preferred, last = routes
        for route in preferred:
            try:
                return route, self._server.create(body(route), unless=guard)
            except RouteRefused:
                continue
        return last, self._server.create(body(last), unless=guard)


def _get_in_record(copies: list[Copy], place: Place) -> Copy:
    if current := find_in_record(copies, place):
        return current
    raise DeliveryError(
        "The destination found this photo already there, but not in this patient's record.",
        remedy="Have the other copy retracted, then replay.",
        retry=Retry.NEVER,
    )


def _content_type(resource: Resource) -> str:
    copied = Copy("fhir-media" if resource["resourceType"] == "Media" else "fhir-documentreference", resource)
    return str(copied.attachment.get("contentType", ""))


def _replaced(current: Resource) -> Resource:
    """`current` as replaced by a resource beside it."""
    if current["resourceType"] == "DocumentReference":
        return current | {"status": "superseded"}
    return current | {"status": "entered-in-error"}


def _retracted(current: Resource, receipt: Receipt, delivery_id: str, reason: str) -> Resource:
    """`current` as entered in error. Everything else stays as the destination has it, its patient above all.

    Only a Binary address is written anew: a server that answered with a signed address would store that one.
    """
    body = current | {"status": "entered-in-error"}
    url = {"url": f"Binary/{receipt.ids['Binary']}"} if "Binary" in receipt.ids else {}
    if current["resourceType"] == "Media":
        because = {"url": STATUS_REASON, "valueCodeableConcept": {"text": reason}}
        body["extension"] = [*current.get("extension", []), because]
        body["content"] = current.get("content", {}) | url
        return body
    body["docStatus"] = "entered-in-error"
    body["description"] = f"{reason} ({delivery_id})"
    body["content"] = [
        content | {"attachment": content.get("attachment", {}) | url} for content in current.get("content", [])
    ]
    return body
