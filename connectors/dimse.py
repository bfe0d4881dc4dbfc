"""Photos and PDFs of them into an archive by C-STORE, looked for by C-FIND (DICOM PS3.4 annexes B and C).

There is no reading back without a listener of our own, so the archive's status and a C-FIND are the last word.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

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
from connectors.dicom_object import dicom_object, dicom_place, instance_uid, store_failure
from connectors.kinds import DimseProfile
from connectors.pace import Pace, own_tally
from connectors.parcels import by_hand, check_parcel
from mappings.document_to_dicom import ENCAPSULATED_PDF, EXPLICIT_LITTLE_ENDIAN
from mappings.photo_to_dicom import DERMOSCOPIC, JPEG_BASELINE, JPEG_EXTENDED, VL_PHOTOGRAPHIC

if TYPE_CHECKING:
    from pynetdicom.association import Association

ROUTE: Final = "dicom-cstore"
VERIFICATION: Final = "1.2.840.10008.1.1"
STUDY_ROOT_FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"
# How our objects are encoded; all else goes as pynetdicom proposes.
_SYNTAXES: Final[Mapping[str, tuple[str, ...]]] = {
    VL_PHOTOGRAPHIC: (JPEG_BASELINE, JPEG_EXTENDED),
    DERMOSCOPIC: (JPEG_BASELINE, JPEG_EXTENDED),
    ENCAPSULATED_PDF: (EXPLICIT_LITTLE_ENDIAN,),
}
WARNINGS: Final = frozenset({0x0000, 0xB000, 0xB006, 0xB007, 0x0111})  # stored, the last one: it was there already


class Dimse:
    """The connector of kind `dicom-cstore`; see `connectors.contract.Connector` for what each method promises."""

    def __init__(
        self,
        profile: DimseProfile,
        secrets: Secrets | None = None,
        now: Callable[[], datetime] = utc_now,
        tallies: Tallies = own_tally,
    ) -> None:
        del secrets
        self._profile = profile
        self._now = now
        self._pace = Pace(profile.limits, now=now, tally=tallies(profile.route_names[0]), zone=profile.timezone)

    def check(self) -> list[Finding]:
        try:
            with self._associated((VERIFICATION,)) as association:
                status = association.send_c_echo()
        except DeliveryError as error:
            return [Finding("connection", "error", str(error), error.remedy)]
        if status and status.Status == 0:
            return [Finding("connection", "ok", f"{self._profile.called_ae} answers C-ECHO")]
        return [
            Finding("connection", "error", "C-ECHO failed", "Check called_ae, and that our AE title is registered.")
        ]

    def find(self, parcel: Parcel) -> Receipt | None:
        from pydicom.dataset import Dataset

        check_parcel(parcel)
        patient_id = dicom_place(parcel, self._profile.dicom, self._profile.encounter).patient_id
        query: Any = Dataset()
        query.QueryRetrieveLevel = "IMAGE"
        query.SOPInstanceUID = instance_uid(parcel)
        query.StudyInstanceUID = query.SeriesInstanceUID = query.PatientID = ""
        with self._associated((STUDY_ROOT_FIND, VERIFICATION)) as association:  # one of which any archive offers
            if not any(each.abstract_syntax == STUDY_ROOT_FIND for each in association.accepted_contexts):
                presumed = self._receipt(query.SOPInstanceUID, patient_id, duplicate=False)
                # It only stores; the same SOP Instance UID again is the same object.
                raise CannotLook(f"instance {query.SOPInstanceUID}", may_resend=True, presumed=presumed)
            answers = list(association.send_c_find(query, STUDY_ROOT_FIND))
        if not all(status for status, _ in answers):
            raise _lost("C-FIND", Retry.LATER)
        if any(found is not None and str(found.get("SOPInstanceUID")) == query.SOPInstanceUID for _, found in answers):
            return self._receipt(query.SOPInstanceUID, patient_id, duplicate=True)
        return None

    def send(self, parcel: Parcel) -> Receipt:
        import pydicom

        check_parcel(parcel)
        with suppress(CannotLook):
            if there := self.find(parcel):
                return there
        made = dicom_object(parcel, self._profile, self._profile.dicom, self._profile.encounter)
        dataset = pydicom.dcmread(io.BytesIO(made.content))
        with self._associated((made.sop_class,)) as association:
            try:
                status = association.send_c_store(dataset)
            except ValueError as error:  # the archive accepted no presentation context for it
                raise RouteRefused(
                    "The archive takes no such object: not this SOP class, or not as it is encoded.",
                    remedy="Choose another route, or have the archive accept it.",
                    retry=Retry.NEVER,
                ) from error
        if not status:
            raise _lost("C-STORE", Retry.UNKNOWN)
        if status.Status not in WARNINGS:
            raise store_failure(status.Status, "C-STORE")
        return self._receipt(made.instance, made.patient_id, duplicate=status.Status == 0x0111)

    def read_back(self, parcel: Parcel, receipt: Receipt) -> Evidence | None:
        return None

    def retract(self, parcel: Parcel, receipt: Receipt, reason: str) -> Receipt:
        raise by_hand(self._profile)

    def close(self) -> None:
        """Associations end with each request."""

    @contextmanager
    def _associated(self, classes: tuple[str, ...]) -> Iterator[Association]:
        from pynetdicom.ae import ApplicationEntity

        entity = ApplicationEntity(ae_title=self._profile.calling_ae)
        entity.connection_timeout = self._profile.timeouts.connect
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = self._profile.timeouts.read
        for each in classes:  # a context of its own for each: the archive chooses one of what a context offers
            for syntax in _SYNTAXES.get(each, (None,)):
                entity.add_requested_context(each, syntax)
        with self._pace.turn():
            association = entity.associate(self._profile.host, self._profile.port, ae_title=self._profile.called_ae)
            if association.is_rejected:
                raise DeliveryError(
                    "The archive rejected the association.",
                    remedy="Check called_ae, and that the archive knows our AE title and address; it is tried again.",
                    retry=Retry.LATER,
                )
            if not association.is_established:
                raise DeliveryError(
                    "The archive could not be reached, or takes none of what we offer.",
                    remedy="Check host, port and network; it is tried again.",
                    retry=Retry.LATER,
                    outage=True,
                )
            try:
                yield association
            finally:
                association.release()
                association.join(self._profile.timeouts.connect)  # it closes its socket

    def _receipt(self, uid: str, patient_id: str, *, duplicate: bool) -> Receipt:
        ids = {"SOPInstanceUID": uid, "Patient": patient_id}
        return Receipt(
            route=ROUTE,
            ids=ids,
            location=f"{self._profile.called_ae}/{uid}",
            received_at=self._now(),
            duplicate=duplicate,
        )


def _lost(what: str, retry: Retry) -> DeliveryError:
    return DeliveryError(
        f"The answer to {what} was lost.",
        remedy="Nothing to do: the archive is asked what it holds before anything is sent again.",
        retry=retry,
        outage=True,
    )
