"""A parcel, photo or PDF, as a DICOM object by `[dicom]` of the profile, and what archives answer."""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from connectors.contract import DeliveryError, Evidence, Parcel, Receipt, Retry, RouteRefused
from connectors.every_kind import Profile
from connectors.knobs import DicomPolicy, EncounterPolicy
from connectors.parcels import get_content
from connectors.rendition import rendered
from connectors.templates import identifier_of, taken_at
from mappings.dicom_rejection import rejection_note
from mappings.document_to_dicom import document_of, document_to_dicom
from mappings.photo_fit import CannotFit
from mappings.photo_to_dicom import (
    VL_PHOTOGRAPHIC,
    DicomPlace,
    derived_uid,
    photo_to_dicom,
    sop_instance_uid,
    write_patient,
)
from mappings.photo_to_pdf import PDF

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Failure reasons (PS3.18 I.2, PS3.4 B.2.3) by their first hexadecimal digits -> what to do.
REASONS: Final = (
    (range(0xA700, 0xA800), Retry.LATER, "The archive is out of resources; it is tried again."),
    (range(0x0110, 0x0111), Retry.LATER, "The archive failed while storing; it is tried again."),
    (range(0x0122, 0x0123), Retry.NEVER, "The archive does not take this SOP class; choose another route."),
    (range(0xC122, 0xC123), Retry.NEVER, "The archive does not take JPEG; choose another route."),
)
# How what is no photo becomes an object.
_MAKERS: Final = {PDF: document_to_dicom}
REFUSED_CLASSES: Final = frozenset({0x0122, 0xC122})


@dataclass(frozen=True, slots=True)
class DicomObject:
    """The Part 10 file and its UIDs."""

    content: bytes
    study: str
    series: str
    instance: str
    sop_class: str
    patient_id: str


def dicom_object(parcel: Parcel, profile: Profile, policy: DicomPolicy, encounter: EncounterPolicy) -> DicomObject:
    """Make the object. Raises DeliveryError when patient or visit are not as the archive needs them."""
    import pydicom

    place = dicom_place(parcel, policy, encounter)
    made = rendered(parcel, profile)
    make = _MAKERS.get(made.content_type, photo_to_dicom)
    try:
        content = make(
            get_content(made),
            made.content_type,
            media=parcel.media,
            patient=parcel.patient,
            place=place,
            idempotency_key=parcel.idempotency_key,
            at=taken_at(parcel.media),
        )
    except CannotFit as error:
        raise RouteRefused(
            str(error), remedy="Let another route of the profile take this photo.", retry=Retry.NEVER
        ) from error
    header = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
    return DicomObject(
        content=content,
        study=str(header.StudyInstanceUID),
        series=str(header.SeriesInstanceUID),
        instance=str(header.SOPInstanceUID),
        sop_class=str(header.SOPClassUID),
        patient_id=place.patient_id,
    )


def dicom_place(parcel: Parcel, policy: DicomPolicy, encounter: EncounterPolicy) -> DicomPlace:
    """Whose object it is, by the profile. Raises DeliveryError."""
    patient_id = identifier_of(parcel.patient, (policy.patient_id_system,) if policy.patient_id_system else ())
    if not patient_id:
        raise DeliveryError(
            "The patient has no identifier that this archive uses as PatientID.",
            remedy="Correct dicom.patient_id_system of the profile, then replay.",
            retry=Retry.NEVER,
        )
    visit = ""
    if encounter.policy != "omit":
        visit = identifier_of(parcel.encounter or {}, (policy.visit_system,) if policy.visit_system else ())
    if encounter.policy == "required" and not visit:
        raise DeliveryError(
            "This archive files photos under a visit, and the photo has none.",
            remedy='Name the visit of the photo, or set encounter.policy = "optional"; it is tried again.',
            retry=Retry.LATER,
        )
    return DicomPlace(
        patient_id=patient_id,
        issuer=policy.issuer,
        admission_id=visit,
        visit_issuer=policy.visit_issuer,
        accession_number=visit if policy.accession == "visit" else "",
        sop_class=policy.sop_class,
        equipment=policy.equipment,
        dermoscope=policy.dermoscope,
    )


def instance_uid(parcel: Parcel) -> str:
    """The SOP Instance UID this parcel has or will have."""
    return sop_instance_uid(parcel.idempotency_key)


def rejection_uid(instance: str) -> str:
    """The SOP Instance UID of the note that rejects `instance`."""
    return derived_uid("rejection", instance)


def rejection(parcel: Parcel, receipt: Receipt, policy: DicomPolicy, at: datetime) -> bytes:
    """The note that rejects what `receipt` names, in the record of the parcel's patient."""
    from pydicom.dataset import Dataset

    image = Dataset()
    write_patient(image, parcel.patient, DicomPlace(receipt.ids["Patient"], policy.issuer))
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(image, keyword, receipt.ids[keyword])
    image.SOPClassUID = receipt.ids.get("SOPClassUID", VL_PHOTOGRAPHIC)
    for keyword in ("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID"):
        setattr(image, keyword, "")  # the archive has them
    return rejection_note(image, reason="wrong-patient", at=at)


def evidence(sent: DicomObject, held: Dataset) -> Evidence:
    """Compare what the archive gave back with what was sent: whose it is, and the very JPEG bit-stream or PDF."""
    import hashlib

    import pydicom

    ours = carried(pydicom.dcmread(io.BytesIO(sent.content)))
    theirs = carried(held)
    if len(theirs) == len(ours) + 1 and theirs.endswith(b"\0"):  # an odd length is padded (PS3.5 A.4)
        theirs = theirs[:-1]
    digest = hashlib.sha256(theirs).hexdigest()
    seen = (
        ("patient", sent.patient_id, str(held.get("PatientID", ""))),
        ("instance", sent.instance, str(held.get("SOPInstanceUID", ""))),
        ("size", len(ours), len(theirs)),
        ("sha256", hashlib.sha256(ours).hexdigest(), digest),
    )
    # Identifiers of patients stay out of sentences that are kept.
    differences = tuple(
        f"{name}: expected {mine}, found {found}" if name != "patient" else "patient: the archive has it under another"
        for name, mine, found in seen
        if mine != found
    )
    return Evidence(
        len(theirs),
        digest,
        str(held.get("PatientID", "")) or None,
        str(held.get("AdmissionID", "")) or None,
        differences,
    )


def carried(dataset: Dataset) -> bytes:
    """The document, or the photo's bit-stream."""
    return document_of(dataset) if "EncapsulatedDocument" in dataset else frame(dataset)


def frame(dataset: Dataset) -> bytes:
    """The only frame's bit-stream, its padding byte taken off."""
    from pydicom.encaps import generate_frames

    stream = next(generate_frames(dataset.PixelData, number_of_frames=1))
    return stream[:-1] if stream.endswith(b"\xff\xd9\0") else stream


def store_failure(reason: int, doing: str) -> DeliveryError:
    """The error that a failure reason or C-STORE status means."""
    told = f"{doing} failed with reason {reason:04X}."
    if reason in REFUSED_CLASSES:
        return RouteRefused(told, remedy=REASONS[2][2] if reason == 0x0122 else REASONS[3][2], retry=Retry.NEVER)
    for known, retry, remedy in REASONS:
        if reason in known:
            return DeliveryError(told, remedy=remedy, retry=retry)
    return DeliveryError(
        told, remedy="See what this reason means in the archive's log, then replay.", retry=Retry.NEVER
    )
