"""What must be right about a parcel before any destination sees it."""

from __future__ import annotations

import hashlib

from connectors.contract import DeliveryError, Parcel, Retry
from connectors.every_kind import Profile
from connectors.outward import find_capture_identifier

DELIVERABLE = frozenset({"completed", "entered-in-error"})


def check_parcel(parcel: Parcel, max_bytes: int | None = None) -> None:
    """Raise DeliveryError unless the parcel is complete, fits, and is about one and the same patient throughout."""
    rules = (
        (
            _is_about_one_patient(parcel),
            "The photo, its visit and its consents are not about one and the same patient.",
            "Correct the subject of the photo, then replay.",
        ),
        (
            find_capture_identifier(parcel.media) is not None,
            "The Media has no identifier of system urn:ietf:rfc:3986: a resend could not be recognised.",
            "Give the Media its capture identifier, then replay.",
        ),
        (
            parcel.media.get("status") in DELIVERABLE,
            "The photo is not completed.",
            "Deliver completed photos only.",
        ),
        (
            max_bytes is None or parcel.size <= max_bytes,
            f"The photo has {parcel.size} bytes, this destination takes {max_bytes}.",
            "Raise max_bytes in the profile if the destination allows it, then replay.",
        ),
    )
    for holds, reason, remedy in rules:
        if not holds:
            raise DeliveryError(reason, remedy=remedy, retry=Retry.NEVER)


def get_content(parcel: Parcel) -> bytes:
    """The bytes to send, proven to be the recorded ones. Raises DeliveryError."""
    content = parcel.content()
    if len(content) != parcel.size or hashlib.sha256(content).hexdigest() != parcel.sha256:
        raise DeliveryError(
            "Our own copy of the photo differs from its recorded size or SHA-256.",
            remedy="Run `dermbridge doctor`; nothing was sent.",
            retry=Retry.NEVER,
        )
    return content


def by_hand(profile: Profile) -> DeliveryError:
    """The destination offers no way to take a photo back: people must."""
    return DeliveryError(
        "This destination offers no way to take a photo back.",
        remedy=profile.landing.retracts or "Ask the department that runs it to mark the photo as entered in error.",
        retry=Retry.NEVER,
    )


def tried_later(error: DeliveryError, *, can_look: bool) -> DeliveryError:
    """A lost answer to taking the former version away: the next attempt finds the new one there and takes it away
    again, if it can look; otherwise the error as it is."""
    if error.retry is not Retry.UNKNOWN or not can_look:
        return error
    remedy = "Nothing to do: the new version is there, the former one is taken away with the next attempt."
    return DeliveryError(str(error), remedy=remedy, retry=Retry.LATER, outage=error.outage)


def _is_about_one_patient(parcel: Parcel) -> bool:
    patient = f"{parcel.patient.get('resourceType')}/{parcel.patient.get('id')}"
    subjects = [parcel.media.get("subject", {}), *(each.get("patient", {}) for each in parcel.consents)]
    if parcel.encounter is not None:
        subjects.append(parcel.encounter.get("subject", {}))
    return all(subject.get("reference") == patient for subject in subjects)
