"""Consents as documents, filed before the photo (`consent_strategy = "document"`), by the same route as photos.

A consent is a parcel of its own: its PDF, under its own identifiers, so that the route's guards against filing twice
hold for it as for a photo.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import tzinfo
from typing import Any

from connectors.contract import AsksTogether, Connector, DeliveryError, Evidence, Finding, Parcel, Receipt, RouteRefused
from connectors.every_kind import Profile
from connectors.kinds import FhirR4Profile, RestProfile
from connectors.knobs import Coding, Transform
from mappings.consent_to_pdf import consent_to_pdf
from mappings.photo_caption import patient_line
from mappings.photo_to_pdf import PDF
from mappings.terms import CANON, PATIENT_CONSENT, URI


class ConsentsFirst:
    """A connector in front of another; see `connectors.contract.Connector` for what each method promises.

    `documents` files consents, their times told in `zone`; `photos` everything else.
    """

    def __init__(self, photos: Connector, documents: Connector, zone: tzinfo) -> None:
        self._zone = zone
        self._photos = photos
        self._documents = documents

    def check(self) -> list[Finding]:
        return self._photos.check()

    def find(self, parcel: Parcel) -> Receipt | None:
        return self._photos.find(parcel)

    def asked_together(self, parcels: Sequence[tuple[Parcel, Receipt | None]]) -> AbstractContextManager[None]:
        """Of the photos; consents are few, and asked for one by one."""
        photos = self._photos
        return photos.asked_together(parcels) if isinstance(photos, AsksTogether) else nullcontext()

    def send(self, parcel: Parcel) -> Receipt:
        for consent in parcel.consents:
            try:
                self._documents.send(consent_parcel(parcel, consent, self._zone))
            except RouteRefused as error:
                remedy = 'Set consent_strategy = "in-note" or "local-only" in the profile, then replay.'
                raise DeliveryError(f"The consent: {error}", remedy=remedy, retry=error.retry) from error
        return self._photos.send(parcel)

    def read_back(self, parcel: Parcel, receipt: Receipt) -> Evidence | None:
        return self._photos.read_back(parcel, receipt)

    def retract(self, parcel: Parcel, receipt: Receipt, reason: str) -> Receipt:
        return self._photos.retract(parcel, receipt, reason)

    def close(self) -> None:
        self._photos.close()
        self._documents.close()


def consent_parcel(parcel: Parcel, consent: Mapping[str, Any], zone: tzinfo) -> Parcel:
    """The consent as a document in the record of the parcel's patient: the same for every photo that it permits."""
    content = consent_to_pdf(consent, heading=patient_line(parcel.patient), zone=zone)
    sha1 = base64.b64encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode()
    whose = f"{consent['id']}#{parcel.patient.get('id')}"
    name = uuid.uuid5(uuid.NAMESPACE_URL, f"{CANON}/Consent/{whose}/document")
    destination = parcel.idempotency_key.rpartition("/")[2]
    said_at = str(consent.get("dateTime") or parcel.media.get("issued") or parcel.media.get("createdDateTime"))
    media = {
        "resourceType": "Media",
        "id": consent["id"],
        "identifier": [{"system": URI, "value": f"urn:uuid:{name}"}],
        "status": "completed",
        "subject": parcel.media.get("subject", {}),
        "encounter": parcel.media.get("encounter", {}),
        "createdDateTime": said_at if len(said_at) > 10 else f"{said_at}T00:00:00Z",
        "content": {"contentType": PDF, "size": len(content), "hash": sha1},
    }
    return replace(
        parcel,
        delivery_id=f"{parcel.delivery_id}-consent",
        idempotency_key=f"{whose}/{hashlib.sha256(content).hexdigest()[:16]}/{destination}",
        media={name: value for name, value in media.items() if value},
        content=lambda: content,
        content_type=PDF,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        sha1_b64=sha1,
        filename=f"consent-{consent['id']}.pdf",
        consents=(),
        previous=None,
    )


def for_consents(profile: Profile) -> Profile:
    """The profile by which a consent is filed as a document beside the photos."""
    same: dict[str, Any] = {"consent_strategy": "local-only", "transform": Transform()}
    if isinstance(profile, FhirR4Profile):
        coding = Coding(code=PATIENT_CONSENT, display="Patient Consent")
        return profile.model_copy(update=same | {"routes": ("fhir-documentreference",), "type_coding": coding})
    assert isinstance(profile, RestProfile)
    return profile.model_copy(update=same | {"fields": profile.fields | profile.consent_fields})
