"""A photo as a DICOM Part 10 file: VL Photographic Image, or Dermoscopic Photography Image where its rules can be met.

The JPEG bit-stream is encapsulated untouched when it is sequential, upright and of one or three components; otherwise
it is re-encoded once and the object says DERIVED. UIDs are derived (PS3.5 B.2, `2.25.` and a UUID): the same photo for
the same patient always is the same object, so that a replay is a duplicate and never a second one.

PS3.3 A.32.4, A.32.12 (IODs), C.8.12.1 (VL Image), C.8.12.13 (Dermoscopic Image); PS3.5 8.2.1, A.4.1; PS3.16 CID 4029.
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from mappings.body_sites import BODY_SITES, Sensitivity, sensitivity
from mappings.photo_caption import title
from mappings.photo_fit import Picture, as_jpeg, read_jpeg
from mappings.photos_to_picture import derivation_of
from mappings.terms import CANON, DCM, LATERALITY, SNOMED

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Resource = Mapping[str, Any]

VL_PHOTOGRAPHIC: Final = "1.2.840.10008.5.1.4.1.1.77.1.4"
DERMOSCOPIC: Final = "1.2.840.10008.5.1.4.1.1.77.1.7"
JPEG_BASELINE: Final = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED: Final = "1.2.840.10008.1.2.4.51"
DICOM: Final = "application/dicom"
IMPLEMENTATION: Final = "2.25.210436275803318457316229906742393206812"  # uuid5(NAMESPACE_URL, CANON) once and for all
_SIDES: Final = {"7771000": "L", "24028007": "R", "51440002": "B"}  # CID 244 -> Image Laterality (0020,0062)
_SEX: Final = {"male": "M", "female": "F", "other": "O"}


@dataclass(frozen=True, slots=True)
class DicomPlace:
    """Whose and what the object is, as the archive knows them.

    `issuer` is the assigning authority of `patient_id`; `equipment` and `dermoscope` are DICOM keywords of the modules
    General/Enhanced Equipment and Dermoscopic Image, as the profile or the device registry gives them. `zone_offset`
    is DICOM's `&ZZXX`.
    """

    patient_id: str
    issuer: str = ""
    admission_id: str = ""
    visit_issuer: str = ""
    accession_number: str = ""
    sop_class: str = "auto"
    software_version: str = ""
    equipment: Mapping[str, str] = field(default_factory=dict)
    dermoscope: Mapping[str, str] = field(default_factory=dict)


def derived_uid(*names: str) -> str:
    """A UID that is always the same for the same names (PS3.5 B.2; RFC 9562 version 5)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, '/'.join((CANON, 'dicom', *names))).int}"


def study_uid(media: Resource, place: DicomPlace) -> str:
    """One study for each patient and visit; without a visit for each patient and day (an encounter-based study)."""
    visit = (
        place.accession_number or place.admission_id or str(media.get("createdDateTime", media.get("issued", "")))[:10]
    )
    return derived_uid("study", place.issuer, place.patient_id, visit)


def sop_instance_uid(idempotency_key: str) -> str:
    """The object's UID from the key that names photo, version and destination."""
    return derived_uid("instance", idempotency_key)


def photo_to_dicom(
    content: bytes,
    content_type: str,
    *,
    media: Resource,
    patient: Resource,
    place: DicomPlace,
    idempotency_key: str,
    at: datetime,
) -> bytes:
    """The complete Part 10 file. `at` is used where the photo does not say when it was taken.

    Raises CannotFit when the photo cannot be made a JPEG that DICOM knows.
    """
    import pydicom

    jpeg = as_jpeg(content, content_type, baseline=True, upright=True)
    picture = read_jpeg(jpeg)
    dermoscopic = _is_dermoscopic(media, place)
    dataset = pydicom.Dataset()
    write_patient(dataset, patient, place)
    write_study(dataset, media, place, modality="DMS" if dermoscopic else "XC", at=at)
    composed = derivation_of(media) is not None
    _write_instance(dataset, media, idempotency_key, dermoscopic=dermoscopic, derived=composed or jpeg != content)
    if composed:  # made after the examination, of its pictures (PS3.3 C.7.6.1.1.2)
        dataset.ImageType = ["DERIVED", "SECONDARY"]
    _write_region(dataset, media)
    _write_pixels(dataset, jpeg, picture)
    if dermoscopic:
        _write_dermoscopy(dataset, media, place)
    return part_10(dataset, JPEG_EXTENDED if picture.is_extended else JPEG_BASELINE)


