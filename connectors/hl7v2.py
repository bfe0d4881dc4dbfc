"""Photos and PDFs of them as HL7 v2 messages to an interface engine: ORU^R01 or MDM, over MLLP.

There is nothing to ask and nothing to read back. MSH-10 and TXA-12 are derived from the delivery, so that a receiver
that knows duplicates can tell; whether it does is `resend` of the profile.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from connectors.contract import (
    CannotLook,
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
from connectors.kinds import Hl7v2Profile
from connectors.mllp import exchange, reach
from connectors.outward import delivery_identifier, link_to
from connectors.pace import Pace, own_tally
from connectors.parcels import by_hand, check_parcel, get_content
from connectors.rendition import rendered
from connectors.signals import as_error, find_signal
from connectors.templates import identifier_of
from mappings.hl7v2.er7 import Message
from mappings.hl7v2.photo_message import DATA_TYPES, MessageProfile, PhotoMessage, names_type, photo_message
from mappings.photo_caption import caption
from mappings.photo_fit import JPEG
from mappings.security_labels import raise_labels

# MSA-1 (table 0008) -> what a refusal means where the profile's signals say nothing else.
REFUSALS: Final = {
    "AE": (Retry.NEVER, "See ERR in the receiver's log, correct the message or the record, then replay."),
    "AR": (Retry.NEVER, "Correct message type, version, MSH-11 or MSH-3 to 6 of the profile, then replay."),
    "CE": (Retry.LATER, "Nothing to do: the receiver could not keep the message, it is tried again."),
    "CR": (Retry.NEVER, "Correct message type, version, MSH-11 or MSH-3 to 6 of the profile, then replay."),
}


class Hl7v2:
    """The connector of kind `hl7v2`; see `connectors.contract.Connector` for what each method promises."""

    def __init__(
        self,
        profile: Hl7v2Profile,
        secrets: Secrets | None = None,
        now: Callable[[], datetime] = utc_now,
        tallies: Tallies = own_tally,
    ) -> None:
        del secrets  # a certificate is a file of its own
        self._profile = profile
        self._layout = _message_profile(profile)
        self._now = now
        self._pace = Pace(profile.limits, now=now, tally=tallies(profile.route_names[0]), zone=profile.timezone)
        self._one_at_a_time = threading.Lock()

    def check(self) -> list[Finding]:
        try:
            reach(self._profile).close()
        except DeliveryError as error:
            return [Finding("connection", "error", str(error), error.remedy)]
        told = f"{self._profile.host}:{self._profile.port} accepts connections{' by TLS' if self._profile.tls else ''}"
        return [Finding("connection", "ok", f"{told}; send one message to a test system next")]

    def find(self, parcel: Parcel) -> Receipt | None:
        check_parcel(parcel)
        may_resend = self._profile.resend == "same-control-id"
        raise CannotLook(f"document {document_id(parcel)}", may_resend=may_resend, presumed=self._receipt(parcel))

    def send(self, parcel: Parcel) -> Receipt:
        check_parcel(parcel)
        parent_id = self._replaced_document(parcel)
        event = (self._profile.replace_with if parent_id else "") or self._profile.message
        message = self.message(parcel, event, parent_id=parent_id)
        self._deliver(parcel, event, message)
        return self._receipt(parcel)

    def read_back(self, parcel: Parcel, receipt: Receipt) -> Evidence | None:
        return None

    def retract(self, parcel: Parcel, receipt: Receipt, reason: str) -> Receipt:
        """Its acknowledgement is all that can be had, so the receipt says at once that nothing more is to be done."""
        event = self._profile.retract_with
        if not event:
            raise by_hand(self._profile)
        message = self.message(parcel, event, parent_id=receipt.ids.get("Document", ""), withdraws=True)
        self._deliver(parcel, f"{event} retract", message)
        return replace(receipt, duplicate=True, received_at=self._now())

    def close(self) -> None:
        """Nothing is kept open."""

    def message(self, parcel: Parcel, event: str, *, parent_id: str = "", withdraws: bool = False) -> bytes:
        """The message that would go out. Raises DeliveryError when the photo cannot be told in it."""
        patient = _number(self._profile, parcel.patient)
        if not patient:
            raise DeliveryError(
                "The patient has no identifier whose assigning authority the profile knows.",
                remedy="Add the system to `authorities` of the profile, then replay.",
                retry=Retry.NEVER,
            )
        if self._profile.encounter.policy == "required" and not _visit(self._profile, parcel):
            raise DeliveryError(
                "This destination files photos under a visit, and the photo has none.",
                remedy='Name the visit of the photo, or set encounter.policy = "optional"; it is tried again.',
                retry=Retry.LATER,
            )
        carries = self._profile.content == "ED" and not withdraws
        made = rendered(parcel, self._profile) if carries else parcel
        if carries and not names_type(self._profile.obx_5, made.content_type):
            raise RouteRefused(
                f"OBX-5 as the profile lays it out cannot say that it holds {made.content_type}.",
                remedy="Write {type} and {subtype} into obx_5, and into accepts what the receiver takes, then replay.",
                retry=Retry.NEVER,
            )
        zone, taken = ZoneInfo(self._profile.timezone), _taken(parcel)
        told = "consent recorded" if parcel.consents and self._profile.consent_strategy == "obx" else ""
        facts = PhotoMessage(
            event=event,
            control_id=control_id(parcel, event + (" retract" if withdraws else "")),
            document_id=document_id(parcel),
            at=self._now().astimezone(zone),
            taken_at=taken.astimezone(zone) if taken else None,
            patient=parcel.patient,
            encounter=parcel.encounter if self._profile.encounter.policy != "omit" else None,
            content=get_content(made) if carries else b"",
            content_type=made.content_type if made.content_type in DATA_TYPES else JPEG,
            url=link_to(parcel, self._profile),
            lines=caption(parcel.media, zone),
            parent_id=parent_id,
            consent=told,
            confidentiality=raise_labels(parcel.media.get("meta", {}).get("security", ()))[0]["code"],
            withdrawn=withdraws,
        )
        try:
            return photo_message(facts, self._layout)
        except UnicodeEncodeError as error:
            raise DeliveryError(
                "The message holds a character that is not in the receiver's character set.",
                remedy='Set charset = "UNICODE UTF-8" in the profile if the receiver takes it, then replay.',
                retry=Retry.NEVER,
            ) from error

    def _replaced_document(self, parcel: Parcel) -> str:
        """The number of what this parcel takes the place of in the same patient's record; empty when there is none."""
        known = parcel.previous.ids if parcel.previous else {}
        same = known.get("Patient") == _number(self._profile, parcel.patient)
        return known.get("Document", "") if same else ""

    def _deliver(self, parcel: Parcel, event: str, message: bytes) -> None:
        identifier = control_id(parcel, event)
        with self._one_at_a_time, self._pace.turn():
            answer = exchange(self._profile, message, identifier)
        self._check(answer)

    def _check(self, answer: Message) -> None:
        msa = answer.find("MSA")
        code = msa.text(1) if msa else ""
        if code in {"AA", "CA"}:
            return
        codes = {code} | {err.text(3) or err.text(1, 4) for err in answer.all("ERR")} - {""}
        if signal := find_signal(self._profile.signals, None, codes):
            raise as_error(signal, doing="The message", now=self._now())
        retry, remedy = REFUSALS.get(code, (Retry.NEVER, "Ask the receiver what this acknowledgement means."))
        named = code if code in REFUSALS else "an unknown code"
        raise DeliveryError(f"The receiver answered {named}.", remedy=remedy, retry=retry)

    def _receipt(self, parcel: Parcel) -> Receipt:
        replaced = self._replaced_document(parcel)
        event = (self._profile.replace_with if replaced else "") or self._profile.message
        ids = {
            "Document": replaced if replaced and event == "ORU^R01" else document_id(parcel),
            "Patient": _number(self._profile, parcel.patient),
            "Encounter": _visit(self._profile, parcel),
        }
        held = {name: value for name, value in ids.items() if value}
        return Receipt(route=self._profile.route_names[0], ids=held, received_at=self._now())