def _is_dermoscopic(media: Resource, place: DicomPlace) -> bool:
    """Dermoscopic Photography wants the device named (type 1); without it VL Photographic is the honest class."""
    if place.sop_class == "vl-photographic":
        return False
    codes = [c.get("code") for c in media.get("modality", {}).get("coding", []) if c.get("system") == DCM]
    needed = ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions")
    return "DMS" in codes and all(place.equipment.get(each) for each in needed)


def write_patient(dataset: Dataset, patient: Resource, place: DicomPlace) -> None:
    """The Patient module (PS3.3 C.7.1.1) and the character set it needs."""
    name: Resource = next(iter(patient.get("name", [])), {})
    parts = [name.get("family", name.get("text", "")), " ".join(name.get("given", []))]
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = "^".join(part.replace("^", " ").replace("=", " ") for part in parts).rstrip("^")
    dataset.PatientID = place.patient_id
    if place.issuer:
        dataset.IssuerOfPatientID = place.issuer
    born = str(patient.get("birthDate", "")).replace("-", "")
    dataset.PatientBirthDate = born if len(born) == 8 else ""
    dataset.PatientSex = _SEX.get(str(patient.get("gender")), "")


def write_study(dataset: Dataset, media: Resource, place: DicomPlace, *, modality: str, at: datetime) -> None:
    """Study, series and equipment (PS3.3 C.7.2.1, C.7.3.1, C.7.5.1), and when the content was made."""
    taken = _taken(media) or at
    study = study_uid(media, place)
    dataset.StudyInstanceUID = study
    dataset.SeriesInstanceUID = derived_uid("series", study, modality)
    told = "" if taken.tzinfo is None else taken.strftime("%H%M%S")  # a FHIR date without time has no zone either
    dataset.StudyDate, dataset.StudyTime = taken.strftime("%Y%m%d"), told
    dataset.ContentDate, dataset.ContentTime = dataset.StudyDate, told
    if told:
        dataset.AcquisitionDateTime = taken.strftime("%Y%m%d%H%M%S")
        dataset.TimezoneOffsetFromUTC = taken.strftime("%z")[:5]
    dataset.AccessionNumber = place.accession_number[:16]
    if place.visit_issuer and place.accession_number:
        dataset.IssuerOfAccessionNumberSequence = [_local_issuer(place.visit_issuer)]
    if place.admission_id:
        dataset.AdmissionID = place.admission_id[:64]
        if place.visit_issuer:
            dataset.IssuerOfAdmissionIDSequence = [_local_issuer(place.visit_issuer)]
    dataset.ReferringPhysicianName = ""
    dataset.StudyID = ""
    dataset.StudyDescription = "Clinical photography"
    dataset.Modality = modality
    dataset.SeriesNumber = 1
    dataset.Manufacturer = ""
    dataset.SoftwareVersions = place.software_version
    for keyword, value in place.equipment.items():
        setattr(dataset, keyword, value)
    if device := media.get("deviceName"):
        dataset.ManufacturerModelName = place.equipment.get("ManufacturerModelName") or str(device)[:64]
    if not dataset.SoftwareVersions:
        del dataset.SoftwareVersions


def _write_instance(dataset: Dataset, media: Resource, key: str, *, dermoscopic: bool, derived: bool) -> None:
    from pydicom.sequence import Sequence

    dataset.SOPClassUID = DERMOSCOPIC if dermoscopic else VL_PHOTOGRAPHIC
    dataset.SOPInstanceUID = sop_instance_uid(key)
    dataset.InstanceNumber = 1
    dataset.PatientOrientation = ""
    dataset.ImageType = ["DERIVED" if derived else "ORIGINAL", "PRIMARY"]
    if derived:
        dataset.DerivationDescription = "Re-encoded as upright sequential JPEG"
    dataset.ImageComments = title(media)[:10240]
    dataset.BurnedInAnnotation = "NO"
    dataset.AcquisitionContextSequence = Sequence()