def control_id(parcel: Parcel, event: str) -> str:
    """MSH-10: the same for the same message of the same delivery; 20 characters, as every version allows."""
    return hashlib.sha256(f"{parcel.idempotency_key} {event}".encode()).hexdigest()[:20]


def document_id(parcel: Parcel) -> str:
    """TXA-12 and the filler number: our UUID of this version at this destination."""
    return str(delivery_identifier(parcel)["value"]).removeprefix("urn:uuid:")


def _visit(profile: Hl7v2Profile, parcel: Parcel) -> str:
    return _number(profile, parcel.encounter or {})


def _number(profile: Hl7v2Profile, resource: Mapping[str, Any]) -> str:
    """The identifier whose assigning authority is known; empty when there is none."""
    systems = tuple(profile.authorities)
    known = identifier_of(resource, systems) if systems else ""
    return known or (identifier_of(resource, ()) if profile.default_authority is not None else "")


def _taken(parcel: Parcel) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(parcel.media.get("createdDateTime", "")))
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def _message_profile(profile: Hl7v2Profile) -> MessageProfile:
    same = [each.name for each in fields(MessageProfile) if each.name in type(profile).model_fields]
    enhanced = profile.acknowledge != "original"
    return MessageProfile(
        **{name: getattr(profile, name) for name in same},
        obx_2=profile.content,
        msh_15="AL" if enhanced else "",
        msh_16={"application": "AL", "commit": "NE"}.get(profile.acknowledge, ""),
    )