def _write_region(dataset: Dataset, media: Resource) -> None:
    from pydicom.sequence import Sequence

    site = media.get("bodySite", {})
    code = _snomed(site.get("coding", []))
    if code and code in BODY_SITES:
        dataset.AnatomicRegionSequence = Sequence([coded(code, "SCT", BODY_SITES[code].meaning)])
    sides = [e.get("valueCodeableConcept", {}) for e in site.get("extension", []) if e.get("url") == LATERALITY]
    if side := _SIDES.get(_snomed(sides[0].get("coding", [])) or "" if sides else ""):
        dataset.ImageLaterality = side


def _local_issuer(issuer: str) -> Dataset:
    """One item of an issuer sequence (PS3.3 10-17, HL7v2 Hierarchic Designator)."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.LocalNamespaceEntityID = issuer
    return item


def coded(value: str, scheme: str, meaning: str) -> Dataset:
    """One item of a code sequence (PS3.3 8.8)."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning[:64]
    return item


def _write_pixels(dataset: Dataset, jpeg: bytes, picture: Picture) -> None:
    from pydicom.encaps import encapsulate

    dataset.SamplesPerPixel = picture.components
    dataset.Rows, dataset.Columns = picture.height, picture.width
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    if picture.components == 3:
        dataset.PlanarConfiguration = 0
        # Whatever the chroma sampling: PS3.3 C.8.12.1.1.1 knows no YBR_FULL here.
        dataset.PhotometricInterpretation = "YBR_FULL_422" if picture.is_ycc else "RGB"
    else:
        dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionMethod = "ISO_10918_1"
    raw = picture.width * picture.height * picture.components
    dataset.LossyImageCompressionRatio = f"{raw / len(jpeg):.2f}"
    if picture.icc_profile and picture.components == 3:
        dataset.ICCProfile = picture.icc_profile + b"\0" * (len(picture.icc_profile) % 2)
    dataset.PixelData = encapsulate([jpeg])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True


def _write_dermoscopy(dataset: Dataset, media: Resource, place: DicomPlace) -> None:
    site = _snomed(media.get("bodySite", {}).get("coding", []))
    recognisable = sensitivity(site) in {Sensitivity.FACE, Sensitivity.UNKNOWN} if site else True
    dataset.RecognizableVisualFeatures = "YES" if recognisable else "NO"
    empty = ("LightSourcePolarization", "EmitterColorTemperature", "ContactMethod", "OpticalMagnificationFactor")
    for keyword in empty:
        setattr(dataset, keyword, place.dermoscope.get(keyword) or None)
    dataset.FrameOfReferenceUID = derived_uid("frame", dataset.SeriesInstanceUID)
    dataset.PositionReferenceIndicator = ""
    if medium := place.dermoscope.get("ImmersionMedia"):
        dataset.ImmersionMedia = medium
    elif place.dermoscope.get("ContactMethod") == "CONTACT":
        dataset.ImmersionMedia = None


def part_10(dataset: Dataset, transfer_syntax: str) -> bytes:
    """The dataset as a file of PS3.10, with its File Meta Information."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.filewriter import dcmwrite
    from pydicom.uid import UID

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = UID(transfer_syntax)
    meta.ImplementationClassUID = UID(IMPLEMENTATION)
    dataset.file_meta = meta
    out = io.BytesIO()
    dcmwrite(out, dataset, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return out.getvalue()


def _snomed(codings: Any) -> str | None:
    return next((c["code"] for c in codings if c.get("system") == SNOMED and c.get("code")), None)


def _taken(media: Resource) -> datetime | None:
    try:
        return datetime.fromisoformat(str(media.get("createdDateTime", "")))
    except ValueError:
        return None
